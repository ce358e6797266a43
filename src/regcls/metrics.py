"""Errors of predictions, over all test samples and by shot group: how many training samples there are around a target (section 3.2).

Nothing here decides what a run learns: errors and groups are made anew from what runs have left behind. Legend: N samples.
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
    """Of |error|, 0 if any error is. By logarithms: the product of a few hundred errors would overflow."""
    # log 0 = −∞, whose mean is −∞ and whose exponential is 0; with an infinite error beside it, it is not a number.
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.exp(np.mean(np.log(np.abs(errors)))))


# Name -> of the errors of a group. Units are the target's, of mse its square.
METRICS: Mapping[str, Callable[[Errors], float]] = {
    "mae": lambda errors: float(np.mean(np.abs(errors))),
    "mse": lambda errors: float(np.mean(errors**2)),
    "rmse": lambda errors: float(np.mean(errors**2)) ** 0.5,
    "gm": _geometric_mean,
}


@dataclass(frozen=True, kw_only=True)
class ShotGroups:
    """Many, medium and few: by the training samples of the bin that a target lies in. Outside all bins there are none: few."""

    low: float  # where bin 0 begins
    width: float  # of a bin
    counts: Mapping[int, int]  # training samples by bin; those without any may be left out
    many_above: float  # training samples of a bin
    few_below: float
    high: float | None = None  # the end of the last bin, which holds it; None: bins have no end

    @classmethod
    def by_integer(cls, training: ArrayLike, *, many_above: int, few_below: int) -> Self:
        """The benchmark's rule: a bin is an integer, rounded down; many has more than `many_above` samples, few fewer than `few_below`.

        Raises:
            ValueError: groups that overlap, or a target that is not finite.
        """
        return cls._of(training, low=0.0, width=1.0, high=None, many_above=many_above, few_below=few_below)

    @classmethod
    def by_density(cls, training: ArrayLike, *, bins: int, many_above: float, few_below: float) -> Self:
        """For targets of any range: `bins` of equal width over the training targets; the limits are multiples of a bin's mean count.

        Raises:
            ValueError: as by_integer.
        """
        values = np.asarray(training, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        mean = values.size / bins
        width = (high - low) / bins or 1.0  # all alike: one bin holds them
        return cls._of(values, low=low, width=width, high=high, many_above=many_above * mean, few_below=few_below * mean)

    @classmethod
    def _of(cls, training: ArrayLike, *, low: float, width: float, high: float | None, many_above: float, few_below: float) -> Self:
        if few_below > many_above + (high is None):  # whole numbers of samples by integer, so that 21 and 20 do not overlap
            raise ValueError(f"few_below = {few_below:g} and many_above = {many_above:g} overlap: a target would be few and many at once")
        empty = cls(low=low, width=width, high=high, counts={}, many_above=many_above, few_below=few_below)
        bins, counts = np.unique(empty.bin_of(training), return_counts=True)
        known = dict(zip(bins.tolist(), counts.tolist(), strict=True))
        return cls(low=low, width=width, high=high, counts=known, many_above=many_above, few_below=few_below)

    def bin_of(self, targets: ArrayLike) -> NDArray[np.int64]:
        """The bin of each target, same shape.

        Raises:
            ValueError: a target that is not finite.
        """
        values = np.asarray(targets, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("a target that is not finite belongs to no shot group")
        bins = np.floor((values - self.low) / self.width).astype(np.int64)
        return bins if self.high is None else np.where(values == self.high, max(round((self.high - self.low) / self.width), 1) - 1, bins)

    def shot_of(self, targets: ArrayLike) -> NDArray[np.str_]:
        """Group of each target, same shape: `many`, `medium` or `few`."""
        bins, place = np.unique(self.bin_of(targets), return_inverse=True)
        counts = np.array([self.counts.get(index, 0) for index in bins.tolist()])[place]
        return np.where(counts > self.many_above, "many", np.where(counts < self.few_below, "few", "medium"))


def evaluate(predictions: ArrayLike, targets: ArrayLike, shots: ArrayLike) -> Iterator[tuple[str, float]]:
    """Yield (name, value) for all samples and for each group of `shots`, as from `shot_of`; the three arguments are (N,).

    Names: `mae/all`, `mae/few` and so on for each of METRICS, and `n/all` … (samples). A group without samples yields its n of 0 and
    nothing else. A prediction that is not a number makes the errors of its groups so.

    Raises:
        ValueError: shapes that differ, or no samples.
    """
    predicted, wanted = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    group = np.asarray(shots)
    if not (predicted.shape == wanted.shape == group.shape and wanted.ndim == 1):
        raise ValueError(f"predictions {predicted.shape}, targets {wanted.shape} and shots {group.shape} must be of one shape (N,)")
    if not wanted.size:
        raise ValueError("there are no samples to evaluate")
    return _by_group(predicted - wanted, group)


def _by_group(errors: Errors, group: NDArray[np.str_]) -> Iterator[tuple[str, float]]:
    for shot in SHOTS:
        chosen = errors if shot == "all" else errors[group == shot]
        if chosen.size:
            yield from ((f"{name}/{shot}", metric(chosen)) for name, metric in METRICS.items())
        yield f"n/{shot}", float(chosen.size)
