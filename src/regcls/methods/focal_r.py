"""focal-r: the error |e| or e² times (2σ(β|e|) − 1)^γ with the logistic σ, so that large errors weigh more.

Yang et al., "Delving into deep imbalanced regression", ICML 2021, after the focal loss of Lin et al., ICCV 2017; default β and γ as
there. The gradient flows through the weight.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from regcls.losses import mean_of
from regcls.methods.loss import Loss


@dataclass(frozen=True, kw_only=True)
class FocalR(Loss):
    """The loss of this module."""

    beta: float
    gamma: float

    def __call__(
        self,
        predictions: Float[Tensor, "M N"],
        targets: Float[Tensor, "M N"],
        kept: Bool[Tensor, "M N"] | None,
        learned: Float[Tensor, "M P"],
    ) -> Float[Tensor, " M"]:
        """See Loss."""
        sizes = (2 * torch.sigmoid(self.beta * (predictions - targets).abs()) - 1).clamp(min=torch.finfo(predictions.dtype).tiny)
        weights = sizes.pow(self.gamma)  # sizes are above 0, where the gradient would be infinite for γ below 1
        return mean_of(weights * self.errors(predictions, targets), kept)


LOSS = FocalR
