"""Does a class loss help on a table? The answer in words. It states the outcome of the tests, and no more."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from regcls.methods import yaml_name
from regcls.reports.picking import Row, records
from regcls.reports.stats import LEVEL, OPEN, USELESS
from regcls.reports.tables import comparison, digits_of, interval, number, signed
from regcls.tasks.table.compared import Measured, chosen_texts, constants
from regcls.tasks.table.params import HGB
from regcls.words import counted


def answers(measured: Measured, table: pd.DataFrame, *, unit: str, negligible: float) -> list[str]:
    """A line per method, one on the references, and what would tell more; `table`: from `Measured.differences`."""
    choices = measured.choices
    if "reg" not in set(choices["method"]):
        return ["No run of reg is finished: there is nothing to compare the other methods with."]
    methods = [method for method in dict.fromkeys(choices["method"]) if method not in ("reg", HGB)]
    if not methods:
        return ["Only reg is trained: there is nothing to compare it with."]
    rows = {(row["method"], row["group"]): row for row in records(table[table["error"] == "rmse"])}
    lines = []
    for method in methods:
        overall, few = rows[method, "all"], rows[method, "few"]
        classes, lam = chosen_texts(choices, method)
        with_classes = f" (classes {classes}{f'; λ {lam}' if lam else ''})" if classes else ""
        lines.append(f"{method}{with_classes}: {_compared(overall, unit)}. {_in_few(few)}")
    return [*lines, references(measured, unit=unit), *_more(measured, [rows[method, "all"] for method in methods], negligible)]


def _compared(row: Row, unit: str) -> str:
    digits = digits_of(max(row["reg"], row["other"]))
    in_unit = f" {unit}" if unit else ""
    values = f"test RMSE {number(row['other'], digits)}{in_unit} against {number(row['reg'], digits)} of reg"
    return f"{row['answer']}; {comparison(row['other'], row['reg'], digits)} {values} (Δ {_gap(row, digits)})"


def _in_few(row: Row) -> str:
    if not row["rows"]:
        return "No test row is in Few."
    digits = digits_of(max(row["reg"], row["other"]))
    return f"In Few ({counted(row['rows'], 'row')}): {row['answer']} (Δ {_gap(row, digits)})."


def _gap(row: Row, digits: int) -> str:
    bounds = "" if math.isnan(row["low"]) else f"; 95 % {interval(row['low'], row['high'], digits)}"
    return f"{signed(row['gap'], digits)}, {signed(row['relative'], 1)} %{bounds}"


def references(measured: Measured, *, unit: str) -> str:
    """The test RMSE of reg beside that of a constant and of the trees, if they are fitted."""
    errors = measured.by_part
    values = {"reg": float(errors.loc["reg"]["rmse/all"].mean())}
    if HGB in errors.index.get_level_values(0):
        values["gradient-boosted trees"] = float(errors.loc[HGB]["rmse/all"].mean())
    values["the best constant"] = min(float(table["rmse/all"].mean()) for table in constants(measured.parts).values())
    digits = digits_of(max(values.values()))
    listed = ", ".join(f"{name} {number(value, digits)}" for name, value in values.items())
    return f"For comparison, test RMSE{f' ({unit})' if unit else ''}: {listed}."


def _more(measured: Measured, rows: Sequence[Row], negligible: float) -> list[str]:
    """How the tests are made, and what would narrow an answer that is open."""
    folds, seeds = rows[0]["folds"], rows[0]["seeds"]
    extent = f"{folds} folds × {counted(seeds, 'seed')}" if len(measured.parts) > 1 else f"one split, {counted(seeds, 'seed')}"
    how = f"Δ = RMSE(reg) − RMSE(method), over {extent}. Helps or hurts: p < {LEVEL} after Holm's correction over the methods."
    answers = [row["answer"] for row in rows]
    if USELESS in answers:
        return [
            how,
            "Try more or fewer epochs, another learning rate, or other features: networks that learn nothing say nothing of losses.",
        ]
    if OPEN not in answers:
        return [how]
    wanted = f"an interval within ± {negligible:g} % of reg's error"
    if len(measured.parts) == 1:
        return [how, f"To tell more, train more seeds, or use folds instead of one split: {wanted} would show that there is no difference."]
    # Repeats shrink only the share 1/n of the variance factor 1/n + test/train.
    floor = math.sqrt(measured.ratio / (1 / folds + measured.ratio))
    return [
        how,
        f"To tell more: data.repeats narrows the interval to {floor:.0%} of its width at most; four times the rows would halve it. "
        f"{wanted[0].upper()}{wanted[1:]} would show that there is no difference.",
    ]


def use(measured: Measured, table: pd.DataFrame) -> list[str]:
    """Lines of the section in params.yaml that use the method that helps most; none if no method helps."""
    rows = [row for row in records(table) if (row["error"], row["group"], row["answer"]) == ("rmse", "all", "helps")]
    if not rows:
        return []
    method = min(rows, key=lambda row: float(row["other"]))["method"]
    choices = measured.choices
    classes, weight = choices.loc[choices["method"] == method, ["classes", "weight"]].value_counts().index[0]
    run = f"run: {{method: {yaml_name(method)}{f', classes: {classes}' if classes else ''}}}"
    return [run, *([f"training: {{lambda: {float(weight)}}}"] if weight else [])]


def first(measured: Measured, table: pd.DataFrame) -> Mapping[str, Row]:
    """The RMSE differences of reg+cls by group, or of the first other method; empty if there are none."""
    rows = table[table["error"] == "rmse"]
    methods = list(dict.fromkeys(rows["method"]))
    if not methods:
        return {}
    method = "reg+cls" if "reg+cls" in methods else methods[0]
    return {row["group"]: row for row in records(rows[rows["method"] == method])}
