"""Training losses: regression, and regression with classification (Eq. 4).

Legend: B batch, C classes; N samples; where a target is a map, its pixels are the samples.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from regcls.choices import RegressionLoss


def elementwise(
    predictions: Float[Tensor, "*shape"], targets: Float[Tensor, "*shape"], *, kind: RegressionLoss, huber_delta: float = 1.0
) -> Float[Tensor, "*shape"]:
    """The error of each sample: absolute (mae), squared (mse) or Huber's."""
    match kind:
        case "mae":
            return F.l1_loss(predictions, targets, reduction="none")
        case "mse":
            return F.mse_loss(predictions, targets, reduction="none")
        case "huber":
            return F.huber_loss(predictions, targets, reduction="none", delta=huber_delta)


def mean_of(losses: Float[Tensor, "*M N"], kept: Bool[Tensor, "*M N"] | None) -> Float[Tensor, "*M"]:
    """The mean over the kept samples; 0 if none is.

    Kept are those that are drawn (balanced data, Table 4) and, of a depth map, the pixels with a measurement.
    """
    if kept is None:
        return losses.mean(-1)
    # Not losses[kept].mean(): that is NaN for an empty selection, and so is its gradient.
    return torch.where(kept, losses, 0.0).sum(-1) / kept.sum(-1).clamp(min=1)


def class_loss(logits: Float[Tensor, "B C"], labels: Int[Tensor, " B"], kept: Bool[Tensor, " B"] | None = None) -> Float[Tensor, ""]:
    """Cross-entropy in nats, averaged over the kept samples (Eq. 13); 0 for a batch in which none is kept."""
    return mean_of(F.cross_entropy(logits, labels, reduction="none"), kept)


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
    return weighted(elementwise(predictions, targets, kind="mse").mean(), class_loss(logits, labels, kept), lam=lam, scaling="eq4")
