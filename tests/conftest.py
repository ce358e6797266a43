"""Fixtures: the real params.yaml, shrunk so that tests run the real code in seconds, and quiet, deterministic libraries."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys

# As in production; before MKL and MLflow are loaded.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DVC_NO_ANALYTICS", "true")
# Also for processes that tests start: networks this small only lose time to threads, most of all if several workers share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
CORES = os.sched_getaffinity(0)
if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # a core of its own for each
    os.sched_setaffinity(0, {sorted(CORES)[int(worker.removeprefix("gw")) % len(CORES)]})
# Tests started by a shell in the background ignore Ctrl-C, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
    os.environ.pop(name, None)

from jaxtyping import install_import_hook

CHECKED = ("losses", "models.heads", "models.mlp", "models.predictor", "models.resnet", "models.standardised")
CHECKED += ("tasks.depth.class_head", "tasks.depth.model", "tasks.depth.sums")
# Shapes in annotations are checked under pytest only. Before regcls is imported.
install_import_hook([f"regcls.{name}" for name in CHECKED], "beartype.beartype")

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from processes import session
from regcls import provenance
from regcls.params import Params, load_params
from regcls.pipeline.prepare import prepare
from regcls.tracking.tracker import Tracker
from s3_server import s3, s3_server  # noqa: F401  # fixtures
from servers import make_server, nursery, postgres, tracking_server  # noqa: F401  # fixtures

ROOT = Path(__file__).parent.parent

# The data sets of params.yaml as it ships; tests ignore any others that a user adds, and the data sets that a user chooses.
SHIPPED = ("functions", "functions_small", "imdb_wiki", "agedb", "portraits", "nyud2", "rooms", "breakfast", "walks", "diabetes")
SHIPPED_CHOICE: dict[str, Any] = {
    "datasets": ["functions_small", "portraits", "rooms", "walks", "diabetes"],
    "default_dataset": "portraits",
}

SHRUNK: dict[str, Any] = {
    "datasets": ["functions"],
    "compute": {"device": "cpu", "processes": 1},
    "functions": {
        "data": {
            "functions": [[0.8444218515250481, 22], [0.04048437818077755, 25]],
            "repetitions": 2,
            "samples": 18432,
            "noise": [0.1],
            "settings": ["clean", "noisy"],
        },
        "training": {"epochs": 2},
        "grids": {
            "figure3": {"settings": ["clean", "noisy"], "samplings": ["uniform", "severe"], "classes": [4, 16], "repetitions": 2},
            "figure4": {"samplings": ["severe"], "classes": [4], "lambdas": [1.0, 100.0], "repetitions": 1},
            "figure5": {"samplings": ["severe"], "noise": [0.1], "classes": [4], "repetitions": 1},
        },
    },
    "functions_small": {"grids": {"figure3": None, "figure4": None}},  # they need settings that the tests omit
    "imdb_wiki": {
        "data": {
            "source": "stand-in",
            "size": 32,
            "split_most": 3,
            "expected_images": None,
            "stand_in": {"images": 300, "seed": 0},
        },
        "training": {
            "model": "resnet18",
            "width": 2,
            "epochs": 2,
            "milestones": [1],
            "batch_size": 32,
            "precision": "float32",
            "pad": 4,
            "balanced_bins": 10,
        },
        "shots": {"many_above": 6, "few_below": 4},
        "grids": {
            "table3": {"methods": ["reg", "reg+cls"], "classes": [10], "seeds": 1},
            "table4": {"classes": [10], "seeds": 0},
            "lambda_search": {"classes": [10], "lambdas": [0.1, 10.0], "seeds": 0},
        },
    },
    "agedb": {"data": {"source": "raw"}},
    "diabetes": {
        "data": {"folds": 3},
        "training": {"epochs": 2, "milestones": []},
        "grids": {"main": {"methods": ["reg", "reg+cls", "hgb"], "classes": [10], "lambdas": [1.0, 10.0], "seeds": 1}},
    },
    "nyud2": {
        "data": {
            "source": "stand-in",
            "short_side": 36,
            "crop": [32, 44],
            "expected_train": None,
            "expected_test": None,
            "stand_in": {"scenes": 5, "images": 60, "test_images": 8, "seed": 0},
        },
        "training": {
            "model": "resnet18",
            "width": 2,
            "weights": "random",
            "epochs": 2,
            "learning_rate": 0.002,
            "batch_size": 8,
            "accumulate": 1,
            "balanced_batch_size": 8,
            "balanced_accumulate": 1,
            "precision": "float32",
        },
        "grids": {
            "table2": {"methods": ["reg", "reg+cls"], "classes": [10], "seeds": 1},
            "table4": {"classes": [10], "seeds": 0},
            "lambda_search": {"classes": [10], "lambdas": [0.1, 10.0], "seeds": 0},
        },
    },
    "breakfast": {
        "data": {"source": "stand-in", "expected_videos": None, "stand_in": {"persons": 4, "frames": 60, "seed": 0}},
        "training": {"epochs": 2, "milestones": [1]},
        "grids": {
            "table5": {"splits": ["s1"], "seeds": 1},
            "lambda_search": {"splits": ["s1"], "lambdas": [1.0, 100.0], "seeds": 0},
        },
    },
}

# Further studies of `functions`, shrunk. Projects have them only if a test names them: changes of `functions` may contradict their grids.
STUDIES: dict[str, Any] = {
    "functions_extra": {
        "grids": {"extra": {"settings": ["clean", "noisy"], "samplings": ["uniform", "severe"], "classes": [4, 16], "repetitions": 2}}
    },
    "functions_decay": {"grids": {"figure3": {"classes": [4, 16]}, "figure4": {"settings": ["clean", "noisy"], "repetitions": 2}}},
    "functions_width": {
        "data": {"repetitions": 2},
        "grids": {
            "width": {
                "lambdas": [1.0, 100.0],
                "repetitions": 2,
                "vary": {"hidden": [[5, 15], [9, 15]], "learning_rate": [0.001, 0.01], "scale": [1.0, 10.0]},
            }
        },
    },
}


def overlay(base: Any, over: Any) -> Any:
    """`base` with the values of `over`, key by key."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {
            key: overlay(base.get(key), over[key]) if key in over else base.get(key) for key in [*base, *(k for k in over if k not in base)]
        }
    return over


