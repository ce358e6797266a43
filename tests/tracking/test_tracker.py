"""The tracker on real SQLite stores, and on real servers if needed."""

import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from safetensors.numpy import load_file

from network import free_port
from processes import wait_until
from regcls.errors import UserError
from regcls.tasks.functions.runs import FunctionSpec
from regcls.tracking import store as tracking_store
from regcls.tracking.store import explanation, locks_of, project_root, sqlite_uri, store_uri
from regcls.tracking.tracker import Tracker
from regcls.tracking.writer import Writer
from servers import TrackingServer
from tracked import REG, RESULT, SPEC, TAGS


@pytest.fixture(autouse=True)
def no_mlflow_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_store, "SETTLE_WAIT", 0.05)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, made once since it takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        root = tmp_path_factory.mktemp("empty")
        Tracker(root, experiment="regcls")
    return root / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, empty_store: Path) -> Path:
    """A project's root with an empty store."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    execute(tmp_path, "UPDATE experiments SET artifact_location = ?", f"{tmp_path}/mlartifacts/0")
    execute(tmp_path, "UPDATE regcls_home SET folder = ?", str(tmp_path))
    return tmp_path


@pytest.fixture
def tracker(root: Path) -> Tracker:
    return Tracker(root, experiment="regcls")


def execute(root: Path, statement: str, *values: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(root / "mlflow.db")) as connection, connection:
        return connection.execute(statement, values).fetchall()


def finished_run(tracker: Tracker, spec: FunctionSpec = SPEC, *, fingerprint: str = "f") -> str:
    run_id = tracker.start(spec, fingerprint=fingerprint, tags=TAGS)
    tracker.finish(run_id, RESULT)
    return run_id


def python(code: str, root: Path) -> subprocess.Popen[str]:
    """Run code in another process that has `root` and the names of tracked.py."""
    head = f"import os, time\nfrom pathlib import Path\nfrom regcls.tracking.tracker import Tracker\nfrom tracked import *\nroot = Path({str(root)!r})\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", head + code], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("", "project/.regcls"),
        ("sqlite:///{}/project/mlflow.db", "project/.regcls"),
        ("sqlite:///{}/mlflow.db", ".regcls"),  # another project's own
        ("sqlite:///{}/link.db", ".regcls"),
        ("sqlite:///../mlflow.db", ".regcls"),
        ("sqlite:///{}/team.db", ".regcls/team.db"),
        ("http://127.0.0.1:5000", "project/.regcls"),
    ],
)
def test_locks_are_beside_an_sqlite_store_under_whatever_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, folder: str
) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "link.db").symlink_to("mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(tmp_path))
    assert locks_of(store_uri(tmp_path / "project"), tmp_path / "project") == tmp_path / folder


def test_a_new_store_has_its_experiment_and_artifacts_next_to_it(tracker: Tracker, root: Path, empty_store: Path) -> None:
    assert tracker.experiment_id == "0"
    assert tracker.uri == f"sqlite:///{root}/mlflow.db"
    with closing(sqlite3.connect(empty_store)) as connection:
        row = connection.execute("SELECT experiment_id, name, artifact_location FROM experiments").fetchall()
    assert row == [(0, "regcls", f"{empty_store.parent}/mlartifacts/0")]
    assert {file.name for file in empty_store.parent.iterdir()} <= {"mlflow.db", "mlflow.db-wal", "mlflow.db-shm", "mlflow.db.lock"}


def test_a_new_store_can_be_read_during_writes(tracker: Tracker, root: Path) -> None:
    with closing(sqlite3.connect(root / "mlflow.db", isolation_level=None, timeout=0.1)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM runs").fetchone() == (0,)
        finished_run(tracker)
        assert reader.execute("SELECT count(*) FROM runs").fetchone() == (0,)


def test_a_finished_run_has_parameters_metrics_history_weights_and_data(tracker: Tracker, root: Path) -> None:
    run = tracker._client.get_run(finished_run(tracker))
    assert run.info.status == "FINISHED"
    assert run.info.run_name == SPEC.name
    assert run.data.params == SPEC.params()
    assert tracker.metrics(run.info.run_id)["test/mse/all"] == 2.5
    assert [(point.step, point.value) for point in tracker._client.get_metric_history(run.info.run_id, "train/mse/all")] == [
        (1, 3.0),
        (2, 2.0),
        (3, 1.0),
    ]
    assert [point.timestamp for point in tracker._client.get_metric_history(run.info.run_id, "val/mse/all")] == [
        1_700_000_001_000 + 1000 * k for k in range(3)
    ]
    assert (
        load_file(root / "mlartifacts/0" / run.info.run_id / "artifacts/weights.safetensors")["0.weight"] == RESULT.weights["0.weight"]
    ).all()
    assert run.inputs is not None
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("functions/noisy-0.1-severe/1", "0123456789abcdef")


def test_tags_describe_a_run_and_its_origin(tracker: Tracker) -> None:
    tags = tracker._client.get_run(finished_run(tracker)).data.tags
    expected = {
        "dataset": "functions",
        "method": "reg+cls",
        "classes": "64",
        "balanced": "false",
        "seed": "421",
        "repetition": "1",
        "fingerprint": "f",
    }
    assert expected.items() <= tags.items()
    assert tags["mlflow.source.git.commit"] == "a1b2c3"
    assert tags["mlflow.user"] and tags["mlflow.source.name"].startswith("regcls")


def test_a_balanced_run_is_tagged_as_balanced(tracker: Tracker) -> None:
    run_id = tracker.start(replace(SPEC, method="reg+cls-bal"), fingerprint="f", tags={})
    assert tracker._client.get_run(run_id).data.tags["balanced"] == "true"


def test_a_metric_with_a_history_has_one_point_per_epoch(tracker: Tracker, root: Path) -> None:
    finished_run(tracker)
    assert execute(root, "SELECT key, count(*) FROM metrics WHERE key IN ('train/mse/all', 'test/mse/all') GROUP BY key") == [
        ("test/mse/all", 1),
        ("train/mse/all", 3),
    ]


def test_a_run_that_fails_to_start_leaves_nothing_behind(tracker: Tracker, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "_log_dataset", fail)
    with pytest.raises(KeyboardInterrupt):
        tracker.start(SPEC, fingerprint="f", tags={})
    assert execute(root, "SELECT count(*) FROM runs") == [(0,)]
    monkeypatch.undo()
    finished_run(tracker)


def test_finishing_a_run_twice_changes_nothing(tracker: Tracker, root: Path) -> None:
    run_id = finished_run(tracker)
    before = execute(root, "SELECT * FROM metrics ORDER BY key, step"), execute(root, "SELECT * FROM latest_metrics ORDER BY key")
    tracker.finish(run_id, RESULT)
    assert before == (execute(root, "SELECT * FROM metrics ORDER BY key, step"), execute(root, "SELECT * FROM latest_metrics ORDER BY key"))


def test_fast_metric_logging_writes_the_same_as_mlflow(tracker: Tracker, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(tracker)
    quick = execute(root, "SELECT key, value, timestamp, step, is_nan FROM metrics ORDER BY key, step")
    quick_latest = execute(root, "SELECT key, value, timestamp, step, is_nan FROM latest_metrics ORDER BY key")
    execute(root, "DELETE FROM metrics")
    execute(root, "DELETE FROM latest_metrics")
    tracker._in_sqlite = False  # as if it were on a server
    finished_run(tracker)
    assert execute(root, "SELECT key, value, timestamp, step, is_nan FROM metrics ORDER BY key, step") == quick
    assert execute(root, "SELECT key, value, timestamp, step, is_nan FROM latest_metrics ORDER BY key") == quick_latest


def test_the_run_table_has_the_types_of_the_spec(tracker: Tracker) -> None:
    first, second = finished_run(tracker), finished_run(tracker, REG, fingerprint="g")
    table = tracker.collect("functions", FunctionSpec).set_index("run_id").loc[[first, second]]
    assert table["hidden"].tolist() == [(6, 15), (6, 15)]
    assert table["lam"].tolist()[0] == 1000.0 and math.isnan(table["lam"].tolist()[1])
    assert table["classes"].dtype == "int64" and table["classes"].tolist() == [64, 0]
    assert table["noise"].dtype == "float64" and table["setting"].tolist() == ["noisy", "noisy"]
    assert table["fingerprint"].tolist() == ["f", "g"] and table["status"].tolist() == ["FINISHED"] * 2
    assert str(table["started"].dtype).endswith("UTC]")


def test_the_run_table_keeps_nan_and_infinity_and_sorts_numerically(tracker: Tracker) -> None:
    finished_run(tracker)
    table = tracker.collect("functions", FunctionSpec)
    metrics = ["test/mse/all", "test/mse/function_0", "test/mse/function_2", "test/mse/function_10", "train/mse/all", "val/mse/all"]
    assert table.columns.tolist()[-6:] == metrics
    assert table[metrics].iloc[0].tolist() == pytest.approx([2.5, math.nan, math.inf, 0.5, 1.0, 1.5], nan_ok=True)


def test_an_empty_run_table_has_its_columns(tracker: Tracker) -> None:
    table = tracker.collect("functions", FunctionSpec)
    assert len(table) == 0 and {"run_id", "status", "lam", "hidden", "seconds"} <= set(table.columns)


def test_the_run_table_has_all_runs_of_its_data_set_only(tracker: Tracker) -> None:
    first, second = finished_run(tracker), finished_run(tracker)
    running = tracker.start(SPEC, fingerprint="f", tags={})
    finished_run(tracker, replace(SPEC, dataset="other"))
    table = tracker.collect("functions", FunctionSpec)
    assert set(table["run_id"]) == {first, second, running}
    assert table.set_index("run_id").loc[running, ["status", "seconds"]].tolist() == ["RUNNING", pytest.approx(math.nan, nan_ok=True)]


def test_finished_returns_the_earliest_finished_run_of_a_fingerprint(tracker: Tracker, root: Path) -> None:
    late, early = finished_run(tracker), finished_run(tracker)
    execute(root, "UPDATE runs SET start_time = 1 WHERE run_uuid = ?", early)
    tracker.stop(tracker.start(REG, fingerprint="g", tags={}), status="FAILED", reason="a test")
    tracker.start(REG, fingerprint="h", tags={})
    assert tracker.finished("functions") == {"f": early}
    tracker._client.delete_run(early)
    assert tracker.finished("functions") == {"f": late}


def test_a_stopped_run_records_the_reason(tracker: Tracker) -> None:
    run_id = tracker.start(SPEC, fingerprint="f", tags={})
    tracker.stop(run_id, status="KILLED", reason="Ctrl-C")
    run = tracker._client.get_run(run_id)
    assert (run.info.status, run.data.tags["stopped"]) == ("KILLED", "Ctrl-C")


def test_reconcile_kills_runs_left_by_a_dead_process(tracker: Tracker, root: Path) -> None:
    process = python(
        "print(Tracker(root, experiment='regcls').start(SPEC, fingerprint='f', tags={}), flush=True)\nos.kill(os.getpid(), 9)", root
    )
    left, _ = process.communicate()
    assert process.returncode == -9
    result = finished_run(tracker)
    assert tracker.reconcile("other") == []
    assert tracker.reconcile("functions") == [left.strip()]
    run = tracker._client.get_run(left.strip())
    assert run.info.status == "KILLED" and "process" in run.data.tags["stopped"] and run.info.end_time
    assert tracker._client.get_run(result).info.status == "FINISHED"


def test_reconcile_keeps_the_run_of_a_living_process(tracker: Tracker, root: Path) -> None:
    process = python("print(Tracker(root, experiment='regcls').start(SPEC, fingerprint='f', tags={}), flush=True)\ntime.sleep(60)", root)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        assert tracker.reconcile("functions") == []
    finally:
        process.kill()
        process.communicate()


def test_reconcile_keeps_the_adopted_run_and_runs_of_other_programs(tracker: Tracker, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adopted = tracker._client.create_run("0").info.run_id
    tracker._client.create_run("0", tags={"dataset": "functions"})
    monkeypatch.setenv("MLFLOW_RUN_ID", adopted)
    again = Tracker(root, experiment="regcls")
    assert again.start(SPEC, fingerprint="f", tags={}, adopt=True) == adopted
    assert again.reconcile("functions") == []


def test_reconcile_kills_runs_of_other_hosts_only_in_the_projects_store(tracker: Tracker, root: Path) -> None:
    run_id = tracker.start(SPEC, fingerprint="f", tags={})
    tracker._client.set_tag(run_id, "regcls.host", "another")
    tracker._is_own = False  # as if it were on a server that both hosts use
    assert tracker.reconcile("functions") == []
    tracker._is_own = True
    assert tracker.reconcile("functions") == [run_id]


def test_a_silent_run_in_a_shared_sqlite_file_is_not_dead(tracker: Tracker, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only runs on servers show signs of life."""
    run_id = tracker.start(SPEC, fingerprint="f", tags={})
    tracker._client.set_tag(run_id, "regcls.root", "/another/clone")
    tracker._is_own = False
    monkeypatch.setattr("regcls.tracking.tracker.SILENCE", -1.0)
    assert tracker.reconcile("functions") == []


