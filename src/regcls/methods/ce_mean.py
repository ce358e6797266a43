"""ce-mean: the target becomes its class. See distribution.py.

Rothe et al., "Deep expectation of real and apparent age from a single image", IJCV 2018.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from regcls.methods.distribution import Bins, Distribution


@dataclass(frozen=True, kw_only=True)
class CrossEntropyMean(Distribution):
    """The distribution of this module."""

    def below(self, targets: Float[Tensor, "M 1 *N"], bins: Bins) -> Float[Tensor, "M edges *N"]:
        """See Distribution. A bin includes its lower edge; the last one also includes its upper edge."""
        return ((bins.edges > targets) | (bins.edges == bins.edges[:, -1:])).to(targets.dtype)


DISTRIBUTION = CrossEntropyMean
