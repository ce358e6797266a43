"""Does a class loss help? The answer in words for tasks with one network per run. It states the outcome of the tests, and no more."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from regcls.methods import yaml_name
from regcls.reports.measured import ROW, Runs, at_edge, key_of, method_name, short_name
from regcls.reports.picking import Row, records
from regcls.reports.report import Compared, Line, after_tests, rounded
from regcls.reports.shot_differences import answer_of
from regcls.reports.shot_subject import Subject, best_by_validation, cells, constant_error, ranked_by_validation
from regcls.reports.stats import NOT_TESTED, OPEN, USELESS, holm
from regcls.reports.tables import comparison, interval, number, signed
from regcls.words import counted


def answers(
    subject: Subject,
    runs: Runs,
    table: pd.DataFrame,
    compared: Mapping[str, Mapping[str, Row]],
    *,
    tried: Sequence[float] | str = "default",
) -> list[str]:
    """A line per method, at its class count and λ with the lowest validation error: its test error and reg's, over all images and in Few.

    `table`: from `differences`; `compared`: from `compared_methods`. `tried`: values of λ that validation chose from; text if there was no
    choice. The last line explains the numbers.
    """
    wanted = runs.wanted
    methods = list(dict.fromkeys(runs.in_order(wanted[wanted["method"] != "reg"])["method"]))
    if not methods:
        return ["Only reg is trained: there is nothing to compare it with."]
    if not ((wanted["method"] == "reg") & (wanted["state"] == "finished")).any():
        return ["No run of reg is finished: there is nothing to compare the other methods with."]
    lines = [
        f"{_headline(subject, rows['all'])} {_in_few(subject, rows['few'])}{_edge(runs, rows['all'], tried)}"
        if (rows := compared.get(method))
        else f"{method}: no run to compare reg with."
        for method in methods
    ]
    more = [
        f"To tell more, add seeds or test images: an interval within ± {subject.negligible:g} % of reg's error would show that there is no "
        "difference."
    ]
    is_open = any(rows["all"]["answer"] == OPEN for rows in compared.values())
    return [*lines, *_constant_line(subject, table), *more * is_open, _caution(subject, runs, compared)]


def compared_methods(subject: Subject, runs: Runs, table: pd.DataFrame) -> dict[str, Mapping[str, Row]]:
    """Rows of `differences` by method and shot group: those of each method's class count and λ with the lowest validation error.

    p_holm and answer are adjusted over the methods of a shot group. Methods without runs to compare are left out.
    """
    best = best_by_validation(subject, runs)
    chosen = best[best["method"] != "reg"].merge(table[table["error"] == next(iter(subject.tested))], on=ROW)
    chosen["p_holm"] = chosen.groupby("shot")["p"].transform(lambda p: holm(p.tolist()))
    adjusted = [answer_of(row, subject.negligible) for row in records(chosen)]
    chosen["answer"] = chosen["answer"].where(chosen["answer"] == USELESS, adjusted)
    by_method = {method: {row["shot"]: row for row in records(rows)} for method, rows in chosen.groupby("method", sort=False)}
    return {str(method): rows for method, rows in by_method.items() if rows["all"]["seeds"]}


def line_of(subject: Subject, compared: Mapping[str, Mapping[str, Row]], method: str) -> Line:
    """The row of a method on the start page; `compared`: from `compared_methods`."""
    row, few = compared[method]["all"], compared[method]["few"]
    return Line(
        measured=f"{subject.error} ({subject.unit})" if subject.unit else subject.error,
        method=short_name(row),
        overall=Compared.of(row),
        few=Compared.of(few),
        n=f"{counted(row['seeds'], 'seed')} × {counted(row['images'], 'test image')}{after_tests(_tests(compared))}",
        digits=subject.digits(row["reg"]),
    )


def use(subject: Subject, runs: Runs, compared: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """Lines of the data set's section in params.yaml that use the method with the lowest validation error among those that help."""
    for method in ranked_by_validation(subject, runs)["method"]:
        row = compared.get(method, {}).get("all")
        if row and row["answer"] == "helps":
            classes = f", classes: {row['classes']}" if row["classes"] else ""
            weight = [f"training: {{lambda: {{{row['classes']}: {float(row['weight'])}}}}}"] if row["weight"] else []
            return [f"run: {{method: {yaml_name(method)}{classes}}}", *weight]
    return []


def _tests(compared: Mapping[str, Mapping[str, Row]]) -> int:
    return sum(not math.isnan(rows["all"]["p"]) for rows in compared.values())


def _constant_line(subject: Subject, table: pd.DataFrame) -> list[str]:
    """The error of the best constant beside reg's."""
    error = next(iter(subject.tested))
    constant, reg = constant_error(subject, error), table.loc[(table["error"] == error) & (table["shot"] == "all"), "reg"].dropna()
    if math.isinf(constant) or reg.empty:
        return []
    own = float(reg.iloc[0])
    digits, unit = subject.digits(max(constant, own)), f" ({subject.unit})" if subject.unit else ""
    return [f"For comparison, test {subject.error}{unit}: reg {number(own, digits)}, the best constant {number(constant, digits)}."]


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


def _caution(subject: Subject, runs: Runs, compared: Mapping[str, Mapping[str, Row]]) -> str:
    others, tests = runs.wanted[runs.wanted["classes"] > 0], _tests(compared)
    several = f"Of several class counts, the one with the lowest {subject.judged[1]} is shown. " if others["classes"].nunique() > 1 else ""
    corrected = f"; “helps” and “hurts” are corrected for the {counted(tests, 'method')}" if tests > 1 else ""
    return f"Δ = {subject.error}(reg) − {subject.error}(method): above 0 the method helps. {several}" + (
        f"Intervals and tests are for other seeds and other test images{corrected}." if tests else NOT_TESTED.format(of="seeds")
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
