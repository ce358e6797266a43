"""ce-mean: the target becomes its class. See distribution.py.

Rothe et al., "Deep expectation of real and apparent age from a single image", IJCV 2018.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from regcls.methods.distribution import Distribution


@dataclass(frozen=True, kw_only=True)
class CrossEntropyMean(Distribution):
    """The distribution of this module."""

    def below(
        self, targets: Float[Tensor, "M 1 *N"], edges: Float[Tensor, "M edges ..."], width: Float[Tensor, "M 1 ..."]
    ) -> Float[Tensor, "M edges *N"]:
        """See Distribution. A bin includes its lower edge; the last one also includes its upper edge."""
        return ((edges > targets) | (edges == edges[:, -1:])).to(targets.dtype)


DISTRIBUTION = CrossEntropyMean
