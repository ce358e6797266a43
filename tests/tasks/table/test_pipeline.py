"""A table of one's own from the raw file to the report, through the commands."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from conftest import SHRUNK, overlay, shipped_tree
from regcls.cli import main
from regcls.models.mlp import MLP, initial_weights
from regcls.params import load_params, parse_options
from regcls.tasks import task_named
from regcls.tasks.table.data import TableSet
from regcls.tasks.table.model import outputs_of
from regcls.tasks.table.networks import TableNetworks
from regcls.tasks.table.runs import TableSpec, all_specs
from regcls.tracking.run_table import typed
from regcls.tracking.tracker import Tracker
from regcls.training.ensemble import train
from regcls.training.ensemble_networks import Member
from tasks.table.conftest import messy_table

HOUSES = {
    "like": "diabetes",
    "title": "Houses",
    "data": {"source": "raw", "file": "houses.csv", "target": "price", "unit": "$", "folds": 3},
    "training": {"epochs": 40, "batch_size": 16},
    "grids": {
        "main": {
            "methods": ["reg", "reg+cls", "reg+cls-bal", "focal-r", "hl-gauss", "hgb"],
            "classes": [5, 20],
            "lambdas": [1.0, 10.0],
            "seeds": 2,
        }
    },
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A trained and compared project on a messy table."""
    root = tmp_path_factory.mktemp("houses")
    raw = root / "data" / "houses" / "raw"
    raw.mkdir(parents=True)
    messy_table(90).to_csv(raw / "houses.csv", index=False, sep=";", decimal=",")
    tree = overlay(shipped_tree(), SHRUNK) | {"houses": HOUSES, "datasets": ["houses"]}
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    here = Path.cwd()
    os.chdir(root)
    try:
        assert [main([command, *dataset]) for command, dataset in (("prepare", ["houses"]), ("train", ["houses"]), ("compare", []))] == [
            0,
            0,
            0,
        ]
    finally:
        os.chdir(here)
    return root


@pytest.fixture(scope="module")
def tracker(project):
    return Tracker(project, experiment="regcls")


def run_of(tracker, **wanted):
    runs = tracker.collect("houses", TableSpec)
    return next(row for row in runs.to_dict("records") if wanted.items() <= row.items())


def test_the_report_has_every_method_and_leads_back_to_its_runs(project, tracker):
    folder = project / "reports" / "houses"
    errors = pd.read_csv(folder / "main.csv")
    references = ["hgb", "mean of training targets", "median of training targets"]
    assert errors["method"].tolist() == ["reg", "reg+cls", "reg+cls-bal", "focal-r", "hl-gauss", *references]
    assert errors["lambda"].isna().tolist() == [True, False, False, True, True, True, True, True] and errors["classes"].notna()[4]
    reg = run_of(tracker, method="reg", seed=0)
    page = (folder / "index.html").read_text()
    assert (
        reg["run_id"] in page
        and "price" in page
        and "$" in page
        and "age" not in re.sub(r"<style.*?</style>", "", page, flags=re.S).split()
    )
    by_seed = [run_of(tracker, method="reg", seed=seed)["test/rmse/all"] for seed in (0, 1)]
    assert errors.set_index("method").loc["reg", "rmse_all"] == pytest.approx(np.mean(by_seed), rel=1e-6)
    metrics = json.loads((project / "reports" / "metrics.json").read_text())["houses"]
    assert metrics["rmse"]["reg"]["all"] == pytest.approx(np.mean(by_seed), rel=1e-4) and set(metrics["gap"]) == {
        "focal-r",
        "hl-gauss",
        "reg+cls",
        "reg+cls-bal",
    }
    for name in ("main_groups", "main_cells", "main_differences", "error_by_target"):
        assert len(pd.read_csv(folder / f"{name}.csv")) > 3
    summary = pd.read_csv(project / "reports" / "summary.csv")
    assert summary["measured"].tolist() == ["RMSE ($)"] and summary["n"].tolist()[0].startswith("3 folds × 2 seeds")


