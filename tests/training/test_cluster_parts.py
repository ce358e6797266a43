"""The parts of training on a cluster, without one: paths that travel, data from the DVC remote, places, lost workers."""

import pickle
import shutil
import subprocess
import sys
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from conftest import ROOT
from network import free_port
from regcls.data.store import write_prepared
from regcls.errors import UserError
from regcls.params import load_params
from regcls.training import worker
from regcls.training.checkpoint import Checkpoints
from regcls.training.cluster import connection
from regcls.training.cluster.connection import LOSSES, NodePool, connect
from regcls.training.cluster.copies import Prepared, _project_files, scratch
from regcls.training.cluster.travel import Travel
from regcls.training.loop import StoppedError
from regcls.training.places import _node_places, smallest

COMPUTE = replace(load_params(ROOT / "params.yaml").compute, engine="ray")


@dataclass
class Job:
    """Something with paths."""

    prepared: Path
    checkpoints: Path
    other: Path = Path("/tmp/elsewhere")


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


def test_files_of_checkpoints_travel_with_their_paths_and_other_paths_alone(tmp_path):
    here, there = Travel(tmp_path / "here"), Travel(tmp_path / "there")
    write(tmp_path / "here" / "checkpoints" / "run", state_pt="weights", state_json="{}")
    write(tmp_path / "here" / "journal", secret_json="{}")
    job = there.loads(here.dumps(Job(tmp_path / "data", tmp_path / "here" / "checkpoints" / "run")))
    assert job == Job(tmp_path / "data", tmp_path / "there" / "checkpoints" / "run")
    assert {file.name: file.read_text() for file in job.checkpoints.iterdir()} == {"state.pt": "weights", "state.json": "{}"}
    assert [file.name for file in (tmp_path / "there").iterdir()] == ["checkpoints"]
    (job.checkpoints / "state.pt").write_text("newer")
    assert here.loads(there.dumps([job.checkpoints / "state.pt"])) == [tmp_path / "here" / "checkpoints" / "run" / "state.pt"]
    assert (tmp_path / "here" / "checkpoints" / "run" / "state.pt").read_text() == "newer"


def saved(folder, *, batch, best=0):
    """Checkpoints in a folder, with one more state."""
    checkpoints = Checkpoints(folder, fingerprint="f")
    if best:
        checkpoints.save_best({}, epoch=best)
    checkpoints.save({"best": {"val": {"epoch": best}}}, epoch=best, batch=batch)
    return checkpoints


@pytest.mark.parametrize("what", ["the folder", "the files of the newest state"])
def test_a_state_counts_only_when_all_of_it_is_there(tmp_path, monkeypatch, what):
    """Of what travels, a .json that vouches for its .pt comes after it, and a state after its best weights."""
    checkpoints, written = saved(tmp_path / "here" / "run", batch=1, best=1), []
    monkeypatch.setattr("regcls.training.cluster.travel.write_atomically", lambda path, write: written.append(path.name))
    Travel(tmp_path / "there").loads(
        Travel(tmp_path / "here").dumps(tmp_path / "here" / "run" if what == "the folder" else [*checkpoints.newest().values()])
    )
    best, state = "best-00001-0000000", "state-00001-0000001"
    assert sorted(written) == [f"{best}.json", f"{best}.pt", f"{state}.json", f"{state}.pt"]
    assert all(written.index(f"{name}.pt") < written.index(f"{name}.json") for name in (best, state)) and written[-1] == f"{state}.json"


def test_a_damaged_state_on_the_driver_does_not_outlive_newer_ones_that_a_node_sends(tmp_path):
    """A node resumes from the state before a damaged one, so its next state has an earlier name."""
    node, driver = Travel(tmp_path / "node"), Travel(tmp_path / "driver")
    kept = Checkpoints(tmp_path / "driver" / "run", fingerprint="f")

    def send(checkpoints):
        files = driver.loads(node.dumps(list(checkpoints.newest().values())))
        kept.prune(files[-1].stem)

    for batch in (100, 300):
        send(saved(tmp_path / "node" / "run", batch=batch))
    (kept.folder / "state-00000-0000300.pt").write_bytes(b"damaged")
    shutil.rmtree(tmp_path / "node")
    send(saved(tmp_path / "node" / "run", batch=200))
    assert kept.load(device="cpu").file.stem == "state-00000-0000200" and kept.load(device="cpu").damaged == ()


def test_a_path_without_files_travels(tmp_path):
    travel = Travel(tmp_path / "there")
    assert travel.loads(Travel(tmp_path / "here").dumps(tmp_path / "here" / "new")) == tmp_path / "there" / "new"


