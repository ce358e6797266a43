"""From params to tracked runs in real processes and a real SQLite store, and what is left when they are killed."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing

import psutil
import pytest

from conftest import ROOT, overlay
from processes import DEADLINE, runs, session, wait_until, with_status
from regcls.cli import main
from regcls.params import load_params
from regcls.tasks.functions.runs import all_specs
from regcls.tracking.tracker import Tracker

# Thirteen runs of two networks, in about seven chunks.
FEW_RUNS = {
    "functions": {
        "data": {"settings": ["clean", "noisy"], "samplings": ["uniform", "severe"]},
        "grids": {
            "figure3": {"settings": ["clean"], "classes": [4]},
            "figure4": {"settings": ["clean"], "lambdas": [100.0]},
            "figure5": {"methods": ["reg"]},
        },
    }
}
LONG = {"functions": {"training": {"epochs": 30}}}  # takes seconds, to be interrupted halfway
LONGER = {"functions": {"training": {"epochs": 120}}}  # a wave of runs takes longer than noticing that dvc is gone


@pytest.fixture
def make_prepared(make_project, tmp_path_factory, signals):
    """Make a project with prepared data and an empty store, which are both made only once."""

    def make(changes=None):
        template = tmp_path_factory.getbasetemp() / "prepared"
        if not template.exists():
            make_project(FEW_RUNS, template)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(template)
                assert main(["prepare", "functions"]) == 0
            Tracker(template, experiment="regcls")
        root = make_project(overlay(FEW_RUNS, changes or {}))
        shutil.copytree(template / "data", root / "data")
        shutil.copy(template / "mlflow.db", root)
        with closing(sqlite3.connect(root / "mlflow.db")) as connection, connection:
            connection.execute("UPDATE experiments SET artifact_location = ?", [f"{root}/mlartifacts/0"])
            connection.execute("UPDATE regcls_home SET folder = ?", [str(root)])
        return root

    return make


def wait_until_halfway(root, process):
    """Wait until a run is finished and a later one is running: the latter is training, not waiting to be logged."""
    query = "SELECT count(*) FROM runs WHERE status = 'RUNNING' AND start_time > (SELECT min(end_time) FROM runs WHERE status = 'FINISHED')"

    def reached():
        assert process.poll() is None, (root / "output.txt").read_text()
        if not with_status(root, "FINISHED"):
            return False
        with closing(sqlite3.connect(f"file:{root}/mlflow.db?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(query).fetchone()[0]

    wait_until(reached, "a finished run and a running one")


def train(root):
    """Run `regcls train functions` in this process: importing torch and MLflow takes longer than training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return main(["train", "functions"])


def assert_each_run_finished_once(root, *, kept=frozenset()):
    """Assert that every run of the grids is FINISHED once, including `kept`, none is RUNNING, and the index lists them."""
    wanted = all_specs(load_params(root / "params.yaml").datasets["functions"], "functions")
    assert len(wanted) == 13
    assert not with_status(root, "RUNNING")
    finished = {run_id: fingerprint for run_id, status, fingerprint in runs(root) if status == "FINISHED"}
    assert Counter(Counter(finished.values()).values()) == {1: 13}
    assert kept <= finished.keys()
    index = json.loads((root / "runs" / "functions.json").read_text())
    assert {entry["run_id"]: entry["fingerprint"] for entry in index} == finished
    assert [entry["name"] for entry in index] == [spec.name for spec in wanted]
    assert {entry["status"] for entry in index} == {"FINISHED"}


@pytest.mark.slow
def test_prepare_and_train_make_every_run_exactly_once(make_prepared, capsys, monkeypatch):
    root = make_prepared()
    (root / "mlflow.db").unlink()  # a missing store is created
    assert train(root) == 0
    assert "13 runs trained, 0 were there already, 0 failed" in capsys.readouterr().err
    assert_each_run_finished_once(root)
    before = runs(root), (root / "runs" / "functions.json").read_bytes()

    assert train(root) == 0
    assert "0 runs trained, 13 were there already, 0 failed" in capsys.readouterr().err
    assert (runs(root), (root / "runs" / "functions.json").read_bytes()) == before

    (root / "runs" / f".functions.json.{os.getpid()}.part").symlink_to("/dev/full")  # the temporary file
    assert train(root) == 2
    assert "no space left on the disk while writing" in capsys.readouterr().err
    assert (root / "runs" / "functions.json").read_bytes() == before[1]
    assert os.listdir(root / "runs") == ["functions.json"]


