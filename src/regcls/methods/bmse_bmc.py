"""bmse-bmc, Balanced MSE by batch-based Monte Carlo: the targets of the batch stand for the density of the training targets.

That is 2s² times the cross-entropy of the logits −(ŷ_i − y_j)² / (2s²) of sample i, with i as its label, over the kept samples of the
batch: see balanced_mse.py, also for the options `sigma` (1) and `rate` (0.01).

It compares all pairs. A batch of depth maps has hundreds of thousands of pixels, so of more than 1024 kept samples, 1024 enter the loss,
evenly spaced in the order of the batch: as many pairs as a class loss on a thousand pixels and classes, and targets enough to stand for a
density.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from regcls.methods.balanced_mse import BalancedMSE
from regcls.methods.loss import Facts

MOST = 1024  # samples whose pairs are compared


@dataclass(frozen=True, kw_only=True)
class BatchMonteCarlo(BalancedMSE):
    """The loss of this module."""

    def mixture(
        self, targets: Float[Tensor, "M N"], kept: Bool[Tensor, "M N"] | None, facts: Facts
    ) -> tuple[Float[Tensor, "M N"], Float[Tensor, "M N"], Float[Tensor, "M 1"]]:
        """A point at the target of each kept sample."""
        log_weights = torch.zeros_like(targets)
        if kept is not None:  # if none is, all have a weight: the sum does not count then, but must be finite
            log_weights = log_weights.masked_fill(~kept & kept.any(1, keepdim=True), -torch.inf)
        return log_weights, targets, torch.zeros_like(targets[:, :1])

    def chosen(
        self, predictions: Float[Tensor, "M N"], targets: Float[Tensor, "M N"], kept: Bool[Tensor, "M N"] | None
    ) -> tuple[Float[Tensor, "M n"], Float[Tensor, "M n"], Bool[Tensor, "M n"] | None]:
        """See BalancedMSE. At most MOST samples."""
        if predictions.shape[1] <= MOST:
            return predictions, targets, kept
        places, kept = evenly_spaced(torch.ones_like(targets, dtype=torch.bool) if kept is None else kept, MOST)
        return predictions.gather(1, places), targets.gather(1, places), kept


def evenly_spaced(kept: Bool[Tensor, "M N"], most: int) -> tuple[Int[Tensor, "M most"], Bool[Tensor, "M most"]]:
    """Positions of all kept samples, or of `most` ones among more; the second tensor is false where there are fewer."""
    numbers = kept.cumsum(1)  # of the kept samples, from 1
    counts, places = numbers[:, -1:], torch.arange(most, device=kept.device)
    wanted = 1 + places * counts.clamp(min=most) // most
    return torch.searchsorted(numbers, wanted).clamp(max=kept.shape[1] - 1), places < counts


LOSS = BatchMonteCarlo
