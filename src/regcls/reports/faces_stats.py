"""Means over seeds by shot group, and what a class loss changes: tested over test images and over seeds."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import pandas as pd

from regcls.metrics import SHOTS, Shot
from regcls.reports.faces_collect import CELL, FaceRuns, in_order
from regcls.reports.picking import records
from regcls.reports.stats import holm, one_sample, paired

LEVEL = 0.05  # of Holm-adjusted p, below which a difference is called clear

ErrorName = Literal["mae", "mse", "rmse", "gm"]
Split = Literal["val", "test"]
TESTED: tuple[Literal["mae", "mse"], ...] = ("mae", "mse")  # means over images, so that they can be paired by image


def cells(runs: FaceRuns, split: Split) -> pd.DataFrame:
    """A row a cell that was asked for, empty ones included.

    CELL; seeds and seeds_wanted (counts); for each error and shot group, as in `mae_few`: its mean over seeds, and `mae_few_std`, the
    standard deviation (n − 1 below; NaN where there is one seed). NaN where a group has no images.
    """
    names = [f"{error}_{shot}" for error in ("mae", "mse", "rmse", "gm") for shot in SHOTS]
    rows = []
    key: Any  # pandas-stubs know it as a tuple of Hashable
    for key, cell in runs.wanted.groupby(CELL, dropna=False, sort=False):
        counted = cell.loc[cell["state"] == "finished", "run_id"]
        values = runs.metrics.reindex(index=counted, columns=[f"{split}_{name}" for name in names]).astype(float)
        means, spreads = values.mean().tolist(), values.std().tolist()
        row = dict(zip(CELL, key, strict=True)) | {"seeds": len(counted), "seeds_wanted": len(cell)}
        for name, mean, std in zip(names, means, spreads, strict=True):
            row |= {name: mean, f"{name}_std": std}
        rows.append(row)
    columns = [*CELL, "seeds", "seeds_wanted", *(each for name in names for each in (name, f"{name}_std"))]
    return in_order(pd.DataFrame(rows, columns=columns))


def full(table: pd.DataFrame) -> pd.DataFrame:
    """The cells with as many seeds as the fullest one: a mean over fewer does not compete with theirs."""
    fullest: pd.DataFrame = table[(table["seeds"] > 0) & (table["seeds"] == table["seeds"].max())]
    return fullest


def best_by_validation(runs: FaceRuns) -> pd.DataFrame:
    """CELL of the class count and λ with the lowest mean validation MSE, a row a method."""
    parts = [full(method).sort_values("mse_all", kind="stable").head(1) for _, method in cells(runs, "val").groupby("method", sort=True)]
    return in_order(pd.concat(parts))[CELL]


def differences(runs: FaceRuns) -> pd.DataFrame:
    """error(reg) − error(method), above 0 the class loss helps: a row a (cell but reg, mae or mse, shot group).

    CELL, error, shot; reg and other, the two means over the seeds that both have; gap; images and seeds (counts). low, high, p: 95 %
    interval and paired t-test over the test images, each error averaged over the seeds, which takes the trained networks as given.
    low_seeds, high_seeds, p_seeds: the same over seeds, each the mean over images, which takes the test images as given. p_holm and
    p_holm_seeds: adjusted over all rows; answer: what they say together. No rows where reg is not asked for.
    """
    by_seed = {key: _runs_by_seed(cell) for key, cell in runs.wanted.groupby(CELL, dropna=False, sort=False)}
    reg = next((seeds for key, seeds in by_seed.items() if key[0] == "reg"), None)
    rows = []
    for key, seeds in by_seed.items():
        if reg is None or key[0] == "reg":
            continue
        common = sorted(reg.keys() & seeds.keys())
        sides = [runs.errors[[side[seed] for seed in common]].to_numpy() for side in (reg, seeds)]
        for error in TESTED:
            losses = [np.abs(side) if error == "mae" else side**2 for side in sides]  # (N, seeds) each
            for shot in SHOTS:
                chosen = np.ones(len(runs.images), bool) if shot == "all" else (runs.images["shot"] == shot).to_numpy()
                what = dict(zip(CELL, key, strict=True)) | {"error": error, "shot": shot}
                rows.append(what | _difference(*(loss[chosen] for loss in losses)))
    names = ["reg", "other", "gap", "images", "seeds", "low", "high", "p", "low_seeds", "high_seeds", "p_seeds"]
    table = pd.DataFrame(rows, columns=[*CELL, "error", "shot", *names])
    for p, adjusted in (("p", "p_holm"), ("p_seeds", "p_holm_seeds")):
        table[adjusted] = np.array(holm(table[p].tolist()), dtype=float)
    table["answer"] = [answer(row) for row in records(table)]
    return table.sort_values(["error", *CELL], kind="stable", ignore_index=True)


def _runs_by_seed(cell: pd.DataFrame) -> dict[int, str]:
    counted = cell[cell["state"] == "finished"]
    return dict(zip(counted["seed"].tolist(), counted["run_id"].tolist(), strict=True))


def _difference(reg: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Of two arrays of losses (images, seeds)."""
    images, seeds = reg.shape
    if not reg.size:
        nothing = dict.fromkeys(["reg", "other", "gap", "low", "high", "p", "low_seeds", "high_seeds", "p_seeds"], math.nan)
        return nothing | {"images": images, "seeds": seeds}
    low, high, p = one_sample((reg - other).mean(axis=1), against=0.0)
    over_seeds = asdict(paired(reg.mean(axis=0).tolist(), other.mean(axis=0).tolist()))
    return {
        "reg": float(reg.mean()),
        "other": float(other.mean()),
        "gap": over_seeds["gap"],
        "images": images,
        "seeds": seeds,
        "low": low,
        "high": high,
        "p": p,
        **{f"{name}_seeds": over_seeds[name] for name in ("low", "high", "p")},
    }


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


