"""The servers that other tests rely on behave as named."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests
from mlflow.tracking import MlflowClient

from processes import wait_until
from servers import Postgres, TrackingServer, black_hole, gate

Make = Callable[..., TrackingServer]


def status_of(server: TrackingServer, **options: object) -> int:
    """The status of a response that needs the store."""
    return requests.get(f"{server.uri}/api/2.0/mlflow/experiments/get?experiment_id=0", timeout=10, **options).status_code


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restarted_server_keeps_its_address_runs_and_files(make_server: Make, end: str, tmp_path: Path) -> None:
    server = make_server()
    client, file = MlflowClient(server.uri), tmp_path / "a.txt"
    run_id = client.create_run("0").info.run_id
    file.write_text("kept")
    client.log_artifact(run_id, str(file))
    getattr(server, end)()
    with pytest.raises(requests.ConnectionError):
        status_of(server)
    server.start()
    assert Path(client.download_artifacts(run_id, "a.txt", str(tmp_path))).read_text() == "kept"


@pytest.mark.slow
def test_a_real_mlflow_server_takes_over_the_data_of_a_forked_one(make_server: Make, tmp_path: Path) -> None:
    forked, file = make_server(), tmp_path / "a.txt"
    file.write_text("kept")
    run_id = MlflowClient(forked.uri).create_run("0").info.run_id
    MlflowClient(forked.uri).log_artifact(run_id, str(file))
    forked.stop()
    real = make_server(command=True, store=forked.store, artifacts=forked.artifacts)
    assert Path(MlflowClient(real.uri).download_artifacts(run_id, "a.txt", str(tmp_path))).read_text() == "kept"
    real.stop()
    assert not real.answers()


def test_a_server_with_basic_auth_refuses_anonymous_requests(make_server: Make) -> None:
    server = make_server(auth=True)
    login = (server.environment["MLFLOW_TRACKING_USERNAME"], server.environment["MLFLOW_TRACKING_PASSWORD"])
    assert (status_of(server), status_of(server, auth=("admin", "wrong")), status_of(server, auth=login)) == (401, 401, 200)


def test_a_frozen_server_accepts_connections_and_answers_once_thawed(make_server: Make) -> None:
    server = make_server()
    server.freeze()
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{server.uri}/health", timeout=0.3)
    server.thaw()
    assert server.answers()


def test_a_black_hole_accepts_connections_and_never_answers() -> None:
    with black_hole() as url, pytest.raises(requests.ReadTimeout):
        requests.get(url, timeout=0.3)


def test_a_gate_forwards_refuses_or_swallows(make_server: Make) -> None:
    server = make_server()
    with gate(server.port) as way:
        health = f"http://127.0.0.1:{way.port}/health"
        assert requests.get(health, timeout=5).ok
        way.mode = "refused"
        with pytest.raises(requests.ConnectionError):
            requests.get(health, timeout=5)
        way.mode = "silent"
        with pytest.raises(requests.ReadTimeout):
            requests.get(health, timeout=0.3)
        way.mode = "open"
        assert requests.get(health, timeout=5).ok


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restarted_postgresql_keeps_committed_data(postgres: Postgres, make_server: Make, end: str) -> None:
    client = MlflowClient(make_server(store=postgres.make_store(f"back_after_{end}")).uri)
    run_id = client.create_run("0").info.run_id
    getattr(postgres, end)()
    postgres.start()
    assert client.get_run(run_id).info.status == "RUNNING"


@pytest.mark.slow
def test_no_server_outlives_killed_tests(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from nursery import Nursery; from servers import TrackingServer\n"
        "folder = Path(sys.argv[1]); server = TrackingServer(folder / 'server', Nursery(folder)).start()\n"
        "(folder / 'pid').write_text(str(server._pid)); time.sleep(600)"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    tests = subprocess.Popen([sys.executable, "-c", code, tmp_path], env=os.environ | {"PYTHONPATH": path})
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the server's start")
    server = int((tmp_path / "pid").read_text())
    assert psutil.pid_exists(server)
    tests.send_signal(signal.SIGKILL)
    tests.wait()
    wait_until(lambda: not psutil.pid_exists(server) or psutil.Process(server).status() == psutil.STATUS_ZOMBIE, "the server's end")
