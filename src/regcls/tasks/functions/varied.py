"""Grids that vary training values: reg and reg+cls by the width of the network and the optimizer, each at its best other values."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from regcls.reports.drawing import grid_of_axes, look_of, style, to_svg
from regcls.reports.picking import Row, records
from regcls.reports.report import Report, Section, to_csv
from regcls.reports.stats import holm, holm_note, paired, verdict
from regcls.reports.tables import Cell, Table, answer_cell, p_value, signed, with_std
from regcls.tasks.functions import figures, tables
from regcls.tasks.functions.collected import PANEL, VARIED, Collected, data_name, in_order
from regcls.words import counted

NETWORK = [*PANEL, "optimizer", "hidden"]  # what is compared; everything else is chosen
CHOSEN = ["classes", "lam", "learning_rate", "scale", "weight_decay"]


def add(report: Report, name: str, collected: Collected) -> None:
    """Add the sections of a grid that varies training values, and its answers."""
    chosen, candidates = best(collected)
    if chosen.empty:
        return
    frame = differences(chosen)
    table = _table(name, frame, candidates, collected)
    caption = (
        "Test MSE by the width of the first hidden layer, of each method with its best values of all else that the grid varies, chosen by "
        "validation MSE; mean over functions and repetitions, shading: standard deviation over repetitions."
    )
    alt = "Test MSE against the width, a line for each method. Each row of panels is a sampling, each column an optimizer."
    title = "Width, optimizer and scale of the loss"
    report.add(Section(name=name, title=title, svg=by_width(chosen), alt=alt, caption=caption, table=table))
    report.files[f"{name}_candidates.csv"] = to_csv(candidates.rename(columns={"lam": "lambda"}))
    report.answers += answers(frame)


def best(collected: Collected) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The choice of each method on each NETWORK, and all candidates.

    Choice: a row per repetition with NETWORK, method, CHOSEN, repetition, val_mse and test_mse (means over functions). Candidates: a row
    per NETWORK, method and CHOSEN with the mean validation MSE and the number of repetitions; only those with all repetitions compete.
    """
    keys = [*NETWORK, "method", *CHOSEN]
    networks = collected.networks.merge(collected.wanted[VARIED], left_on="spec", right_index=True)
    means = networks.groupby([*keys, "repetition"], dropna=False, sort=False)[["val_mse", "test_mse"]].mean().reset_index()
    grouped = means.groupby(keys, dropna=False, sort=False)["val_mse"]
    candidates = grouped.agg(val_mse="mean", repetitions="size").reset_index()
    requested = collected.wanted.groupby(keys, dropna=False, sort=False).size().rename("requested").reset_index()
    candidates = requested.merge(candidates, on=keys, how="left").fillna({"repetitions": 0}).astype({"repetitions": int})
    whole = candidates[candidates["repetitions"] == candidates["requested"]]
    winners = whole.sort_values("val_mse", kind="stable").drop_duplicates([*NETWORK, "method"])
    return means.merge(winners[keys], on=keys, how="inner"), candidates


def differences(chosen: pd.DataFrame) -> pd.DataFrame:
    """A row per NETWORK and method but reg: its CHOSEN and those of reg (reg_…), means and standard deviations, Paired, p_holm, answer."""
    rows = []
    for key, part in chosen.groupby(NETWORK, sort=False):
        reg = part[part["method"] == "reg"].set_index("repetition")
        for method, other in part[part["method"] != "reg"].groupby("method", sort=False):
            both = other.set_index("repetition").join(reg[["test_mse", *CHOSEN]].add_prefix("reg_"), how="inner").sort_index()
            if both.empty:
                continue
            row = dict(zip(NETWORK, key, strict=True)) | {"method": method} | {name: both[name].iloc[0] for name in CHOSEN}
            row |= {f"reg_{name}": both[f"reg_{name}"].iloc[0] for name in CHOSEN}
            row |= {"reg": both["reg_test_mse"].mean(), "reg_std": both["reg_test_mse"].std()}
            row |= {"other": both["test_mse"].mean(), "other_std": both["test_mse"].std()}
            rows.append(row | asdict(paired(both["reg_test_mse"].tolist(), both["test_mse"].tolist())))
    frame = pd.DataFrame(rows, columns=None if rows else [*NETWORK, "method", "gap", "p", "n"])
    frame = in_order(frame[PANEL].drop_duplicates()).merge(frame.sort_values(["optimizer", "hidden", "method"]), on=PANEL)
    frame["p_holm"] = holm(frame["p"].tolist())
    frame["answer"] = [verdict(row["gap"], row["p_holm"], row["n"]) for row in records(frame)]
    return frame


