"""Training losses: regression, and regression with classification (Eq. 4).

Legend: B batch, C classes.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def class_loss(logits: Float[Tensor, "B C"], labels: Int[Tensor, " B"], kept: Bool[Tensor, " B"] | None = None) -> Float[Tensor, ""]:
    """Cross-entropy in nats, averaged over the kept samples (Eq. 13); 0 for a batch in which none is kept."""
    losses = F.cross_entropy(logits, labels, reduction="none")
    if kept is None:
        return losses.mean()
    # Not losses[kept].mean(): that is NaN for an empty selection, and so is its gradient.
    return torch.where(kept, losses, 0.0).sum() / kept.sum().clamp(min=1)


def reg_cls(
    predictions: Float[Tensor, " B"],
    targets: Float[Tensor, " B"],
    logits: Float[Tensor, "B C"],
    labels: Int[Tensor, " B"],
    kept: Bool[Tensor, " B"] | None = None,
    *,
    lam: float,
) -> Float[Tensor, ""]:
    """λ · mean squared error + class loss (Eq. 4)."""
    return lam * F.mse_loss(predictions, targets) + class_loss(logits, labels, kept)