@pytest.mark.slow
def test_training_in_a_copy_does_not_interfere_with_the_original(make_prepared, start, tmp_path):
    root, copy = make_prepared(LONG), tmp_path / "copy"
    process = start(root)
    wait_until_halfway(root, process)
    process.send_signal(signal.SIGSTOP)  # alive, with a consistent copy of its database
    shutil.copytree(root, copy)
    before, begun = runs(root), with_status(copy, "RUNNING")  # the copy may start one that the original is about to start
    assert train(copy) == 0
    assert runs(root) == before
    assert with_status(copy, "RUNNING") == begun != set()  # as long as its process lives
    process.send_signal(signal.SIGCONT)
    assert process.wait(DEADLINE) == 0
    assert train(copy) == 0
    for folder in (root, copy):
        assert_each_run_finished_once(folder)
        assert {path.name for path in (folder / "mlartifacts" / "0").iterdir()} <= {run_id for run_id, _, _ in runs(folder)}


@pytest.mark.slow
@pytest.mark.parametrize("whole_group, processes", [(True, 1), (False, 2)], ids=["whole group", "parent alone"])
def test_after_kill_9_training_resumes_without_repeating_finished_runs(make_prepared, start, whole_group, processes):
    root = make_prepared({**LONG, "compute": {"processes": processes}})
    process = start(root)
    wait_until_halfway(root, process)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not session(process), "the end of the workers")
    finished = with_status(root, "FINISHED")
    assert 0 < len(finished) < 13 and with_status(root, "RUNNING")
    assert train(root) == 0
    assert_each_run_finished_once(root, kept=finished)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, to, processes, code", [(signal.SIGINT, os.killpg, 2, 130), (signal.SIGTERM, os.kill, 1, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_an_interruption_kills_open_runs_and_training_resumes(make_prepared, start, number, to, processes, code):
    root = make_prepared({**LONG, "compute": {"processes": processes}})
    process = start(root)
    wait_until_halfway(root, process)
    to(process.pid, number)
    assert process.wait(DEADLINE) == code
    expected = (root / "output.txt").read_text()
    assert "Traceback" not in expected
    if number == signal.SIGINT:
        assert expected.endswith("regcls: interrupted. Finished runs are kept; the same command resumes from here.\n")
    finished = with_status(root, "FINISHED")
    assert 0 < len(finished) < 13
    assert with_status(root, "KILLED") and not with_status(root, "RUNNING")
    wait_until(lambda: not session(process), "the end of the workers")
    assert train(root) == 0
    assert_each_run_finished_once(root, kept=finished)


@pytest.mark.parametrize("method", ["start", "finish"])
def test_an_interruption_while_logging_leaves_no_run_behind(make_prepared, monkeypatch, method):
    root = make_prepared()
    real = getattr(Tracker, method)

    def interrupted_at_its_end(tracker, *args, **kwargs):
        result = real(tracker, *args, **kwargs)
        signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(Tracker, method, interrupted_at_its_end)
    assert train(root) == 130
    assert Counter(status for _, status, _ in runs(root))["RUNNING"] == 0
    assert len(with_status(root, "FINISHED")) == (1 if method == "finish" else 0)


@pytest.mark.slow
@pytest.mark.usefixtures("all_cores")
def test_two_processes_at_once_share_a_grid(make_prepared, start):
    root = make_prepared()
    first, second = start(root), start(root)
    assert (first.wait(DEADLINE), second.wait(DEADLINE)) == (0, 0)
    expected = (root / "output.txt").read_text()
    assert "13 runs trained, 0 were there already" in expected and "0 runs trained, 13 were there already" in expected
    assert_each_run_finished_once(root)
    assert len(runs(root)) == 13


