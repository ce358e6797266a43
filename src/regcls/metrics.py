"""Errors of predictions, over all test samples and by shot group: how many training samples a target has (section 3.2).

Legend: N test samples.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Shot = Literal["all", "many", "medium", "few"]
SHOTS: tuple[Shot, ...] = get_args(Shot)  # in the order of the paper's tables


def shot_of(targets: ArrayLike, training_counts: Mapping[int, int], *, many_above: int, few_below: int) -> NDArray[np.str_]:
    """Group of each target, same shape: `many`, `medium` or `few`, by the training samples of its integer part (rounded down).

    Many is more than `many_above` (100 in the benchmark), few is fewer than `few_below` (20), medium lies between. An integer
    that `training_counts` does not hold has no training samples, so it is few.

    Raises:
        ValueError: a target that is not finite, or groups that overlap.
    """
    if few_below > many_above + 1:
        raise ValueError(
            f"few_below = {few_below} must be at most many_above + 1 = {many_above + 1}: a target would be few and many at once"
        )
    values = np.asarray(targets, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a target that is not finite belongs to no shot group")
    integers, place = np.unique(np.floor(values), return_inverse=True)
    counts = np.array([training_counts.get(int(integer), 0) for integer in integers], dtype=np.int64)[place]
    return np.where(counts > many_above, "many", np.where(counts < few_below, "few", "medium"))


def evaluate(predictions: ArrayLike, targets: ArrayLike, shots: ArrayLike) -> Iterator[tuple[str, float]]:
    """Yield (name, value) for all samples and for each group of `shots`, as from `shot_of`; the three arguments are (N,).

    Names: mae_, mse_, rmse_, gm_ (the geometric mean of |error|, 0 if any error is) and n_ (samples), then all, many,
    medium or few. Units are the target's, of mse_ its square; averages are over the samples of the group. A group
    without samples yields n_ = 0 and nothing else. A prediction that is not a number makes the errors of its groups so.

    Raises:
        ValueError: shapes that differ, or no samples.
    """
    predicted, wanted = np.asarray(predictions, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    group = np.asarray(shots)
    if not (predicted.shape == wanted.shape == group.shape and wanted.ndim == 1):
        raise ValueError(f"predictions {predicted.shape}, targets {wanted.shape} and shots {group.shape} must be of one shape (N,)")
    if not wanted.size:
        raise ValueError("there are no samples to evaluate")
    return _by_group(np.abs(predicted - wanted), group)


def _by_group(errors: NDArray[np.float64], group: NDArray[np.str_]) -> Iterator[tuple[str, float]]:
    for shot in SHOTS:
        chosen = errors if shot == "all" else errors[group == shot]
        if chosen.size:
            mse = float(np.mean(chosen**2))
            yield f"mae_{shot}", float(np.mean(chosen))
            yield f"mse_{shot}", mse
            yield f"rmse_{shot}", mse**0.5
            yield f"gm_{shot}", _geometric_mean(chosen)
        yield f"n_{shot}", float(chosen.size)


def _geometric_mean(errors: NDArray[np.float64]) -> float:
    """By logarithms: the product of a few hundred errors would overflow."""
    # log 0 = −∞, whose mean is −∞ and whose exponential is 0; with an infinite error beside it, it is not a number.
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.exp(np.mean(np.log(errors))))
