"""Grids that vary training values: the best of each method by validation, compared with a plain search through made-up runs."""

import re
from dataclasses import replace

import numpy as np
import pytest

from regcls.errors import UserError
from regcls.params import Params, load_params
from regcls.reports.report import Report
from regcls.reports.stats import paired
from regcls.tasks.functions import varied
from regcls.tasks.functions.collected import Collected, collected
from regcls.tasks.functions.params import FunctionGrid, Varied
from regcls.tasks.functions.runs import all_specs
from tasks.functions.made_up_functions import FUNCTIONS, MadeUpSets, prints, tracked, with_grids

GRID = FunctionGrid(
    settings=("clean",),
    samplings=("severe",),
    noise=(0.1,),
    methods=("reg", "reg+cls"),
    classes=(4, 16),
    lambdas=(1.0, 100.0),
    repetitions=3,
    vary=Varied(hidden=((5, 15), (17, 15)), optimizer=("adam", "sgd"), learning_rate=(0.01, 0.1), scale=(1.0, 10.0), weight_decay=(0.0,)),
)


@pytest.fixture(scope="module")
def runs(small: Params) -> Collected:
    """Made-up errors; the runs of reg+cls with gradient descent and the largest step have diverged in one repetition."""
    params = with_grids(small, width=GRID)
    keys = prints(params)
    table = tracked(keys)
    rng = np.random.default_rng(0)
    for split in ("val", "test"):
        errors = rng.uniform(0.1, 1.0, (len(table), FUNCTIONS))
        table[[f"{split}/mse/function_{f}" for f in range(FUNCTIONS)]] = errors
        table[f"{split}/mse/all"] = errors.mean(axis=1)
    lost = (table["optimizer"] == "sgd") & (table["learning_rate"] == 1.0) & (table["method"] == "reg+cls") & (table["repetition"] == 1)
    table.loc[lost, "status"] = "FAILED"
    table.loc[
        ~lost & (table["optimizer"] == "sgd") & (table["learning_rate"] == 1.0), [f"val/mse/function_{f}" for f in range(FUNCTIONS)]
    ] = 0.01
    table["val/mse/all"] = table[[f"val/mse/function_{f}" for f in range(FUNCTIONS)]].mean(axis=1)
    found = collected(table, keys, dataset="functions", sets=MadeUpSets())[0]
    return found.of(spec for spec in all_specs(params.datasets["functions"], "functions") if spec.weight_decay == 0)


def plain_best(runs: Collected, method: str, hidden: tuple[int, ...], optimizer: str) -> tuple[dict[str, float], list[float]]:
    """The values with the lowest mean validation error among those with three repetitions, and the test errors by repetition."""
    networks = runs.networks.join(runs.wanted[["hidden", "optimizer", "learning_rate", "scale"]], on="spec")
    own = networks[(networks["method"] == method) & (networks["hidden"] == hidden) & (networks["optimizer"] == optimizer)]
    best = None
    for values, part in own.fillna({"lam": 0}).groupby(["classes", "lam", "learning_rate", "scale"]):
        if part["repetition"].nunique() == 3:
            score = part.groupby("repetition")["val_mse"].mean().mean()
            if best is None or score < best[0]:
                best = (score, values, part.groupby("repetition")["test_mse"].mean().tolist())
    return dict(zip(["classes", "lam", "learning_rate", "scale"], best[1], strict=True)), best[2]


def test_each_method_has_its_best_values_by_validation(runs: Collected) -> None:
    frame = varied.differences(varied.best(runs)[0])
    assert frame[["optimizer", "hidden"]].to_numpy().tolist() == [[o, h] for o in ("adam", "sgd") for h in ((5, 15), (17, 15))]
    for row in frame.to_dict("records"):
        (reg_values, reg), (values, other) = (plain_best(runs, m, row["hidden"], row["optimizer"]) for m in ("reg", "reg+cls"))
        assert {name: row[name] for name in values} == values
        assert row["reg_learning_rate"] == reg_values["learning_rate"] and row["reg_scale"] == reg_values["scale"]
        assert (row["reg"], row["other"], row["gap"]) == pytest.approx((np.mean(reg), np.mean(other), np.mean(reg) - np.mean(other)))
        assert (row["low"], row["p"]) == pytest.approx((paired(reg, other).low, paired(reg, other).p))