@pytest.fixture
def shared_project(tmp_path, monkeypatch):
    """A project with prepared data, which are pushed to a DVC remote in a folder."""
    import numpy as np
    import pandas as pd

    root = tmp_path / "project"
    folder = root / "data" / "faces" / "prepared"
    folder.parent.mkdir(parents=True)
    write_prepared(folder, arrays={"images": np.arange(6)}, table=pd.DataFrame({"age": [1.0]}), made_from={})
    (root / "params.yaml").write_text("datasets: [faces]\n")
    (root / "dvc.yaml").write_text(
        "stages:\n  prepare:\n    matrix: {dataset: '${datasets}'}\n    cmd: 'true ${item.dataset}'\n"
        "    outs: [{'data/${item.dataset}/prepared': {persist: true}}]\n"
    )
    for words in ("init -q --no-scm", f"remote add -q -d team {tmp_path}/remote", "commit -q -f", "push -q"):
        subprocess.run([sys.executable, "-m", "dvc", *words.split()], cwd=root, check=True)
    monkeypatch.setenv("REGCLS_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(worker, "say", print, raising=False)
    yield folder
    _project_files.cache_clear()


@pytest.mark.slow
def test_a_node_pulls_what_it_does_not_see_once(shared_project, capfd):
    prepared = Prepared.of(shared_project)
    assert prepared.find() == shared_project
    before = {file.name: file.read_bytes() for file in shared_project.iterdir()}
    shutil.rmtree(shared_project.parents[2])
    copy = prepared.find()
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before and "meta.json" in before
    assert "pulls faces from the DVC remote, once" in capfd.readouterr().out
    shutil.rmtree(shared_project.parents[3] / "remote")
    assert prepared.find() == copy and "pulls" not in capfd.readouterr().out


def test_what_training_leaves_on_a_node_is_for_its_user_only(tmp_path, monkeypatch):
    monkeypatch.setenv("REGCLS_SCRATCH", str(tmp_path / "scratch"))
    assert scratch().stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "scratch").stat().st_mode & 0o777 != 0o700  # the user's own folder stays as it is
    scratch().chmod(0o755)
    with pytest.raises(UserError, match=r"is not a folder of yours that only you can enter\. Remove it, or set REGCLS_SCRATCH"):
        scratch()


@pytest.mark.slow
def test_what_cannot_be_pulled_is_explained(shared_project):
    (shared_project / "meta.json").write_text((shared_project / "meta.json").read_text() + "\n")  # another version, not pushed
    prepared = Prepared.of(shared_project)
    shutil.rmtree(shared_project)
    with pytest.raises(UserError, match=r"does not see .*, and dvc pull prepare@faces fails there: .*dvc push"):
        prepared.find()
    with pytest.raises(UserError, match="the project has no DVC remote. Share "):
        replace(prepared, files={}).find()


@dataclass
class Node:
    name: str
    cpus: int
    gpus: int


class StubCluster:
    """The main process's view of a cluster, with messages that the test writes."""

    def __init__(self, home, *nodes):
        self.address, self.home, self.nodes, self.sent, self.messages = "head:6379", home, list(nodes), [], []

    def send(self, *request):
        self.sent.append(request)

    def receive(self, seconds):
        return self.messages.pop(0) if self.messages else None


@pytest.mark.parametrize(
    ("nodes", "changes", "count", "threads", "device"),
    [
        ([(16, 0), (8, 0)], {}, 24, 1, "cpu"),
        ([(16, 0), (8, 0)], {"processes": 3}, 3, 8, "cpu"),
        ([(16, 0), (8, 0)], {"processes": 4}, 4, 5, "cpu"),
        ([(4, 0), (32, 4), (16, 1)], {}, 5, 8, "cuda"),
        ([(32, 4), (16, 1)], {"gpus": 2}, 2, 8, "cuda"),
        ([(2, 4)], {}, 2, 1, "cuda"),
        ([(32, 4)], {"device": "cpu"}, 32, 1, "cpu"),
    ],
)
def test_places_fill_the_cluster(nodes, changes, count, threads, device):
    cluster = StubCluster(Path(), *(Node("n", *node) for node in nodes))
    places = _node_places(replace(COMPUTE, **changes), cluster)
    assert [(place.threads, place.device, place.here) for place in places] == [(threads, device, False)] * count
    assert smallest(places) == places[0]


