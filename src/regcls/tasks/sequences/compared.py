"""Errors over activities, and differences to reg on sequences: tested over activities, and in words.

The unit of replication is the activity: each has its own videos and networks. Seeds and splits of an activity share its videos.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from regcls.reports.measured import ROW, Runs, by_seed, means, method_name, rows_like, short_name
from regcls.reports.picking import Row, records
from regcls.reports.ranking import ranked
from regcls.reports.report import Compared, Line, after_tests
from regcls.reports.stats import CONSTANTS, NOT_TESTED, USELESS, holm, is_clear, one_sample, paired, verdict
from regcls.reports.tables import comparison, number, signed
from regcls.tasks.sequences.data import SequenceSet
from regcls.tasks.sequences.networks import mean_rmse_of_blocks, rmse
from regcls.tasks.sequences.params import Sequences, SequenceSplit, Unit
from regcls.words import counted

EVERY = "all"  # in place of a split: the mean over splits
ERRORS = ("rmse", "rmse_batch40")
SHOWN: Mapping[str, float] = {"percent": 100.0, "frames": 1.0}  # unit -> factor from targets to shown values
SIGN: Mapping[str, str] = {"percent": "%", "frames": "frames"}
MEASURED: Mapping[str, str] = {"percent": "% of the video", "frames": "frames"}
DIGITS: Mapping[str, int] = {"percent": 2, "frames": 1}

Differences = Mapping[Unit, pd.DataFrame]  # `differences` of each unit trained


def cells(runs: Runs, activities: Sequence[str], names: Sequence[str] = ERRORS, *, split: str = "test", ddof: int = 1) -> pd.DataFrame:
    """`measured.means` over activities, each averaged over its seeds first, of errors by name; std over activities."""
    return means(runs, {name: columns(name, activities, split) for name in names}, over="parts", ddof=ddof)


def columns(name: str, activities: Sequence[str], split: str = "test") -> list[str]:
    """Names of the measurements of an error, one per activity."""
    return [f"{split}/{name}/{activity}" for activity in activities]


def constants(runs: Runs, videos: SequenceSet, activities: Sequence[str]) -> Runs:
    """The runs of reg, and again for each of CONSTANTS, with its name as the method: its errors in place of those of networks."""
    reg, values = runs.wanted[runs.wanted["method"] == "reg"], dict[str, dict[str, float]]()
    parts = [reg]
    for name, constant in CONSTANTS.items():
        ids = reg["unit"] + reg["split"] + name
        parts.append(reg.assign(method=name, run_id=ids, state="finished"))
        for run_id, unit, split in zip(ids, reg["unit"], reg["split"], strict=True):
            if run_id not in values:
                values[run_id] = _constant_errors(videos, activities, unit, split, constant)
    return replace(runs, wanted=pd.concat(parts), values=pd.concat([runs.values, pd.DataFrame.from_dict(values, orient="index")]))


def _constant_errors(
    videos: SequenceSet, activities: Sequence[str], unit: Unit, split: SequenceSplit, constant: Callable[[np.ndarray], Any]
) -> dict[str, float]:
    """The test errors of a constant, a measurement for each error and activity, as of a run."""
    measured: dict[str, float] = {}
    for activity in activities:
        training, tested = (
            np.concatenate(
                [np.arange(n) / (n if unit == "percent" else 1) for n in videos.videos(activity, split, part, held_out=False)["frames"]]
            )
            for part in ("train", "test")
        )
        errors = SHOWN[unit] * (constant(training) - tested)
        measured |= {f"test/rmse/{activity}": rmse(errors), f"test/rmse_batch40/{activity}": mean_rmse_of_blocks(errors)}
    return measured


def by_activity(runs: Runs, activities: Sequence[str]) -> pd.DataFrame:
    """Test RMSE of each activity, averaged over the seeds of a split and then over splits.

    A row per ROW. Columns: ROW, runs and runs_wanted (counts), one per activity, and `mean` over them.
    """
    rows = []
    key: Any  # pandas-stubs know it as a tuple of Hashable
    for key, part in runs.wanted.groupby(ROW, sort=False):
        by_split = [list(by_seed(cell).values()) for _, cell in part.groupby("split", sort=True)]
        errors = [_errors(runs, run_ids, activities) for run_ids in by_split if run_ids]
        averages = np.mean(errors, axis=0) if errors else np.full(len(activities), np.nan)
        counts = {"runs": sum(map(len, by_split)), "runs_wanted": len(part)}
        by_name = dict(zip(activities, averages.tolist(), strict=True))
        rows.append(dict(zip(ROW, key, strict=True)) | counts | by_name | {"mean": averages.mean()})
    return runs.in_order(pd.DataFrame(rows, columns=[*ROW, "runs", "runs_wanted", *activities, "mean"]))


def _errors(runs: Runs, run_ids: Sequence[str], activities: Sequence[str]) -> np.ndarray:
    """Test RMSE of each activity (A,), averaged over runs."""
    values = runs.values.loc[list(run_ids), columns("rmse", activities)]
    return np.asarray(values.mean().to_numpy(dtype=float))


def useless_splits(constants: Runs, activities: Sequence[str], unit: Unit) -> list[str]:
    """The splits, and EVERY, on which reg is no better than one of the `constants`, by the difference that decides verdicts."""
    if constants.wanted.empty:
        return []
    table = differences(constants, activities)
    return sorted(table.loc[table[deciding(unit)] >= 0, "split"].unique())


def differences(runs: Runs, activities: Sequence[str]) -> pd.DataFrame:
    """gap = RMSE(reg) − RMSE(method), of runs with one unit: a row per ROW of another method and split, and one for all splits (EVERY).

    Columns: split, ROW; activities, seeds and splits (counts; seeds: the smallest number of common ones); reg and other, the two means
    over activities; gap; low, high, p: 95 % interval and paired t-test over activities, each averaged over the seeds that both have (for
    EVERY also over the splits that have such seeds). relative, relative_low, relative_high, relative_p: the same for the difference in
    percent of reg's error on the activity. p_holm and relative_p_holm: adjusted over all rows. answer: the verdict of the test that
    `deciding` names. Empty if reg is not requested.
    """
    unit: Unit = runs.wanted["unit"].iloc[0]
    reg = runs.wanted[runs.wanted["method"] == "reg"]
    rows: list[dict[str, Any]] = []
    key: Any
    for key, part in runs.wanted[runs.wanted["method"].isin(compared_methods(runs.wanted))].groupby(ROW, sort=False):
        if reg.empty:
            break
        pairs = {split: _pair(runs, reg[reg["split"] == split], cell, activities) for split, cell in part.groupby("split", sort=True)}
        row = dict(zip(ROW, key, strict=True))
        rows += [{"split": split} | row | _difference([pair], len(activities)) for split, pair in pairs.items()]
        if len(pairs) > 1:
            rows.append({"split": EVERY} | row | _difference(list(pairs.values()), len(activities)))
    names = ["activities", "seeds", "splits", "reg", "other", "gap", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=["split", *ROW, *names, *(f"relative{end}" for end in ("", "_low", "_high", "_p"))])
    table["p_holm"], table["relative_p_holm"] = holm(table["p"].tolist()), holm(table["relative_p"].tolist())
    gap = deciding(unit)
    p = "p_holm" if gap == "gap" else "relative_p_holm"
    table["answer"] = [verdict(row[gap], row[p], row["activities"] if row["seeds"] else 0) for row in records(table)]
    return table


def compared_methods(wanted: pd.DataFrame) -> list[str]:
    """The methods to compare with reg, in the order of the tables: all but random and kukleva, which differ in more than the loss."""
    return [method for method in wanted["method"].unique() if method not in ("random", "kukleva", "reg")]


def deciding(unit: str) -> str:
    """The difference that decides whether a method helps: relative in frames, where errors grow with the length of the videos."""
    return "gap" if unit == "percent" else "relative"


def test_count(table: pd.DataFrame, unit: str) -> int:
    """The number of tests that decide verdicts, in a table of `differences`."""
    return int(table["p" if deciding(unit) == "gap" else "relative_p"].notna().sum())


Pair = tuple[np.ndarray, np.ndarray, int]  # RMSE of reg and of the method by activity (A,), and how many seeds both have


def _pair(runs: Runs, reg: pd.DataFrame, cell: pd.DataFrame, activities: Sequence[str]) -> Pair:
    reg_runs, own_runs = by_seed(reg), by_seed(cell)
    common = sorted(reg_runs.keys() & own_runs.keys())
    sides = [_errors(runs, [run_ids[seed] for seed in common], activities) for run_ids in (reg_runs, own_runs)]
    return sides[0], sides[1], len(common)


def _difference(pairs: Sequence[Pair], activities: int) -> dict[str, Any]:
    """The difference over several splits; splits without common seeds are left out."""
    usable = [pair for pair in pairs if pair[2]]
    counts = {"activities": activities, "seeds": min((pair[2] for pair in usable), default=0), "splits": len(usable)}
    if not usable:
        return counts
    reg, other = (np.mean(sides, axis=0) for sides in ([pair[0] for pair in usable], [pair[1] for pair in usable]))
    test, relative = asdict(paired(reg.tolist(), other.tolist())), 100.0 * (reg - other) / reg
    low, high, p = one_sample(relative, against=0.0)
    sides = {"reg": float(reg.mean()), "other": float(other.mean())} | {name: test[name] for name in ("gap", "low", "high", "p")}
    return counts | sides | {"relative": float(relative.mean()), "relative_low": low, "relative_high": high, "relative_p": p}


def main_row(sequences: Sequences, table: pd.DataFrame, unit: Unit, method: str) -> Row | None:
    """ROW of the class count and λ that represents a method: those of `run:` and `training:` in params.yaml, else the grid's first.

    Never chosen by error: since all training videos are trained on, there are only test errors.
    """
    rows = table[table["method"] == method]
    if rows.empty:
        return None
    usual = (rows["classes"] == sequences.run.classes, rows["weight"] == f"{sequences.training.lam[unit]:g}")
    ranked = rows.assign(first=~usual[0], second=~usual[1]).sort_values(["first", "second"], kind="stable")
    return records(ranked[ROW])[0]


def main_difference(sequences: Sequences, table: pd.DataFrame, unit: Unit, method: str) -> Row | None:
    """The row of `differences` that represents a method: at its `main_row`, over all splits."""
    main = main_row(sequences, table, unit, method)
    return None if main is None else records(rows_like(table, main))[-1]  # the one over all splits comes last


def first_lines(sequences: Sequences, differences: Differences) -> list[Line]:
    """reg against reg+cls (or reg+cls-bal if only that is trained) on progress in percent, or in frames if only that is trained."""
    for unit, table in differences.items():
        for method in ("reg+cls", "reg+cls-bal"):
            row = main_difference(sequences, table, unit, method)
            if row is not None and row["seeds"]:
                return [_line(row, unit, tests=test_count(table, unit))]
    return []


def ranking(sequences: Sequences, differences: Differences) -> list[Line]:
    """Each method against reg on progress in percent, where errors are comparable between videos."""
    table = differences.get("percent", pd.DataFrame({"method": []}))
    rows = [main_difference(sequences, table, "percent", method) for method in table["method"].unique()]
    found = [row for row in rows if row is not None and row["seeds"]]
    lines = [_line(row, "percent", tests=len(found)) for row in found]
    return ranked(lines, p=[row["p"] for row in found], n=[row["activities"] for row in found])


def _line(row: Row, unit: Unit, *, tests: int) -> Line:
    return Line(
        measured=f"RMSE ({SIGN[unit]})",
        method=short_name(row),
        overall=Compared.of(row if unit == "percent" else _relatively(row)),
        n=f"{_extent(row)}{after_tests(tests)}",
        digits=DIGITS[unit],
    )


def _relatively(row: Row) -> Row:
    """In frames, the verdict is on the difference relative to reg's error, whose sign may differ from that of the mean difference."""
    answer = row["answer"] if row["answer"] == USELESS else f"{row['answer']} (relative to reg's error: {signed(row['relative'], 1)} %)"
    return {**row, "low": math.nan, "high": math.nan, "answer": answer}


