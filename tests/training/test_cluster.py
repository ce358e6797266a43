"""Training on a real Ray cluster of two nodes, and what is left when a node, the head or the main process dies."""

import os
import shutil
import signal
import sqlite3
import sys
from collections import Counter
from contextlib import closing

import pytest
import torch
import yaml

from conftest import overlay
from face_runs import states
from processes import REGCLS, run_regcls, runs, wait_until
from ray_cluster import running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("all_cores")]

EPOCHS = 20  # a few seconds
PATIENCE = 300.0  # seconds: a worker on a busy core takes a minute to start
FACES = {
    "compute": {"processes": "auto", "checkpoint_minutes": 0.01},
    "imdb_wiki": {
        "training": {"epochs": EPOCHS, "milestones": [10], "width": 4, "batch_size": 16},
        "grids": {"table3": {"methods": ["reg", "reg+cls"]}},
    },
}


@pytest.fixture(scope="module")
def cluster():
    with running("a", "b") as cluster:
        yield cluster


def change(root, **compute):
    file = root / "params.yaml"
    file.write_text(yaml.safe_dump(overlay(yaml.safe_load(file.read_text()), {"compute": compute}), sort_keys=False))


@pytest.fixture
def project(make_faces, cluster):
    """A project that trains two runs on the cluster."""
    root = make_faces(FACES)
    change(root, engine="ray", address=cluster.address)
    return root


@pytest.fixture
def train(start):
    def train(root, dataset="imdb_wiki", **environment):
        return start(root, sys.executable, "-c", REGCLS, "train", dataset, environment=environment)

    return train


def output(root):
    return (root / "output.txt").read_text()


def ends(process, root, code=0):
    assert process.wait(PATIENCE) == code, output(root)
    return output(root)


def results(root):
    """By fingerprint, of FINISHED runs: the final weights, the history, and the points of MLflow; without timings."""
    found = {}
    query = "SELECT key, step, value FROM metrics WHERE run_uuid = ? AND key NOT LIKE '%seconds%' AND key NOT LIKE '%per_second' AND key NOT LIKE '%waiting%'"
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        for run_id, status, fingerprint in runs(root):
            assert status == "FINISHED"
            last = torch.load(root / "mlartifacts" / "0" / run_id / "artifacts" / "checkpoints" / "last.pt", weights_only=True)
            history = [(epoch["number"], epoch["metrics"]) for epoch in last["history"]]
            weights = {name: value.tolist() for name, value in last["weights"].items()}
            found[fingerprint] = weights, history, sorted(connection.execute(query, [run_id]))
    return found


reference = {}


@pytest.fixture
def undisturbed(project, train, tmp_path):
    """What the same runs give on this machine; trained once."""
    if not reference:
        local = tmp_path / "local"
        shutil.copytree(project, local)
        with closing(sqlite3.connect(local / "mlflow.db")) as connection, connection:
            connection.execute("UPDATE experiments SET artifact_location = ?", [f"{local}/mlartifacts/0"])
            connection.execute("UPDATE regcls_home SET folder = ?", [str(local)])
        change(local, engine="local")
        ends(train(local), local)
        reference.update(results(local))
        assert len(reference) == 2
    return reference


def test_a_run_goes_on_elsewhere_when_its_node_is_killed(project, train, cluster, undisturbed):
    process = train(project)
    wait_until(
        lambda: len({file.parent for file in states(project)}) == 2 or process.poll() is not None, "a state of both runs", seconds=PATIENCE
    )
    assert cluster.trains("a") and cluster.trains("b"), output(project)
    cluster.kill("b")
    text = ends(process, project)
    cluster.add("b")
    assert text.count("is lost; another one goes on, from the last state") == 1 and "resumes from state-" in text
    assert "2 runs trained, 0 were there already, 0 failed" in text
    assert results(project) == undisturbed
    assert states(project) == [] and Counter(status for _, status, _ in runs(project)) == {"FINISHED": 2}


def test_after_sigterm_to_all_processes_runs_resume(project, train, undisturbed):
    process = train(project)
    wait_until(lambda: states(project) or process.poll() is not None, "a state", seconds=PATIENCE)
    os.killpg(process.pid, signal.SIGTERM)
    ends(process, project, 143)
    assert {status for _, status, _ in runs(project)} == {"KILLED"}
    before = {run_id for run_id, _, _ in runs(project)}
    text = ends(train(project), project)
    assert "resumes from state-" in text
    assert results(project) == undisturbed and before <= {run_id for run_id, _, _ in runs(project)}


def test_when_the_head_is_killed_finished_runs_are_kept_and_states_resume(project, train, undisturbed):
    with running("a") as own:
        change(project, address=own.address)
        process = train(project)
        wait_until(lambda: states(project) or process.poll() is not None, "a state", seconds=PATIENCE)
        own.kill("head")
        text = ends(process, project, 2)
    assert f"the connection to the Ray cluster at {own.address} is lost" in text
    change(project, engine="local")
    assert "resumes from state-" in ends(train(project), project)
    assert results(project) == undisturbed


def test_two_drivers_train_each_run_once(project, train, tracking_server, tmp_path):
    second = tmp_path / "second"
    shutil.copytree(project, second)
    environment = {**tracking_server.environment, "MLFLOW_EXPERIMENT_NAME": "two drivers"}
    processes = {root: train(root, **environment) for root in (project, second)}
    texts = [ends(process, root) for root, process in processes.items()]
    assert sorted("2 runs trained" in text for text in texts) == [False, True]
    assert sum("another process on the cluster is training imdb_wiki; waiting for it to finish" in text for text in texts) == 1
    assert sum("0 runs trained, 2 were there already" in text for text in texts) == 1


def test_small_networks_on_nodes_equal_those_on_this_machine(make_project, cluster, tmp_path):
    found = []
    for engine in ("local", "ray"):
        root = make_project({"compute": {"engine": engine, "address": cluster.address, "processes": 2}}, tmp_path / engine)
        if found:
            shutil.copytree(tmp_path / "local" / "data", root / "data")
        else:
            assert run_regcls(root, "prepare", "functions").returncode == 0
        done = run_regcls(root, "train", "functions")
        assert done.returncode == 0, done.stderr
        with closing(sqlite3.connect(root / "mlflow.db")) as connection:
            query = "SELECT t.value, m.key, m.step, m.value FROM metrics m JOIN tags t USING (run_uuid) WHERE t.key = 'fingerprint'"
            found.append(sorted(row for row in connection.execute(query) if "seconds" not in row[1]))
    assert found[0] == found[1] and len(found[0]) > 20


def test_what_the_cluster_does_not_have(project, cluster):
    change(project, processes=3)
    done = run_regcls(project, "train", "imdb_wiki")
    assert done.returncode == 2 and "Traceback" not in done.stderr and runs(project) == []
    assert f"compute.processes = 3, but the cluster at {cluster.address} has 0 GPUs and 2 CPUs on 3 nodes" in done.stderr
