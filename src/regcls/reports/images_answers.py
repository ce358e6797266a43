"""The answer in words: does a class loss help on images? Says what the tests say, and no more."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from regcls.reports.images_collect import CELL, method_name
from regcls.reports.picking import records
from regcls.reports.report import Compared, Line
from regcls.reports.tables import beside, number, signed
from regcls.words import counted

# What the tests of a difference say: `images_stats.answer`, without its direction.
CLEAR = {
    "": "clear over images and over seeds",
    "as trained": "clear for these trained networks",
    "on these images": "clear over seeds, not over images",
}

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Words:
    """How errors are named in a sentence."""

    tested: str  # the error that is compared, by its name in a table of differences: mae
    error: str  # MAE
    unit: str  # years
    judged: str  # what the class count is chosen by: validation MSE
    nothing_in_few: str  # a sentence
    few: str  # what the images in Few are: `images`
    digits: int  # of an error of at least 1; smaller ones have `small_digits`
    small_digits: int
    intervals: str  # how they are made: a sentence


def answers(wanted: pd.DataFrame, best: pd.DataFrame, differences: pd.DataFrame, words: Words) -> list[str]:
    """A line a method, at its class count with the lowest validation error: test error beside that of reg, over all images and in Few.

    `best`: CELL of those class counts; `differences`: as from `images_stats`; the last line is a caution.
    """
    methods = list(dict.fromkeys(wanted.loc[wanted["method"] != "reg", "method"]))
    finished = wanted[wanted["state"] == "finished"]
    if not methods:
        return ["Only reg is trained: there is nothing to compare it with."]
    if not (finished["method"] == "reg").any():
        return ["No run of reg is finished: there is nothing to compare the class loss with."]
    chosen = best.merge(differences[differences["error"] == words.tested], on=CELL)
    lines = []
    for method in methods:
        rows = {row["shot"]: row for row in records(chosen[chosen["method"] == method])}
        if not rows or not rows["all"]["seeds"]:
            lines.append(f"{method}: no run that reg could be compared with.")
            continue
        lines.append(f"{_headline(rows['all'], words)} {_in_few(rows['few'], words)}")
    return [*lines, _caution(wanted, int(differences["p"].notna().sum()), words)]


def line(best: pd.DataFrame, differences: pd.DataFrame, words: Words) -> Line | None:
    """For the first screen: reg against reg+cls at its best class count; None where one is missing. Arguments as of `answers`."""
    if differences.empty:
        return None
    chosen = best[best["method"] == "reg+cls"].merge(differences[differences["error"] == words.tested], on=CELL)
    rows = {row["shot"]: row for row in records(chosen)}
    if not rows or not rows["all"]["seeds"]:
        return None
    row = rows["all"]
    return Line(
        measured=f"{words.error} ({words.unit})",
        method=f"reg+cls · {row['classes']}",
        overall=Compared.of(row),
        few=Compared.of(rows["few"]),
        n=f"{counted(row['seeds'], 'seed')}, over {counted(row['images'], 'test image')}",
        digits=_digits(row, words),
    )


def _headline(row: Row, words: Words) -> str:
    digits = _digits(row, words)
    word = beside(row["other"], row["reg"], digits)
    images, seeds = counted(row["images"], "test image"), counted(row["seeds"], "seed")
    return (
        f"{method_name(row)} has {word} test {words.error}: {number(row['other'], digits)} {words.unit} against "
        f"{number(row['reg'], digits)} of reg, {_gap(row, digits)}, over {images} and {seeds}."
    )


def _in_few(row: Row, words: Words) -> str:
    if not row["images"]:
        return words.nothing_in_few
    digits = _digits(row, words)
    values = f"{number(row['other'], digits)} against {number(row['reg'], digits)}"
    return f"In Few ({row['images']:,} {words.few}): {values}, {_gap(row, digits)}."


def _digits(row: Row, words: Words) -> int:
    return words.digits if row["reg"] >= 1 else words.small_digits


def _gap(row: Row, digits: int) -> str:
    if math.isnan(row["low"]):
        return f"Δ {signed(row['gap'], digits)} (not tested)"
    word, _, scope = row["answer"].partition(" ")
    said = CLEAR[scope] if word in ("helps", "hurts") else row["answer"]
    return f"Δ {signed(row['gap'], digits)} (95 % {signed(row['low'], digits)} to {signed(row['high'], digits)}; {said})"


def _caution(wanted: pd.DataFrame, tests: int, words: Words) -> str:
    others = wanted[wanted["method"] != "reg"]
    several = f"Of several class counts, the one with the lowest {words.judged}. " if others["classes"].nunique() > 1 else ""
    return (
        f"Δ = {words.error}(reg) − {words.error}(method): above 0 the class loss helps. {several}{words.intervals} “Clear” is after "
        f"correction for {counted(tests, 'test')}. Whether it holds for other seeds is tested in the table of differences."
    )
