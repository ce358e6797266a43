"""Relevance of target values, and the error measure that weighs by it: for targets whose extreme values matter most.

Sources: Ribeiro, Utility-based Regression (2011), for the relevance; Ribeiro and Moniz, Imbalanced regression and extreme value prediction
(2020), for SERA. Legend: N samples.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

RARE = 0.8  # samples of a relevance above this are rare


@dataclass(frozen=True, kw_only=True, eq=False)
class Relevance:
    """φ(y) in [0, 1]: 0 at the median of the training targets, 1 where the whiskers of their boxplot end, if there are outliers beyond."""

    points: NDArray[np.float64]  # (P,), increasing targets
    values: NDArray[np.float64]  # (P,), relevance there; its slope is 0

    @classmethod
    def of(cls, training: ArrayLike) -> Self:
        """The relevance that training targets (N,) define, from Tukey's hinges and whiskers of 1.5 × their spread.

        On the side without outliers it is 0; if there are none at all, it is 0 everywhere.

        Raises:
            ValueError: there are no targets, or one is not finite.
        """
        targets = np.sort(np.asarray(training, dtype=np.float64))
        if not targets.size or not np.isfinite(targets).all():
            raise ValueError("relevance needs finite training targets")
        half = (targets.size + 1) // 2  # the hinges are the medians of the two halves, which share the middle
        lower, median, upper = (float(np.median(part)) for part in (targets[:half], targets, targets[-half:]))
        reach = 1.5 * (upper - lower)
        inside = targets[(targets >= lower - reach) & (targets <= upper + reach)]
        points = {median: 0.0}
        for whisker, outliers in ((inside[0], targets[targets < inside[0]][::-1]), (inside[-1], targets[targets > inside[-1]])):
            # If most targets are equal, the whisker is the median: then the nearest outlier is relevant.
            points.setdefault(float(outliers[0] if len(outliers) and whisker == median else whisker), float(len(outliers) > 0))
        return cls(points=np.array(sorted(points)), values=np.array([points[point] for point in sorted(points)]))

    def __call__(self, targets: ArrayLike) -> NDArray[np.float64]:
        """φ of targets, same shape: a cubic Hermite spline between the points, constant outside them."""
        values = np.asarray(targets, dtype=np.float64)
        if len(self.points) == 1:
            return np.full(values.shape, self.values[0])
        from scipy.interpolate import CubicHermiteSpline  # takes as long as NumPy and pandas together, and training needs none of it

        spline = CubicHermiteSpline(self.points, self.values, np.zeros_like(self.values))
        return np.clip(np.asarray(spline(np.clip(values, self.points[0], self.points[-1]))), 0.0, 1.0)


def sera(errors: ArrayLike, relevance: ArrayLike) -> float:
    """Squared error-relevance area, in the target's unit squared: ∫₀¹ Σ_{φ(y_i) ≥ t} e_i² dt = Σ φ(y_i) e_i².

    `errors` and `relevance` are (N,). Published values are often sums at steps of t, which differ from the integral by about 0.1 %.
    """
    return float(np.sum(np.square(np.asarray(errors, dtype=np.float64)) * np.asarray(relevance, dtype=np.float64)))
