import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from regcls.errors import DamagedError, MissingError, UserError
from regcls.reports import measured
from regcls.reports.measured import Runs
from regcls.reports.tables import RunGroup

PARTS = ("coffee", "juice", "tea")
CELLS = (("s1", "reg", 0, ""), ("s1", "reg+cls", 10, "0.1"), ("s2", "reg", 0, ""), ("s2", "reg+cls", 10, "0.1"), ("s2", "mine", 5, "2"))
SEEDS = 3
HOLES = ("a0-1", "a2-0", "a2-2", "a4-0", "a4-1", "a4-2")  # the third cell has one run, the last none
COLUMNS = {"rmse": [f"test/rmse/{part}" for part in PARTS]}


def made_up(holes: Sequence[str] = HOLES) -> Runs:
    """Three seeds of each of CELLS; a run's id is its cell and seed, as in `a0-1`."""
    rows: list[dict[str, Any]] = []
    for index, (split, method, classes, weight) in enumerate(CELLS):
        for seed in range(SEEDS):
            run_id = f"a{index}-{seed}"
            state = "missing" if run_id in holes else "finished"
            what = {"split": split, "method": method, "classes": classes, "weight": weight, "seed": seed}
            rows.append(what | {"state": state, "run_id": "" if run_id in holes else run_id})
    ids = [row["run_id"] for row in rows if row["run_id"]]
    values = pd.DataFrame(np.random.default_rng(1).uniform(1, 9, (len(ids), 3)), index=ids, columns=COLUMNS["rmse"])
    return Runs(wanted=pd.DataFrame(rows), values=values, axes=("split",))


def numbers_of(runs: Runs, place: int) -> list[list[float]]:
    """Numbers by run and part, of the usable runs of a cell."""
    found = [f"a{place}-{seed}" for seed in range(SEEDS) if f"a{place}-{seed}" in runs.values.index]
    return [[float(runs.values.loc[run_id, column]) for column in COLUMNS["rmse"]] for run_id in found]


def mean_of(values: Sequence[float]) -> float:
    """The mean without missing numbers (NaN)."""
    there = [value for value in values if not math.isnan(value)]
    return sum(there) / len(there) if there else math.nan


def std_of(values: Sequence[float], ddof: int) -> float:
    there = [value for value in values if not math.isnan(value)]
    if len(there) <= ddof:
        return math.nan
    middle = mean_of(there)
    return math.sqrt(sum((value - middle) ** 2 for value in there) / (len(there) - ddof))


def spread_over(numbers: list[list[float]], over: str) -> list[float]:
    """The numbers by run and part over which a standard deviation is taken."""
    if over == "runs":
        return [mean_of(run) for run in numbers]
    if over == "parts":
        return [mean_of([run[part] for run in numbers]) for part in range(len(PARTS))]
    return [number for run in numbers for number in run]


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("over", ["runs", "parts", "both"])
@pytest.mark.parametrize("unmeasured", [False, True])
def test_means_and_deviations_agree_with_plain_loops(over: Any, ddof: int, unmeasured: bool) -> None:
    runs = made_up()
    if unmeasured:  # one part of a run, and one part of a whole cell
        runs.values.loc["a1-2", "test/rmse/juice"] = np.nan
        runs.values.loc[["a3-0", "a3-1", "a3-2"], "test/rmse/tea"] = np.nan
    table = measured.means(runs, COLUMNS, over=over, ddof=ddof).set_index(["split", "method"])
    assert len(table) == len(CELLS)
    for index, (split, method, _, _) in enumerate(CELLS):
        row, spread = table.loc[(split, method)], spread_over(numbers_of(runs, index), over)
        assert (row["rmse"], row["rmse_std"]) == pytest.approx((mean_of(spread), std_of(spread, ddof)), nan_ok=True)


def test_every_requested_cell_appears_with_the_seeds_it_has() -> None:
    table = measured.means(made_up(), COLUMNS)
    assert table[["split", "method", "classes", "weight", "seeds", "seeds_wanted"]].to_numpy().tolist() == [
        ["s1", "reg", 0, "", 2, 3],
        ["s1", "reg+cls", 10, "0.1", 3, 3],
        ["s2", "reg", 0, "", 1, 3],
        ["s2", "reg+cls", 10, "0.1", 3, 3],
        ["s2", "mine", 5, "2", 0, 3],
    ]
    assert table["rmse"].isna().tolist() == [False] * 4 + [True]


def test_one_run_has_no_deviation_over_runs_but_has_one_over_its_parts() -> None:
    runs = made_up()
    by_over = {
        over: measured.means(runs, COLUMNS, over=over).query("split == 's2' and method == 'reg'").iloc[0] for over in ("runs", "parts")
    }
    assert math.isnan(by_over["runs"]["rmse_std"]) and by_over["parts"]["rmse_std"] == pytest.approx(np.std(numbers_of(runs, 2)[0], ddof=1))


