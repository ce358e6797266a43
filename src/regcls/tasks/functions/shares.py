"""Table 1: the share of networks that a class loss improves, in our runs and in the paper."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from regcls.reports.measured import METHODS, ranked
from regcls.reports.picking import records
from regcls.reports.stats import FEWEST
from regcls.reports.tables import DASH, Cell, RunGroup, Table, number, p_value, tested
from regcls.tasks.functions import compared, published
from regcls.tasks.functions.collected import ORDER, PANEL, Collected, data_name, in_order
from regcls.tasks.functions.tables import panel_runs

# Names of methods where only class losses are compared; also keys in metrics.json.
KINDS = {"reg+cls": "uniform", "reg+cls-bal": "balanced"}
Column = tuple[str, str, float]  # method, setting, noise: a column of the printed table


def win_table(collected: Collected, *, caption: str, with_published: bool, warning: str = "") -> Table:
    """Table 1, transposed to leave space for a test of each share: a row per (method, setting, noise, sampling)."""
    wanted, networks = collected.wanted, collected.networks
    shares = compared.win_shares(networks, "val_mse")
    requested = wanted[wanted["classes"] > 0].groupby([*PANEL, "method"], sort=False).size().reset_index(name="runs_wanted")
    frame = requested.merge(shares, on=[*PANEL, "method"], how="left")
    if with_published:
        frame = frame.merge(published.table1(), on=[*PANEL, "method"], how="left")
    frame = in_order(frame)
    frame[["networks", "repetitions"]] = frame[["networks", "repetitions"]].fillna(0).astype(int)
    rows: list[tuple[Cell, ...]] = []
    for column in columns(frame):
        rows += [_row(row, panel_runs(wanted, row), with_published) for row in records(_of(frame, column))]
        rows.append(_average_row(frame, column, with_published))
    tests = int(frame["p"].notna().sum())
    notes = [
        "Share (%) of networks, over functions, class counts, λ and repetitions, whose validation MSE is below that of the reg network of "
        "the same function and repetition; ± standard deviation of the shares by repetition. n: repetitions (networks).",
        f"Interval (95 %) and p: t-test of the shares by repetition against 50 %, a toss-up; p (Holm) is adjusted for the {tests} tests of "
        f"this table. There is no test for n < {FEWEST} or equal shares. An average is over the rows above it and not tested.",
    ]
    if with_published and frame["uncertain"].fillna(False).astype(bool).any():
        notes.append(
            "† The order of the columns in the printed table is ambiguous, so the paper's value may belong to another column. "
            "Nothing is tested against it."
        )
    return Table(
        name="table1",
        caption=caption,
        columns=(
            *("classes", "data", "sampling", "share ± std", "95 % interval", "p", "p (Holm)", "n"),
            *(["paper"] if with_published else []),
            "runs",
        ),
        rows=tuple(rows),
        frame=frame,
        notes=tuple(notes),
        warning=warning,
        run_column=True,
    )


def columns(frame: pd.DataFrame) -> list[Column]:
    """The columns of the printed table, in its order."""
    columns: list[Column] = list(frame[["method", "setting", "noise"]].drop_duplicates().itertuples(index=False, name=None))
    return sorted(columns, key=lambda column: (ranked(METHODS)(column[0]), ORDER["setting"].index(column[1]), column[2]))


def average(frame: pd.DataFrame, column: Column, *, of: str = "share") -> float:
    """Mean over samplings of a column of the printed table: ours, or with `of="published"` the paper's; NaN if a sampling has no value."""
    return float(np.mean(_of(frame, column)[of].to_numpy(dtype=float)))


def _of(frame: pd.DataFrame, column: Column) -> pd.DataFrame:
    return frame[(frame[["method", "setting", "noise"]] == list(column)).all(axis=1)]


def _heads(method: str, setting: str, noise: float, sampling: str) -> tuple[Cell, ...]:
    return tuple(Cell(text=text, header=True) for text in (KINDS.get(method, method), data_name(setting, noise), sampling))


def _row(row: Mapping[str, Any], runs: tuple[RunGroup, ...], with_published: bool) -> tuple[Cell, ...]:
    spread = "" if math.isnan(row["std"]) else f" ± {number(row['std'], 1)}"
    interval = DASH if math.isnan(row["low"]) else f"{number(row['low'], 1)} to {number(row['high'], 1)}"
    texts = [f"{number(row['share'], 1)}{spread}", interval, tested(row["p"], row["repetitions"]), p_value(row["p_holm"])]
    texts.append(f"{row['repetitions']} ({row['networks']})")
    if with_published:
        texts.append(_paper(row["published"], row["uncertain"], digits=2))
    heads = _heads(row["method"], row["setting"], row["noise"], row["sampling"])
    return (*heads, *(Cell(text=text) for text in texts), Cell(text="", runs=runs))


def _average_row(frame: pd.DataFrame, column: Column, with_published: bool) -> tuple[Cell, ...]:
    blank = Cell(text="")
    paper = [Cell(text=_paper(average(frame, column, of="published"), True, digits=1))] if with_published else []
    return (*_heads(*column, "average"), Cell(text=number(average(frame, column), 1), strong=True), *[blank] * 4, *paper, blank)


def _paper(share: float, uncertain: Any, *, digits: int) -> str:
    return DASH if math.isnan(share) else f"{number(share, digits)}{'†' if uncertain else ''}"
