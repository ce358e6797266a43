"""Outages of a tracking server: training continues and nothing is lost. With real servers that are killed."""

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from processes import wait_until
from regcls.errors import UserError
from regcls.processes import process_identity
from regcls.tasks.functions.runs import FunctionSpec
from regcls.tracking import courier, journal
from regcls.tracking.files import RunFiles
from regcls.tracking.tracker import Tracker
from s3_server import S3Server
from servers import Postgres, TrackingServer, gate
from tracked import REG, RESULT, SPEC, TAGS

NOW = 1_700_000_000.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("FIRST_PAUSE", 0.05), ("LONGEST_PAUSE", 0.2)):
        monkeypatch.setattr(courier, name, seconds)
    monkeypatch.setattr("regcls.tracking.tracker.PATIENCE", 1.0)
    # One retry: a server may close an idle connection just when it is used.
    for name, value in (("MAX_RETRIES", "1"), ("BACKOFF_FACTOR", "0"), ("BACKOFF_JITTER", "0")):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")


@pytest.fixture
def server(make_server: Callable[..., TrackingServer], monkeypatch: pytest.MonkeyPatch) -> TrackingServer:
    running = make_server()
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    return running


@pytest.fixture
def tracker(server: TrackingServer, tmp_path: Path) -> Tracker:
    return Tracker(tmp_path / "project", experiment="regcls")


@contextmanager
def outage(server: TrackingServer):
    server.kill()
    yield
    server.start()


def point(epoch: int) -> list[tuple[str, float, int, float]]:
    return [("epochs/train/loss", 1.0 / epoch, epoch, NOW + epoch), ("epochs/val/mae/all", 2.0 / epoch, epoch, NOW + epoch)]


def history(tracker: Tracker, run_id: str, key: str = "epochs/train/loss") -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in tracker._client.get_metric_history(run_id, key)]


def test_a_run_through_an_outage_equals_an_uninterrupted_one(tracker: Tracker, server: TrackingServer, tmp_path: Path) -> None:
    (tmp_path / "best").write_bytes(b"weights")
    ids = {}
    for disturbed in (False, True):
        run = tracker.start(SPEC, fingerprint=f"{disturbed}", tags=TAGS)
        for epoch in range(1, 7):
            if disturbed and epoch == 3:
                server.kill()
            if disturbed and epoch == 5:
                server.start()
            tracker.log_metrics(run, point(epoch))
        tracker.log_files(run, {"checkpoints/best.pt": tmp_path / "best"})
        tracker.end(run)
        tracker.deliver()
        ids[disturbed] = tracker.run_id(run)
    for key in ("epochs/train/loss", "epochs/val/mae/all"):
        assert history(tracker, ids[True], key) == history(tracker, ids[False], key)
    assert [step for step, _ in history(tracker, ids[True])] == [1, 2, 3, 4, 5, 6]
    undisturbed, disturbed = (tracker._client.get_run(ids[key]) for key in (False, True))
    assert disturbed.data.params == undisturbed.data.params and disturbed.info.status == "FINISHED"
    assert disturbed.data.tags.keys() == undisturbed.data.tags.keys()
    assert tracker.files.fetch(ids[True], "checkpoints/best.pt", tmp_path).read_bytes() == b"weights"
    assert not list(tracker._sender._journal.folder.glob("*/start.json"))


def test_a_run_made_during_an_outage_is_delivered_afterwards(tracker: Tracker, server: TrackingServer) -> None:
    with outage(server):
        run = tracker.start(SPEC, fingerprint="f", tags=TAGS)
        tracker.finish(run, RESULT)
        assert tracker.run_id(run) == ""
    tracker.deliver()
    assert tracker.finished("functions") == {"f": tracker.run_id(run)}
    assert [step for step, _ in history(tracker, tracker.run_id(run), "train/mse/all")] == [1, 2, 3]