def test_the_run_of_mlflow_run_is_adopted_once_with_its_parameters(tracker: Tracker, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tracker._client.create_run("0", run_name="nebulous-fox-12", tags={"mlflow.source.name": "typed"})
    tracker._client.log_param(run.info.run_id, "lambda", "1e3")
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    again = Tracker(root, experiment="regcls")
    assert again.adopted_run == run.info.run_id and "MLFLOW_RUN_ID" not in os.environ
    again.finish(again.start(SPEC, fingerprint="f", tags={}, adopt=True), RESULT)
    row = again.collect("functions", FunctionSpec).iloc[0]
    assert (row["run_id"], row["run_name"], row["lam"], row["test/mse/all"]) == (run.info.run_id, SPEC.name, 1000.0, 2.5)
    assert execute(root, "SELECT value FROM params WHERE key = 'lambda'") == [("1e3",)]
    assert execute(root, "SELECT value FROM tags WHERE key = 'mlflow.source.name'") == [("typed",)]


def test_a_name_given_to_mlflow_run_is_kept(tracker: Tracker, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", tracker._client.create_run("0", run_name="my best").info.run_id)
    run_id = Tracker(root, experiment="regcls").start(SPEC, fingerprint="f", tags={}, adopt=True)
    assert tracker._client.get_run(run_id).info.run_name == "my best"


def test_grid_runs_started_by_mlflow_run_are_its_children(tracker: Tracker, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = tracker._client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", parent)
    again = Tracker(root, experiment="regcls")
    finished_run(again)
    assert again.collect("functions", FunctionSpec)["parent"].tolist() == [parent]


def test_an_adopted_run_missing_from_the_store_is_a_clear_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(UserError, match="not found"):
        Tracker(root, experiment="regcls").start(SPEC, fingerprint="f", tags={}, adopt=True)


def test_the_environment_selects_the_experiment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another one")
    tracker = Tracker(root, experiment="regcls")
    assert tracker._client.get_experiment(tracker.experiment_id).name == "another one"
    assert tracker._client.get_experiment(tracker.experiment_id).artifact_location == str(root / "mlartifacts/another_one")
    assert Tracker(root, experiment="regcls").experiment_id == tracker.experiment_id
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    assert Tracker(root, experiment="regcls").experiment_id == "0"


def test_a_missing_experiment_is_a_clear_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "77")
    with pytest.raises(UserError, match="77"):
        Tracker(root, experiment="regcls")


def test_a_deleted_experiment_is_not_used_silently(tracker: Tracker, root: Path) -> None:
    tracker._client.delete_experiment("0")
    with pytest.raises(UserError, match="mlflow experiments restore --experiment-id 0"):
        Tracker(root, experiment="regcls")


def test_a_store_made_by_plain_mlflow_gets_the_experiments_name(root: Path) -> None:
    execute(root, "UPDATE experiments SET name = 'Default'")
    assert Tracker(root, experiment="regcls").experiment_id == "0"
    assert execute(root, "SELECT experiment_id, name FROM experiments") == [(0, "regcls")]


def test_nothing_is_renamed_in_a_store_with_other_runs(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(root, "UPDATE experiments SET name = 'Default'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
    assert Tracker(tmp_path_factory.mktemp("project"), experiment="regcls").experiment_id == "1"
    assert execute(root, "SELECT name FROM experiments ORDER BY experiment_id") == [("Default",), ("regcls",)]


@pytest.mark.parametrize("folder", [".", "src", ".dvc/tmp/exps/standalone/tmp1"])
def test_a_relative_sqlite_path_is_one_in_the_project_from_every_folder(root: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(root / folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert Tracker(root if folder == "src" else Path.cwd(), experiment="regcls").uri == f"sqlite:///{root}/mlflow.db"


def test_an_experiment_0_that_mlflow_gc_has_removed_comes_back_beside_the_store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(root, "DELETE FROM experiments")
    (root / "elsewhere").mkdir()
    monkeypatch.chdir(root / "elsewhere")
    run = finished_run(tracker := Tracker(root, experiment="regcls"))
    assert execute(root, "SELECT experiment_id, name, artifact_location FROM experiments") == [(0, "regcls", f"{root}/mlartifacts/0")]
    assert tracker._client.get_run(run).info.artifact_uri.startswith(f"{root}/mlartifacts/0/") and not any(Path.cwd().iterdir())


def test_finished_runs_without_files_are_found(tracker: Tracker, root: Path) -> None:
    kept, lost = finished_run(tracker), finished_run(tracker, REG, fingerprint="g")
    tracker.start(SPEC, fingerprint="h", tags=TAGS)  # not finished
    shutil.rmtree(root / "mlartifacts" / "0" / lost)
    another = tracker._client.create_run("0").info.run_id  # of a plain MLflow client, without files
    tracker._client.set_terminated(another)
    assert kept != lost and tracker.without_files() == {lost: root / "mlartifacts" / "0" / lost / "artifacts"}


def test_files_on_a_disk_that_is_not_mounted_are_not_lost(tracker: Tracker, root: Path) -> None:
    finished_run(tracker)
    (root / "mlartifacts").rename(root / "disk")
    (root / "mlartifacts").symlink_to(root / "mnt" / "big")
    message = f"{root}/mlartifacts links to {root}/mnt/big, which does not exist. Mount its disk, or create it."
    with pytest.raises(UserError, match=message):
        tracker.without_files()
    with pytest.raises(UserError, match=message):
        tracker.start(REG, fingerprint="g", tags=TAGS, lineage={"code": "x"})


@pytest.mark.parametrize(("free", "message"), [(1_000, "no space left on the disk of"), (10**10, "fails, or has no file locks")])
def test_a_full_disk_is_not_taken_for_one_without_locks(root: Path, monkeypatch: pytest.MonkeyPatch, free: int, message: str) -> None:
    usage = shutil.disk_usage(root)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert message in str(explanation(sqlite_uri(root / "mlflow.db"), sqlite3.OperationalError("disk I/O error")))


def test_a_run_whose_folder_cannot_be_written_does_not_stay_running(root: Path) -> None:
    (root / "mlartifacts").touch()
    with pytest.raises(UserError, match="cannot write"):
        Tracker(root, experiment="regcls").start(SPEC, fingerprint="f", tags=TAGS, lineage={"code": "x"})
    assert execute(root, "SELECT status FROM runs") == [("KILLED",)]  # so that a run that was interrupted before can go on


def test_odd_folder_names_give_the_same_file_as_in_mlflow(root: Path, tmp_path: Path) -> None:
    from mlflow.utils.file_utils import path_to_local_sqlite_uri

    odd = tmp_path / "50% of #1 ä?"
    odd.mkdir()
    shutil.copy(root / "mlflow.db", odd)
    tracker = Tracker(odd, experiment="regcls")
    assert tracker.uri == path_to_local_sqlite_uri(str(odd / "mlflow.db"))
    finished_run(tracker)
    assert execute(odd, "SELECT count(*) FROM runs") == [(1,)]


@pytest.mark.parametrize("name", ["my é project", "50%20 of #1? +'\"&\\日"])
def test_a_store_is_created_in_its_folder_whatever_its_name(tmp_path: Path, name: str) -> None:
    root = tmp_path / name / name
    root.mkdir(parents=True)
    tracker, other = Tracker(root, experiment="regcls"), Tracker(root, experiment="an é")
    for one in (tracker, other):
        run_id = finished_run(one)
        one.log_json(run_id, "more/values.json", {})
        assert list(one.files.sizes(run_id)) == ["more/values.json", "weights.safetensors"]
    assert [os.listdir(tmp_path), os.listdir(tmp_path / name)] == [[name], [name]]
    assert {folder.name for folder in (root / "mlartifacts").iterdir()} == {"0", "an_é"}


def test_a_temporary_dvc_workspace_uses_the_repositorys_store(tmp_path: Path) -> None:
    workspace = tmp_path / ".dvc/tmp/exps/tmpabc123"
    workspace.mkdir(parents=True)
    assert project_root(workspace) == tmp_path
    assert project_root(tmp_path) == tmp_path


def test_run_urls_lead_to_the_server_or_mlflow_ui_without_passwords(tracker: Tracker) -> None:
    assert tracker.run_url("abc") == "http://127.0.0.1:5000/#/experiments/0/runs/abc"
    tracker.uri = "https://me:secret@example.org/mlflow/"
    assert tracker.run_url("abc") == "https://example.org/mlflow/#/experiments/0/runs/abc"
    compared = tracker.compare_url(["abc", "def"])
    assert compared.startswith("https://example.org/mlflow/#/compare-runs?")
    assert unquote(compared.partition("?")[2]) == 'runs=["abc","def"]&experiments=["0"]'


def test_a_file_that_is_not_a_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match=r"mlflow\.db is no SQLite database"):
        Tracker(tmp_path, experiment="regcls")


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    execute(tmp_path, "CREATE TABLE mine (x)")
    with pytest.raises(UserError, match="not an MLflow store"):
        Tracker(tmp_path, experiment="regcls")
    assert execute(tmp_path, "SELECT name FROM sqlite_master") == [("mine",)]


def test_a_store_of_another_mlflow_version_is_left_untouched(root: Path) -> None:
    execute(root, "UPDATE alembic_version SET version_num = '0123456789ab'")
    with pytest.raises(UserError, match=f"another version of MLflow.*mlflow db upgrade '{sqlite_uri(root / 'mlflow.db')}'"):
        Tracker(root, experiment="regcls")
    assert execute(root, "SELECT version_num FROM alembic_version") == [("0123456789ab",)]


def test_a_locked_store_is_a_clear_error_after_a_timeout(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_store, "LOCK_WAIT", 0.2)
    with closing(sqlite3.connect(root / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="locked"):
            Tracker(root, experiment="regcls")


def test_a_read_only_folder_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="cannot write"):
        Tracker(Path("/sys/regcls"), experiment="regcls")  # not even for root


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_read_only_store_is_a_clear_error(root: Path) -> None:
    (root / "mlflow.db").chmod(0o444)
    with pytest.raises(UserError, match="cannot write"):
        Tracker(root, experiment="regcls")


def test_an_in_memory_store_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///:memory:")
    with pytest.raises(UserError, match="keeps nothing"):
        Tracker(tmp_path, experiment="regcls")


def test_an_unreachable_server_is_a_clear_error_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{free_port()}")
    start = time.monotonic()
    with pytest.raises(UserError, match="no answer from the tracking server http://127") as caught:
        Tracker(tmp_path, experiment="regcls")
    assert time.monotonic() - start < 10 and "secret" not in str(caught.value)


def test_a_silent_server_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regcls.tracking.tracker.PROBE_WAIT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(UserError, match="no answer"):
            Tracker(tmp_path, experiment="regcls")


@pytest.mark.slow
@pytest.mark.usefixtures("all_cores")
def test_processes_starting_together_share_one_new_store(tmp_path: Path) -> None:
    code = (
        "tracker = Tracker(root, experiment='regcls')\ntracker.finish(tracker.start(SPEC, fingerprint=str(os.getpid()), tags=TAGS), RESULT)"
    )
    processes = [python(code, tmp_path) for _ in range(6)]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert len(Tracker(tmp_path, experiment="regcls").finished("functions")) == 6
    assert execute(tmp_path, "SELECT name FROM experiments") == [("regcls",)]
    assert execute(tmp_path, "SELECT count(*) FROM datasets") == [(1,)]


def test_a_server_gives_the_same_table_as_its_database(
    tracker: Tracker, root: Path, make_server: Callable[..., TrackingServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server(store=f"sqlite:///{root}/mlflow.db")
    monkeypatch.setattr("regcls.tracking.reading.PAGE", 2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    remote = Tracker(root, experiment="regcls")
    assert remote.experiment_id == tracker.experiment_id
    for k in range(5):
        finished_run(remote, replace(SPEC, classes=4 + k), fingerprint=str(k))
    left = remote.start(REG, fingerprint="left", tags=TAGS)
    remote.deliver()
    assert remote.reconcile("functions") == [remote.run_id(left)]
    assert remote.finished("functions") == tracker.finished("functions")
    here, there = tracker.collect("functions", FunctionSpec), remote.collect("functions", FunctionSpec)
    assert here.equals(there) and len(here) == 6
    another = Tracker(root, experiment="made by the server")  # which stores its artifacts, too
    run = finished_run(another)
    another.deliver()
    assert [file.path for file in another._client.list_artifacts(another.run_id(run))] == ["weights.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, code, message",
    [(signal.SIGTERM, 143, "regcls: terminated. "), (signal.SIGINT, 130, "regcls: interrupted. "), (signal.SIGKILL, -9, None)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_signal_while_the_store_is_created_leaves_a_whole_one_or_none(make_project, start, number, code, message) -> None:
    root = make_project()
    process = start(root, sys.executable, "-m", "regcls", "show", "abcdef")
    wait_until(lambda: any(root.glob(".mlflow.db.*.part")), "the store is being created")
    time.sleep(0.5)
    process.send_signal(number)
    assert process.wait(60) == code
    lines = (root / "output.txt").read_text().splitlines()
    assert [line.startswith(str(message)) for line in lines] == ([] if message is None else [True])
    assert Tracker(root, experiment="regcls").finished("functions") == {}
    assert not list(root.glob(".mlflow.db.*"))
