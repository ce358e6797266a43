"""The answer in words, and on the first screen: does a class loss help on videos? Says what the tests say, and no more."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from regcls.reports import video_stats
from regcls.reports.picking import records
from regcls.reports.report import Compared, Line
from regcls.reports.tables import beside, number, signed
from regcls.reports.video_collect import ROW, SIGN, SequenceRuns, method_name
from regcls.reports.video_tables import DIGITS
from regcls.tasks.sequences.params import WITH_CLASSES, Sequences, Unit
from regcls.words import counted

Row = Mapping[str, Any]
Differences = Mapping[Unit, pd.DataFrame]  # `video_stats.differences` of each unit trained


def main_difference(video: Sequences, table: pd.DataFrame, unit: Unit, method: str) -> Row | None:
    """The row of `video_stats.differences` that stands for a method: at its `main_row`, over as many splits as there are."""
    main = video_stats.main_row(video, table, unit, method)
    if main is None:
        return None
    rows = records(table[(table[ROW] == [main[name] for name in ROW]).all(axis=1)])
    return rows[-1]  # that over all splits comes last


def first_line(video: Sequences, differences: Differences) -> Line | None:
    """reg against reg+cls (or reg+cls-bal, where only that is trained) on progress in percent, or in frames where only that is trained."""
    for unit, table in differences.items():
        for method in WITH_CLASSES:
            row = main_difference(video, table, unit, method)
            if row is not None and row["seeds"]:
                return Line(
                    measured=f"RMSE ({SIGN[unit]})",
                    method=f"{row['method']} · {row['classes']}",
                    overall=Compared.of(row if unit == "percent" else _relatively(row)),
                    n=f"{_extent(row)}; interval over activities",
                    digits=DIGITS[unit],
                )
    return None


def _relatively(row: Row) -> Row:
    """What is judged in frames is the difference relative to reg's error, whose sign may be another than that of the mean difference."""
    answer = f"{row['answer']} (relative to reg's error: {signed(row['relative'], 1)} %)"
    return {**row, "low": math.nan, "high": math.nan, "answer": answer}


def answers(video: Sequences, runs: SequenceRuns, differences: Differences) -> list[str]:
    """A line a method with a class loss: its test RMSE beside that of reg, on each unit of the target."""
    wanted = runs.wanted
    methods: Sequence[str] = [method for method in WITH_CLASSES if (wanted["method"] == method).any()]
    if not methods:
        return ["No class loss is trained: there is nothing to compare reg with."]
    if not ((wanted["method"] == "reg") & (wanted["state"] == "finished")).any():
        return ["No run of reg is finished: there is nothing to compare the class loss with."]
    lines = []
    for method in methods:
        found = {unit: main_difference(video, table, unit, method) for unit, table in differences.items()}
        there = [(row, unit) for unit, row in found.items() if row is not None and row["seeds"]]
        said = [_headline(*there[0]), *(_in_frames(row) for row, _ in there[1:])] if there else []
        lines.append(" ".join(said) or f"{method}: no run that reg could be compared with.")
    tests = [f"{counted(int(table['p'].notna().sum()), 'test')} ({unit})" for unit, table in differences.items()]
    several = "Of several class counts or λ, the one that params.yaml names. " if _several(runs) else ""
    return [
        *lines,
        f"Δ = RMSE(reg) − RMSE(method): above 0 the class loss helps. {several}Intervals are over activities, which takes these splits and "
        f"seeds as given; “clear” is after correction for {' and '.join(tests)}.",
    ]


def _several(runs: SequenceRuns) -> bool:
    trained = runs.wanted[runs.wanted["classes"] > 0]
    return bool((trained.groupby(["unit", "method"])[["classes", "weight"]].nunique() > 1).any(axis=None))


def _headline(row: Row, unit: Unit) -> str:
    sign = " %" if unit == "percent" else ""
    over = "progress in percent" if unit == "percent" else "progress in frames"
    digits = DIGITS[unit]
    word = beside(row["other"], row["reg"], digits)
    sides = f"{number(row['other'], digits)}{sign} against {number(row['reg'], digits)}{sign} of reg"
    return f"{method_name(row)} has {word} test RMSE on {over}: {sides}, {_gap(row, unit)}, mean over {_extent(row)}."


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
    return f"95 % {signed(low, 2)} to {signed(high, 2)}; {'clear' if answer in ('helps', 'hurts') else answer}"


def _extent(row: Row) -> str:
    return f"{counted(row['activities'], 'activity', 'activities')} × {counted(row['splits'], 'split')} × {counted(row['seeds'], 'seed')}"
