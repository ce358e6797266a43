"""Many runs and parallel trainers on real servers. benchmarks/scale.py measures the same with 5 000 runs."""

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from regcls.tasks.functions.runs import FunctionSpec
from regcls.tracking import reading
from regcls.tracking.tracker import Tracker
from servers import Postgres, TrackingServer
from tracked import REG, RESULT, SPEC, TAGS

TRAINERS, EACH, EPOCHS = 8, 3, 5


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Track to a server in this process, in an experiment of this test."""

    def at(uri: str) -> str:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
        return uri

    return at


def train(root: Path, worker: int, environment: dict[str, str]) -> None:
    """Be one of the trainers, in its own process."""
    os.environ.update(environment)
    tracker = Tracker(root, experiment="regcls")
    for k in range(EACH):
        run = tracker.start(replace(SPEC, seed=k), fingerprint=f"{worker:016x}{k:016x}", tags=TAGS)
        for epoch in range(1, EPOCHS + 1):
            tracker.log_metrics(run, [("loss", worker + k / 10 + epoch / 100, epoch, time.time())])
        tracker.finish(run, RESULT)
    tracker.deliver()


def train_all(root: Path) -> Tracker:
    """Run the trainers in parallel, forked from a process that has already imported everything, so that they compete for the store."""
    where = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["regcls.tracking.tracker", "pytest"])  # the tests are not on its path yet
    processes = [context.Process(target=train, args=[root, worker, where]) for worker in range(TRAINERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * TRAINERS
    return Tracker(root, experiment="regcls")


def assert_nothing_is_lost(tracker: Tracker) -> None:
    """Assert that every run is there once and complete, with every point of its history once."""
    runs = tracker.finished("functions")
    assert runs.keys() == {f"{worker:016x}{k:016x}" for worker in range(TRAINERS) for k in range(EACH)}
    assert len(tracker.collect("functions", FunctionSpec)) == TRAINERS * EACH
    for fingerprint, run_id in runs.items():
        worker, k = int(fingerprint[:16], 16), int(fingerprint[16:], 16)
        logged = sorted((point.step, point.value) for point in tracker._client.get_metric_history(run_id, "loss"))
        assert logged == [(epoch, worker + k / 10 + epoch / 100) for epoch in range(1, EPOCHS + 1)]
        assert [file.path for file in tracker._client.list_artifacts(run_id)] == ["weights.safetensors"]


@pytest.mark.slow
@pytest.mark.usefixtures("all_cores")
def test_eight_parallel_trainers_lose_nothing_in_an_sqlite_file(tmp_path: Path) -> None:
    assert_nothing_is_lost(train_all(tmp_path))


@pytest.mark.slow
@pytest.mark.usefixtures("all_cores")
def test_eight_parallel_trainers_lose_nothing_on_a_postgresql_server(
    tmp_path: Path, postgres: Postgres, make_server: Callable[..., TrackingServer], at: Callable[[str], str]
) -> None:
    at(make_server(store=postgres.make_store("trainers")).uri)
    assert_nothing_is_lost(train_all(tmp_path))


@pytest.mark.parametrize("page", [1, 4, 5, 6])
def test_pagination_neither_loses_nor_repeats_runs(
    page: int, tmp_path: Path, tracking_server: TrackingServer, at: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at(tracking_server.uri)
    tracker = Tracker(tmp_path, experiment="regcls")
    for k in range(5):
        tracker._client.create_run(tracker.experiment_id, tags={"dataset": "functions", "fingerprint": str(k)})
    monkeypatch.setattr(reading, "PAGE", page)
    assert sorted(tracker.collect("functions", FunctionSpec)["fingerprint"]) == list("01234")


def test_runs_from_postgresql_equal_those_from_an_sqlite_file(
    tmp_path: Path, postgres: Postgres, make_server: Callable[..., TrackingServer], at: Callable[[str], str]
) -> None:
    tables = []
    for uri in (f"sqlite:///{tmp_path}/mlflow.db", make_server(store=postgres.make_store("same")).uri):
        at(uri)
        tracker = Tracker(tmp_path, experiment="regcls")
        for k, spec in enumerate((SPEC, REG)):
            tracker.finish(tracker.start(spec, fingerprint=str(k), tags=TAGS), RESULT)
        tracker.deliver()
        tables.append(tracker.collect("functions", FunctionSpec).sort_values("fingerprint", ignore_index=True))
    here, there = (table.drop(columns=["run_id", "started", "seconds"]) for table in tables)
    assert here.equals(there) and len(here) == 2
