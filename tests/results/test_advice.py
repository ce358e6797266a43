"""The tables of results/why/advice.py follow from its inputs, and its measures from plain formulas."""

import io
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from conftest import ROOT
from regcls.classes import class_ranges
from regcls.models.mlp import initial_weights
from regcls.params import load_params
from regcls.tasks.functions.networks import recipe
from regcls.tasks.functions.runs import make_spec
from regcls.training.ensemble_data import Network
from scripts import script

FOLDER = ROOT / "results" / "why"


@pytest.fixture(scope="module")
def advice() -> ModuleType:
    return script(FOLDER, "advice")


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    networks = pd.read_csv(ROOT / "results" / "section2" / "runs.csv.gz")
    return networks[networks["noise"].isin([0.0, 0.1]) & networks["classes"].isin([0, 16]) & (networks["method"] != "reg+cls-bal")]


def test_the_committed_tables_follow_from_their_inputs(advice: ModuleType) -> None:
    found = advice.units(advice.DECAY)
    for name, frame in {"advice.csv": found, "advice_correlations.csv": advice.correlations(found)}.items():
        pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(advice.to_csv(frame))), pd.read_csv(FOLDER / name))


def test_the_measures_agree_with_plain_formulas(advice: ModuleType) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.uniform(-1, 1, (1, 40)).astype(np.float32), rng.normal(size=40) ** 7
    test = x[:, :10], np.append(np.linspace(y.min(), y.max(), 9), y[0])
    ranges = class_ranges(5, y, balanced=False)
    functions = load_params(ROOT / "params.yaml").datasets["functions"]
    of = {"setting": "clean", "sampling": "mild", "noise": 0.0, "method": "reg+cls", "classes": 5, "lam": None, "repetition": 1}
    network = Network(x=x, y=y, classes=ranges, lam=1.0, seed=421, evaluate={"test": test})
    row = sys.modules["advice_measures"].measured(network, recipe(make_spec(functions, "functions", **of)))

    shares = [float(np.mean(ranges.labels(y) == k)) for k in range(5)]
    assert row["imbalance"] == pytest.approx(sum(p * math.log(5 * p) for p in shares if p))
    weights = {name: value.double() for name, value in initial_weights(1, functions.training.hidden, 5, 421, "xavier").items()}
    extras = {}
    for split, (inputs, targets) in {"train": (x, y), "test": test}.items():
        values = []
        for value, label in zip(inputs[0], ranges.labels(targets), strict=True):
            features = torch.tensor([float(value)], dtype=torch.float64)
            for layer in ("layers.0", "layers.1"):
                features = (weights[f"{layer}.weight"] @ features + weights[f"{layer}.bias"]).clamp_min(0)
            p = (weights["classifier.weight"] @ features + weights["classifier.bias"]).softmax(0).tolist()
            if shares[label]:
                values.append(math.log(shares[label]) - math.log(sum(a * b for a, b in zip(p, shares, strict=True))))
        extras[split] = values
    assert row["train_extra"] == pytest.approx(np.mean(extras["train"]))
    assert 0 < len(extras["test"]) < 10 and row["test_seen"] == pytest.approx(len(extras["test"]) / 10)
    assert row["test_extra"] == pytest.approx(np.mean(extras["test"]))


def test_networks_without_weight_decay_are_shown_if_they_are_there(advice: ModuleType, runs: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "runs_decay.csv"
    runs.assign(test_mse=runs["test_mse"] * np.where(runs["method"] == "reg", 0.5, 1)).to_csv(path, index=False)
    found = advice.units(path).set_index(["study", "unit"])
    usual, without = found.loc[advice.FUNCTIONS], found.loc[advice.WITHOUT]
    pd.testing.assert_series_equal(without["gain"], 2 * usual["gain"] - 100)  # reg's error is halved
    pd.testing.assert_series_equal(without["imbalance"], usual["imbalance"])
    tests = advice.correlations(found.reset_index())
    assert tests["p_holm"].notna().sum() == 6
    assert "hollow: no weight decay, n = 12 panels" in advice.drawn(found.reset_index(), tests)


def test_a_repetition_without_all_its_networks_does_not_count(advice: ModuleType, runs: pd.DataFrame, tmp_path: Path) -> None:
    severe = (runs["setting"] == "noisy") & (runs["sampling"] == "severe") & (runs["repetition"] == 2) & (runs["function"] == 9)
    runs.drop(runs[severe & (runs["method"] == "reg")].index).to_csv(tmp_path / "runs.csv", index=False)
    counts = advice.function_gains(tmp_path / "runs.csv").set_index("unit")["replicates"]
    assert counts.pop("noisy σ 0.1, severe") == 4 and set(counts) == {5}


def test_the_correlation_is_spearmans(advice: ModuleType) -> None:
    rng = np.random.default_rng(1)
    x, y = pd.Series(rng.integers(0, 6, 12).astype(float)), pd.Series(rng.normal(size=12))
    found, expected = advice.spearman(x, y), stats.spearmanr(x, y)
    assert found["rho"] == pytest.approx(expected.statistic) and found["p"] == pytest.approx(expected.pvalue, abs=0.03)
    assert found["low"] < found["rho"] < found["high"]
