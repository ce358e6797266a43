"""`mlflow run . -P classes=100`, and the undocumented detail of MLflow by which it finds the project's environment."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from regcls.cli import main
from regcls.errors import UserError
from regcls.mlproject import register_environment

PROJECT = Path(__file__).parents[1]
VENV = Path(sys.prefix)

# Replaces the command line: records its arguments and tracks one run.
STAND_IN = """
import sys
from pathlib import Path
import regcls
from regcls.runs import RunResult
from regcls.tracking.tracker import Tracker
from tracked import RESULT, SPEC, replace
if "--fail" in sys.argv:
    raise SystemExit(3)
Path("argv.txt").write_text("\\n".join([*sys.argv[1:], regcls.__file__]))
tracker = Tracker(Path.cwd(), experiment="regcls")
classes = int(sys.argv[sys.argv.index("--classes") + 1])
tracker.finish(tracker.start(replace(SPEC, classes=classes), fingerprint="f", tags={}, adopt=True), RESULT)
"""


@pytest.fixture
def real_project(tmp_path: Path, make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project with shrunk parameters; its environment is registered in a temporary folder."""
    if not (VENV / "bin/activate").exists():
        pytest.skip("the tests do not run in a virtual environment")
    root = make_project({"default_dataset": "functions"})
    shutil.copytree(PROJECT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("MLproject", "python_env.yaml", "requirements.lock"):
        shutil.copy(PROJECT / name, root)
    monkeypatch.setenv("MLFLOW_ENV_ROOT", str(tmp_path / "envs"))
    return root


@pytest.fixture
def project(real_project: Path) -> Path:
    """The same with a stand-in for the command line that trains nothing."""
    for name in ("src/regcls/__main__.py", "src/regcls/cli.py"):
        (real_project / name).write_text(STAND_IN)
    shutil.copy(PROJECT / "tests/tracked.py", real_project / "src")
    return real_project


def mlflow_run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`mlflow run .` without activation: `python` is not on the PATH."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"], "MLFLOW_ENV_ROOT": os.environ["MLFLOW_ENV_ROOT"]}
    return subprocess.run(
        [VENV / "bin/mlflow", "run", ".", *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def runs(root: Path) -> list[tuple[str, str, str]]:
    """(status, classes, name) of each run."""
    query = "SELECT status, value, name FROM runs LEFT JOIN params ON params.run_uuid = runs.run_uuid AND key = 'classes'"
    return select(root, query)


def select(root: Path, query: str) -> list[tuple[Any, ...]]:
    """Query the project's store."""
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.slow
def test_mlflow_run_trains_one_run_and_none_with_a_misspelt_parameter(
    real_project: Path, monkeypatch: pytest.MonkeyPatch, signals: None
) -> None:
    monkeypatch.chdir(real_project)
    assert main(["setup"]) == 0
    result = mlflow_run(real_project, "-P", "classes=100", "-P", "epochs=1")
    assert result.returncode == 0, result.stderr
    query = "SELECT experiments.name, status, runs.name FROM runs JOIN experiments USING (experiment_id)"
    assert select(real_project, query) == [("regcls", "FINISHED", "reg+cls 100 λ1000 s0 · noisy-0.1-severe functions")]
    logged = dict(select(real_project, "SELECT key, value FROM params"))
    assert (logged["classes"], logged["epochs"], logged["method"]) == ("100", "1", "reg+cls")
    assert dict(select(real_project, "SELECT key, value FROM latest_metrics"))["test/mse/all"] > 0

    result = mlflow_run(real_project, "-P", "clases=1")
    assert result.returncode != 0
    assert "unknown option --clases; did you mean --classes?" in result.stdout + result.stderr
    assert sorted(status for status, *_ in runs(real_project)) == ["FAILED", "FINISHED"]


@pytest.mark.slow
def test_mlflow_run_leaves_one_finished_run_with_the_given_parameters(project: Path) -> None:
    register_environment(project, VENV)
    result = mlflow_run(project, "-P", "dataset=functions", "-P", "classes=100", "-P", "lambda=1e3")
    assert result.returncode == 0, result.stderr
    assert runs(project) == [("FINISHED", "100", "reg+cls 100 λ1000 s421 · noisy-0.1-severe functions")]
    *given, package = (project / "argv.txt").read_text().splitlines()
    assert given == ["run", "--dataset", "functions", "--classes", "100", "--lambda", "1e3"]
    assert Path(package) == project / "src/regcls/__init__.py", "a clone must run its own code, whichever clone registered the environment"


@pytest.mark.slow
def test_mlflow_run_fails_if_the_run_fails(project: Path) -> None:
    register_environment(project, VENV)
    assert mlflow_run(project, "-P", "fail=now").returncode != 0
    assert [status for status, *_ in runs(project)] == ["FAILED"]


def test_mlproject_declares_no_parameters() -> None:
    mlproject = yaml.safe_load((PROJECT / "MLproject").read_text())
    assert mlproject["python_env"] == "python_env.yaml"
    assert mlproject["entry_points"] == {"main": {"command": "PYTHONPATH=src python -m regcls run"}}


def test_registering_twice_changes_nothing_but_replaces_a_stale_link(project: Path, tmp_path: Path) -> None:
    link = register_environment(project, VENV)
    assert link.parent == tmp_path / "envs" and link.resolve() == VENV.resolve()
    assert register_environment(project, VENV) == link
    link.unlink()
    link.symlink_to(tmp_path / "gone")
    assert register_environment(project, VENV) == link and link.resolve() == VENV.resolve()
    assert os.listdir(link.parent) == [link.name]


def test_an_environment_that_mlflow_built_is_not_overwritten(project: Path) -> None:
    link = register_environment(project, VENV)
    link.unlink()
    link.mkdir()
    with pytest.raises(UserError, match="is not a link"):
        register_environment(project, VENV)


def test_new_requirements_make_another_environment(project: Path) -> None:
    before = register_environment(project, VENV)
    with (project / "requirements.lock").open("a") as lock:
        lock.write("another==1.0\n")
    assert register_environment(project, VENV) != before


def test_a_folder_without_an_environment_is_a_clear_error(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a virtual environment"):
        register_environment(project, tmp_path)


@pytest.mark.parametrize("name", ["python_env.yaml", "requirements.lock"])
def test_a_missing_file_is_a_clear_error(project: Path, name: str) -> None:
    (project / name).unlink()
    with pytest.raises(UserError, match=name):
        register_environment(project, VENV)
