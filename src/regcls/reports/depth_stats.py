"""Means over seeds by shot group, and what a class loss changes: tested over test images and over seeds.

Legend: T test images, S seeds, R resamples.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls.metrics import SHOTS, Shot
from regcls.reports import images_stats
from regcls.reports.depth_collect import DepthRuns
from regcls.reports.images_collect import CELL
from regcls.reports.images_stats import INTERVALS, best_by, runs_by_seed, runs_of
from regcls.reports.picking import records
from regcls.reports.stats import paired

RESAMPLES, PER_TEST = 2000, 100
FEWEST = 10  # test images: intervals of a bootstrap over fewer are far too narrow
JUDGED = "val_rmse_all"  # the validation error by which class counts and λ are chosen
TESTED = "rmse_val"  # the test error that is compared: RMSE of the weights selected on validation


def cells(runs: DepthRuns) -> pd.DataFrame:
    """A row a cell: see `images_stats.means`, with a column for each error, selection and shot group, as in `rmse_val_few`.

    NaN where a group has no pixels.
    """
    return images_stats.means(runs.wanted, runs.errors)


def validation(runs: DepthRuns) -> pd.DataFrame:
    """A row a cell with its validation RMSE and MAE, over pixels that are drawn balanced: val_rmse_all, val_mae_all."""
    return images_stats.means(runs.wanted, runs.metrics.reindex(columns=[JUDGED, "val_mae_all"]))


def best_by_validation(runs: DepthRuns) -> pd.DataFrame:
    """CELL of the class count and λ with the lowest mean validation RMSE, a row a method."""
    return best_by(validation(runs), JUDGED)


def reg_and_best(runs: DepthRuns) -> pd.DataFrame:
    """CELL of reg, and of whatever other cell has the lowest mean validation RMSE; one row or none where they are not trained."""
    ranked = best_by_validation(runs).merge(validation(runs), on=CELL).sort_values(JUDGED, kind="stable")
    reg = ranked["method"] == "reg"
    return pd.concat([ranked[reg], ranked[~reg].head(1)])[CELL]


def differences(runs: DepthRuns) -> pd.DataFrame:
    """`images_stats.differences` of test RMSE, of the weights selected on validation.

    Over test images: paired bootstrap, since the pixels of an image belong together; `images` counts those with pixels in the group. It
    takes the trained networks as given. Over seeds: paired t-test of the RMSE of each, which takes the test images as given.
    """
    images, sizes = len(runs.images), group_sizes(runs)
    resamples = max(RESAMPLES, PER_TEST * len(SHOTS) * len(cells(runs)))  # so that the least p, times the tests, can be clear
    drawn = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), size=resamples) if images else np.empty((0, 0))
    times = drawn.astype(np.float64)  # (R, T): how often each image is in each resample

    def compare(reg: Sequence[str], other: Sequence[str]) -> Iterator[dict[str, Any]]:
        nothing = np.empty((images, 0, len(SHOTS), 2))
        sides = [np.stack([runs.by_image[run_id] for run_id in side], axis=1) if side else nothing for side in (reg, other)]
        for group, shot in enumerate(SHOTS):
            what = {"error": TESTED, "shot": shot, "images": sizes[shot][1], "seeds": len(reg)}
            yield what | _difference(sides[0][:, :, group], sides[1][:, :, group], times)

    return images_stats.differences(runs.wanted, compare)


def _difference(reg: NDArray[np.float64], other: NDArray[np.float64], times: NDArray[np.float64]) -> dict[str, Any]:
    """Of two arrays (T, S, 2) of pixels and summed squared errors."""
    images = int((reg[:, :1, 0] > 0).sum())
    if not images:
        return dict.fromkeys(["reg", "other", "gap", *INTERVALS], math.nan)
    everything = np.ones((1, len(reg)))
    by_seed = [_rmse(side, everything)[0].tolist() for side in (reg, other)]
    over_seeds = asdict(paired(*by_seed))
    low, high, p = bootstrap(reg, other, times) if images >= FEWEST else (math.nan, math.nan, math.nan)
    return {
        "reg": float(np.mean(by_seed[0])),
        "other": float(np.mean(by_seed[1])),
        "gap": over_seeds["gap"],
        "low": low,
        "high": high,
        "p": p,
        **{f"{name}_seeds": over_seeds[name] for name in ("low", "high", "p")},
    }


def _rmse(sums: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R, S) RMSE of each resample and seed: a ratio of sums. NaN where a resample has no pixels."""
    pixels, squared = (times @ np.ascontiguousarray(sums[..., column]) for column in (0, 1))  # else without BLAS, 30 times as slow
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(squared / pixels))


def bootstrap(reg: NDArray[np.float64], other: NDArray[np.float64], times: NDArray[np.float64]) -> tuple[float, float, float]:
    """Of RMSE(reg) − RMSE(other), each the mean over seeds: 95 % percentile interval and two-sided p over resamples of images.

    `reg`, `other`: (T, S, 2) pixels and summed squared errors; `times`: (R, T) how often an image is in a resample. p is twice the smaller
    share of resamples on one side of 0, with one more counted on each side: never below 2 / (R + 1). NaN where all resamples are alike.
    """
    gaps = (_rmse(reg, times) - _rmse(other, times)).mean(axis=1)
    gaps = gaps[np.isfinite(gaps)]
    if len(gaps) < 2 or np.ptp(gaps) <= 1e-12:
        return math.nan, math.nan, math.nan
    low, high = np.quantile(gaps, [0.025, 0.975]).tolist()
    fewer = int(min((gaps <= 0).sum(), (gaps >= 0).sum()))
    return low, high, min(1.0, 2 * (fewer + 1) / (len(gaps) + 1))


def group_sizes(runs: DepthRuns) -> dict[Shot, tuple[int, int]]:
    """Shot group -> test pixels in it, and test images that have some."""
    first = next(iter(runs.by_image.values()), np.zeros((0, len(SHOTS), 2)))
    return {shot: (int(first[:, group, 0].sum()), int((first[:, group, 0] > 0).sum())) for group, shot in enumerate(SHOTS)}


def error_by_depth(runs: DepthRuns, chosen: pd.DataFrame) -> pd.DataFrame:
    """Test RMSE by bucket of 0.1 m, weights selected on validation: CELL, depth_from, depth_to (m), pixels, seeds, rmse (mean), std.

    `chosen` has the CELL of each line. Buckets without pixels have no row.
    """
    parts = []
    for row in records(chosen):
        sums = np.array([runs.by_bucket[run_id] for run_id in runs_by_seed(runs_of(runs.wanted, row)).values()])  # (S, 100, 8)
        buckets = np.flatnonzero(sums[0, :, 0])
        rmse = np.sqrt(sums[:, buckets, 1] / sums[:, buckets, 0])
        std = rmse.std(axis=0, ddof=1) if len(rmse) > 1 else np.full(len(buckets), math.nan)
        where = {"depth_from": buckets / 10, "depth_to": (buckets + 1) / 10, "pixels": sums[0, buckets, 0].astype(int), "seeds": len(sums)}
        parts.append(pd.DataFrame(where | {"rmse": rmse.mean(axis=0), "std": std}).assign(**{key: row[key] for key in CELL}))
    columns = [*CELL, "depth_from", "depth_to", "pixels", "seeds", "rmse", "std"]
    return pd.concat(parts, ignore_index=True)[columns]
