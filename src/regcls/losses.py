"""Training losses: regression, and regression with classification (Eq. 4).

Legend: B batch, C classes; where a target is a map, its pixels are the samples, and shapes are (B, H, W).
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

RegressionLoss = Literal["mae", "mse", "huber"]


def regression_loss(
    predictions: Float[Tensor, "B *HW"],
    targets: Float[Tensor, "B *HW"],
    kept: Bool[Tensor, "B *HW"] | None = None,
    *,
    kind: RegressionLoss,
    huber_delta: float = 1.0,
) -> Float[Tensor, ""]:
    """Mean absolute error (mae), mean squared error (mse) or Huber loss, over the kept samples; 0 if none is.

    Kept are those that are drawn (balanced data, Table 4) and, of a depth map, the pixels with a measurement.
    """
    match kind:
        case "mae":
            losses = F.l1_loss(predictions, targets, reduction="none")
        case "mse":
            losses = F.mse_loss(predictions, targets, reduction="none")
        case "huber":
            losses = F.huber_loss(predictions, targets, reduction="none", delta=huber_delta)
    return _mean(losses, kept)


def class_loss(logits: Float[Tensor, "B C"], labels: Int[Tensor, " B"], kept: Bool[Tensor, " B"] | None = None) -> Float[Tensor, ""]:
    """Cross-entropy in nats, averaged over the kept samples (Eq. 13); 0 for a batch in which none is kept."""
    return _mean(F.cross_entropy(logits, labels, reduction="none"), kept)


def _mean(losses: Float[Tensor, "B *HW"], kept: Bool[Tensor, "B *HW"] | None) -> Float[Tensor, ""]:
    if kept is None:
        return losses.mean()
    # Not losses[kept].mean(): that is NaN for an empty selection, and so is its gradient.
    return torch.where(kept, losses, 0.0).sum() / kept.sum().clamp(min=1)


def weighted(
    regression: Float[Tensor, ""], classification: Float[Tensor, ""], *, lam: float, scaling: Literal["eq4", "released"]
) -> Float[Tensor, ""]:
    """λ · regression + classification (Eq. 4).

    `released` divides that by λ where λ ≤ 1, as the authors' image experiments do: with Adam the same but for ε and weight decay.
    """
    if scaling == "released" and lam <= 1:
        return regression + classification / lam
    return lam * regression + classification


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
    return weighted(regression_loss(predictions, targets, kind="mse"), class_loss(logits, labels, kept), lam=lam, scaling="eq4")
