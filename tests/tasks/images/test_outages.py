"""Training on faces with a tracking server that is killed and brought back or not, and processes that are killed, told to end, or replaced
by another machine's. Real processes, real servers."""

import os
import shutil
import signal
import sys
import time

import pytest
import torch
from mlflow.tracking import MlflowClient

from face_runs import EPOCHS, ONE_RUN, states, uninterrupted_run, wait_until_halfway
from processes import DEADLINE, wait_until
from regcls.cli import main
from regcls.tracking.tracker import Tracker
from servers import black_hole

pytestmark = [pytest.mark.usefixtures("signals"), pytest.mark.slow]

# The command line in a hurry, without exporting the model, which takes seconds and is tested elsewhere.
REGCLS = """
import sys
from regcls.cli import main
from regcls.tracking import courier, tracker
tracker.Tracker.log_model = lambda *args, **kwargs: None
courier.LONGEST_PAUSE, tracker.PATIENCE = 0.5, 1.0
sys.exit(main(sys.argv[1:]))
"""


HURRY = {
    f"MLFLOW_HTTP_REQUEST_{name}": value
    for name, value in (("MAX_RETRIES", "1"), ("BACKOFF_FACTOR", "0"), ("BACKOFF_JITTER", "0"), ("TIMEOUT", "3"))
}


@pytest.fixture
def root(make_faces, one_core):
    return make_faces({**ONE_RUN, "tracking": {"state_epochs": 2}})


@pytest.fixture
def server(make_server):
    return make_server()


@pytest.fixture
def regcls(start, server):
    """Start a regcls command in a project; with `ended`, wait for its end and return its exit code and all output so far."""

    def regcls(root, *arguments, ended=True):
        process = start(root, sys.executable, "-c", REGCLS, *arguments, environment=server.environment | HURRY)
        return (process.wait(DEADLINE), (root / "output.txt").read_text()) if ended else process

    return regcls


@pytest.fixture
def here(server, monkeypatch, capsys):
    """Run a command in this process, which is quicker, once it is to succeed; return its exit code and output."""

    def here(root, *arguments):
        with monkeypatch.context() as patch:
            patch.chdir(root)
            for name, value in (server.environment | HURRY).items():
                patch.setenv(name, value)
            patch.setattr(Tracker, "log_model", lambda *args, **kwargs: None)
            capsys.readouterr()
            return main(list(arguments)), "".join(capsys.readouterr())

    return here


def reached(root, process, epoch):
    def there():
        assert process.poll() is None, (root / "output.txt").read_text()
        return any(file.name >= f"state-{epoch:05d}" for file in states(root))

    wait_until(there, f"epoch {epoch}")


def assert_equals_uninterrupted_run(server, root, folder):
    """Assert that the server has one run, which is FINISHED with the history and weights of an uninterrupted one."""
    result, weights = uninterrupted_run(root, folder)
    client = MlflowClient(server.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("regcls").experiment_id])
    assert run.info.status == "FINISHED" and "stopped" not in run.data.tags
    for name in result.history[0].metrics:
        if not name.startswith("val/n/"):
            points = client.get_metric_history(run.info.run_id, f"epochs/{name}")
            assert [point.step for point in points] == list(range(1, EPOCHS + 1)), name
            assert [point.value for point in points] == [epoch.metrics[name] for epoch in result.history], name
    assert run.data.metrics["test/mae/all"] == result.metrics["test/mae/all"]
    (folder / "fetched").mkdir()
    last = torch.load(client.download_artifacts(run.info.run_id, "checkpoints/last.pt", str(folder / "fetched")), weights_only=True)
    assert all(torch.equal(value, weights[name]) for name, value in last["weights"].items())
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {"checkpoints", "predictions.parquet"}
    assert "resume" not in {file.path for file in client.list_artifacts(run.info.run_id)}
    return run


def test_another_machine_resumes_after_an_outage_and_sigterm(root, regcls, here, server, tmp_path):
    process = regcls(root, "train", "imdb_wiki", ended=False)
    wait_until_halfway(root, process)
    server.kill()
    reached(root, process, 5)
    server.start()
    reached(root, process, 7)
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 143
    output = (root / "output.txt").read_text()
    # By what it was sending when the server was killed: metrics, or the files of a state.
    assert "no answer from the tracking server" in output or f"{server.uri} cannot store files at the moment" in output
    assert f"{server.uri} accepts data again" in output
    assert output.splitlines()[-1] == "regcls: terminated. Finished runs are kept; the same command resumes from here."
    client = MlflowClient(server.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("regcls").experiment_id])
    assert (run.info.status, run.data.tags["stopped"]) == ("KILLED", "interrupted")
    newest = states(root)[-1].stem

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(root, elsewhere, ignore=shutil.ignore_patterns(".regcls", "output.txt", "runs"))
    code, output = here(elsewhere, "train", "imdb_wiki")
    assert code == 0, output
    assert f"run {run.info.run_id} was interrupted elsewhere; it resumes here" in output and f"resumes from {newest}.pt" in output
    assert assert_equals_uninterrupted_run(server, root, tmp_path).info.run_id == run.info.run_id
    code, output = here(root, "train", "imdb_wiki")  # the first machine comes back
    assert code == 0 and "0 runs trained, 1 were there already" in output and not states(root)


def test_after_kill_9_a_run_resumes_only_once_the_server_is_back(root, regcls, here, server, tmp_path):
    process = regcls(root, "train", "imdb_wiki", ended=False)
    wait_until_halfway(root, process)
    server.kill()
    reached(root, process, 6)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before, began = states(root), time.monotonic()
    code, output = regcls(root, "train", "imdb_wiki")
    assert code == 2 and time.monotonic() - began < 15
    assert output.splitlines()[-1].startswith("regcls: error: no answer from the tracking server")
    assert states(root) == before
    server.start()
    code, output = here(root, "train", "imdb_wiki")
    assert code == 0, output
    assert "1 run(s) of an earlier process were not delivered yet" in output and "resumes from" in output
    assert_equals_uninterrupted_run(server, root, tmp_path)


def test_a_run_finishes_without_its_server_and_sync_delivers_it_later(root, regcls, here, server, tmp_path):
    process = regcls(root, "train", "imdb_wiki", ended=False)
    wait_until_halfway(root, process)
    server.kill()
    assert process.wait(DEADLINE) == 2
    last = (root / "output.txt").read_text().splitlines()[-1]
    assert "1 run(s) could not be delivered" in last and "regcls sync" in last and not states(root)
    assert regcls(root, "sync")[0] == 2
    server.start()
    assert "1 run of this machine not on the tracking server yet" in regcls(root, "compare")[1]
    code, output = regcls(root, "sync")
    assert code == 0 and "1 run(s) delivered to http" in output
    assert_equals_uninterrupted_run(server, root, tmp_path)
    code, output = here(root, "sync")
    assert code == 0 and output.splitlines()[-1] == "nothing else waits to be delivered"
    code, output = here(root, "train", "imdb_wiki")
    assert code == 0 and "0 runs trained, 1 were there already" in output


def test_a_silent_server_is_a_clear_error_before_training(root, start):
    with black_hole() as uri:
        began = time.monotonic()
        process = start(root, sys.executable, "-m", "regcls", "train", "imdb_wiki", environment={"MLFLOW_TRACKING_URI": uri})
        assert process.wait(DEADLINE) == 2 and time.monotonic() - began < 20  # including the seconds that Python takes to start
    last = (root / "output.txt").read_text().splitlines()[-1]
    assert last.startswith(f"regcls: error: no answer from the tracking server {uri}") and not states(root)
