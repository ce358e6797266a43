"""What the reports on images share in counting: means over seeds, and what a class loss changes."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from regcls.reports.images_collect import CELL, cell_key, in_order
from regcls.reports.picking import records
from regcls.reports.report import rounded
from regcls.reports.stats import full, holm

LEVEL = 0.05  # of Holm-adjusted p, below which a difference is called clear
INTERVALS = ("low", "high", "p", "low_seeds", "high_seeds", "p_seeds")

# Run ids of reg and of another cell, of the same seeds in the same order -> a row a (error, shot group): see `differences`.
Compare = Callable[[Sequence[str], Sequence[str]], Iterable[Mapping[str, Any]]]


def means(wanted: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """A row a cell that was asked for, empty ones included; `values`: a row a run id, a column an error.

    CELL; seeds and seeds_wanted (counts); for each column of `values` its mean over seeds, and under its name with `_std` the standard
    deviation (n − 1 below; NaN where there is one seed).
    """
    rows = []
    key: Any  # pandas-stubs know it as a tuple of Hashable
    for key, cell in wanted.groupby(CELL, dropna=False, sort=False):
        counted = cell.loc[cell["state"] == "finished", "run_id"]
        found = values.reindex(index=counted).astype(float)
        row = dict(zip(CELL, key, strict=True)) | {"seeds": len(counted), "seeds_wanted": len(cell)}
        for name, mean, std in zip(values.columns, found.mean().tolist(), found.std().tolist(), strict=True):
            row |= {name: mean, f"{name}_std": std}
        rows.append(row)
    columns = [*CELL, "seeds", "seeds_wanted", *(each for name in values.columns for each in (name, f"{name}_std"))]
    return in_order(pd.DataFrame(rows, columns=columns))


def best_by(cells: pd.DataFrame, error: str) -> pd.DataFrame:
    """CELL of the class count and λ with the lowest mean `error`, a row a method; `cells` as from `means`."""
    parts = [full(method).sort_values(error, kind="stable").head(1) for _, method in cells.groupby("method", sort=True)]
    best: pd.DataFrame = in_order(pd.concat(parts)).loc[:, CELL]
    return best


def runs_by_seed(cell: pd.DataFrame) -> dict[int, str]:
    """Seed -> run id of the counted runs among rows of `wanted`."""
    counted = cell[cell["state"] == "finished"]
    return dict(zip(counted["seed"].tolist(), counted["run_id"].tolist(), strict=True))


def runs_of(wanted: pd.DataFrame, row: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of `wanted` that are of the cell that `row` names."""
    same = (wanted["method"] == row["method"]) & (wanted["classes"] == row["classes"])
    found: pd.DataFrame = wanted[same & ((wanted["lam"] == row["lam"]) | (row["method"] == "reg"))]
    return found


def differences(wanted: pd.DataFrame, compare: Compare) -> pd.DataFrame:
    """error(reg) − error(method), above 0 the class loss helps: a row a (cell but reg, error, shot group) over the seeds that both have.

    CELL; what `compare` gives: error, shot, reg and other (the two means), gap, images and seeds (counts), low, high and p (over images:
    95 % interval and p), low_seeds, high_seeds and p_seeds (over seeds); p_holm and p_holm_seeds, adjusted over all rows; answer: what the
    two say together. No rows where reg is not asked for.
    """
    by_seed = {key: runs_by_seed(cell) for key, cell in wanted.groupby(CELL, dropna=False, sort=False)}
    reg = next((seeds for key, seeds in by_seed.items() if key[0] == "reg"), None)
    rows: list[dict[str, Any]] = []
    for key, seeds in by_seed.items():
        if reg is None or key[0] == "reg":
            continue
        common = sorted(reg.keys() & seeds.keys())
        found = compare([reg[seed] for seed in common], [seeds[seed] for seed in common])
        rows += [dict(zip(CELL, key, strict=True)) | dict(row) for row in found]
    table = pd.DataFrame(rows, columns=[*CELL, "error", "shot", "reg", "other", "gap", "images", "seeds", *INTERVALS])
    for p, adjusted in (("p", "p_holm"), ("p_seeds", "p_holm_seeds")):
        table[adjusted] = np.array(holm(table[p].tolist()), dtype=float)
    table["answer"] = [answer(row) for row in records(table)]
    return table.sort_values(["error", *CELL], kind="stable", ignore_index=True)


def answer(row: Mapping[str, Any]) -> str:
    """What both tests say together, in a word or two.

    `helps` or `hurts`: clear over images and over seeds; `helps as trained`: over images only; `helps on these images`: over seeds only.
    """
    if math.isnan(row["gap"]):
        return "no images" if not row["images"] else "no runs"
    if math.isnan(row["p_holm"]) and math.isnan(row["p_holm_seeds"]):
        return "not tested"
    word = "helps" if row["gap"] > 0 else "hurts"
    over_images, over_seeds = row["p_holm"] < LEVEL, row["p_holm_seeds"] < LEVEL
    if over_images and over_seeds:
        return word
    return f"{word} as trained" if over_images else f"{word} on these images" if over_seeds else "not clear"


def few_metrics(cells: pd.DataFrame, table: pd.DataFrame, error: str) -> dict[str, Any]:
    """For the columns of `dvc exp show`: `error` (all, few) of each of the `cells`, and its gap to reg in `differences`; a hole is null."""
    shown = ("all", "few")
    several = bool(cells.duplicated(["method", "classes"]).any())
    errors = {cell_key(row, several): {shot: rounded(row[f"{error}_{shot}"]) for shot in shown} for row in records(cells)}
    gaps: dict[str, dict[str, float | None]] = {}
    for row in records(table[(table["error"] == error) & table["shot"].isin(shown)]):
        gaps.setdefault(cell_key(row, several), {})[row["shot"]] = rounded(row["gap"])
    return {error: errors} | ({"gap": gaps} if gaps else {})
