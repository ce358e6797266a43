"""The report on L_extra: what is counted, compared with the same numbers computed plainly from made-up measurements."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from regcls.errors import MissingError
from regcls.params import Params
from regcls.reports.report import Report
from regcls.reports.stats import paired
from regcls.tasks.functions import extra
from regcls.tasks.functions.collected import Collected, collected
from regcls.tasks.functions.params import FunctionGrid
from regcls.training.likelihoods import MEASURES
from tasks.functions.made_up_functions import FUNCTIONS, MadeUpSets, prints, tracked, with_grids

EPOCHS = 6
GRID = FunctionGrid(
    settings=("clean",),
    samplings=("uniform", "severe"),
    noise=(0.1,),
    methods=("reg", "reg+cls"),
    classes=(4, 16),
    lambdas="default",
    repetitions=3,
    extra_loss=True,
)


@pytest.fixture(scope="module")
def params(small: Params) -> Params:
    return with_grids(small, extra=GRID)


@pytest.fixture(scope="module")
def runs(params: Params) -> Collected:
    keys = prints(params)
    return collected(tracked(keys), keys, dataset="functions", sets=MadeUpSets())[0]


@pytest.fixture(scope="module")
def tables(runs: Collected) -> dict[str, pd.DataFrame]:
    """The likelihoods of each run: the correlation is above 0.9 from epoch 4 on with 4 classes, and falls with 16."""
    found = {}
    for row in runs.wanted.to_dict("records"):
        rng = np.random.default_rng([row["repetition"], row["classes"], len(row["sampling"])])
        index = pd.MultiIndex.from_product(
            [range(FUNCTIONS), ["train", "test"], range(1, EPOCHS + 1)], names=["function", "split", "epoch"]
        )
        table = pd.DataFrame(rng.uniform(0.1, 1.0, (len(index), len(MEASURES))), columns=list(MEASURES), index=index).reset_index()
        epoch = table["epoch"]
        table["correlation"] = np.where(epoch >= 4, 0.95, 0.2) if row["classes"] == 4 else -epoch / EPOCHS
        table["imbalanced_nll"] = table["balanced_nll"] + (3.0 if row["method"] == "reg" else 2.0) + rng.normal(0, 0.01)
        if row["classes"] == 0:
            table[list(MEASURES[:5])] = np.nan
        found[row["run_id"]] = table
    return found


@pytest.fixture(scope="module")
def report(runs: Collected, tables: dict[str, pd.DataFrame]) -> Report:
    report = Report(dataset="functions", title="", wanted=0, finished=0)
    extra.add(report, "extra", runs, tables.__getitem__)
    return report


def test_values_at_the_end_are_means_over_functions_and_repetitions(
    report: Report, runs: Collected, tables: dict[str, pd.DataFrame]
) -> None:
    frame = report.sections[0].table.frame
    row = frame[(frame["sampling"] == "severe") & (frame["classes"] == 16)].iloc[0]
    own = runs.wanted[(runs.wanted["sampling"] == "severe") & (runs.wanted["classes"] == 16)]
    for split in ("train", "test"):
        for name in MEASURES:
            values = [t.loc[(t["split"] == split) & (t["epoch"] == EPOCHS), name].mean() for t in map(tables.get, own["run_id"])]
            assert row[f"{split}_{name}"] == pytest.approx(np.mean(values))
    reg = runs.networks[(runs.networks["sampling"] == "severe") & (runs.networks["method"] == "reg")]
    cls = runs.networks[(runs.networks["sampling"] == "severe") & (runs.networks["classes"] == 16)]
    sides = [part.groupby("repetition")["test_mse"].mean().tolist() for part in (reg, cls)]
    assert (row["gap"], row["low"], row["n"]) == pytest.approx((paired(*sides).gap, paired(*sides).low, 3))
    assert row["relative"] == pytest.approx(100 * row["gap"] / np.mean(sides[0]))


def test_the_class_loss_tracks_from_the_epoch_after_the_last_low_correlation(report: Report) -> None:
    frame = report.sections[0].table.frame
    assert set(frame.loc[frame["classes"] == 4, "train_from"]) == {4.0}
    assert frame.loc[frame["classes"] == 16, "train_from"].isna().all()
    assert "tracks L_extra (correlation of 0.9 or more) in 2 of 4 cases" in report.answers[0]
    late = pd.DataFrame({"epoch": range(1, 5), "correlation": [0.95, 0.95, 0.1, 0.2], "split": "train"})
    by_epoch = late.assign(**dict.fromkeys(extra.CELL, 1)).reindex(columns=[*extra.CELL, "split", "epoch", *MEASURES])
    assert extra.at_end(by_epoch)["train_from"].isna().all()  # it did not stay


def test_likelihoods_are_compared_by_their_distance(report: Report) -> None:
    frame = report.sections[2].table.frame
    assert len(frame) == 2 and (frame["reg_imbalanced"] - frame["reg_balanced"]).tolist() == pytest.approx([3, 3], abs=0.05)
    assert frame["gap"].tolist() == pytest.approx([1, 1], abs=0.05) and set(frame["answer"]) == {"helps"}
    assert "closer together in 2 of 2 panels, clearly in 2; it clearly drives them apart in 0." in report.answers[-1]


def test_runs_without_their_table_are_left_out_and_named(runs: Collected, tables: dict[str, pd.DataFrame]) -> None:
    lost = runs.wanted.loc[runs.wanted["classes"] == 16, "run_id"].iloc[0]

    def read(run_id: str) -> pd.DataFrame:
        if run_id == lost:
            raise MissingError("gone")
        return tables[run_id]

    report = Report(dataset="functions", title="", wanted=0, finished=0)
    extra.add(report, "extra", runs, read)
    assert report.warnings == ["extra: 1 run left out, without likelihoods"]
    assert len(report.sections[0].table.rows) == 4
    nothing = Report(dataset="functions", title="", wanted=0, finished=0)
    extra.add(nothing, "extra", replace(runs, runs=replace(runs.runs, wanted=runs.wanted.assign(state="missing"))), read)
    assert not nothing.sections and not nothing.answers


def test_figures_are_drawn(report: Report) -> None:
    assert [section.name for section in report.sections] == ["extra", "extra_gain", "extra_likelihoods"]
    assert all(section.svg.lstrip().startswith("<?xml") for section in report.sections[:2])
    assert {"extra.csv", "extra_gain.csv", "extra_likelihoods.csv", "extra_epochs.csv"} <= set(report.files)
