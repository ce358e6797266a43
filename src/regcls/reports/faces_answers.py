"""The answer in words: does a class loss help on faces? Says what the tests say, and no more."""

import math
from collections.abc import Mapping
from typing import Any

from regcls.reports import faces_stats
from regcls.reports.faces_collect import CELL, FaceRuns, method_name
from regcls.reports.picking import records
from regcls.reports.tables import number, signed

# What the tests of a difference say: `faces_stats.answer`, without its direction.
CLEAR = {
    "": "clear over images and over seeds",
    "as trained": "clear for these trained networks",
    "on these images": "clear over seeds, not over images",
}

Row = Mapping[str, Any]


def answers(runs: FaceRuns) -> list[str]:
    """A line a method, at its class count with the lowest validation MSE: test MAE beside that of reg, over all images and in Few."""
    methods = list(dict.fromkeys(runs.wanted.loc[runs.wanted["method"] != "reg", "method"]))
    finished = runs.wanted[runs.wanted["state"] == "finished"]
    if not methods:
        return ["Only reg is trained: there is nothing to compare it with."]
    if not (finished["method"] == "reg").any():
        return ["No run of reg is finished: there is nothing to compare the class loss with."]
    table = faces_stats.differences(runs)
    best = faces_stats.best_by_validation(runs).merge(table[table["error"] == "mae"], on=CELL)
    lines = []
    for method in methods:
        rows = {row["shot"]: row for row in records(best[best["method"] == method])}
        if not rows or not rows["all"]["seeds"]:
            lines.append(f"{method}: no run that reg could be compared with.")
            continue
        lines.append(f"{_headline(rows['all'])} {_in_few(rows['few'])}")
    return [*lines, _caution(runs, int(table["p"].notna().sum()))]


def _headline(row: Row) -> str:
    digits = _digits(row)
    word = "lower" if row["gap"] > 0 else "higher"
    images, seeds = f"{row['images']:,} test images", f"{row['seeds']} seed{'s' if row['seeds'] > 1 else ''}"
    return (
        f"{method_name(row)} has the {word} test MAE: {number(row['other'], digits)} years against {number(row['reg'], digits)} of reg, "
        f"{_gap(row)}, over {images} and {seeds}."
    )


def _in_few(row: Row) -> str:
    if not row["images"]:
        return "No test image is in Few."
    digits = _digits(row)
    return f"In Few ({row['images']:,} images): {number(row['other'], digits)} against {number(row['reg'], digits)}, {_gap(row)}."


def _digits(row: Row) -> int:
    return 2 if row["reg"] >= 1 else 4


def _gap(row: Row) -> str:
    digits = _digits(row)
    if math.isnan(row["low"]):
        return f"Δ {signed(row['gap'], digits)} (not tested)"
    word, _, scope = row["answer"].partition(" ")
    said = CLEAR[scope] if word in ("helps", "hurts") else row["answer"]
    return f"Δ {signed(row['gap'], digits)} (95 % {signed(row['low'], digits)} to {signed(row['high'], digits)}; {said})"


def _caution(runs: FaceRuns, tests: int) -> str:
    others = runs.wanted[runs.wanted["method"] != "reg"]
    several = "Of several class counts, the one with the lowest validation MSE. " if others["classes"].nunique() > 1 else ""
    return (
        f"Δ = MAE(reg) − MAE(method): above 0 the class loss helps. {several}Intervals are over test images, which takes the trained "
        f"networks as given; “clear” is after correction for {tests} tests. Whether it holds for other seeds is tested in the table of "
        "differences."
    )
