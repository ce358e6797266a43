"""focal-r: the error |e| or e² times (2σ(β|e|) − 1)^γ with the logistic σ, so that large errors weigh more.

Yang et al., "Delving into deep imbalanced regression", ICML 2021, after the focal loss of Lin et al., ICCV 2017; default β and γ as
there. The gradient flows through the weight.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from regcls.methods.loss import BySample, Facts


@dataclass(frozen=True, kw_only=True)
class FocalR(BySample):
    """The loss of this module."""

    beta: float
    gamma: float

    def each(self, predictions: Float[Tensor, "M N"], targets: Float[Tensor, "M N"], facts: Facts) -> Float[Tensor, "M N"]:
        """See BySample."""
        sizes = (2 * torch.sigmoid(self.beta * (predictions - targets).abs()) - 1).clamp(min=torch.finfo(predictions.dtype).tiny)
        weights = sizes.pow(self.gamma)  # sizes are above 0, where the gradient would be infinite for γ below 1
        return weights * self.errors(predictions, targets)


LOSS = FocalR