@pytest.mark.parametrize("changes", [{"processes": 5}, {"gpus": 3}, {"device": "cuda", "gpus": 3}])
def test_what_a_cluster_does_not_have_is_said(changes):
    cluster = StubCluster(Path(), Node("a", 2, 0), *([Node("b", 2, 2)] if "gpus" in changes else []))
    with pytest.raises(UserError, match=r"compute\.\w+ = \d, but the cluster at head:6379 has . GPUs and . CPUs on . nodes?\. Set "):
        _node_places(replace(COMPUTE, **changes), cluster)


@pytest.fixture
def pool(tmp_path, monkeypatch):
    return NodePool(StubCluster(tmp_path), 2, cpus=1, gpus=0, set_up=print, arguments=())


def answer(pool, *message, of=None):
    """What the pool reports when the bridge sends a message."""
    pool._cluster.messages.append((message[0], pool._number if of is None else of, *message[1:]))
    return list(pool.events())


def calls(pool):
    return [request for request in pool._cluster.sent if request[0] == "call"]


def test_a_call_is_made_again_with_newer_files_when_its_worker_is_lost(pool, tmp_path, capsys):
    write(tmp_path / "run", state_pt="old")
    future = pool.submit(print, tmp_path / "run", name="reg s0")
    write(tmp_path / "run", state_pt="new")
    assert answer(pool, "lost", calls(pool)[0][1], "node1") == [] and not future.done()
    assert "reg s0: the process on node1 is lost; another one goes on" in capsys.readouterr().err
    (_, first, before), (_, second, after) = calls(pool)
    assert first == second and b"old" in before and b"new" in after
    assert answer(pool, "event", first, pool._travel.dumps(("on_epoch", "key", 3))) == [("on_epoch", "key", 3)]
    answer(pool, "done", first, pool._travel.dumps((True, 42)))
    assert future.result(0) == 42


def test_a_call_whose_workers_are_all_lost_is_given_up(pool):
    future = pool.submit(print, name="reg s0")
    for _ in range(LOSSES):
        answer(pool, "lost", calls(pool)[0][1], "node1")
    with pytest.raises(UserError, match="reg s0: three processes that trained it were lost, the last one on node1, perhaps because memory"):
        future.result(0)
    assert len(calls(pool)) == LOSSES


def test_losses_count_from_the_last_state(pool):
    future = pool.submit(print, name="reg s0")
    number = calls(pool)[0][1]
    for _ in range(LOSSES):
        answer(pool, "lost", number, "node1")
        answer(pool, "event", number, pool._travel.dumps(("on_state", "key", [])))
    assert not future.done() and len(calls(pool)) == LOSSES + 1


def test_a_pool_that_was_asked_to_stop_starts_nothing_again(pool):
    futures = [pool.submit(print, name=name) for name in ("one", "two")]
    pool.ask_to_stop()
    assert pool._cluster.sent[-1] == ("stop",)
    answer(pool, "lost", calls(pool)[0][1], "node1")
    answer(pool, "stopped", calls(pool)[1][1])
    assert all(isinstance(future.exception(0), StoppedError) for future in futures) and len(calls(pool)) == 2


def test_errors_on_nodes_and_of_the_cluster_reach_the_user(pool):
    future = pool.submit(print, name="reg s0")
    answer(pool, "done", calls(pool)[0][1], pool._travel.dumps((False, UserError("no space left"))))
    with pytest.raises(UserError, match="no space left"):
        future.result(0)
    with pytest.raises(UserError, match=r"the Ray cluster at head:6379 cannot go on: no node is left"):
        answer(pool, "failed", "no node is left that could train")
    with pytest.raises(UserError, match=r"node1 has PyTorch 1\.0, and this machine 2\..* on all nodes"):
        answer(pool, "ready", "node1", "1.0")
    assert answer(pool, "failed", "of an earlier pool", of=-1) == []


def test_an_error_of_the_code_comes_with_its_traceback():
    node = pytest.importorskip("regcls.training.cluster.node", reason="needs Ray, as in requirements.lock")

    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(one)

    for error in (ValueError("wrong"), Odd(1, 2)):
        try:
            raise error
        except Exception as raised:
            _, found = pickle.loads(node._pickled(raised))
        assert "in test_an_error_of_the_code_comes_with_its_traceback" in "".join(traceback.format_exception(found))


def test_without_ray(monkeypatch, tmp_path):
    monkeypatch.setattr(connection, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"compute.engine = ray, but Ray is not installed\. Install requirements.lock"):
        connect("auto", tmp_path)


@pytest.mark.slow
def test_an_address_where_nothing_answers(tmp_path):
    pytest.importorskip("ray", reason="needs Ray, as in requirements.lock")
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(
        UserError, match=f"cannot use the Ray cluster at compute.address = {address}: no answer .*Run this on a node of the"
    ):
        connect(address, tmp_path)