def test_an_unmeasured_metric_is_nan() -> None:
    table = measured.means(made_up(), {"gm": ["test/gm/few"]})
    assert table[["gm", "gm_std"]].isna().all(axis=None) and table["seeds"].sum() == 9


def test_without_wanted_runs_the_columns_still_exist() -> None:
    runs = made_up()
    empty = measured.means(runs.where(split="s3"), COLUMNS)
    assert list(empty) == ["split", "method", "classes", "weight", "seeds", "seeds_wanted", "rmse", "rmse_std"] and empty.empty


def test_methods_are_in_the_papers_order_followed_by_others_by_name() -> None:
    methods = ["zeta", "reg+cls-bal", "alpha", "reg+cls", "random", "reg", "kukleva"]
    frame = pd.DataFrame({"method": methods, "classes": 0, "weight": "", "place": range(7)})
    ordered = Runs(wanted=frame, values=pd.DataFrame()).in_order(frame)
    assert ordered["method"].tolist() == ["random", "kukleva", "reg", "reg+cls", "reg+cls-bal", "alpha", "zeta"]
    assert ordered["place"].tolist() == [4, 6, 5, 3, 1, 2, 0] and ordered.index.tolist() == list(range(7))


def test_axes_come_first_and_lambda_is_sorted_numerically() -> None:
    rows = [
        ("b", "reg+cls", 100, "10"),
        ("b", "reg+cls", 100, "2"),
        ("a", "reg", 0, ""),
        ("b", "reg+cls", 10, "100/10"),
        ("b", "reg", 0, ""),
    ]
    rows += [("new", "reg", 0, ""), ("b", "reg+cls", 100, "0.1")]
    frame = pd.DataFrame(rows, columns=["axis", "method", "classes", "weight"])
    runs = Runs(wanted=frame, values=pd.DataFrame(), axes=("axis",), order={"axis": ("b", "a")})
    assert list(runs.in_order(frame).itertuples(index=False, name=None)) == [
        ("b", "reg", 0, ""),
        ("b", "reg+cls", 10, "100/10"),
        ("b", "reg+cls", 100, "0.1"),
        ("b", "reg+cls", 100, "2"),
        ("b", "reg+cls", 100, "10"),
        ("a", "reg", 0, ""),
        ("new", "reg", 0, ""),
    ]
    assert runs.in_order(frame[["weight", "method"]])["weight"].tolist() == ["", "", "", "0.1", "2", "10", "100/10"]


def test_equal_rows_keep_their_order() -> None:
    frame = pd.DataFrame({"method": "mine", "seed": [2, 0, 1]})
    assert Runs(wanted=frame, values=pd.DataFrame()).in_order(frame)["seed"].tolist() == [2, 0, 1]


def test_a_part_has_the_requested_levels() -> None:
    part = made_up().where(split="s2", method="reg")
    assert part.wanted["run_id"].tolist() == ["", "a2-1", ""] and part.cell == ["split", "method", "classes", "weight"]


def test_missing_runs_are_listed_cell_by_cell_in_order() -> None:
    assert made_up().hole_lines(lambda row: f"{row['split']} {measured.row_name(row)}") == [
        "s1 reg: 2 of 3 seeds (missing: seed 1)",
        "s2 reg: 1 of 3 seeds (missing: seeds 0, 2)",
        "s2 mine · 5 · λ 2: 0 of 3 seeds (missing: seeds 0, 1, 2)",
    ]


def test_runs_are_grouped_by_cell_and_missing_cells_have_none() -> None:
    groups = measured.groups_of(made_up().where(split="s1").wanted, measured.row_name)
    assert groups == (
        RunGroup(label="reg", runs=(("0", "a0-0"), ("2", "a0-2"))),
        RunGroup(label="reg+cls · 10 · λ 0.1", runs=(("0", "a1-0"), ("1", "a1-1"), ("2", "a1-2"))),
    )
    assert measured.by_seed(made_up().where(split="s2", method="mine").wanted) == {}


def test_the_best_cell_has_the_lowest_mean_among_cells_with_the_most_seeds() -> None:
    rows = [("reg", 0, "", 3, 9.0), ("reg+cls", 2, "1", 3, 5.0), ("reg+cls", 10, "1", 3, 4.0), ("reg+cls", 100, "1", 2, 1.0)]
    rows += [("mine", 5, "1", 0, math.nan)]
    cells = pd.DataFrame(rows, columns=["method", "classes", "weight", "seeds", "val/mse/all"])
    best = measured.best_by(Runs(wanted=cells, values=pd.DataFrame()), cells, "val/mse/all")
    assert best.to_numpy().tolist() == [["reg", 0, ""], ["reg+cls", 10, "1"]]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The fields of a run's spec that `collect` uses."""

    method: str
    seed: int
    classes: int = 0
    lam: float | None = None
    region: str = "north"
    held_out: bool = False


