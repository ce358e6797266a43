"""hl-gauss: the target becomes a Gaussian around it, cut off at the ends of the bins; its σ is `sigma` bin widths. See distribution.py.

Imani and White, "Improving regression performance with distributional losses", ICML 2018; default σ of Farebrother et al., "Stop
regressing: training value functions via classification for scalable deep RL", ICML 2024. With `sigma=0`, a target is in its bin alone as
in ce-mean, or on an edge, half in either bin.
"""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from regcls.methods.distribution import Distribution

LEAST, MOST = 1e-6, 1e6  # σ in bin widths: beyond them, histograms no longer change, and would be 0/0 in the end


@dataclass(frozen=True, kw_only=True)
class HLGauss(Distribution):
    """The distribution of this module."""

    sigma: float  # in bin widths

    def below(
        self, targets: Float[Tensor, "M 1 *N"], edges: Float[Tensor, "M edges ..."], width: Float[Tensor, "M 1 ..."]
    ) -> Float[Tensor, "M edges *N"]:
        """See Distribution. erf, not the normal distribution function, since it is precise around 0, for wide Gaussians."""
        scale = math.sqrt(2) * min(max(self.sigma, LEAST), MOST)
        return (edges - targets).div_(scale * width).erf_()


DISTRIBUTION = HLGauss
