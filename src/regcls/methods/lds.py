"""lds, label distribution smoothing: samples weigh 1 / (√n smoothed over neighbouring bins), for n training samples in a bin of targets.

Yang et al., "Delving into deep imbalanced regression", ICML 2021. As released, a kernel of 5 bins with σ = 2 and maximum 1 smooths √n (not
n). Beyond the ends, bins are empty for ages; for depth they are reflected, and bins before the first one with samples are left out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regcls.methods.bins import kernel, smoothed
from regcls.methods.weights import Weighting


@dataclass(frozen=True, kw_only=True)
class LabelDistributionSmoothing(Weighting):
    """The weights of this module."""

    size: float  # of the kernel, in bins; odd
    sigma: float

    def density(self, counts: NDArray[np.float64], *, reflected: bool) -> NDArray[np.float64]:
        """√n, smoothed."""
        window = kernel(int(self.size), self.sigma)
        first = int(np.flatnonzero(counts)[0]) if reflected else 0
        found = np.sqrt(counts)
        found[first:] = smoothed(found[first:], window / window.max(), reflected=reflected)
        return found


WEIGHTING = LabelDistributionSmoothing
