"""Equal bins over the range of training targets, and the kernel that smooths over them (Yang et al., ICML 2021).

Legend: K bins, N samples.
"""

import numpy as np
from numpy.typing import NDArray

from regcls.methods.loss import TrainingTargets

GIVEN, SEEN = 100, 20  # default numbers of bins: over a range that params.yaml gives (ages 0 to 100, depths to 10 m); over that of the data


def edges_of(targets: TrainingTargets, bins: float) -> NDArray[np.float64]:
    """The K + 1 edges of `bins` bins; 0: the default number. Targets beyond the range are in the first or last bin."""
    low, high = targets.limits or (float(targets.values.min()), float(targets.values.max()))
    count = int(bins) or (GIVEN if targets.limits else SEEN)
    # In the precision of the targets: one that lies on an edge must be in the same bin in training.
    return np.linspace(low, high, count + 1).astype(targets.values.dtype).astype(np.float64)


def histogram(targets: TrainingTargets, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,) number of training samples in each bin."""
    bins = np.searchsorted(edges[1:-1], targets.values, side="right")
    return np.bincount(bins, weights=targets.counts, minlength=len(edges) - 1).astype(np.float64)


def kernel(size: int, sigma: float) -> NDArray[np.float64]:
    """The released Gaussian kernel: a unit impulse in `size` values, smoothed with reflection at its ends, so flatter than a Gaussian."""
    from scipy.ndimage import gaussian_filter1d  # training without these methods needs none of SciPy

    half = max(0, (size - 1) // 2)
    impulse = np.zeros(2 * half + 1)
    impulse[half] = 1.0
    return np.asarray(gaussian_filter1d(impulse, sigma=sigma)) if sigma else impulse


def smoothed(values: NDArray[np.float64], weights: NDArray[np.float64], *, reflected: bool) -> NDArray[np.float64]:
    """`values` (K,) convolved with a kernel; beyond the ends they are 0, or reflected (d c b a | a b c d)."""
    from scipy.ndimage import convolve1d

    return np.asarray(convolve1d(values, weights, mode="reflect" if reflected else "constant"))