def _table(name: str, frame: pd.DataFrame, candidates: pd.DataFrame, collected: Collected) -> Table:
    rows = []
    for row in records(frame):
        names = (data_name(row["setting"], row["noise"]), row["sampling"], row["optimizer"], _hidden(row["hidden"]), row["method"])
        values = {name: row[f"reg_{name}"] for name in CHOSEN}
        texts = (
            *(with_std(row["reg"], row["reg_std"], 3), _values(values), with_std(row["other"], row["other_std"], 3), _values(row)),
            *(tables.gap_text(row), p_value(row["p_holm"])),
        )
        runs = tables.groups(_runs(collected.wanted, row, values))
        heads = (Cell(text=text, header=True) for text in names)
        rows.append((*heads, *(Cell(text=text) for text in texts), answer_cell(row["answer"]), Cell(text="", runs=runs)))
    lost = candidates["repetitions"] < candidates["requested"]
    return Table(
        name=name,
        caption="Test MSE of reg and the other method, each with the values that are best for it by validation.",
        columns=(
            *("data", "sampling", "optimizer", "hidden", "method", "reg", "its values", "method's", "its values"),
            *("Δ (95 % interval)", "p (Holm)", "does it help?", "runs"),
        ),
        rows=tuple(rows),
        frame=frame.rename(columns={"lam": "lambda"}),
        notes=(
            "± : standard deviation over repetitions, of means over functions. Values: what the grid varies and, of the method, its class "
            "count and λ; chosen by the mean validation MSE. The other method has more values to choose from than reg.",
            tables.CI_NOTE,
            holm_note(int(frame["p"].notna().sum()), of="repetitions"),
            f"{counted(len(candidates), 'combination')} of values, of which {lost.sum()} lack repetitions, as networks diverged or are "
            f"missing, and cannot be chosen. {name}_candidates.csv has all of them.",
        ),
        run_column=True,
    )


def _hidden(hidden: Sequence[int]) -> str:
    return "×".join(map(str, hidden))


def _values(row: Row) -> str:
    """`C 16, λ 100, lr 0.01, scale 10`."""
    shown = {"classes": "C", "lam": "λ", "learning_rate": "lr", "scale": "scale", "weight_decay": "decay"}
    left_out = {"classes": 0, "scale": 1, "weight_decay": 0}
    return ", ".join(f"{text} {row[name]:g}" for name, text in shown.items() if not np.isnan(row[name]) and left_out.get(name) != row[name])


def _runs(wanted: pd.DataFrame, row: Row, reg: Row) -> pd.DataFrame:
    """The runs behind a row: of reg, with the values `reg`, and of the row's method."""
    same = _equal(wanted, {name: row[name] for name in NETWORK})
    of_reg, own = (_equal(wanted, values) & (wanted["method"] == method) for values, method in ((reg, "reg"), (row, row["method"])))
    return wanted.loc[same & (of_reg | own)]


def _equal(wanted: pd.DataFrame, values: Row) -> "pd.Series[bool]":
    found = pd.Series(True, index=wanted.index)
    for name in {*NETWORK, *CHOSEN} & values.keys():
        found &= wanted[name].map(lambda value, expected=values[name]: value == expected or (value != value and expected != expected))
    return found


def answers(frame: pd.DataFrame) -> list[str]:
    """A sentence for each method, panel and optimizer: does the class loss help more with size?"""
    lines = []
    key: Any  # pandas-stubs know it as a tuple of Hashable
    for key, part in frame.groupby([*PANEL, "optimizer", "method"], sort=False):
        setting, noise, sampling, optimizer, method = key
        gaps = ", ".join(f"{signed(100 * row['gap'] / row['reg'], 0)} % with {_hidden(row['hidden'])}" for row in records(part))
        clear = part["answer"].isin(["helps", "hurts"]).sum()
        lines.append(
            f"{data_name(setting, noise)}, {sampling}, {optimizer}: the gain of {method} over reg in test MSE is {gaps} hidden units, "
            f"clear in {clear} of {len(part)}."
        )
    return lines


def by_width(chosen: pd.DataFrame) -> str:
    """Test MSE by the width of the first hidden layer; rows: setting and sampling, columns: optimizers."""
    with style():
        panels, optimizers = list(in_order(chosen).groupby(PANEL, sort=False)), sorted(chosen["optimizer"].unique())
        figure, axes = grid_of_axes(len(panels), len(optimizers), width=3.2, height=1.7, head=0.62)
        panel: Any  # pandas-stubs know it as a tuple of Hashable
        for place, (panel, rows) in enumerate(panels):
            setting, noise, sampling = panel
            for optimizer, part in rows.groupby("optimizer", sort=False):
                ax = axes[place, optimizers.index(optimizer)]
                for method, line in part.groupby("method", sort=False):
                    points = line.assign(width=line["hidden"].str[0]).groupby("width")["test_mse"].agg(["mean", "std"])
                    look = look_of(str(method))
                    ax.plot(points.index, points["mean"], label=method, **{**look, "marker": look["marker"] or "s"})
                    low, high = points["mean"] - points["std"], points["mean"] + points["std"]
                    ax.fill_between(points.index, low, high, color=look["color"], alpha=0.14, linewidth=0)
                ax.set_xscale("log", base=2)
                widths = sorted(part["hidden"].str[0].unique())
                ax.set_xticks(widths, list(map(str, widths)))
                ax.minorticks_off()
                ax.set_title(f"{data_name(setting, noise)}, {sampling}", loc="left")
                ax.set_title(optimizer, loc="right", color="#555555")
        figures.outer_labels(axes, "units of the first hidden layer", "test MSE")
        figures.legend(figure, axes)
        return to_svg(figure)
