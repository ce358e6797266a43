"""bmse-bni, Balanced MSE by bin-based numerical integration: a smoothed histogram stands for the density of the training targets.

2s² · (e² / (2s²) + log Σ_b p_b √(s² / (v + s²)) exp(−(ŷ − c_b)² / (2 (v + s²)))), with c_b the centres of bins, p_b their shares of the
training targets, and v = w² / 12 the variance within a bin of width w: see balanced_mse.py, also for the options `sigma` (1) and `rate`
(0.01). `bins`: number of bins, see bins.py. `kernel_size` (5) and `kernel_sigma` (2): of the kernel that smooths the shares, in bins, as in
lds; kernel_size=1: not smoothed.

The paper takes the mass of a bin to be at its centre (v = 0). Then the loss of a target beyond the outermost centres has no lower bound:
the further its prediction is on that side, the lower it is. On tables with many targets at one end, predictions left the range by a
factor of thousands.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from regcls.methods.balanced_mse import BalancedMSE
from regcls.methods.bins import edges_of, histogram, kernel, smoothed
from regcls.methods.loss import Facts, TrainingTargets


@dataclass(frozen=True, kw_only=True)
class BinIntegral(BalancedMSE):
    """The loss of this module."""

    bins: float
    kernel_size: float
    kernel_sigma: float

    def facts(self, targets: TrainingTargets) -> dict[str, NDArray[np.float64]]:
        """centres and log_shares (K,) of the bins, and their variance (1,)."""
        edges = edges_of(targets, self.bins)
        counts = histogram(targets, edges)
        first = int(np.flatnonzero(counts)[0]) if targets.reflected else 0
        counts[first:] = smoothed(counts[first:], kernel(int(self.kernel_size), self.kernel_sigma), reflected=targets.reflected)
        with np.errstate(divide="ignore"):  # log 0 = −∞
            shares = np.log(counts / counts.sum())
        return {"centres": (edges[:-1] + edges[1:]) / 2, "log_shares": shares, "variance": np.square(np.diff(edges[:2])) / 12}

    def mixture(
        self, targets: Float[Tensor, "M N"], kept: Bool[Tensor, "M N"] | None, facts: Facts
    ) -> tuple[Float[Tensor, "M K"], Float[Tensor, "M K"], Float[Tensor, "M 1"]]:
        """A Gaussian at the centre of each bin."""
        return facts["log_shares"], facts["centres"], facts["variance"]


LOSS = BinIntegral