def answers(sequences: Sequences, runs: Runs, differences: Differences) -> list[str]:
    """A line per method: its test RMSE and that of reg, for each unit of the target."""
    wanted = runs.wanted
    methods = compared_methods(wanted)
    if not methods:
        return ["No other method is trained: there is nothing to compare reg with."]
    if not ((wanted["method"] == "reg") & (wanted["state"] == "finished")).any():
        return ["No run of reg is finished: there is nothing to compare the other methods with."]
    lines = []
    for method in methods:
        rows = {unit: main_difference(sequences, table, unit, method) for unit, table in differences.items()}
        usable = [(row, unit) for unit, row in rows.items() if row is not None and row["seeds"]]
        sentences = [_headline(*usable[0]), *(_in_frames(row) for row, _ in usable[1:])] if usable else []
        lines.append(" ".join(sentences) or f"{method}: no run to compare reg with.")
    tests = [f"{counted(count, 'test')} ({unit})" for unit, table in differences.items() if (count := test_count(table, unit))]
    trained = wanted[wanted["classes"] > 0]
    several = bool((trained.groupby(["unit", "method"])[["classes", "weight"]].nunique() > 1).any(axis=None))
    return [
        *lines,
        "Δ = RMSE(reg) − RMSE(method): above 0 the method helps. "
        + ("Of several class counts or λ, those in params.yaml are shown. " if several else "")
        + (
            "Intervals are over activities and take these splits and seeds as given; “clear” means clear after correction for "
            f"{' and '.join(tests)}."
            if tests
            else NOT_TESTED.format(of="activities")
        ),
    ]


