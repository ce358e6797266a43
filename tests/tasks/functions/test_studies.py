"""The further studies of 1D functions, shrunk, from params to reports."""

import json

import pandas as pd
import pytest

from regcls.cli import main
from regcls.training.likelihoods import MEASURES


@pytest.fixture
def trained(make_project, monkeypatch):
    """Prepare, train and compare a data set, with changes of its section; return reports/<data set>."""

    def make(name, changes):
        root = make_project({"datasets": [name], name: changes})
        monkeypatch.chdir(root)
        for command in (["prepare", name], ["train", name], ["compare"]):
            assert main(command) == 0
        return root / "reports" / name

    return make


def test_measured_runs_become_a_report_on_the_class_loss(trained):
    report = trained("functions_extra", {"training": {"epochs": 3}, "grids": {"extra": {"settings": ["clean"], "samplings": ["severe"]}}})
    ends, epochs = (pd.read_csv(report / f"{name}.csv") for name in ("extra", "extra_epochs"))
    assert ends["classes"].tolist() == [4, 16] and ends[[f"test_{name}" for name in MEASURES]].notna().all(axis=None)
    assert sorted(epochs["epoch"].unique()) == [1, 2, 3] and set(epochs["split"]) == {"train", "test"}
    page = (report / "index.html").read_text()
    assert "Does the class loss track L_extra?" in page and "not shown here" not in page
    runs = json.loads((report.parents[1] / "runs" / "functions_extra.json").read_text())
    assert [run["status"] for run in runs] == ["FINISHED"] * 6  # reg and two class counts, two repetitions


def test_varied_runs_become_a_report_by_width(trained, capsys):
    vary = {"hidden": [[5, 15], [9, 15]], "optimizer": ["adam", "sgd"], "learning_rate": [0.01, 1e6], "scale": [1.0, 10.0]}
    report = trained(
        "functions_width", {"training": {"epochs": 1}, "grids": {"width": {"samplings": ["severe"], "lambdas": [1.0], "vary": vary}}}
    )
    table, candidates = (pd.read_csv(report / f"{name}.csv") for name in ("width", "width_candidates"))
    assert len(table) == 4 and (table["learning_rate"] < 1e6).all()
    assert (candidates.loc[candidates["learning_rate"] > 1e5, "repetitions"] == 0).any()  # gradient descent has diverged
    statuses = [run["status"] for run in json.loads((report.parents[1] / "runs" / "functions_width.json").read_text())]
    failed, shown = statuses.count("FAILED"), capsys.readouterr().err
    assert (
        failed and f"{len(statuses) - failed} runs trained, 0 were there already, {failed} failed, in " in shown
    )  # though names are equal
    assert shown.count("FAILED reg") == min(failed, 20)
