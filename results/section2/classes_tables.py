"""Uniform against balanced classes, and the number of classes: tests and tables."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from regcls.reports.picking import records
from regcls.reports.stats import holm, one_sample, paired
from regcls.reports.tables import Cell, Table, interval, number, p_value, signed, with_std
from regcls.tasks.functions.collected import PANEL, data_name, in_order

UNIFORM, BALANCED = "reg+cls", "reg+cls-bal"  # uniform and balanced classes
PAIRS = {"uniform": ("reg", UNIFORM), "balanced": ("reg", BALANCED), "uniform_balanced": (UNIFORM, BALANCED)}
HOLM = "p is adjusted (Holm) for the {tests} tests of its column. The unit of all tests is the repetition (n = {n})."


def versus(means: pd.DataFrame, keys: Sequence[str], prefix: str, sides: tuple[str, str]) -> pd.DataFrame:
    """Paired tests over repetitions of `sides`, two columns of `means`; a row per `keys`, whose columns begin with `prefix`."""
    rows = []
    key: Any
    for key, part in means.groupby(list(keys), sort=False):
        one, other = (part.groupby("repetition")[side].mean().tolist() for side in sides)
        test = {f"{prefix}_{name}": value for name, value in asdict(paired(one, other)).items()}
        rows.append(dict(zip(keys, key, strict=True)) | test)
    table = pd.DataFrame(rows)
    return table.assign(**{f"{prefix}_p_holm": holm(table[f"{prefix}_p"].tolist())})


def by_method(networks: pd.DataFrame, metric: str, keys: Sequence[str] = PANEL) -> pd.DataFrame:
    """Means of `metric` over all else: a row per (`keys`, repetition), a column per method."""
    return in_order(networks.groupby([*keys, "repetition", "method"], sort=False)[metric].mean().unstack("method").dropna().reset_index())


def outcomes(networks: pd.DataFrame) -> pd.DataFrame:
    """The networks with classes; column `won`: 100 where the validation MSE is below that of the reg network, else 0."""
    same = [*PANEL, "repetition", "function"]
    reg = networks.loc[networks["method"] == "reg", [*same, "val_mse"]].rename(columns={"val_mse": "reg"})
    others = networks[networks["method"] != "reg"].merge(reg, on=same)
    return others.assign(won=100.0 * (others["val_mse"] < others["reg"]))


def row_cells(texts: Iterable[str], heads: int) -> tuple[Cell, ...]:
    return tuple(Cell(text=text, header=place < heads) for place, text in enumerate(texts))


def data(row: dict[str, Any]) -> str:
    return data_name(row["setting"], row["noise"])


def gap_text(row: dict[str, Any], prefix: str, digits: int = 3) -> str:
    return f"{signed(row[f'{prefix}_gap'], digits)} ({interval(row[f'{prefix}_low'], row[f'{prefix}_high'], digits)})"


def balanced_table(networks: pd.DataFrame, what: str) -> Table:
    """Reg, uniform and balanced classes in each panel, each against each."""
    means = by_method(networks, "test_mse")
    frame = means.groupby(PANEL, sort=False)[["reg", UNIFORM, BALANCED]].agg(["mean", "sem"])
    frame.columns = [f"{method}{'_se' if of == 'sem' else ''}" for method, of in frame.columns]
    frame = frame.reset_index()
    for prefix, sides in PAIRS.items():
        frame = frame.merge(versus(means, PANEL, prefix, sides), on=PANEL)
    rows = []
    for row in records(frame):
        sides = [with_std(row[method], row[f"{method}_se"], 3) for method in ("reg", UNIFORM, BALANCED)]
        tests = [text for prefix in PAIRS for text in (gap_text(row, prefix), p_value(row[f"{prefix}_p_holm"]))]
        rows.append(row_cells((data(row), row["sampling"], *sides, *tests), 2))
    heads = ("reg − reg+cls", "p", "reg − reg+cls-bal", "p", "reg+cls − reg+cls-bal", "p")
    return Table(
        name="balanced",
        caption=f"{what} with uniform and balanced classes: test MSE, each the mean over functions, repetitions and class counts.",
        columns=("data", "sampling", "reg", UNIFORM, BALANCED, *heads),
        rows=tuple(rows),
        frame=frame,
        notes=(
            "± : standard error over repetitions. Differences with 95 % intervals: paired t-tests; above 0 the second method is better.",
            HOLM.format(tests=len(frame), n=int(frame["uniform_n"].max())),
        ),
    )


def balanced_settings_table(networks: pd.DataFrame) -> Table:
    """Uniform against balanced classes, over the three imbalanced samplings of each setting of Figures 3 and 5."""
    keys = ["setting", "noise"]
    means = by_method(networks[networks["sampling"] != "uniform"], "test_mse", keys)
    frame = means.groupby(keys, sort=False)[["reg", UNIFORM, BALANCED]].mean().reset_index()
    for method in (UNIFORM, BALANCED):
        frame[f"{method}_lowers_percent"] = 100 * (frame["reg"] - frame[method]) / (frame["reg"] - frame["noise"] ** 2)
    frame = frame.merge(versus(means, keys, "uniform_balanced", PAIRS["uniform_balanced"]), on=keys)
    rows = []
    for row in records(frame):
        sides = [number(row[method], 3) for method in ("reg", UNIFORM, BALANCED)]
        lowers = [number(row[f"{method}_lowers_percent"], 0) for method in (UNIFORM, BALANCED)]
        test = (gap_text(row, "uniform_balanced"), p_value(row["uniform_balanced_p_holm"]))
        rows.append(row_cells((data(row), *sides, *lowers, *test), 1))
    return Table(
        name="balanced_settings",
        caption="Uniform and balanced classes: test MSE, the mean over functions, repetitions, class counts and the imbalanced samplings.",
        columns=(
            *("data", "reg", UNIFORM, BALANCED, "reg+cls lowers (%)", "reg+cls-bal lowers (%)"),
            *("reg+cls − reg+cls-bal (95 % interval)", "p (Holm)"),
        ),
        rows=tuple(rows),
        frame=frame,
        notes=(
            "Lowers: (reg − method) / (reg − σ²): test targets have the same noise. Difference: above 0, balanced classes are better.",
            HOLM.format(tests=len(frame), n=int(frame["uniform_balanced_n"].max())),
        ),
    )


def class_counts_table(networks: pd.DataFrame) -> Table:
    """Does the number of classes matter? Test MSE by class count, and its trend from the fewest to the most classes."""
    keys = [*PANEL, "method"]
    means = networks[networks["classes"] > 0].groupby([*keys, "classes", "repetition"], sort=False)["test_mse"].mean().unstack("classes")
    means = means.sort_index(axis=1)
    counts = means.columns.tolist()
    steps = np.log2(counts) - np.log2(counts).mean()
    trends = (means * steps).sum(axis=1) / (steps**2).sum() * (steps[-1] - steps[0])  # least squares, on log2 C
    rows = []
    key: Any
    for key, trend in trends.groupby(keys, sort=False):
        low, high, p = one_sample(trend.to_numpy(), against=0.0)
        by_count = means.loc[key].mean()
        errors = {f"classes_{count}": by_count[count] for count in counts} | {"range": by_count.max() - by_count.min()}
        rows.append(dict(zip(keys, key, strict=True)) | errors | {"n": len(trend), "trend_gap": trend.mean(), "trend_low": low}
                    | {"trend_high": high, "p": p})  # fmt: skip
    frame = in_order(pd.DataFrame(rows))
    frame["p_holm"] = holm(frame["p"].tolist())
    lines = []
    for row in records(frame):
        errors = [number(row[name], 3) for name in (*(f"classes_{count}" for count in counts), "range")]
        lines.append(row_cells((data(row), row["sampling"], row["method"], *errors, gap_text(row, "trend"), p_value(row["p_holm"])), 3))
    return Table(
        name="class_counts",
        caption="Test MSE by number of classes, the mean over functions and repetitions.",
        columns=("data", "sampling", "method", *(f"{count} classes" for count in counts), "range", "trend (95 % interval)", "p (Holm)"),
        rows=tuple(lines),
        frame=frame,
        notes=(
            "Range: largest − smallest. Trend: change of the MSE from the fewest to the most classes, along a line in log C fitted "
            "in each repetition.",
            HOLM.format(tests=len(frame), n=int(frame["n"].max())),
        ),
    )


def sensitivity_table(networks: pd.DataFrame) -> Table:
    """Are balanced classes less sensitive to λ? Shares of Table 1 and validation MSE over all λ, uniform against balanced classes."""
    others, frames = outcomes(networks), []
    for keys in (PANEL, ["setting", "noise"]):
        table = None
        for prefix, metric in (("share", "won"), ("mse", "val_mse")):
            means = by_method(others, metric, keys)
            sides = means.groupby(keys, sort=False)[[UNIFORM, BALANCED]].mean().add_prefix(f"{prefix}_").reset_index()
            part = sides.merge(versus(means, keys, prefix, (BALANCED, UNIFORM) if prefix == "share" else (UNIFORM, BALANCED)), on=keys)
            table = part if table is None else table.merge(part, on=keys)
        assert table is not None
        frames.append(table)
    frames[1]["sampling"] = "all four"
    frame = pd.concat(frames, ignore_index=True)[frames[0].columns]
    rows = []
    for row in records(frame):
        won = [number(row[f"share_{method}"], 1) for method in (UNIFORM, BALANCED)]
        mse = [number(row[f"mse_{method}"], 3) for method in (UNIFORM, BALANCED)]
        tests = [(gap_text(row, prefix, digits), p_value(row[f"{prefix}_p_holm"])) for prefix, digits in (("share", 1), ("mse", 3))]
        rows.append(row_cells((data(row), row["sampling"], *won, *tests[0], *mse, *tests[1]), 2))
    return Table(
        name="table1_balanced",
        caption="Are balanced classes less sensitive to λ? Share (%) of Table 1 and mean validation MSE, over all λ and class counts.",
        columns=(
            *("data", "sampling", "share: uniform", "balanced", "balanced − uniform (95 % interval)", "p (Holm)"),
            *("MSE: uniform", "balanced", "uniform − balanced (95 % interval)", "p (Holm)"),
        ),
        rows=tuple(rows),
        frame=frame,
        notes=(
            "Above 0, balanced classes are better. Paired t-tests over repetitions (n = 3); p is adjusted (Holm) for the "
            f"{len(frames[0])} tests of the panels, and for the {len(frames[1])} tests of the last rows, in each column.",
        ),
    )
