"""Does a class loss help? The answer in words for tasks with one network per run. It states the outcome of the tests, and no more."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from regcls.reports.measured import ROW, Runs, at_edge, key_of, method_name
from regcls.reports.picking import Row, records
from regcls.reports.report import Compared, Line, after_tests, rounded
from regcls.reports.shot_subject import Subject, best_by_validation, cells, constant_error, ranked_by_validation
from regcls.reports.stats import NOT_TESTED, OPEN
from regcls.reports.tables import comparison, interval, number, signed
from regcls.words import counted


def answers(subject: Subject, runs: Runs, table: pd.DataFrame, *, tried: Sequence[float] | str = "default") -> list[str]:
    """A line per method, at its class count with the lowest validation error: its test error and reg's, over all images and in Few.

    `table`: from `differences`. `tried`: values of λ that validation chose from; text if there was no choice. The last line explains the
    numbers.
    """
    wanted = runs.wanted
    methods = list(dict.fromkeys(runs.in_order(wanted[wanted["method"] != "reg"])["method"]))
    if not methods:
        return ["Only reg is trained: there is nothing to compare it with."]
    if not ((wanted["method"] == "reg") & (wanted["state"] == "finished")).any():
        return ["No run of reg is finished: there is nothing to compare the other methods with."]
    lines, found = [], []
    for method in methods:
        rows = _best_differences(subject, runs, table, method)
        text = f"{_headline(subject, rows['all'])} {_in_few(subject, rows['few'])}{_edge(runs, rows['all'], tried)}" if rows else ""
        lines.append(text or f"{method}: no run to compare reg with.")
        found += [rows["all"]["answer"]] if rows else []
    more = [
        f"To tell more, add seeds or test images: an interval within ± {subject.negligible:g} % of reg's error would show that there is no "
        "difference."
    ]
    return [*lines, *_constant_line(subject, table), *more * (OPEN in found), _caution(subject, runs, int(table["p"].notna().sum()))]


def use(subject: Subject, runs: Runs, table: pd.DataFrame) -> list[str]:
    """Lines of the data set's section in params.yaml that use the method with the lowest validation error among those that help."""
    for row in records(ranked_by_validation(subject, runs)):
        rows = _best_differences(subject, runs, table, row["method"]) if row["method"] != "reg" else {}
        if rows and rows["all"]["answer"] == "helps":
            classes = f", classes: {row['classes']}" if row["classes"] else ""
            weight = [f"training: {{lambda: {{{row['classes']}: {float(row['weight'])}}}}}"] if row["weight"] else []
            return [f"run: {{method: {row['method']}{classes}}}", *weight]
    return []


def _constant_line(subject: Subject, table: pd.DataFrame) -> list[str]:
    """The error of the best constant beside reg's."""
    error = next(iter(subject.tested))
    constant, reg = constant_error(subject, error), table.loc[(table["error"] == error) & (table["shot"] == "all"), "reg"].dropna()
    if math.isinf(constant) or reg.empty:
        return []
    own = float(reg.iloc[0])
    digits, unit = subject.digits(max(constant, own)), f" ({subject.unit})" if subject.unit else ""
    return [f"For comparison, test {subject.error}{unit}: reg {number(own, digits)}, the best constant {number(constant, digits)}."]


def lines(subject: Subject, runs: Runs, table: pd.DataFrame) -> list[Line]:
    """The row on the start page: reg against reg+cls at its best class count; none if either is missing."""
    rows = _best_differences(subject, runs, table, "reg+cls")
    if not rows:
        return []
    row, tests = rows["all"], int(table["p"].notna().sum())
    return [
        Line(
            measured=f"{subject.error} ({subject.unit})" if subject.unit else subject.error,
            method=f"reg+cls · {row['classes']}",
            overall=Compared.of(row),
            few=Compared.of(rows["few"]),
            n=f"{counted(row['seeds'], 'seed')} × {counted(row['images'], 'test image')}{after_tests(tests)}",
            digits=subject.digits(row["reg"]),
        )
    ]


