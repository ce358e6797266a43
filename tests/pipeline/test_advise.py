"""`regcls advise` and `regcls.advise`: a plan within the budget, an answer with evidence, and what goes on after an interruption."""

import os
import re
import socket
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

import regcls
from regcls.cli import main
from regcls.errors import UserError
from regcls.params import load_params
from regcls.pipeline.advise import advise, seconds
from regcls.processes import process_identity
from regcls.tasks.table.runs import TableSpec
from regcls.tracking.tracker import Tracker

DIABETES = {"diabetes": {"grids": {"main": {"classes": [5, 10], "lambdas": [0.1, 1.0, 10.0, 100.0], "seeds": 1}}}}


@pytest.mark.parametrize(("text", "value"), [("90s", 90), ("10m", 600), ("1.5h", 5400), (" 2 M ", 120), (".5s", 0.5)])
def test_budgets(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "10", "ten", "0m", "-5m", "5d", "1m30s"])
def test_other_budgets_are_refused(text):
    with pytest.raises(UserError, match="write a time above 0 as in 90s, 10m or 1.5h"):
        seconds(text)


@pytest.fixture
def project(make_project, monkeypatch):
    root = make_project(DIABETES)
    monkeypatch.chdir(root)
    return root


def test_the_answer_its_evidence_and_the_parent_of_its_runs(project, capsys):
    assert main(["advise", "diabetes", "--budget", "10m", "--methods", "reg+cls", "focal-r(beta=0.5,gamma=2)"]) == 0
    out, err = capsys.readouterr()
    assert "30 networks for reg, reg+cls, focal-r(beta=0.5,gamma=2); about" in err
    first, second, *_ = [line for line in out.splitlines() if line.startswith(("reg+cls", "focal-r"))]
    assert re.match(r"reg\+cls \(classes .*; λ .*\): [a-z0-9 %]+; the (lower|higher|same) test RMSE", first) and second.startswith(
        "focal-r(beta=0.5,gamma=2): "
    )
    page = (project / "advice" / "diabetes" / "diabetes" / "index.html").read_text()
    tracker = Tracker(project, experiment="regcls")
    runs = tracker.collect("diabetes", TableSpec)
    assert len(runs) == 11 and all(run_id in page for run_id in runs["run_id"])
    client = mlflow.MlflowClient(tracker.uri)
    parents = {client.get_run(run_id).data.tags["mlflow.parentRunId"] for run_id in runs["run_id"]}
    (parent,) = map(client.get_run, parents)
    assert (parent.info.run_name, parent.info.status) == ("advice · diabetes", "FINISHED")
    text = client.download_artifacts(parent.info.run_id, "advice.txt")
    assert first in Path(text).read_text()


def test_an_interrupted_call_goes_on_with_its_plan_however_fast_the_machine_is_now(project, monkeypatch, capsys):
    params = load_params(project / "params.yaml")
    whole = "regcls.tasks.table.advice._seconds_per_step"
    monkeypatch.setattr(whole, lambda *_: 0.01)
    monkeypatch.setattr("regcls.pipeline.advise.train_grids", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        advise(params, project, "diabetes", budget="5s")
    planned = re.search(r"(\d+) networks", capsys.readouterr().err)[1]
    monkeypatch.undo()
    monkeypatch.chdir(project)
    monkeypatch.setattr(whole, lambda *_: 1e-9)
    found = advise(params, project, "diabetes", budget="5s")
    assert found.plan.level > 0 and f"{planned} networks" in capsys.readouterr().err
    assert any("To fit the budget:" in line for line in found.summary().splitlines())
    again = advise(params, project, "diabetes", budget="5s")
    assert again.report.answers == found.report.answers and "0 runs trained" in capsys.readouterr().err
    tracker = Tracker(project, experiment="regcls")
    runs = mlflow.MlflowClient(tracker.uri).search_runs([tracker.experiment_id], "tags.`regcls.advice` = 'diabetes'")
    states = {run.info.status for run in runs}
    assert states == {"KILLED", "FINISHED"}


def test_the_parent_that_a_killed_process_has_left_is_ended(project):
    tracker = Tracker(project, experiment="regcls")
    tags = {"regcls.advice": "diabetes", "regcls.host": socket.gethostname()}
    client = mlflow.MlflowClient(tracker.uri)
    left = {name: client.create_run(tracker.experiment_id, tags={**tags, "regcls.process": process}).info.run_id for name, process in (("dead", "999999999-1"), ("own", process_identity(os.getpid())))}  # fmt: skip
    with tracker.parent("advice · diabetes", {"regcls.advice": "diabetes"}):
        states = {name: client.get_run(run_id).info.status for name, run_id in left.items()}
    assert states == {"dead": "KILLED", "own": "RUNNING"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["diabetes", "--budget", "soon"], "--budget = soon: write a time above 0"),
        (["diabetes", "--budget", "0.01s"], "--budget: the smallest plan, 9 networks, takes about [0-9]+ s here: allow more"),
        (["diabetes", "--methods", "magic"], "--methods: there is no method magic"),
        (["diabetes", "--methods", "reg"], "--methods names no method to compare with reg"),
        (["dibetes"], "dibetes is not a data set in params.yaml; did you mean diabetes"),
        (["functions"], "regcls advise is for tables, images and depth maps: train functions in full with: regcls train functions"),
    ],
)
@pytest.mark.usefixtures("project")
def test_mistakes_in_words(capsys, arguments, message):
    assert main(["advise", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_python_users_get_the_same_answer_from_arrays_and_frames(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the defaults are those beside the package
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"size": rng.normal(size=90), "kind": rng.choice(["a", "b"], 90), "patient": np.arange(90) // 2})
    target = 3 * table["size"] + (table["kind"] == "b") + 0.1 * rng.normal(size=90)
    patients = table.pop("patient")
    call = {
        "groups": patients,
        "budget": "20s",
        "methods": ["reg+cls"],
        "unit": "mg",
        "folder": tmp_path / "out",
        "epochs": 3,
        "milestones": [],
    }
    found = regcls.advise(table, target, **call)
    assert found.summary().startswith("reg+cls (classes ") and "test RMSE (mg): reg" in found.summary() and found.page.is_file()
    assert found.report.files["main.csv"].startswith("method,classes,lambda,rmse_all")
    again = regcls.advise(table, target, **call)
    assert again.summary() == found.summary()
    with pytest.raises(UserError, match="X has a column target: rename it"):
        regcls.advise(table.assign(target=1), target)
    for other, message in (
        ({"X": np.zeros((3, 4, 5))}, r"X is an array \(3, 4, 5\) of float64: give numbers \(N, D\)"),
        ({"X": np.array([["a"], ["b"]])}, "X is an array .* of <U1: give numbers"),
        ({"y": target[:50]}, "the index of the target differs from that of X"),
        ({"y": target.to_numpy()[:50]}, r"X has 90 rows, but the target has the shape \(50,\)"),
        ({"groups": [1, 2]}, r"X has 90 rows, but the group has the shape \(2,\)"),
    ):
        with pytest.raises(UserError, match=message):
            regcls.advise(**({"X": table, "y": target} | other))
    with pytest.raises(AttributeError, match="module regcls has no attribute advice"):
        regcls.advice  # noqa: B018
