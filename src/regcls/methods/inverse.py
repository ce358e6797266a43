"""inverse: samples weigh 1/n, for n training samples in their bin of targets; n is clipped to `least` … `most`.

Yang et al., "Delving into deep imbalanced regression", ICML 2021 (INV there), with their limits 5 and 1000.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regcls.methods.weights import Weighting


@dataclass(frozen=True, kw_only=True)
class Inverse(Weighting):
    """The weights of this module."""

    least: float
    most: float

    def density(self, counts: NDArray[np.float64], *, reflected: bool) -> NDArray[np.float64]:
        """n, clipped."""
        return np.clip(counts, self.least, self.most)


WEIGHTING = Inverse