def group_sizes(images: pd.DataFrame) -> dict[Shot, tuple[int, int]]:
    """Shot group -> test images in it, and integer ages among them."""
    parts = {shot: images if shot == "all" else images[images["shot"] == shot] for shot in SHOTS}
    return {shot: (len(part), part["age"].nunique()) for shot, part in parts.items()}


def bin_width(ages: np.ndarray) -> int:
    """Years of a bin of the figure: 5; more for targets of a wide range, 1 for those of a narrow one."""
    span = int(ages.max() - ages.min()) + 1
    width = 5 if span >= 25 else 1
    while span > 40 * width:
        width *= 2
    return width


def error_by_age(runs: FaceRuns, chosen: pd.DataFrame, width: int) -> pd.DataFrame:
    """Test MAE by age, `width` years together: CELL, age_from, age_to (not in it), images, seeds, mae (mean over seeds) and std.

    `chosen` has the CELL of each line. Bins without images have no row.
    """
    bins = (runs.images["age"] // width).to_numpy() * width
    rows = []
    for row in records(chosen):
        same = (runs.wanted[CELL[:2]] == [row["method"], row["classes"]]).all(axis=1)
        lam = runs.wanted["lam"]
        run_ids = list(_runs_by_seed(runs.wanted[same & ((lam == row["lam"]) | (lam.isna() & (row["method"] == "reg")))]).values())
        absolute = runs.errors[run_ids].abs()
        for start in np.unique(bins).tolist():
            errors = absolute[bins == start]
            by_seed = errors.mean()
            where = {"age_from": start, "age_to": start + width, "images": len(errors), "seeds": len(run_ids)}
            rows.append({key: row[key] for key in CELL} | where | {"mae": by_seed.mean(), "std": by_seed.std()})
    return pd.DataFrame(rows, columns=[*CELL, "age_from", "age_to", "images", "seeds", "mae", "std"])
