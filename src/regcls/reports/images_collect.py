"""What the reports on images share in reading runs: what is repeated, its names for readers, and the holes."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from regcls.reports.picking import holes_of
from regcls.runs.grids import Found, SingleSpec, searched_lambda
from regcls.tasks.depth.params import Depth
from regcls.tasks.images.params import Images

CELL = ["method", "classes", "lam"]  # what is repeated, with other seeds: one mean


def wanted_table(specs: Iterable[SingleSpec], picked: pd.DataFrame) -> pd.DataFrame:
    """A row a wanted run: CELL (λ of reg is NaN), seed, and the columns of `Picked.wanted`."""
    rows = [{key: getattr(spec, key) for key in [*CELL, "seed"]} | {"lam": np.nan if spec.lam is None else spec.lam} for spec in specs]
    return pd.DataFrame(rows).join(picked)


def cell_name(row: Mapping[str, Any]) -> str:
    """For a reader: `reg+cls · 100 · λ 0.1`."""
    return str(row["method"]) if row["method"] == "reg" else f"{row['method']} · {row['classes']} · λ {row['lam']:g}"


def method_name(row: Mapping[str, Any]) -> str:
    """In a sentence: `reg+cls with 100 classes`."""
    return str(row["method"]) if row["method"] == "reg" else f"{row['method']} with {row['classes']} classes"


def short_name(row: Mapping[str, Any]) -> str:
    """Where there is little room: `reg+cls · 100`."""
    return str(row["method"]) if row["method"] == "reg" else f"{row['method']} · {row['classes']}"


def cell_key(row: Mapping[str, Any], several_lambdas: bool) -> str:
    """For metrics.json: `reg+cls-100`, or `reg+cls-100-0.1` where the grid has several λ."""
    if row["method"] == "reg":
        return "reg"
    return f"{row['method']}-{row['classes']}" + (f"-{row['lam']:g}" if several_lambdas else "")


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Sorted by CELL: reg, reg+cls, reg+cls-bal is also the order of the alphabet."""
    return frame.sort_values(CELL, kind="stable", na_position="first", ignore_index=True)


def hole_lines(wanted: pd.DataFrame) -> list[str]:
    """A line a cell with holes: `reg+cls · 100 · λ 0.1: 2 of 3 seeds (failed: seed 1)`."""
    return holes_of(in_order(wanted), CELL, cell_name, what="seeds")


def lost_lines(wanted: pd.DataFrame, state: str, artifact: str) -> list[str]:
    """A warning where runs are holes only because their `artifact` is gone, which is their `state`."""
    lost = int((wanted["state"] == state).sum())
    gone = f"{lost} finished runs are {state}: their artifact {artifact} is gone. Delete these runs in MLflow, then train them again"
    return [gone] * bool(lost)


def search_lines(section: Images | Depth, found: Found) -> list[str]:
    """A warning a grid whose λ the search has not found yet."""
    lines = []
    for name, grid in section.grids.items():
        if grid.lambdas == "searched" and grid.seeds:
            pairs = [(method, classes) for method in grid.methods if method != "reg" for classes in grid.classes]
            unknown = [f"{method} · {classes}" for method, classes in pairs if searched_lambda(section, found, method, classes) is None]
            if unknown:
                lines.append(f"{name}: no λ is found yet for {', '.join(unknown)}; these runs are neither made nor counted")
    return lines