def test_only_a_diverged_run_is_retried(make_prepared, capsys):
    root = make_prepared({"functions": {"training": {"optimizer": "sgd", "learning_rate": {"noisy": 1e6}}}})
    assert train(root) == 0
    output = capsys.readouterr().err
    assert "12 runs trained, 0 were there already, 1 failed" in output
    assert (
        "FAILED reg s0 · noisy-0.1-severe functions: diverged on function 0, 1: weights are no longer finite (learning rate 1e+06)"
        in output
    )
    finished, (failed,) = with_status(root, "FINISHED"), with_status(root, "FAILED")
    index = json.loads((root / "runs" / "functions.json").read_text())
    assert [entry["run_id"] for entry in index if entry["status"] == "FAILED"] == [failed]

    assert train(root) == 0
    assert "0 runs trained, 12 were there already, 1 failed" in capsys.readouterr().err
    assert with_status(root, "FINISHED") == finished and len(with_status(root, "FAILED")) == 2


@pytest.mark.slow
def test_a_worker_that_is_killed_is_a_clear_error(make_prepared, start):
    root = make_prepared({**LONG, "compute": {"processes": 2}})
    process = start(root)
    wait_until_halfway(root, process)
    worker = next(child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline()))
    worker.kill()
    assert process.wait(DEADLINE) == 2
    expected = (root / "output.txt").read_text()
    assert "regcls: error: a worker process was killed, perhaps because memory ran out" in expected and "Traceback" not in expected
    assert with_status(root, "FINISHED") and not with_status(root, "RUNNING")


@pytest.fixture
def preparing(make_project, start):
    """A project and a running `regcls prepare functions` with two workers and half a minute of work."""
    data = {"samples": 60000, "repetitions": 5, "functions": [[share / 10, 20] for share in range(1, 11)]}
    root = make_project({"compute": {"processes": 2}, "functions": {"data": data}})
    return root, start(root, sys.executable, "-m", "regcls", "prepare", "functions")


def assert_nothing_is_left(root, process):
    wait_until(lambda: not session(process), "the end of the workers")
    assert not (root / "data" / "functions" / "prepared").exists()


@pytest.mark.slow
def test_workers_of_a_killed_prepare_end_by_themselves(preparing):
    root, process = preparing
    wait_until(lambda: sum(other.cpu_times().user > 2 for other in session(process)) >= 2, "two busy workers")  # imports take less
    assert process.poll() is None
    process.kill()
    process.wait()
    assert_nothing_is_left(root, process)


def test_prepare_can_be_interrupted_while_workers_start(preparing):
    root, process = preparing
    wait_until(lambda: len(session(process)) == 4, "two workers, their parent and multiprocessing's resource tracker")
    os.killpg(process.pid, signal.SIGINT)  # like a terminal
    assert process.wait(DEADLINE) == 130
    assert_nothing_is_left(root, process)
    assert "Traceback" not in (root / "output.txt").read_text()


@pytest.mark.slow
def test_an_equal_single_run_is_not_repeated(make_prepared, monkeypatch, capsys):
    root = make_prepared()
    monkeypatch.chdir(root)
    assert main(["run", "functions", "--classes", "5", "--seed", "3"]) == 0
    assert "reg+cls 5 λ1000 s3 · noisy-0.1-severe functions: trained, test MSE" in capsys.readouterr().err
    assert main(["run", "functions", "--classes", "5", "--seed", "3"]) == 0
    assert "reg+cls 5 λ1000 s3 · noisy-0.1-severe functions: was there already, test MSE" in capsys.readouterr().err
    assert [status for _, status, _ in runs(root)] == ["FINISHED"]


def test_a_finished_run_without_files_is_trained_again_as_the_message_says(make_prepared, monkeypatch, capsys):
    root, command = make_prepared(), ["run", "functions", "--classes", "5", "--seed", "3"]
    monkeypatch.chdir(root)
    assert main(command) == 0
    shutil.rmtree(root / "mlartifacts")
    capsys.readouterr()
    assert main(command) == 0
    ((run_id, *_),) = runs(root)
    told = capsys.readouterr().err
    assert f"1 finished run has no files in {root}/mlartifacts/0: mount their disk or put them back there; or, to train" in told
    assert main(told.strip().splitlines()[-1].partition("first: regcls ")[2].split()) == 0
    deleted, told = capsys.readouterr()
    assert deleted.startswith(f"{run_id} reg+cls 5 λ1000 s3 · ") and f"1 run deleted in sqlite:///{root}/mlflow.db\n" in told
    assert main(command) == 0
    assert ": trained, test MSE" in (told := capsys.readouterr().err) and "without files" not in told