def shipped_tree(*studies: str) -> dict[str, Any]:
    """The tree of params.yaml, with the shipped data sets only, and those of STUDIES that are named."""
    tree: dict[str, Any] = yaml.load((ROOT / "params.yaml").read_text(), yaml.CSafeLoader)
    added = {key for key, value in tree.items() if isinstance(value, dict) and {"task", "like"} & value.keys()} - {*SHIPPED, *studies}
    return {key: value for key, value in tree.items() if key not in added} | SHIPPED_CHOICE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have the most slow tests: if the last file is a long one, the other workers wait for it."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Params:
    """params.yaml without the data sets that a user added."""
    file = tmp_path_factory.mktemp("shipped") / "params.yaml"
    file.write_text(yaml.safe_dump(shipped_tree(*STUDIES), sort_keys=False))
    return load_params(file)


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder with the shrunk params.yaml, overlaid with `changes`."""

    def make(changes: dict[str, Any] | None = None, folder: Path | None = None) -> Path:
        root = folder or tmp_path / "project"
        root.mkdir(exist_ok=True)
        studies = {name: shrunk for name, shrunk in STUDIES.items() if name in (changes or {})}
        tree = overlay(overlay(shipped_tree(*studies), SHRUNK | studies), changes or {})
        (root / "params.yaml").write_text(yaml.dump(tree, Dumper=yaml.CSafeDumper, sort_keys=False))
        return root

    return make


@pytest.fixture(scope="session")
def prepared_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with imdb_wiki prepared and an empty store, made once per session; make_faces copies it."""
    root = tmp_path_factory.mktemp("faces")
    tree = overlay(shipped_tree(), SHRUNK)
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    prepare(load_params(root / "params.yaml"), root, "imdb_wiki")
    Tracker(root, experiment="regcls")
    return root


@pytest.fixture
def make_faces(make_project: Callable[..., Path], prepared_faces: Path) -> Callable[..., Path]:
    """Make a project with prepared faces, an empty store and `changes` to its parameters."""

    def make(changes: dict[str, Any] | None = None) -> Path:
        root = make_project(overlay({"datasets": ["functions", "imdb_wiki"]}, changes or {}))
        shutil.copytree(prepared_faces / "data", root / "data")
        shutil.copy(prepared_faces / "mlflow.db", root)
        with closing(sqlite3.connect(root / "mlflow.db")) as connection, connection:
            connection.execute("UPDATE experiments SET artifact_location = ?", [f"{root}/mlartifacts/0"])
            connection.execute("UPDATE regcls_home SET folder = ?", [str(root)])
        return root

    return make


@pytest.fixture
def source_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package's source; code digests are computed from it."""
    copy = tmp_path / provenance.SOURCE.name
    shutil.copytree(provenance.SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "SOURCE", copy)
    return copy


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: more would cost time on such small networks, and round differently."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def one_core() -> Iterator[None]:
    """One core for this process and its children: sums over several threads differ in the last digits."""
    import torch

    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(cores)})
    torch.set_num_threads(1)
    yield
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


@pytest.fixture
def all_cores() -> Iterator[None]:
    """Every core for this process and its children: processes that compete must really run at the same time."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    yield
    os.sched_setaffinity(0, own)


@pytest.fixture
def signals() -> Iterator[None]:
    """Restore the SIGTERM handler, which main() replaces."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are empty: drawing them takes half as long as the rest of a report."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: file.write("<svg/>"))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing to temporary files meets a full disk: the kernel's /dev/full."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    path_open: Callable[..., Any] = Path.open

    def full(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return path_open(Path("/dev/full") if ".part" in str(path) and "w" in mode else path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a command in its own process group, with its output in output.txt; what is left of it is killed after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(root: Path, *command: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        with (root / "output.txt").open("a") as output:
            process = subprocess.Popen(
                command or (sys.executable, "-m", "regcls", "train", "functions"),
                cwd=root,
                env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **(environment or {})},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        for living in session(process):
            living.kill()
        process.kill()
        process.wait()


@pytest.fixture
def params(make_project: Callable[..., Path]) -> Params:
    """The shrunk parameters."""
    return load_params(make_project() / "params.yaml")
