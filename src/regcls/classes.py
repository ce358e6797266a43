"""Targets -> classes: uniform ranges, histogram equalisation (Eq. 12), class-keeping probability (Eq. 13).

Legend: N samples, C classes asked for, K <= C classes that remain after merging.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rounding = Literal["ceil", "floor", "round"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassRanges:
    """Adjoining target ranges, one a class; a range holds its lower edge, the last one also its upper edge."""

    edges: NDArray[np.float64]  # (K + 1,), increasing
    keep: NDArray[np.float64]  # (K,), ρ of Eq. 13; all 1 where classes are not balanced

    def __len__(self) -> int:
        return len(self.edges) - 1

    def labels(self, targets: ArrayLike) -> NDArray[np.int64]:
        """Class of each target, same shape; targets outside the ranges fall into the first or last class."""
        inner = self.edges[1:-1]
        return np.searchsorted(inner, np.asarray(targets, dtype=np.float64), side="right").astype(np.int64)

    def kept(self, labels: NDArray[np.int64], draws: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which samples enter the class loss this time: `draws` are uniform on [0, 1), fresh each time a sample is seen (Eq. 13)."""
        return draws < self.keep[labels]


def uniform_ranges(classes: int, low: float, high: float) -> ClassRanges:
    """C ranges of equal width over [low, high], every class kept always.

    All-equal targets (low = high) give one class, since no range can be cut.

    Raises:
        ValueError: C < 1, or bounds that are not finite or not in order.
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
    """Merge ranges until their histogram over `targets` (N,) is about level (Eq. 12), with ρ of the result (Eq. 13).

    `counts` (N,) says how many each target stands for: the 256 levels of 8-bit depth, with their pixels, for all pixels.

    Class k maps to the bin that its cumulative share falls in, C/N · Σ_{j<=k} H(j), rounded; classes of one bin are
    merged. Equation 12 rounds down; `ceil` (the default: ceil(·) − 1) is the release's and the only one that neither
    leaves the last bin empty nor maps below 0. Empty classes in front join the first occupied one.

    Raises:
        ValueError: no targets, or counts that are no whole numbers from 0, one a target.

    Warns:
        UserWarning: fewer than two classes would remain; then `ranges` come back as they are.
    """
    classes = len(ranges)
    histogram = _histogram(ranges.labels(targets).ravel(), counts, classes)
    total = int(histogram.sum())
    if total == 0:
        raise ValueError("equalising classes needs at least one target")
    bins = _bins(np.cumsum(histogram), classes, total, rounding)
    bins[: np.flatnonzero(histogram)[0]] = bins[np.flatnonzero(histogram)[0]]  # empty classes in front
    starts = np.flatnonzero(np.diff(bins, prepend=-1))  # first class of every merged one
    if len(starts) < 2:
        warnings.warn(
            f"equalising {classes} classes leaves {len(starts)}: nearly all targets share one range; the uniform ranges are kept",
            stacklevel=2,
        )
        return ranges
    merged = np.add.reduceat(histogram, starts)
    # Occupied by construction: a bin begins where the cumulative count moves on.
    return ClassRanges(edges=np.append(ranges.edges[starts], ranges.edges[-1]), keep=merged.min() / merged)


def class_ranges(classes: int, targets: ArrayLike, *, balanced: bool) -> ClassRanges:
    """The classes of a training set: C uniform ranges from its least to its greatest target, equalised if `balanced`."""
    values = np.asarray(targets, dtype=np.float64)
    ranges = uniform_ranges(classes, float(values.min()), float(values.max()))
    return equalised(ranges, values) if balanced else ranges


def _histogram(labels: NDArray[np.int64], counts: NDArray[np.integer] | None, classes: int) -> NDArray[np.int64]:
    """Targets of each class. In integers: pixels of a data set are thousands of millions."""
    if counts is None:
        return np.bincount(labels, minlength=classes)
    if counts.shape != labels.shape or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError(f"counts must be whole numbers from 0, one for each of {len(labels)} targets; got {counts.dtype} {counts.shape}")
    histogram = np.zeros(classes, dtype=np.int64)
    np.add.at(histogram, labels, counts.astype(np.int64))
    return histogram


def _bins(cumulative: NDArray[np.int64], classes: int, total: int, rounding: Rounding) -> NDArray[np.int64]:
    """Zero-based bin of every class. In integers: a float product can land on the wrong side of a whole number."""
    scaled = classes * cumulative
    match rounding:
        case "ceil":
            up = -(-scaled // total)
        case "floor":
            up = scaled // total
        case "round":
            up = (2 * scaled + total) // (2 * total)
    return np.asarray(np.clip(up - 1, 0, classes - 1))
