"""Tests of differences between methods, and Holm's correction.

A test speaks about networks that are trained again, so it needs replicates that were trained: seeds, repetitions or activities.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regcls.words import counted

LEVEL = 0.05  # a difference is clear if its Holm-adjusted p is below this
FEWEST = 3  # trained replicates for a test: two may agree by chance
NOT_CLEAR, OPEN = "not clear", "cannot be told"
USELESS = "reg is no better than a constant"  # in place of a verdict
# Predictions that learn nothing but the training targets, to compare reg with.
CONSTANTS: Mapping[str, Callable[[np.ndarray], Any]] = {"mean of training targets": np.mean, "median of training targets": np.median}
NO_TEST = (math.nan, math.nan, math.nan)
FEWEST_IMAGES = 10  # for a test of RMSE: the influence of an image describes large samples
NOT_TESTED = f"With fewer than {FEWEST} {{of}} nothing can be said about differences: training again may change their sign."


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A paired test of gap = error(reg) − error(other); above 0, the other method is better. NaN if there is no test."""

    n: int  # pairs
    gap: float
    low: float  # 95 % confidence interval
    high: float
    p: float  # two-sided paired t-test


def paired(reg: Sequence[float], other: Sequence[float]) -> Paired:
    """Paired t-test of two methods, given one number per trained replicate, in the same order."""
    difference = np.asarray(reg, dtype=float) - np.asarray(other, dtype=float)
    low, high, p = one_sample(difference, against=0.0)
    return Paired(n=len(difference), gap=float(difference.mean()) if len(difference) else math.nan, low=low, high=high, p=p)


def one_sample(values: Sequence[float] | np.ndarray, *, against: float) -> tuple[float, float, float]:
    """t-test of the mean: its 95 % interval (low, high) and the two-sided p against `against`; NaN if n < FEWEST or all are equal."""
    array = np.asarray(values, dtype=float)
    # Without spread t is infinite or 0/0, and rounding could give a p of 0.
    if len(array) < FEWEST or array.std() <= 1e-12 * np.abs(array).max():
        return NO_TEST
    from scipy import stats  # takes as long as NumPy and pandas together, and training needs none of it

    test = stats.ttest_1samp(array, against)
    interval = test.confidence_interval(0.95)
    return float(interval.low), float(interval.high), float(test.pvalue)


def over_folds(values: Sequence[float] | np.ndarray, *, ratio: float) -> tuple[float, float, float]:
    """t-test of the mean over folds of repeated cross-validation against 0: its 95 % interval (low, high) and the two-sided p.

    `ratio`: test rows per training row. The training sets of folds overlap, so the variance of the mean is that of the values times
    1/n + ratio instead of 1/n (Nadeau and Bengio 2003). NaN if n < FEWEST or all are equal.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < FEWEST or array.std() <= 1e-12 * np.abs(array).max():
        return NO_TEST
    error = math.sqrt(float(array.var(ddof=1)) * (1 / len(array) + ratio))
    return _t_test(float(array.mean()), error, degrees=len(array) - 1)


def _t_test(gap: float, error: float, *, degrees: int) -> tuple[float, float, float]:
    """95 % interval (low, high) and two-sided p of a `gap` with the standard error `error`."""
    from scipy import stats

    t = stats.t(degrees)
    reach = float(t.ppf(0.975)) * error
    return gap - reach, gap + reach, 2 * float(t.sf(abs(gap) / error))


def two_way(effects: NDArray[np.float64]) -> tuple[float, float, float]:
    """t-test of the mean of `effects` (S, T) of S seeds on T test images against 0: its 95 % interval (low, high) and the two-sided p.

    Both seeds and images are samples: the variance of the mean is its variance over seeds plus its variance over images, with
    min(S, T) − 1 degrees of freedom (two-way clustering, Cameron, Gelbach and Miller 2011; their common part is not subtracted, so that
    the interval is rather too wide than too narrow). It is never shorter than that of a paired t-test over seeds. NaN if S < FEWEST, T < 2
    or there is no spread.
    """
    seeds, images = effects.shape
    if seeds < FEWEST or images < 2:
        return NO_TEST
    error = math.sqrt(effects.mean(axis=1).var(ddof=1) / seeds + effects.mean(axis=0).var(ddof=1) / images)
    if not error > 1e-12 * np.abs(effects).max():
        return NO_TEST
    return _t_test(float(effects.mean()), error, degrees=min(seeds, images) - 1)


def root_mean_squares(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """RMSE (S,) of each seed, and the influence (S, T) of each image on it, whose mean over images is 0.

    `sums` (S, T, 2): size and summed squared error of each image, whose size is above 0. The influence is the derivative of the RMSE, a
    root of a ratio of sums, with respect to the weight of an image, times T.
    """
    sizes, squared = sums[..., 0], sums[..., 1]
    total = sizes.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # there are no images, or all errors are 0
        rmse = np.sqrt(squared.sum(axis=1) / total)
        influence = (squared - rmse[:, None] ** 2 * sizes) * (sizes.shape[1] / (2 * rmse * total))[:, None]
    return rmse, influence


def holm(p: Sequence[float]) -> NDArray[np.float64]:
    """Holm-adjusted p-values, in the given order; NaN (no test) stays NaN and is not counted."""
    values = np.asarray(p, dtype=float)
    adjusted = np.full(len(values), np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def holm_note(tests: int, *, of: str) -> str:
    """What p (Holm) and the verdicts of a table with `tests` tests mean; `of`: the trained replicates."""
    if not tests:
        return NOT_TESTED.format(of=of)
    return f"p (Holm) is adjusted for the {counted(tests, 'test')} of this table. “Helps” or “hurts”: adjusted p < {LEVEL}."


def equivalence_note(negligible: float) -> str:
    """What the verdicts of `decided` mean."""
    x = f"{negligible:g} %"
    return f"“No difference above {x}”: the interval lies within ± {x} of reg's error. Otherwise it “{OPEN}”."


def is_clear(answer: str) -> bool:
    """Whether a `verdict` is the outcome of a clear test."""
    return answer in ("helps", "hurts")


def verdict(gap: float, p: float, n: int) -> str:
    """The outcome of a test with the adjusted `p`: `helps`, `hurts`, `not clear`, or why there is none. `n`: trained replicates."""
    if math.isnan(p):
        return "no runs" if not n else f"n = {n}: not tested" if n < FEWEST else "not tested"
    if p >= LEVEL:
        return NOT_CLEAR
    return "helps" if gap > 0 else "hurts"


def decided(answer: str, *, low: float, high: float, reg: float, negligible: float) -> str:
    """A `verdict`; instead of `not clear`, what the 95 % interval (low, high) of the gap shows.

    That is no difference above `negligible` percent of reg's error `reg`, if the interval lies within it, or else that it cannot be told.
    """
    if answer != NOT_CLEAR:
        return answer
    bound = negligible / 100 * reg
    return f"no difference above {negligible:g} %" if -bound < low and high < bound else OPEN