def test_only_runs_named_by_their_ids_are_deleted(make_prepared, monkeypatch, capsys):
    root = make_prepared()
    monkeypatch.chdir(root)
    assert main(["run", "functions", "--classes", "5"]) == 0
    ((run_id, _, fingerprint),) = runs(root)
    for arguments, message in (
        ([], "give regcls delete either runs or --lost"),
        ([run_id, "--lost"], "give regcls delete either runs or --lost"),
        ([run_id[:8], "0123456789"], "no run in .* with an id that begins with '0123456789'"),
        ([fingerprint], f"{fingerprint} is a fingerprint, of run {run_id}"),
    ):
        assert main(["delete", *arguments]) == 2 and re.search(message, capsys.readouterr().err)
    assert main(["delete", "--lost"]) == 0 and "0 runs deleted" in capsys.readouterr().err
    assert [found for found, *_ in runs(root)] == [run_id]
    assert main(["delete", run_id[:8]]) == 0
    assert capsys.readouterr().out.startswith(run_id)
    assert main(["delete", run_id]) == 2 and "is deleted. Restore it with" in capsys.readouterr().err


def test_a_diverging_single_run_is_a_clear_error(make_prepared, monkeypatch, capsys):
    root = make_prepared()
    monkeypatch.chdir(root)
    assert main(["run", "functions", "--method", "reg", "--optimizer", "sgd", "--learning-rate", "1e6"]) == 2
    assert "diverged on function 0, 1: weights are no longer finite" in capsys.readouterr().err
    assert [status for _, status, _ in runs(root)] == ["FAILED"]


@pytest.fixture
def dvc(make_prepared, start, tmp_path):
    """A DVC repository like this one, shrunk, and a function that starts `dvc repro` there."""
    root = make_prepared(LONGER)
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "dvc.yaml", root)
    (root / "data/functions/raw").mkdir()
    (root / "data/functions/raw/.gitkeep").touch()
    (root / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    (tmp_path / "bin").mkdir()
    executable = tmp_path / "bin" / "python"
    executable.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    executable.chmod(0o755)
    environment = {
        "PATH": os.pathsep.join([str(executable.parent), os.environ["PATH"]]),
        "PYTHONPATH": str(root / "src"),
        "DVC_GLOBAL_CONFIG_DIR": str(tmp_path),
        "DVC_SYSTEM_CONFIG_DIR": str(tmp_path),
        "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
    }
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=root, env=os.environ | environment, check=True)
    shutil.copy(ROOT / ".dvcignore", root)  # bytecode that a later stage leaves next to the source does not count as a change
    return root, lambda: start(root, sys.executable, "-m", "dvc", "repro", environment=environment)


@pytest.mark.slow
def test_dvc_repro_resumes_after_kill_9_and_then_changes_nothing(dvc):
    root, repro = dvc
    process = repro()
    wait_until_halfway(root, process)
    process.kill()  # dvc alone: the training notices, and ends by itself
    process.wait()
    wait_until(lambda: not session(process), "the end of the orphan")
    assert not with_status(root, "RUNNING") and with_status(root, "KILLED")
    finished = with_status(root, "FINISHED")
    assert 0 < len(finished) < 13

    second = repro()
    assert second.wait(2 * DEADLINE) == 0, (root / "output.txt").read_text()
    assert_each_run_finished_once(root, kept=finished)
    assert (root / "reports" / "index.html").exists()

    before = runs(root), (root / "dvc.lock").read_bytes(), (root / "reports" / "index.html").stat().st_mtime_ns
    (root / "output.txt").write_text("")
    assert repro().wait(DEADLINE) == 0
    assert "Data and pipelines are up to date." in (root / "output.txt").read_text()
    assert (runs(root), (root / "dvc.lock").read_bytes(), (root / "reports" / "index.html").stat().st_mtime_ns) == before
