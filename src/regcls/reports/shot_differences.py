"""Differences to reg where each run is one network, tested over test images and over seeds. Legend: T test images, S seeds."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls.metrics import SHOTS
from regcls.reports.measured import ROW, Runs, by_seed
from regcls.reports.picking import Row, records
from regcls.reports.stats import LEVEL, bootstrap, holm, one_sample, paired, root_of_ratio

INTERVALS = ("low", "high", "p", "low_seeds", "high_seeds", "p_seeds")
RESAMPLES, PER_TEST = 2000, 100
FEWEST = 10  # test images: with fewer, bootstrap intervals are far too narrow

# (run ids of reg, run ids of another cell with the same seeds in the same order) -> a row per (error, shot group): see `differences`.
Compare = Callable[[Sequence[str], Sequence[str]], Iterable[Row]]


def differences(runs: Runs, compare: Compare) -> pd.DataFrame:
    """gap = error(reg) − error(method), over the seeds that both have: a row per (cell except reg, error, shot group).

    Columns: ROW; from `compare`: error, shot, reg and other (the two means), gap, images and seeds (counts), low, high and p (over images:
    95 % interval and p), low_seeds, high_seeds and p_seeds (over seeds); p_holm and p_holm_seeds, adjusted over all rows; answer: the
    verdict of both tests. Empty if reg is not requested.
    """
    seeds = {key: by_seed(cell) for key, cell in runs.wanted.groupby(ROW, sort=False)}
    reg = next((run_ids for key, run_ids in seeds.items() if key[0] == "reg"), None)
    rows: list[dict[str, Any]] = []
    for key, own in seeds.items():
        if reg is None or key[0] == "reg":
            continue
        common = sorted(reg.keys() & own.keys())
        rows += [dict(zip(ROW, key, strict=True)) | dict(row) for row in compare([reg[s] for s in common], [own[s] for s in common])]
    table = pd.DataFrame(rows, columns=[*ROW, "error", "shot", "reg", "other", "gap", "images", "seeds", *INTERVALS])
    table["p_holm"], table["p_holm_seeds"] = holm(table["p"].tolist()), holm(table["p_seeds"].tolist())
    table["answer"] = [answer(row) for row in records(table)]
    parts = [runs.in_order(part.reset_index()).set_index("index") for _, part in table.groupby("error", sort=True)]
    return pd.concat(parts).reset_index(drop=True) if parts else table


def answer(row: Row) -> str:
    """The verdict of both tests, in a word or two.

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


def of_means(losses: Callable[[Sequence[str]], Mapping[str, NDArray[np.float64]]], shots: NDArray[np.str_]) -> Compare:
    """Comparison of means over images; the test over images is a paired t-test of each image's loss, averaged over seeds.

    `losses`: run ids -> error -> (T, S); `shots` (T,): shot group of each image.
    """

    def compare(reg: Sequence[str], other: Sequence[str]) -> Iterator[Row]:
        sides = [losses(run_ids) for run_ids in (reg, other)]
        for error in sides[0]:
            for shot in SHOTS:
                chosen = np.ones(len(shots), bool) if shot == "all" else shots == shot
                yield {"error": error, "shot": shot} | _of_means(*(side[error][chosen] for side in sides))

    return compare


def _of_means(reg: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, Any]:
    images, seeds = reg.shape
    if not reg.size:
        return {"images": images, "seeds": seeds}
    low, high, p = one_sample((reg - other).mean(axis=1), against=0.0)
    over_seeds = _over_seeds(reg.mean(axis=0).tolist(), other.mean(axis=0).tolist())
    return {
        "reg": float(reg.mean()),
        "other": float(other.mean()),
        "images": images,
        "seeds": seeds,
        "low": low,
        "high": high,
        "p": p,
    } | over_seeds


def _over_seeds(reg: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    test = asdict(paired(reg, other))
    return {"gap": test["gap"]} | {f"{name}_seeds": test[name] for name in ("low", "high", "p")}


def of_ratios(sums: Mapping[str, NDArray[np.float64]], *, error: str, units: int, tests: int) -> Compare:
    """Comparison of roots of ratios of sums (RMSE over pixels); the test over images is a paired bootstrap of whole images.

    `sums`: run id -> (T, G, 2) sizes and summed squared errors by image and shot group; `units`: T; `tests`: number of tests, which sets
    the number of resamples: after correction, the smallest possible p must still be clear.
    """
    resamples = max(RESAMPLES, PER_TEST * tests)
    drawn = np.random.default_rng(0).multinomial(units, np.full(units, 1 / units), size=resamples) if units else np.empty((0, 0))
    times = drawn.astype(np.float64)  # (R, T): how often each image is in each resample

    def compare(reg: Sequence[str], other: Sequence[str]) -> Iterator[Row]:
        no_runs = np.empty((units, 0, len(SHOTS), 2))
        first = next(iter(sums.values()), np.zeros((0, len(SHOTS), 2)))
        sides = [np.stack([sums[run_id] for run_id in side], axis=1) if side else no_runs for side in (reg, other)]
        for group, shot in enumerate(SHOTS):
            row = {"error": error, "shot": shot, "images": int((first[:, group, 0] > 0).sum()), "seeds": len(reg)}
            yield row | _of_ratios(sides[0][:, :, group], sides[1][:, :, group], times)

    return compare


def _of_ratios(reg: NDArray[np.float64], other: NDArray[np.float64], times: NDArray[np.float64]) -> dict[str, Any]:
    """Means and tests of two arrays (T, S, 2) of sizes and summed squared errors."""
    images = int((reg[:, :1, 0] > 0).sum())
    if not images:
        return {}
    all_images = np.ones((1, len(reg)))
    means_by_seed = [root_of_ratio(side, all_images)[0].tolist() for side in (reg, other)]
    low, high, p = bootstrap(reg, other, times) if images >= FEWEST else (math.nan, math.nan, math.nan)
    sides = {"reg": float(np.mean(means_by_seed[0])), "other": float(np.mean(means_by_seed[1]))}
    return sides | {"low": low, "high": high, "p": p} | _over_seeds(*means_by_seed)
