"""dvc.yaml in use: `dvc repro`, an experiment, and what DVC shows of both."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
import yaml

from conftest import ROOT, SHRUNK, overlay, shipped_tree
from regcls.checks import Place, good, project

# Five runs of two networks on the 1D functions and two on faces, with everything needed for gaps.
FEW_RUNS = {
    "datasets": ["functions", "imdb_wiki"],
    "imdb_wiki": {
        "grids": {
            "table3": {"methods": ["reg", "reg+cls"], "classes": [4], "lambdas": "default", "seeds": 1},
            "table4": {"seeds": 0},
            "lambda_search": {"seeds": 0},
        }
    },
    "breakfast": {"grids": {"table5": {"methods": ["reg"], "units": ["percent"]}}},
    "functions": {
        "data": {"settings": ["noisy"], "samplings": ["uniform", "severe"], "repetitions": 2},
        "grids": {
            "figure3": {"settings": ["noisy"], "samplings": ["severe"], "methods": ["reg", "reg+cls"], "classes": [4], "repetitions": 2},
            "figure4": {"settings": ["noisy"], "methods": ["reg", "reg+cls"], "lambdas": [100.0], "repetitions": 1},
            "figure5": {"methods": ["reg"], "repetitions": 1},
        },
    },
}


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """Call a command in a committed DVC repository like this one, shrunk. Attributes: `cwd`, `dvc`, and `at` for the same in a clone."""
    root, beside = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("beside")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, root)
    for dataset in ("functions", "imdb_wiki"):
        (root / "data" / dataset / "raw").mkdir(parents=True)
        (root / "data" / dataset / "raw" / ".gitkeep").touch()
    tree = overlay(overlay(shipped_tree(), SHRUNK), FEW_RUNS)
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    python = beside / "python"  # on the PATH, as in an activated environment
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "GIT_", "DVC_"))},
        "PATH": os.pathsep.join([str(beside), os.environ["PATH"]]),
        "GIT_CONFIG_GLOBAL": str(beside / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "DVC_NO_ANALYTICS": "1",
        "DVC_GLOBAL_CONFIG_DIR": str(beside),
        "DVC_SYSTEM_CONFIG_DIR": str(beside),
        "DVC_SITE_CACHE_DIR": str(beside / "site"),
    }

    def at(root):
        def call(*command):
            result = subprocess.run(command, cwd=root, env=environment, text=True, capture_output=True, timeout=240, check=False)
            assert result.returncode == 0, result.stdout + result.stderr
            return result.stdout

        call.cwd, call.at, call.dvc = root, at, lambda *arguments: call("python", "-m", "dvc", *arguments)
        return call

    call = at(root)
    for key, value in (("user.name", "A Tester"), ("user.email", "tester@example.org"), ("init.defaultBranch", "main")):
        call("git", "config", "--global", key, value)
    call("git", "init", "--quiet")
    call.dvc("init", "--quiet")
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, root / ".dvc")
    call("git", "add", ".")
    call("git", "commit", "--quiet", "--message", "The project")
    return call


@pytest.fixture(scope="module")
def experiment(call):
    """The same repository after `dvc repro`, a commit, and one experiment in the workspace."""
    call.dvc("repro", "--quiet")
    call("git", "add", "dvc.lock")
    call("git", "commit", "--quiet", "--message", "Its results")
    call.dvc("exp", "run", "--quiet", "-S", "functions.training.epochs=1", "-n", "one")
    return call


def finished_epochs(root):
    """Number of FINISHED runs of the 1D study in the store, by epochs."""
    query = (
        "SELECT p.value, COUNT(*) FROM runs JOIN params p USING (run_uuid) JOIN tags t USING (run_uuid) "
        "WHERE status = 'FINISHED' AND p.key = 'epochs' AND t.key = 'dataset' AND t.value = 'functions' GROUP BY p.value"
    )
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        return dict(connection.execute(query).fetchall())


def leaves(tree, where=()):
    """Yield ("a", "b"), value for every value that is not a dict."""
    for key, value in tree.items():
        yield from leaves(value, (*where, key)) if isinstance(value, dict) else [((*where, key), value)]


def gaps(state):
    """The gaps of the 1D study in the metrics of a commit or experiment in `dvc exp show --json`."""
    metrics = state["data"]["metrics"]["reports/metrics.json"]["data"]["functions"]
    return {where: value for where, value in leaves(metrics) if any("gap" in key for key in where)}


@pytest.mark.slow
def test_an_experiment_is_shown_with_its_gap_next_to_the_baseline(experiment):
    (baseline,) = [row for row in json.loads(experiment.dvc("exp", "show", "--json")) if row["rev"] != "workspace"]
    (one,) = baseline["experiments"]
    assert one["name"] == "one"
    before, after = gaps(baseline), gaps(one["revs"][0])
    assert before and before.keys() == after.keys()
    assert all(isinstance(value, float) for value in [*before.values(), *after.values()])
    assert all(before[where] != after[where] for where in before)
    assert finished_epochs(experiment.cwd) == {"1": 5, "2": 5}


@pytest.mark.slow
def test_metrics_and_changed_params_are_shown(experiment):
    assert "gap" in experiment.dvc("metrics", "show")
    (changed,) = json.loads(experiment.dvc("params", "diff", "--json")).values()
    assert changed == {"functions.training.epochs": {"old": 2, "new": 1, "diff": -1}}


@pytest.mark.slow
def test_face_runs_are_compared_as_well_and_trained_once(experiment):
    faces = json.loads((experiment.cwd / "reports/metrics.json").read_text())["imdb_wiki"]
    assert faces["runs"] == {"wanted": 2, "finished": 2, "missing": 0}
    assert (experiment.cwd / "reports/imdb_wiki/index.html").exists()
    query = "SELECT COUNT(*) FROM runs JOIN tags USING (run_uuid) WHERE key = 'dataset' AND value = 'imdb_wiki'"
    with closing(sqlite3.connect(experiment.cwd / "mlflow.db")) as connection:
        assert connection.execute(query).fetchall() == [(2,)]


@pytest.mark.slow
def test_temporary_workspaces_use_the_projects_store(experiment):
    experiment.dvc("exp", "run", "--quiet", "--temp", "-S", "functions.training.epochs=3", "-n", "two", "train@functions")
    assert finished_epochs(experiment.cwd)["3"] == 5
    query = "SELECT artifact_uri FROM runs WHERE status != 'FINISHED' OR artifact_uri LIKE '%/.dvc/tmp/%'"
    with closing(sqlite3.connect(experiment.cwd / "mlflow.db")) as connection:
        assert connection.execute(query).fetchall() == []


@pytest.mark.slow
def test_datasets_may_choose_one_without_a_folder(experiment):
    experiment.dvc("exp", "run", "--quiet", "--temp", "-S", "datasets=[breakfast]", "-n", "other")
    shown = json.loads(experiment.dvc("exp", "show", "--json"))
    (other,) = [found["revs"][0] for row in shown for found in row.get("experiments") or () if found["name"] == "other"]
    reported = other["data"]["metrics"]["reports/metrics.json"]["data"]
    assert reported.keys() == {"breakfast"} and reported["breakfast"]["runs"]["missing"] == 0


def cut(content, where):
    """`content` as a DVC that was killed while writing it may leave it."""
    half = content.index(b"cmd:", len(content) // 2) + 2
    return content[: {"empty": 0, "one byte": 1, "half": half, "last line": content.rindex(b":") - 1}[where]]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["empty", "one byte", "half", "last line"])
def test_a_cut_dvc_lock_is_named_by_the_doctor_and_repaired(experiment, where):
    lock, trained = experiment.cwd / "dvc.lock", finished_epochs(experiment.cwd)
    place, doctor = Place(root=experiment.cwd, params=None), ("env", "PYTHONPATH=src", "python", "-m", "regcls", "doctor", "--repair")
    assert experiment(*doctor) == "nothing to repair\n" and project.dvc_lock(place) == good("whole")
    whole = lock.read_bytes()
    lock.write_bytes(cut(whole, where))
    found = project.dvc_lock(place)
    assert found.state == "bad" and str(lock) in found.text and found.remedy.startswith("regcls doctor --repair")
    with pytest.raises(AssertionError, match="dvc.lock' (validation failed|is invalid)"):
        experiment.dvc("status")
    assert "replaced by its last whole version" in experiment(*doctor)
    assert lock.read_bytes() == whole and (experiment.cwd / "dvc.lock.damaged").read_bytes() == cut(whole, where)
    assert "up to date" in experiment.dvc("status")
    if where == "half":
        assert "up to date" in experiment.dvc("repro")
    assert finished_epochs(experiment.cwd) == trained


@pytest.mark.slow
@pytest.mark.parametrize("restore", [("checkout", "--force"), ("repro",)], ids=" ".join)
def test_a_result_that_was_edited_in_place_is_brought_back(experiment, restore):
    file = experiment.cwd / "runs" / "functions.json"
    whole, trained = file.read_bytes(), finished_epochs(experiment.cwd)
    with file.open("a") as opened:  # root may, even if the file is read-only
        opened.write("edited")
    experiment.dvc(*restore)
    assert file.read_bytes() == whole and finished_epochs(experiment.cwd) == trained
    assert "up to date" in experiment.dvc("status")


@pytest.fixture
def changed(experiment):
    """Find the stages that DVC would rerun after changes to params.yaml, which is restored."""
    file = experiment.cwd / "params.yaml"
    before = file.read_text()

    def stages(changes):
        file.write_text(yaml.safe_dump(overlay(yaml.safe_load(before), changes), sort_keys=False))
        experiment.dvc("repro", "--quiet", "inputs")
        return json.loads(experiment.dvc("status", "--json")).keys()

    yield stages
    file.write_text(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "redone"),
    [
        ({}, set()),
        ({"imdb_wiki": {"training": {"width": 3}}}, {"train@imdb_wiki", "compare"}),
        ({"functions": {"data": {"samples": 20480}}}, {"prepare@functions", "train@functions", "compare"}),
        ({"breakfast": {"training": {"epochs": 1}}}, {"compare"}),  # not chosen and so not prepared: compare looks at all data sets
        ({"tracking": {"experiment": "another"}}, {"train@functions", "train@imdb_wiki", "compare"}),
        ({"compute": {"checkpoint_minutes": 1.0}}, set()),
    ],
    ids=["nothing", "training", "data", "another data set", "experiment", "compute"],
)
def test_a_change_only_reruns_the_stages_of_its_own_data_set(changed, changes, redone):
    assert changed(changes) == redone