def test_values_with_which_networks_diverged_cannot_be_chosen(runs: Collected) -> None:
    frame, candidates = varied.differences(varied.best(runs)[0]), varied.best(runs)[1]
    descent = frame[frame["optimizer"] == "sgd"]
    assert set(descent["reg_learning_rate"]) == {1.0}  # by far the lowest validation error
    assert (descent["learning_rate"] < 1).all()
    lost = candidates[candidates["repetitions"] < candidates["requested"]]
    assert set(lost["repetitions"]) == {2} and len(lost) == 2 * 2 * 2  # widths × class counts × λ


def test_the_report_names_values_and_links_runs(runs: Collected) -> None:
    report = Report(dataset="functions", title="", wanted=0, finished=0)
    varied.add(report, "width", runs)
    (section,) = report.sections
    assert section.svg.lstrip().startswith("<?xml") and len(section.table.rows) == 4
    row, frame = section.table.rows[2], section.table.frame.iloc[2]
    texts = [cell.text for cell in row]
    assert texts[:5] == ["clean", "severe", "sgd", "5×15", "reg+cls"] and texts[6] == "lr 1"
    assert (
        texts[8] == f"C {frame['classes']}, λ {frame['lambda']:g}, lr {frame['learning_rate']:g}"
    )  # scale 1 and no decay go without saying
    linked = {run_id for group in row[-1].runs for run_id in group.ids}
    wanted = runs.wanted[(runs.wanted["hidden"] == (5, 15)) & (runs.wanted["optimizer"] == "sgd")].set_index("run_id")
    assert len(linked) == 6 and set(wanted.loc[list(linked), "method"]) == {"reg", "reg+cls"}
    assert report.answers[1].startswith("clean, severe, sgd: the gain of reg+cls over reg in test MSE is ")
    assert "of which 8 lack repetitions" in section.table.notes[-1]


def test_nothing_is_shown_without_runs(runs: Collected) -> None:
    report = Report(dataset="functions", title="", wanted=0, finished=0)
    varied.add(report, "width", replace(runs, networks=runs.networks.iloc[:0]))
    assert not report.sections and not report.answers


def test_the_papers_grids_cannot_vary(make_project) -> None:
    root = make_project({"functions": {"grids": {"figure3": {"vary": {"optimizer": ["adam", "sgd"]}}}}})
    with pytest.raises(UserError, match=r"functions\.grids\.figure3\.vary: the paper's figures have one value of each"):
        load_params(root / "params.yaml")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"grids": {"extra": {"methods": ["reg+cls"]}}}, "extra_loss compares reg+cls with reg: set methods to [reg, reg+cls]"),
        ({"grids": {"extra": {"methods": ["reg", "reg+cls", "hl-gauss"]}}}, "extra_loss compares reg+cls with reg: set methods to"),
        ({"grids": {"extra": {"lambdas": [1.0, 10.0]}}}, "extra_loss takes one λ: set lambdas to default, or to a list of one"),
        ({"grids": {"extra": {"vary": {"scale": [1.0]}}}}, "extra_loss and vary exclude each other: make two grids of it"),
        (
            {"run": {"setting": "ood"}},
            "functions_extra.run.setting = 'ood', but functions_extra.data.settings prepares only ['clean', 'noisy']",
        ),
        (
            {"training": {"scale": 1e13}},
            "functions_extra.training.scale = 10000000000000.0: Input should be less than or equal to 1000000000000",
        ),
    ],
)
def test_what_a_report_could_not_show_is_refused(make_project, changes, message) -> None:
    root = make_project({"functions_extra": changes})
    with pytest.raises(UserError, match=re.escape(message)):
        load_params(root / "params.yaml")