def _headline(row: Row, unit: Unit) -> str:
    sign, digits = " %" if unit == "percent" else "", DIGITS[unit]
    sides = f"{number(row['other'], digits)}{sign} against {number(row['reg'], digits)}{sign} of reg"
    word = comparison(row["other"], row["reg"], digits)
    return f"{method_name(row)} has {word} test RMSE on progress in {unit}: {sides}, {_gap(row, unit)}, mean over {_extent(row)}."


def _in_frames(row: Row) -> str:
    digits = DIGITS["frames"]
    return f"In frames: {number(row['other'], digits)} against {number(row['reg'], digits)}, {_gap(row, 'frames')}."


def _gap(row: Row, unit: Unit) -> str:
    if unit == "percent":
        return f"Δ {signed(row['gap'], 2)} ({_tested(row['low'], row['high'], row['answer'])})"
    relative = _tested(row["relative_low"], row["relative_high"], row["answer"])
    return f"Δ {signed(row['gap'], DIGITS[unit])}; by activity {signed(row['relative'], 2)} % of reg's error ({relative})"


def _tested(low: float, high: float, answer: str) -> str:
    if math.isnan(low):
        return "not tested"
    return f"95 % {signed(low, 2)} to {signed(high, 2)}; {'clear' if is_clear(answer) else answer}"


def _extent(row: Row) -> str:
    return f"{counted(row['activities'], 'activity', 'activities')} × {counted(row['splits'], 'split')} × {counted(row['seeds'], 'seed')}"
