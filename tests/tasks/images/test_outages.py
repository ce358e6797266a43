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

from face_runs import EPOCHS, ONE_RUN, states, undisturbed_run, wait_for_the_middle
from processes import DEADLINE, until
from servers import black_hole

pytestmark = [pytest.mark.usefixtures("signals"), pytest.mark.slow]

# The command line without the export of the model, which takes seconds and is tested elsewhere, and in a hurry.
REGCLS = """
import sys
from regcls.cli import main
from regcls.tracking import courier, tracker
tracker.Tracker.log_model = lambda *args, **kwargs: None
courier.LONGEST_PAUSE, tracker.PATIENCE = 0.5, 1.0
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def root(make_faces, one_core):
    return make_faces({**ONE_RUN, "tracking": {"state_epochs": 2}})


@pytest.fixture
def server(make_server):
    return make_server()


@pytest.fixture
def regcls(start, server):
    """Start a command of regcls in a project; with `ended`, wait for its end: exit code, and what all commands there have said."""

    def regcls(root, *arguments, ended=True):
        hurry = {"MAX_RETRIES": "1", "BACKOFF_FACTOR": "0", "BACKOFF_JITTER": "0", "TIMEOUT": "3"}
        environment = server.environment | {f"MLFLOW_HTTP_REQUEST_{name}": value for name, value in hurry.items()}
        process = start(root, sys.executable, "-c", REGCLS, *arguments, environment=environment)
        return (process.wait(DEADLINE), (root / "output.txt").read_text()) if ended else process

    return regcls


def reached(root, process, epoch):
    def there():
        assert process.poll() is None, (root / "output.txt").read_text()
        return any(file.name >= f"state-{epoch:05d}" for file in states(root))

    until(there, f"epoch {epoch}")


def assert_equals_an_undisturbed_one(server, root, folder):
    """There is one run at the server; it is FINISHED, and has the history and the weights of one that nobody has disturbed."""
    result, weights = undisturbed_run(root, folder)
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


def test_over_an_outage_and_sigterm_another_machine_goes_on_where_the_first_stopped(root, regcls, server, tmp_path):
    process = regcls(root, "train", "imdb_wiki", ended=False)
    wait_for_the_middle(root, process)
    server.kill()
    reached(root, process, 5)
    server.start()
    reached(root, process, 7)
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 143
    said = (root / "output.txt").read_text()
    # By what it was telling the server of when that was killed: numbers, or the files of a state.
    assert "no answer from the tracking server" in said or f"{server.uri} cannot store files at the moment" in said
    assert f"{server.uri} takes what it is told again" in said
    assert said.splitlines()[-1] == "regcls: told to end. Finished runs are kept; the same command goes on from here."
    client = MlflowClient(server.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("regcls").experiment_id])
    assert (run.info.status, run.data.tags["stopped"]) == ("KILLED", "interrupted")
    newest = states(root)[-1].stem

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(root, elsewhere, ignore=shutil.ignore_patterns(".regcls", "output.txt", "runs"))
    code, said = regcls(elsewhere, "train", "imdb_wiki")
    assert code == 0, said
    assert f"run {run.info.run_id} was interrupted elsewhere; it goes on here" in said and f"goes on from {newest}.pt" in said
    assert assert_equals_an_undisturbed_one(server, root, tmp_path).info.run_id == run.info.run_id
    code, said = regcls(root, "train", "imdb_wiki")  # the first machine comes back
    assert code == 0 and "0 runs trained, 1 were there already" in said and not states(root)


def test_after_kill_9_and_without_a_server_nothing_starts_and_with_it_the_same_run_goes_on(root, regcls, server, tmp_path):
    process = regcls(root, "train", "imdb_wiki", ended=False)
    wait_for_the_middle(root, process)
    server.kill()
    reached(root, process, 6)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before, began = states(root), time.monotonic()
    code, said = regcls(root, "train", "imdb_wiki")
    assert code == 2 and time.monotonic() - began < 15
    assert said.splitlines()[-1].startswith("regcls: error: no answer from the tracking server")
    assert states(root) == before
    server.start()
    code, said = regcls(root, "train", "imdb_wiki")
    assert code == 0, said
    assert "1 run(s) of a process that has ended were not delivered yet" in said and "goes on from" in said
    assert_equals_an_undisturbed_one(server, root, tmp_path)


def test_a_server_that_never_comes_back_keeps_no_run_from_its_end_and_sync_delivers_it_later(root, regcls, server, tmp_path):
    process = regcls(root, "train", "imdb_wiki", ended=False)
    wait_for_the_middle(root, process)
    server.kill()
    assert process.wait(DEADLINE) == 2
    last = (root / "output.txt").read_text().splitlines()[-1]
    assert "1 run(s) could not be delivered" in last and "regcls sync" in last and not states(root)
    assert regcls(root, "sync")[0] == 2
    server.start()
    assert "1 run of this machine not at the tracking server yet" in regcls(root, "compare")[1]
    code, said = regcls(root, "sync")
    assert code == 0 and "1 run(s) delivered to http" in said
    assert_equals_an_undisturbed_one(server, root, tmp_path)
    code, said = regcls(root, "sync")
    assert code == 0 and said.splitlines()[-1] == "nothing else waits to be delivered"
    code, said = regcls(root, "train", "imdb_wiki")
    assert code == 0 and "0 runs trained, 1 were there already" in said


def test_a_server_that_never_answers_is_a_clear_error_before_any_training(root, start):
    with black_hole() as uri:
        began = time.monotonic()
        process = start(root, sys.executable, "-m", "regcls", "train", "imdb_wiki", environment={"MLFLOW_TRACKING_URI": uri})
        assert process.wait(DEADLINE) == 2 and time.monotonic() - began < 20  # with the seconds that Python takes to start
    last = (root / "output.txt").read_text().splitlines()[-1]
    assert last.startswith(f"regcls: error: no answer from the tracking server {uri}") and not states(root)
