"""sqrt-inverse: samples weigh 1/√n, for n training samples in their bin of targets.

Yang et al., "Delving into deep imbalanced regression", ICML 2021 (SQINV there).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regcls.methods.weights import Weighting


@dataclass(frozen=True, kw_only=True)
class SqrtInverse(Weighting):
    """The weights of this module."""

    def density(self, counts: NDArray[np.float64], *, reflected: bool) -> NDArray[np.float64]:
        """√n."""
        return np.sqrt(counts)


WEIGHTING = SqrtInverse