def test_classes_beyond_the_distinct_targets_are_as_many_as_these(prepared):
    data, _ = prepared(messy_table(90).assign(Price=np.arange(90) % 7), data={"folds": 3})
    section = load_params(data.prepared.folder.parents[2] / "params.yaml").datasets["houses"]
    assert {spec.classes for spec in all_specs(section, "houses", most=data.most_classes)} == {0, 7}


@pytest.mark.parametrize("method", ["reg+cls", "hl-gauss"])
def test_predictions_are_those_of_the_logged_model_on_the_raw_table_without_this_project(project, tracker, tmp_path, method):
    run = run_of(tracker, method=method, classes=5, seed=0)
    model = mlflow.MlflowClient(tracker.uri).get_run(run["run_id"]).outputs.model_outputs[0].model_id
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, mlflow, pandas as pd\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model('models:/' + sys.argv[2])\n"
        "table = pd.read_csv(sys.argv[3], sep=';', decimal=',')\n"
        "pd.Series(model.predict(table[::-1])[::-1]).to_csv(sys.argv[4], index=False)\n"
        "assert not [name for name in sys.modules if name.startswith('regcls')]\n"
    )
    raw, out = project / "data" / "houses" / "raw" / "houses.csv", tmp_path / "out.csv"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, script, tracker.uri, model, raw, out], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(out)["0"].to_numpy()
    data = TableSet(project / "data" / "houses" / "prepared")
    networks = TableNetworks(data, "houses")
    spec = TableSpec(**typed(tracker.find(run["run_id"]).params, TableSpec))
    members = [Member(spec=spec, part=part) for part in data.parts]
    trained = train(networks.networks(members), networks.recipe(spec), predict=("val", "test"))
    tracked = tracker.files.table(run["run_id"], "predictions.parquet").set_index("part")["prediction"]
    expected = np.zeros(90)
    for part, network in zip(data.parts, trained, strict=True):
        mean, deviation = data.fitted(part)["target"]
        assert tracked[part].to_numpy() == pytest.approx(mean + deviation * network.predicted["test"], rel=1e-5)
        inputs = {split: data.inputs(part, split, data.fitted(part)) for split in ("train", "val", "test")}
        for split, rows in inputs.items():
            expected[data.rows(part, split)] += (mean + deviation * outputs_of(rows.T, network.weights, "relu")) / 3
    assert found == pytest.approx(expected, rel=1e-5), "the mean over the networks of all folds"


def test_a_network_equals_plain_pytorch(project):
    data = TableSet(project / "data" / "houses" / "prepared")
    networks = TableNetworks(data, "houses")
    section = load_params(project / "params.yaml").datasets["houses"]
    options = parse_options("table", {"method": "reg", "precision": "float64", "epochs": "3", "batch_size": "1000"})
    spec = task_named("table").single_spec(section, "houses", options)
    (network,) = networks.networks([Member(spec=spec, part="fold_1")])
    (trained,) = train([network], networks.recipe(spec), predict=("test",))
    model = MLP(data.size, spec.hidden, initialisation="pytorch")
    model.load_state_dict(initial_weights(data.size, spec.hidden, 0, spec.seed, "pytorch"))
    model.double()
    optimizer = torch.optim.Adam(model.parameters(), lr=spec.learning_rate)
    x, y = torch.tensor(network.x.T, dtype=torch.float64), torch.tensor(network.y)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    tested = torch.tensor(network.evaluate["test"][0].T, dtype=torch.float64)
    assert trained.predicted["test"] == pytest.approx(model(tested).detach().numpy(), rel=1e-9)


def test_everything_is_kept_when_trained_again(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    assert main(["train", "houses"]) == 0
    assert "0 runs trained, 25 were there already, 0 failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "hgb", "--epochs", "3"], "method hgb is not a network: leave out --epochs"),
        (["--method", "reg", "--classes", "5"], "method reg has no classes"),
        (["--method", "hl-gauss", "--lambda", "5"], "method hl-gauss has no λ: leave out --lambda"),
        (["--classes", "5000"], "5,000 classes, but there are only 30 training rows with distinct targets: --classes"),
    ],
)
def test_options_without_effect_are_refused(project, monkeypatch, capsys, options, message):
    monkeypatch.chdir(project)
    assert main(["run", "houses", *options]) == 2
    assert message in capsys.readouterr().err