SPECS = {Spec(method="reg", seed=seed): f"r{seed}" for seed in (0, 1)} | {
    Spec(method="reg+cls", seed=seed, classes=10, lam=0.1, region="south", held_out=True): f"c{seed}" for seed in (0, 1)
}
TRACKED = pd.DataFrame(
    {"run_id": ["1", "2", "3"], "status": ["FINISHED", "FINISHED", "FAILED"], "fingerprint": ["c1", "r0", "r1"], "started": [1.0, 2.0, 3.0]}
)


def test_every_wanted_spec_has_a_row_and_usable_runs_have_measurements() -> None:
    def measure(chosen: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
        values = pd.DataFrame({"test/mae/all": [1.5, 2.5]}, index=chosen["run_id"])
        return values, {"2": "without a finite error"}

    runs, picked = measured.collect(TRACKED, SPECS, measure, dataset="mine", axes=("region",), more=("held_out",))  # type: ignore[type-var]
    columns = ["method", "classes", "seed", "region", "held_out", "weight", "state", "run_id"]
    assert runs.wanted[columns].to_numpy().tolist() == [
        ["reg", 0, 0, "north", False, "", "without a finite error", ""],
        ["reg", 0, 1, "north", False, "", "failed", ""],
        ["reg+cls", 10, 0, "south", True, "0.1", "missing", ""],
        ["reg+cls", 10, 1, "south", True, "0.1", "finished", "1"],
    ]
    assert runs.wanted["lam"].tolist() == pytest.approx([math.nan, math.nan, 0.1, 0.1], nan_ok=True)
    assert picked.chosen["run_id"].tolist() == ["1"] and runs.values.loc["1", "test/mae/all"] == 1.5
    assert runs.of(list(SPECS)[2:]).wanted["fingerprint"].tolist() == ["c0", "c1"]


def test_an_error_is_raised_if_no_run_is_usable() -> None:
    def measure(chosen: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
        return pd.DataFrame(), dict.fromkeys(chosen["run_id"], "without sums")

    with pytest.raises(
        UserError, match=r"\(without sums\)\.\nTraining keeps .* first: regcls delete 1 2\nTrain them with: regcls train mine "
    ):
        measured.collect(TRACKED, SPECS, measure, dataset="mine")  # type: ignore[type-var]


def test_runs_without_a_finite_tracked_metric_are_unusable() -> None:
    chosen = pd.DataFrame({"run_id": list("abcd"), "x": [1.0, np.nan, 2.0, -np.inf], "y": [1.0, 1.0, np.inf, 1.0]})
    expected = "without a finite error"
    assert measured.finite(chosen, ["x", "y"]) == {"b": expected, "c": expected, "d": expected}
    assert measured.finite(chosen, ["x", "z"]) == dict.fromkeys("abcd", expected)


def test_runs_without_their_table_are_unusable_with_a_warning() -> None:
    def read(run_id: str) -> pd.DataFrame:
        if run_id == "b":
            raise MissingError("gone")
        if run_id == "d":
            raise DamagedError("damaged")
        return pd.DataFrame({"run": [run_id]})

    tables, reasons = measured.read_tables(["a", "b", "c", "d"], read, what="predictions")
    assert reasons == {"b": "without predictions", "d": "with damaged predictions"} and [table["run"][0] for table in tables.values()] == [
        "a",
        "c",
    ]
    assert measured.read_tables([], read, what="predictions") == ({}, {})
    wanted = pd.DataFrame({"state": ["finished", "without predictions", "failed", "without predictions", "with damaged predictions"]})
    wanted["found"] = ["", "12345678ab", "", "b", "c"]
    assert measured.unusable_lines(wanted, "predictions", "predictions.parquet") == [
        "2 finished runs left out, without predictions (predictions.parquet). To train them again, first: regcls delete 12345678 b",
        "1 finished run left out, with damaged predictions (predictions.parquet). To train them again, first: regcls delete c",
    ]
    assert measured.unusable_lines(wanted.iloc[:1], "predictions", "predictions.parquet") == []


def test_rows_have_long_and_short_names() -> None:
    row, reg = {"method": "reg+cls", "classes": 10, "weight": "0.1"}, {"method": "reg", "classes": 0, "weight": ""}
    alone = {"method": "hl-gauss", "classes": 10, "weight": ""}  # classes without λ
    names = [measured.row_name, measured.method_name, measured.short_name]
    assert [name(row) for name in names] == ["reg+cls · 10 · λ 0.1", "reg+cls with 10 classes", "reg+cls · 10"]
    assert {name(reg) for name in names} == {"reg"}
    assert [name(alone) for name in names] == ["hl-gauss · 10", "hl-gauss with 10 classes", "hl-gauss · 10"]
    assert {measured.key_of(alone, several_weights=several) for several in (False, True)} == {"hl-gauss-10"}
    assert [measured.key_of(each, several_weights=several) for each in (row, reg) for several in (False, True)] == [
        "reg+cls-10",
        "reg+cls-10-0.1",
        "reg",
        "reg",
    ]