def _best_differences(subject: Subject, runs: Runs, table: pd.DataFrame, method: str) -> Mapping[str, Row]:
    """The differences of a method to reg at its best class count, by shot group; empty if no runs can be compared."""
    best = best_by_validation(subject, runs)
    chosen = best[best["method"] == method].merge(table[table["error"] == next(iter(subject.tested))], on=ROW)
    rows = {row["shot"]: row for row in records(chosen)}
    return rows if rows and rows["all"]["seeds"] else {}


def _headline(subject: Subject, row: Row) -> str:
    digits = subject.digits(row["reg"])
    unit = f" {subject.unit}" if subject.unit else ""
    images, seeds = counted(row["images"], "test image"), counted(row["seeds"], "seed")
    weight = f", λ {row['weight']}" if row["weight"] else ""
    compared = f"It has {comparison(row['other'], row['reg'], digits)} test {subject.error}"
    values = f"{number(row['other'], digits)}{unit} against {number(row['reg'], digits)} of reg"
    return f"{method_name(row)}{weight}{_answer(row)} {compared}: {values}, {_gap(subject, row)}, over {images} and {seeds}."


def _answer(row: Row) -> str:
    return "." if math.isnan(row["low"]) else f": {row['answer']}."


def _in_few(subject: Subject, row: Row) -> str:
    if not row["images"]:
        return subject.nothing_in_few
    digits = subject.digits(row["reg"])
    values = f"{number(row['other'], digits)} against {number(row['reg'], digits)}"
    return f"In Few ({subject.few(row['images'])}){_answer(row)} {values}, {_gap(subject, row)}."


def _edge(runs: Runs, row: Row, tried: Sequence[float] | str) -> str:
    """A sentence if the class count or λ of a row is at the edge of its grid, else empty."""
    classes = runs.wanted.loc[runs.wanted["method"] == row["method"], "classes"]
    edges = [f"{row['classes']} classes"] if at_edge(row["classes"], classes, least=2) else []
    edges += [f"λ {row['weight']}"] if row["weight"] and not isinstance(tried, str) and at_edge(float(row["weight"]), tried) else []
    return (
        f" At the edge of the grid: {' and '.join(edges)}. Extend it by a factor of ten: a better value may lie outside." if edges else ""
    )


def _gap(subject: Subject, row: Row) -> str:
    digits = subject.digits(row["reg"])
    tested = "not tested" if math.isnan(row["low"]) else f"95 % {interval(row['low'], row['high'], digits)}"
    return f"Δ {signed(row['gap'], digits)} ({tested})"


def _caution(subject: Subject, runs: Runs, tests: int) -> str:
    others = runs.wanted[runs.wanted["classes"] > 0]
    several = f"Of several class counts, the one with the lowest {subject.judged[1]} is shown. " if others["classes"].nunique() > 1 else ""
    scope = "Intervals and tests are for other seeds and other test images"
    return f"Δ = {subject.error}(reg) − {subject.error}(method): above 0 the method helps. {several}" + (
        f"{scope}; “helps” and “hurts” are corrected for {counted(tests, 'test')}." if tests else NOT_TESTED.format(of="seeds")
    )


def few_metrics(subject: Subject, runs: Runs, table: pd.DataFrame) -> dict[str, Any]:
    """Columns of `dvc exp show`: the error (all, few) of each cell and its gap to reg; null if missing."""
    shown, name = ("all", "few"), next(iter(subject.tested))
    metric = next(metric for metric in subject.main.metrics if metric.name == name)
    frame = cells(subject, runs, [metric])
    several = bool(frame.duplicated(["method", "classes"]).any())
    errors = {key_of(row, several_weights=several): {shot: rounded(row[f"{name}_{shot}"]) for shot in shown} for row in records(frame)}
    gaps: dict[str, dict[str, float | None]] = {}
    for row in records(table[(table["error"] == name) & table["shot"].isin(shown)]):
        gaps.setdefault(key_of(row, several_weights=several), {})[row["shot"]] = rounded(row["gap"])
    return {name: errors} | ({"gap": gaps} if gaps else {})