def test_undelivered_data_are_kept_for_the_next_process(
    tracker: Tracker, server: TrackingServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.kill()
    tracker.finish(tracker.start(SPEC, fingerprint="f", tags=TAGS), RESULT)
    with pytest.raises(UserError, match=r"1 run.s. could not be delivered to http.*no answer.*regcls sync"):
        tracker.deliver()
    abandon(tracker)
    assert journal.undelivered_count(tracker.root) == 1
    server.start()
    again = Tracker(tracker.root, experiment="regcls")
    assert again.inherit() == 1
    assert list(again.finished("functions")) == ["f"] and journal.undelivered_count(tracker.root) == 0
    assert again.inherit() == 0


def abandon(tracker: Tracker) -> None:
    """Simulate the end of the process: nobody owns its journal any more."""
    tracker._sender._journal._lock.close()
    tracker._sender._round = lambda runs: None


def test_a_copied_project_leaves_undelivered_runs_to_the_original(tracker: Tracker, server: TrackingServer, tmp_path: Path) -> None:
    server.kill()
    tracker.finish(tracker.start(SPEC, fingerprint="f", tags=TAGS), RESULT)
    with pytest.raises(UserError, match="could not be delivered"):
        tracker.deliver()
    abandon(tracker)
    shutil.copytree(tracker.root, tmp_path / "copy")
    server.start()
    copy = Tracker(tmp_path / "copy", experiment="regcls")
    assert copy.inherit() == 0 and journal.undelivered_count(copy.root) == 0
    assert Tracker(tracker.root, experiment="regcls").inherit() == 1
    (run_id,) = copy.finished("functions").values()
    assert copy.inherit() == 1  # the original has none: as if the project had been moved
    assert journal.undelivered_count(copy.root) == 0
    assert list(copy.collect("functions", FunctionSpec)["run_id"]) == [run_id]


def test_a_copied_project_leaves_running_runs_to_the_original(tracker: Tracker, tmp_path: Path) -> None:
    run = tracker.start(SPEC, fingerprint="f", tags=TAGS)
    tracker.deliver()
    run_id = tracker.run_id(run)
    shutil.copytree(tracker.root, tmp_path / "copy")
    with subprocess.Popen(["sleep", "60"]) as maker:
        tracker._client.set_tag(run_id, "regcls.process", str(process_identity(maker.pid)))
        tags = tracker._client.get_run(run_id).data.tags
        copy = Tracker(tmp_path / "copy", experiment="regcls")
        assert copy.inherit() == 0 and copy.reconcile("functions") == []
        theirs = copy.start(SPEC, fingerprint="f", tags=TAGS, continues=run)  # as recorded with its checkpoints
        copy.deliver()
        assert copy.run_id(theirs) != run_id
        original = tracker._client.get_run(run_id)
        assert (original.info.status, original.data.tags) == ("RUNNING", tags)
        maker.kill()


def test_a_lost_response_does_not_create_a_second_run(tracker: Tracker, server: TrackingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    create_run = type(tracker._client).create_run
    calls = []

    def lose_response(*args: Any, **kwargs: Any) -> Any:
        run = create_run(*args, **kwargs)
        calls.append(run.info.run_id)
        if len(calls) == 1:
            server.kill()
            tracker._client.get_run(run.info.run_id)  # fails like the response would
        return run

    monkeypatch.setattr(type(tracker._client), "create_run", lose_response)
    run = tracker.start(SPEC, fingerprint="f", tags=TAGS)
    wait_until(lambda: calls, "the start of the run")
    tracker.log_metrics(run, point(1))
    server.start()
    tracker.finish(run, RESULT)
    tracker.deliver()
    assert [tracker.run_id(run)] == calls == list(tracker.finished("functions").values())
    assert tracker._client.get_run(calls[0]).data.params["classes"] == "64"


def test_a_silent_server_does_not_stop_training(tracker: Tracker, server: TrackingServer) -> None:
    run = tracker.start(SPEC, fingerprint="f", tags=TAGS)
    tracker.deliver()
    server.freeze()
    began = time.monotonic()
    for epoch in range(1, 20):
        tracker.log_metrics(run, point(epoch))
    assert time.monotonic() - began < 2.0  # nobody waited for a request
    server.thaw()
    tracker.end(run)
    tracker.deliver()
    assert [step for step, _ in history(tracker, tracker.run_id(run))] == list(range(1, 20))


def test_a_deleted_run_does_not_hold_up_the_others(tracker: Tracker, capsys: pytest.CaptureFixture[str]) -> None:
    gone, other = (tracker.start(spec, fingerprint=spec.method, tags=TAGS) for spec in (SPEC, REG))
    tracker.deliver()
    tracker._client.delete_run(tracker.run_id(gone))
    for run in (gone, other):
        tracker.finish(run, RESULT)
    with pytest.raises(UserError, match="1 run.s. could not be delivered.*active"):
        tracker.deliver()
    assert list(tracker.finished("functions")) == ["reg"]
    assert (kept := tracker._sender._runs[gone]).refused and kept.events()


def test_a_finished_run_is_complete_even_if_its_files_came_late(
    tracker: Tracker, server: TrackingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The object store is down while the server is up."""
    artifacts = Path(server.artifacts)
    artifacts.mkdir(exist_ok=True)
    artifacts.rename(aside := tmp_path / "aside")
    artifacts.write_text("no folder")  # the server's writes fail
    (tmp_path / "best").write_bytes(b"weights")
    run = tracker.start(SPEC, fingerprint="f", tags=TAGS)
    tracker.log_files(run, {"best.pt": tmp_path / "best"})
    tracker.log_metrics(run, point(1))
    tracker.end(run)
    wait_until(lambda: tracker.run_id(run) and history(tracker, tracker.run_id(run)), "the metrics")
    assert tracker._client.get_run(tracker.run_id(run)).info.status == "RUNNING"
    with pytest.raises(UserError, match="1 run.s. could not be delivered"):
        tracker.deliver()
    artifacts.unlink()
    aside.rename(artifacts)
    tracker.deliver()
    assert tracker._client.get_run(tracker.run_id(run)).info.status == "FINISHED"
    assert tracker.files.fetch(tracker.run_id(run), "best.pt", tmp_path / "..").read_bytes() == b"weights"


def test_a_later_state_replaces_an_undelivered_one(tracker: Tracker, server: TrackingServer, tmp_path: Path) -> None:
    run = tracker.start(SPEC, fingerprint="f", tags=TAGS)
    tracker.deliver()
    with outage(server):
        for number in range(5):
            file = tmp_path / f"state{number}"
            file.write_text(str(number))
            tracker.log_state(run, {"state.pt": file}, slot=number % 2)
        assert len(tracker._sender._runs[run].events()) == 2
    tracker.deliver()
    slots = tracker.fetch_state(tracker.run_id(run), tmp_path)
    assert [(slot / "state.pt").read_text() for slot in slots] == ["4", "3"]
    tracker.end(run)
    tracker.deliver()
    assert tracker.fetch_state(tracker.run_id(run), tmp_path / "none") == []  # no longer needed


@pytest.fixture(params=["about to send", "has sent"])
def waiting(request: pytest.FixtureRequest, tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run with two states, of which the courier is held with the first; a function that lets it go on; and the paths it sends."""
    held, sent, log = Event(), list[str](), RunFiles.log

    def slowly(files: RunFiles, run_id: str, paths: Mapping[str, Path]) -> None:
        if request.param == "has sent":
            log(files, run_id, paths)
        sent.extend(paths)
        held.wait(20)
        if request.param == "about to send":
            log(files, run_id, paths)

    monkeypatch.setattr(RunFiles, "log", slowly)
    run = tracker.start(SPEC, fingerprint="f", tags=TAGS)
    for slot in range(2):
        (tmp_path / "state").write_text(str(slot))
        tracker.log_state(run, {"state.pt": tmp_path / "state"}, slot=slot)
        (tmp_path / "state").unlink()
        wait_until(lambda: sent, "the first state")
    yield run, held.set, sent
    held.set()


def test_a_state_that_waits_when_its_run_is_finished_is_not_sent(waiting, tracker: Tracker, tmp_path: Path) -> None:
    run, go_on, sent = waiting
    tracker.end(run)
    assert [file.name for file in tracker._sender._runs[run].events()] == ["000003-end.json"]
    go_on()
    tracker.deliver()
    assert sent == ["resume/0/state.pt"]
    assert tracker.finished("functions") == {"f": tracker.run_id(run)}
    assert tracker.fetch_state(tracker.run_id(run), tmp_path / "none") == []


@pytest.mark.parametrize("status", ["KILLED", "FAILED"])
def test_a_state_that_waits_when_its_run_is_stopped_is_sent(waiting, status: str, tracker: Tracker, tmp_path: Path) -> None:
    run, go_on, _ = waiting
    tracker.stop(run, status=status, reason="a test")
    go_on()
    tracker.deliver()
    slots = tracker.fetch_state(tracker.run_id(run), tmp_path)
    assert [(slot / "state.pt").read_text() for slot in slots] == ["0", "1"]


@pytest.mark.parametrize("drop", [lambda run, file: None, lambda run, file: file.unlink()], ids=["before", "halfway"])
def test_a_kill_while_states_are_dropped_leaves_a_run_that_can_be_delivered(
    drop: Callable[[journal.JournaledRun, Path], None], tracker: Tracker, server: TrackingServer, tmp_path: Path
) -> None:
    run = tracker.start(SPEC, fingerprint="f", tags=TAGS)
    (tmp_path / "state").write_bytes(b"state")
    with outage(server):
        tracker.log_state(run, {"state.pt": tmp_path / "state"}, slot=0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(journal.JournaledRun, "drop", drop)
            tracker.end(run)
        abandon(tracker)
    again = Tracker(tracker.root, experiment="regcls")
    assert again.inherit() == 1 and journal.undelivered_count(tracker.root) == 0
    assert again.fetch_state(again.finished("functions")["f"], tmp_path / "none") == []


def test_a_run_resumes_under_its_own_id_without_repeating_epochs(tracker: Tracker) -> None:
    first = tracker.start(SPEC, fingerprint="f", tags=TAGS)
    for epoch in (1, 2, 3):
        tracker.log_metrics(first, point(epoch))
    tracker.deliver()
    run_id = tracker.run_id(first)
    for name in (first, run_id):  # as seen by this machine, and by another one
        tracker.stop(first, status="KILLED", reason="a test")
        run = tracker.start(SPEC, fingerprint="f", tags=TAGS, continues=name)
        for epoch in (2, 3, 4):  # from an earlier state, with other times
            tracker.log_metrics(run, [(name, value, step, at + 100) for name, value, step, at in point(epoch)])
        tracker.deliver()
        assert tracker.run_id(run) == run_id
        assert [step for step, _ in history(tracker, run_id)] == [1, 2, 3, 4]
        first = run
    assert "stopped" not in tracker._client.get_run(run_id).data.tags
    other = tracker.start(SPEC, fingerprint="another", tags=TAGS, continues=run_id)
    tracker.deliver()
    assert tracker.run_id(other) != run_id


def test_a_run_taken_over_by_another_machine_is_left_to_it(
    tracker: Tracker, server: TrackingServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tracker.start(SPEC, fingerprint="f", tags=TAGS)
    tracker.log_metrics(mine, point(1))
    tracker.deliver()
    run_id = tracker.run_id(mine)
    abandon(tracker)
    tracker._sender._runs[mine].add("metrics", {"points": [["epochs/train/loss", 9.0, 2, 0]]}, {})
    elsewhere = Tracker(tmp_path / "elsewhere", experiment="regcls")
    elsewhere._client.set_terminated(run_id, "KILLED")  # after half an hour without a sign of life
    theirs = elsewhere.start(SPEC, fingerprint="f", tags=TAGS, continues=run_id)
    elsewhere.deliver()
    again = Tracker(tracker.root, experiment="regcls")
    assert again.inherit() == 1
    assert elsewhere.run_id(theirs) == run_id and history(again, run_id) == [(1, 1.0)]
    assert history(again, again.run_id(mine)) == [(2, 9.0)]
    assert again._client.get_run(again.run_id(mine)).info.status == "KILLED"
    assert elsewhere._client.get_run(run_id).info.status == "RUNNING"
    assert "another process has taken over run" in capsys.readouterr().err


def test_a_wrong_password_is_reported_first(make_server: Callable[..., TrackingServer], tmp_path: Path, monkeypatch: Any) -> None:
    server = make_server(auth=True)
    for name, value in {**server.environment, "MLFLOW_TRACKING_PASSWORD": "wrong"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="does not know the user.*MLFLOW_TRACKING_USERNAME"):
        Tracker(tmp_path, experiment="regcls")
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    with pytest.raises(UserError, match="does not know the user"):
        Tracker(tmp_path, experiment="regcls")


def test_a_database_restart_loses_nothing(
    postgres: Postgres, make_server: Callable[..., TrackingServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server(store=postgres.make_store("restarted"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    tracker = Tracker(tmp_path, experiment="regcls")
    run = tracker.start(SPEC, fingerprint="f", tags=TAGS)
    tracker.log_metrics(run, point(1))
    tracker.deliver()
    postgres.kill()
    tracker.log_metrics(run, point(2))
    other = tracker.start(REG, fingerprint="g", tags=TAGS)
    wait_until(tracker._sender.undelivered, "the outage to be noticed")
    postgres.start()
    for ended in (run, other):
        tracker.end(ended)
    tracker.deliver()
    assert tracker.finished("functions") == {"f": tracker.run_id(run), "g": tracker.run_id(other)}
    assert [step for step, _ in history(tracker, tracker.run_id(run))] == [1, 2]


def test_without_s3_metrics_arrive_and_files_wait(
    s3_server: S3Server, make_server: Callable[..., TrackingServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "best").write_bytes(b"weights")
    with gate(urlsplit(s3_server.endpoint).port) as way:
        right = {**s3_server.environment, "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{way.port}", "AWS_MAX_ATTEMPTS": "1"}
        for trouble in ("away", "refused"):
            environment = right | ({"AWS_SECRET_ACCESS_KEY": "wrong"} if trouble == "refused" else {})
            server = make_server(artifacts=f"s3://boot/{trouble}", environment=environment)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
            tracker = Tracker(tmp_path / trouble, experiment="regcls")
            way.mode = "refused" if trouble == "away" else "open"
            run = tracker.start(SPEC, fingerprint="f", tags=TAGS)
            tracker.log_files(run, {"best.pt": tmp_path / "best"})
            tracker.log_metrics(run, point(1))
            tracker.end(run)
            with pytest.raises(UserError, match="1 run.s. could not be delivered"):
                tracker.deliver()
            run_id = tracker.run_id(run)
            assert history(tracker, run_id) == [(1, 1.0)] and tracker._client.get_run(run_id).info.status == "RUNNING"
            if trouble == "away":
                way.mode = "open"
            else:
                server.kill()
                server._environment |= right
                server.start()
            tracker.deliver()
            assert tracker._client.get_run(run_id).info.status == "FINISHED"
            assert (
                s3_server.client()
                .get_object(Bucket="boot", Key=f"{trouble}/{tracker.experiment_id}/{run_id}/artifacts/best.pt")["Body"]
                .read()
                == b"weights"
            )


def test_a_full_disk_in_the_journal_loses_nothing_written_before(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    run = tracker.start(SPEC, fingerprint="f", tags=TAGS)
    tracker.log_metrics(run, point(1))
    tracker.deliver()
    request.getfixturevalue("full_disk")
    with pytest.raises(UserError, match=r"no space left on the disk while writing .*journal.*Free some space"):
        tracker.log_metrics(run, point(2))
    monkeypatch.undo()
    tracker.log_metrics(run, point(3))
    tracker.end(run)
    tracker.deliver()
    assert [step for step, _ in history(tracker, tracker.run_id(run))] == [1, 3]


def test_a_second_account_resumes_and_finishes_its_run(
    make_server: Callable[..., TrackingServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may write to the experiment but did not create it: it may not delete, and must not touch what it may not know."""
    server = make_server(auth=True)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    Tracker(tmp_path / "admin", experiment="regcls")
    account = {"username": "bob", "password": "bob's long password"}
    login = (server.environment["MLFLOW_TRACKING_USERNAME"], server.environment["MLFLOW_TRACKING_PASSWORD"])
    assert requests.post(f"{server.uri}/api/2.0/mlflow/users/create", json=account, auth=login, timeout=10).ok
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", account["username"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", account["password"])
    tracker = Tracker(tmp_path / "bob", experiment="regcls")
    (tmp_path / "state").write_bytes(b"state")
    first = tracker.start(SPEC, fingerprint="f", tags=TAGS)
    tracker.log_metrics(first, point(1))
    tracker.log_state(first, {"state.pt": tmp_path / "state"}, slot=0)
    tracker.stop(first, status="KILLED", reason="a test")
    run = tracker.start(SPEC, fingerprint="f", tags=TAGS, continues=first)
    tracker.log_metrics(run, point(2))
    tracker.end(run)
    unknown = tracker.start(REG, fingerprint="g", tags=TAGS, continues="0" * 32)
    tracker.end(unknown)
    tracker.deliver()
    assert tracker.run_id(run) == tracker.run_id(first) and history(tracker, tracker.run_id(run)) == [(1, 1.0), (2, 0.5)]
    assert tracker.finished("functions") == {"f": tracker.run_id(run), "g": tracker.run_id(unknown)}
