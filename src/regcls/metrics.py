"""Errors of predictions, over all test samples and by shot group: the number of training samples near a target (section 3.2).

Nothing here affects training: errors and groups are recomputed from the artifacts of runs. Legend: N samples.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Shot = Literal["all", "many", "medium", "few"]
SHOTS: tuple[Shot, ...] = get_args(Shot)  # in the order of the paper's tables

Errors = NDArray[np.float64]  # (N,), prediction − target


def _geometric_mean(errors: Errors) -> float:
    """Geometric mean of |error|; 0 if any error is 0. Computed with logarithms: the product of a few hundred errors would overflow."""
    # log 0 = −∞, so the mean is −∞ and its exponential 0; together with an infinite error, it is NaN.
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.exp(np.mean(np.log(np.abs(errors)))))


# Each takes the errors of a group. Units are those of the target, squared for mse.
METRICS: Mapping[str, Callable[[Errors], float]] = {
    "mae": lambda errors: float(np.mean(np.abs(errors))),
    "mse": lambda errors: float(np.mean(errors**2)),
    "rmse": lambda errors: float(np.mean(errors**2)) ** 0.5,
    "gm": _geometric_mean,
}


@dataclass(frozen=True, kw_only=True)
class ShotGroups:
    """Many, medium and few, by the number of training samples in a target's bin; targets outside all bins are few."""

    low: float  # lower edge of bin 0
    width: float  # of a bin
    counts: Mapping[int, int]  # training samples by bin; empty bins may be missing
    many_above: float  # training samples in a bin
    few_below: float
    high: float | None = None  # upper edge of the last bin, included in it; None: there is no last bin

    @classmethod
    def by_integer(cls, training: ArrayLike, *, many_above: int, few_below: int) -> Self:
        """The benchmark's rule: targets are rounded down to bins; many has more than `many_above` samples, few fewer than `few_below`.

        Raises:
            ValueError: the groups overlap, or a target is not finite.
        """
        return cls._of(training, low=0.0, width=1.0, high=None, many_above=many_above, few_below=few_below)

    @classmethod
    def by_density(cls, training: ArrayLike, *, bins: int, many_above: float, few_below: float) -> Self:
        """For targets of any range: `bins` equal bins over the range of the training targets; limits are multiples of the mean bin count.

        Raises:
            ValueError: as by_integer.
        """
        values = np.asarray(training, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        mean = values.size / bins
        width = (high - low) / bins or 1.0  # if all targets are equal, they share a bin
        return cls._of(values, low=low, width=width, high=high, many_above=many_above * mean, few_below=few_below * mean)

    @classmethod
    def _of(cls, training: ArrayLike, *, low: float, width: float, high: float | None, many_above: float, few_below: float) -> Self:
        if few_below > many_above + (high is None):  # counts are integers: below 21 and above 20 do not overlap
            raise ValueError(f"few_below = {few_below:g} and many_above = {many_above:g} overlap: a target would be few and many at once")
        empty = cls(low=low, width=width, high=high, counts={}, many_above=many_above, few_below=few_below)
        bins, counts = np.unique(empty.bin_of(training), return_counts=True)
        by_bin = dict(zip(bins.tolist(), counts.tolist(), strict=True))
        return cls(low=low, width=width, high=high, counts=by_bin, many_above=many_above, few_below=few_below)

    def bin_of(self, targets: ArrayLike) -> NDArray[np.int64]:
        """The bin of each target, same shape.

        Raises:
            ValueError: a target is not finite.
        """
        values = np.asarray(targets, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("a target is not finite: it has no shot group")
        bins = np.floor((values - self.low) / self.width).astype(np.int64)
        return bins if self.high is None else np.where(values == self.high, max(round((self.high - self.low) / self.width), 1) - 1, bins)

    def shot_of(self, targets: ArrayLike) -> NDArray[np.str_]:
        """Group of each target, same shape: `many`, `medium` or `few`."""
        bins, inverse = np.unique(self.bin_of(targets), return_inverse=True)
        return self.shot_of_counts([self.counts.get(index, 0) for index in bins.tolist()])[inverse]

    def shot_of_counts(self, counts: ArrayLike) -> NDArray[np.str_]:
        """Group of bins with so many training samples, same shape: `many`, `medium` or `few`."""
        samples = np.asarray(counts)
        return np.where(samples > self.many_above, "many", np.where(samples < self.few_below, "few", "medium"))


def evaluate(predictions: ArrayLike, targets: ArrayLike, shots: ArrayLike) -> Iterator[tuple[str, float]]:
    """Yield (name, value) of the metrics over all samples and over each group of `shots` (as from `shot_of`); all arguments are (N,).

    Names are `mae/all`, `mae/few` and so on for each of METRICS, and `n/all` … (number of samples). An empty group yields only its n of 0.
    A NaN prediction makes the errors of its groups NaN.

    Raises:
        ValueError: the shapes differ, or there are no samples.
    """
    predicted, actual = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    group = np.asarray(shots)
    if not (predicted.shape == actual.shape == group.shape and actual.ndim == 1):
        raise ValueError(f"predictions {predicted.shape}, targets {actual.shape} and shots {group.shape} must have the same shape (N,)")
    if not actual.size:
        raise ValueError("there are no samples to evaluate")
    return _by_group(predicted - actual, group)


def _by_group(errors: Errors, group: NDArray[np.str_]) -> Iterator[tuple[str, float]]:
    for shot in SHOTS:
        selected = errors if shot == "all" else errors[group == shot]
        if selected.size:
            yield from ((f"{name}/{shot}", metric(selected)) for name, metric in METRICS.items())
        yield f"n/{shot}", float(selected.size)
