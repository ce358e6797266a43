"""Means over seeds by shot group, and what a class loss changes: tested over test images and over seeds."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import pandas as pd

from regcls.metrics import SHOTS, Shot
from regcls.reports import images_stats
from regcls.reports.faces_collect import ImageRuns
from regcls.reports.images_collect import CELL
from regcls.reports.images_stats import INTERVALS, best_by, runs_by_seed, runs_of
from regcls.reports.picking import records
from regcls.reports.stats import one_sample, paired

ErrorName = Literal["mae", "mse", "rmse", "gm"]
Split = Literal["val", "test"]
TESTED: tuple[Literal["mae", "mse"], ...] = ("mae", "mse")  # means over images, so that they can be paired by image


def cells(runs: ImageRuns, split: Split) -> pd.DataFrame:
    """A row a cell: see `images_stats.means`, with a column for each error and shot group, as in `mae_few`.

    NaN where a group has no images.
    """
    names = [f"{error}_{shot}" for error in ("mae", "mse", "rmse", "gm") for shot in SHOTS]
    values = runs.metrics.reindex(columns=[f"{split}_{name}" for name in names])
    return images_stats.means(runs.wanted, values.set_axis(names, axis=1))


def best_by_validation(runs: ImageRuns) -> pd.DataFrame:
    """CELL of the class count and λ with the lowest mean validation MSE, a row a method."""
    return best_by(cells(runs, "val"), "mse_all")


def differences(runs: ImageRuns) -> pd.DataFrame:
    """`images_stats.differences` of MAE and MSE.

    Over test images: paired t-test, each error averaged over the seeds, which takes the trained networks as given. Over seeds: paired
    t-test, each the mean over images, which takes the test images as given.
    """

    def compare(reg: Sequence[str], other: Sequence[str]) -> Iterator[dict[str, Any]]:
        sides = [runs.errors[list(run_ids)].to_numpy() for run_ids in (reg, other)]
        for error in TESTED:
            losses = [np.abs(side) if error == "mae" else side**2 for side in sides]  # (N, seeds) each
            for shot in SHOTS:
                chosen = np.ones(len(runs.images), bool) if shot == "all" else (runs.images["shot"] == shot).to_numpy()
                yield {"error": error, "shot": shot} | _difference(*(loss[chosen] for loss in losses))

    return images_stats.differences(runs.wanted, compare)


def _difference(reg: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Of two arrays of losses (images, seeds)."""
    images, seeds = reg.shape
    if not reg.size:
        nothing = dict.fromkeys(["reg", "other", "gap", *INTERVALS], math.nan)
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


def error_by_age(runs: ImageRuns, chosen: pd.DataFrame, width: int) -> pd.DataFrame:
    """Test MAE by age, `width` years together: CELL, age_from, age_to (not in it), images, seeds, mae (mean over seeds) and std.

    `chosen` has the CELL of each line. Bins without images have no row.
    """
    bins = (runs.images["age"] // width).to_numpy() * width
    rows = []
    for row in records(chosen):
        run_ids = list(runs_by_seed(runs_of(runs.wanted, row)).values())
        absolute = runs.errors[run_ids].abs()
        for start in np.unique(bins).tolist():
            errors = absolute[bins == start]
            by_seed = errors.mean()
            where = {"age_from": start, "age_to": start + width, "images": len(errors), "seeds": len(run_ids)}
            rows.append({key: row[key] for key in CELL} | where | {"mae": by_seed.mean(), "std": by_seed.std()})
    return pd.DataFrame(rows, columns=[*CELL, "age_from", "age_to", "images", "seeds", "mae", "std"])
