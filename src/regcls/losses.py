"""Training losses: regression, and regression with classification (Eq. 4).

Legend: B batch size, C classes, N samples (pixels if targets are maps).
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
    """Mean over the kept samples; 0 if none is kept.

    Kept samples are those that were drawn (balanced data, Table 4) and, in depth maps, have a measurement.
    """
    if kept is None:
        return losses.mean(-1)
    # Not losses[kept].mean(): for an empty selection, it and its gradient are NaN.
    return torch.where(kept, losses, 0.0).sum(-1) / kept.sum(-1).clamp(min=1)


def class_loss(logits: Float[Tensor, "B C"], labels: Int[Tensor, " B"], kept: Bool[Tensor, " B"] | None = None) -> Float[Tensor, ""]:
    """Cross-entropy in nats, averaged over the kept samples (Eq. 13); 0 if none is kept."""
    return mean_of(F.cross_entropy(logits, labels, reduction="none"), kept)


def weighted(
    regression: Float[Tensor, ""], classification: Float[Tensor, ""], *, lam: float, scaling: Literal["eq4", "released"]
) -> Float[Tensor, ""]:
    """λ · regression + classification (Eq. 4).

    `released` divides this by λ if λ ≤ 1, as the authors' image experiments do: equivalent with Adam, except for ε and weight decay.
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
