"""Two clones of the project that track to one SQLite file, and train at the same time."""

import shutil
import sqlite3
import sys
from collections import Counter
from contextlib import closing

import pytest
import yaml

from conftest import SHRUNK, overlay, shipped_tree
from processes import DEADLINE, REGCLS, runs
from regcls.params import load_params
from regcls.pipeline.prepare import prepare

FEW_RUNS = {
    "functions": {"training": {"epochs": 60}, "grids": {"figure3": None, "figure4": None, "figure5": {"repetitions": 2}}},
    "imdb_wiki": {"training": {"epochs": 8}, "grids": {"table3": {"methods": ["reg"]}}},
}


@pytest.fixture(scope="module")
def prepared_functions(tmp_path_factory):
    """The prepared functions, made once."""
    root = tmp_path_factory.mktemp("functions")
    (root / "params.yaml").write_text(yaml.safe_dump(overlay(shipped_tree(), SHRUNK)))
    prepare(load_params(root / "params.yaml"), root, "functions")
    return root / "data" / "functions"


@pytest.fixture
def clones(make_faces, prepared_functions, tmp_path):
    """Two clones with prepared data, and the folder of their store, which is empty; one has another name for it."""
    first, second, shared = make_faces(FEW_RUNS), tmp_path / "second", tmp_path / "shared"
    shutil.copytree(prepared_functions, first / "data" / "functions")
    shared.mkdir()
    (first / "mlflow.db").rename(shared / "mlflow.db")
    with closing(sqlite3.connect(shared / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ?", [f"{shared}/mlartifacts/0"])
    shutil.copytree(first, second)
    (tmp_path / "link").symlink_to(shared)
    return {first: f"sqlite:///{shared}/mlflow.db", second: "sqlite:///../link/mlflow.db"}, shared


@pytest.mark.slow
@pytest.mark.usefixtures("all_cores")
@pytest.mark.parametrize("command", ["train functions", "run functions --classes 5", "train imdb_wiki", "run imdb_wiki --method reg"])
def test_every_run_is_trained_once(clones, start, command):
    uris, shared = clones
    arguments = (sys.executable, "-c", REGCLS, *command.split())
    processes = [start(root, *arguments, environment={"MLFLOW_TRACKING_URI": uri}) for root, uri in uris.items()]
    codes = [process.wait(DEADLINE) for process in processes]
    outputs = [(root / "output.txt").read_text() for root in uris]
    assert codes == [0, 0], outputs
    assert {status for _, status, _ in runs(shared)} == {"FINISHED"}
    assert set(Counter(fingerprint for _, _, fingerprint in runs(shared)).values()) == {1}
    if command.startswith("train"):
        first, second = ((root / "runs" / f"{command.split()[1]}.json").read_text() for root in uris)
        assert first == second
