"""bmse-bni, Balanced MSE by bin-based numerical integration: a smoothed histogram stands for the density of the training targets.

2s² · (e² / (2s²) + log Σ_b exp(log p_b − (ŷ − c_b)² / (2s²))), with c_b the centres of bins and p_b their shares of the training targets:
see balanced_mse.py, also for the options `sigma` (1) and `rate` (0.01). `bins`: number of bins, see bins.py. `kernel_size` (5) and
`kernel_sigma` (2): of the kernel that smooths the shares, in bins, as in lds; kernel_size=1: not smoothed.
"""

from dataclasses import dataclass

import numpy as np
import torch
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
        """centres and log_shares (K,) of the bins."""
        edges = edges_of(targets, self.bins)
        counts = histogram(targets, edges)
        first = int(np.flatnonzero(counts)[0]) if targets.reflected else 0
        counts[first:] = smoothed(counts[first:], kernel(int(self.kernel_size), self.kernel_sigma), reflected=targets.reflected)
        with np.errstate(divide="ignore"):  # log 0 = −∞
            return {"centres": (edges[:-1] + edges[1:]) / 2, "log_shares": np.log(counts / counts.sum())}

    def mixture(
        self, targets: Float[Tensor, "M N"], kept: Bool[Tensor, "M N"] | None, facts: Facts
    ) -> tuple[Float[Tensor, "M K"], Float[Tensor, "M K"], Float[Tensor, "M 1"]]:
        """A point at the centre of each bin."""
        return facts["log_shares"], facts["centres"], torch.zeros_like(targets[:, :1])


LOSS = BinIntegral
