"""Classes from targets: uniform ranges, histogram equalisation (Eq. 12), class-keeping probability (Eq. 13).

Legend: N samples, C classes requested, K <= C classes left after merging.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regcls.choices import Rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassRanges:
    """Adjacent target ranges, one per class. A range includes its lower edge; the last one also includes its upper edge."""

    edges: NDArray[np.float64]  # (K + 1,), increasing
    keep: NDArray[np.float64]  # (K,), ρ of Eq. 13; all 1 if classes are not balanced

    def __len__(self) -> int:
        return len(self.edges) - 1

    def labels(self, targets: ArrayLike) -> NDArray[np.int64]:
        """Class of each target, same shape; targets outside the ranges fall into the first or last class."""
        inner = self.edges[1:-1]
        return np.searchsorted(inner, np.asarray(targets, dtype=np.float64), side="right").astype(np.int64)

    def kept(self, labels: NDArray[np.int64], draws: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Mask of the samples that enter the class loss (Eq. 13); `draws`: uniform on [0, 1), fresh each time a sample is seen."""
        return draws < self.keep[labels]


def uniform_ranges(classes: int, low: float, high: float) -> ClassRanges:
    """C ranges of equal width over [low, high], with ρ = 1 for all; a single class if low = high.

    Raises:
        ValueError: C < 1, or low and high are not finite or not in order.
    """
    if classes < 1:
        raise ValueError(f"classes must be at least 1, got {classes}")
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ValueError(f"class ranges need finite bounds in order, got [{low}, {high}]")
    edges = np.array([low, high], dtype=np.float64) if low == high else np.linspace(low, high, classes + 1)
    return ClassRanges(edges=edges, keep=np.ones(len(edges) - 1))


def equalised(
    ranges: ClassRanges, targets: ArrayLike, *, counts: NDArray[np.integer] | None = None, rounding: Rounding = "ceil"
) -> ClassRanges:
    """Merge ranges until their histogram over `targets` (N,) is roughly flat (Eq. 12), and compute ρ of the result (Eq. 13).

    `counts` (N,) are multiplicities of the targets, such as the number of pixels of each of the 256 levels of 8-bit depth.

    Class k maps to the bin C/N · Σ_{j<=k} H(j), rounded, and the classes of a bin are merged. Equation 12 rounds down. The
    release rounds up (`ceil`) in the 1D study and to the nearest integer, halves to even, (`round`) for images and video,
    then counts from 0; it clips below 0 for images only, this code always. As in the release, leading empty classes are
    joined to the first occupied one and do not count towards C.

    Raises:
        ValueError: there are no targets, or `counts` does not have one non-negative integer per target.

    Warns:
        UserWarning: fewer than two classes would remain. The edges of `ranges` are then kept, with ρ of its own classes.
    """
    histogram = _histogram(ranges.labels(targets).ravel(), counts, len(ranges))
    if not histogram.any():
        raise ValueError("equalising classes needs at least one target")
    empty = int(np.flatnonzero(histogram)[0])  # number of leading empty classes
    bins = _bins(histogram[empty:], rounding)
    starts = np.flatnonzero(np.diff(bins, prepend=-1)) + empty  # first class of each merged class
    if len(starts) < 2:
        warnings.warn(
            f"equalising {len(ranges)} classes leaves one: nearly all targets share one range; the uniform ranges are kept, balanced by ρ",
            stacklevel=2,
        )
        return ClassRanges(edges=ranges.edges, keep=_keep(histogram))
    edges = np.concatenate([ranges.edges[:1], ranges.edges[starts[1:]], ranges.edges[-1:]])
    return ClassRanges(edges=edges, keep=_keep(np.add.reduceat(histogram, starts)))


def class_ranges(classes: int, targets: ArrayLike, *, balanced: bool, rounding: Rounding = "ceil") -> ClassRanges:
    """The classes of a training set: C uniform ranges from its minimum to its maximum target, equalised if `balanced`."""
    values = np.asarray(targets, dtype=np.float64)
    ranges = uniform_ranges(classes, float(values.min()), float(values.max()))
    return equalised(ranges, values, rounding=rounding) if balanced else ranges


def _keep(histogram: NDArray[np.int64]) -> NDArray[np.float64]:
    """ρ (Eq. 13): the smallest count of an occupied class divided by each class's count; 1 for empty classes."""
    return np.where(histogram > 0, histogram[histogram > 0].min() / np.maximum(histogram, 1), 1.0)


def _histogram(labels: NDArray[np.int64], counts: NDArray[np.integer] | None, classes: int) -> NDArray[np.int64]:
    """Number of targets in each class, as integers: a data set has billions of pixels."""
    if counts is None:
        return np.bincount(labels, minlength=classes)
    if counts.shape != labels.shape or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError(f"counts must be whole numbers from 0, one for each of {len(labels)} targets; got {counts.dtype} {counts.shape}")
    histogram = np.zeros(classes, dtype=np.int64)
    np.add.at(histogram, labels, counts.astype(np.int64))
    return histogram


def _bins(histogram: NDArray[np.int64], rounding: Rounding) -> NDArray[np.int64]:
    """Zero-based bin of each class, computed in integers: a float product can end up on the wrong side of a whole number."""
    scaled, total = len(histogram) * np.cumsum(histogram), histogram.sum()
    down, rest = np.divmod(scaled, total)
    match rounding:
        case "ceil":
            up = down + (rest > 0)
        case "floor":
            up = down
        case "round":
            up = down + ((2 * rest > total) | ((2 * rest == total) & (down % 2 == 1)))
    return np.asarray(np.clip(up - 1, 0, len(histogram) - 1))
