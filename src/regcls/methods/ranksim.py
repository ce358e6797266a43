"""ranksim: samples whose targets are close shall be those whose features are similar, by rank, in a second loss.

Gong et al., "RankSim: Ranking similarity regularization for deep imbalanced regression", ICML 2022. Over the n samples of a batch that are
the first with their target (the release: a random one), the loss is γ Σ_i mean_j (r_ij − s_ij)²: s_ij is the rank of −|y_i − y_j| among all
j, r_ij that of the cosine similarity of features, from 1 for the greatest to n, divided by n. As released, it is summed over i; ties go to
the first of the batch. Ranks are constant almost everywhere; for a gradient g of r, the gradient of the similarities c is
(r(c + λ g) − r(c)) / λ (Vlastelica et al., "Differentiation of blackbox combinatorial solvers", ICLR 2020). Options: `gamma`, γ = 100, and
`strength`, λ = 2, as for ages.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from regcls.methods.features import FeatureMethod
from regcls.methods.loss import TrainingTargets


class RankSimilarity(FeatureMethod):
    """The method of this module."""

    def __init__(self, *, features: int, targets: TrainingTargets, gamma: float, strength: float) -> None:
        super().__init__()
        self.gamma, self.strength = gamma, strength

    def loss(self, features: Float[Tensor, "N F"], targets: Float[Tensor, " N"], kept: Bool[Tensor, " N"] | None) -> Float[Tensor, ""]:
        """See FeatureMethod. 0 without kept samples, or if all have the same target."""
        used = first_of_each(targets, kept)
        lengths = features.norm(dim=1, keepdim=True)
        units = features / torch.where(lengths > 0, lengths, torch.inf)  # features that are all 0 are similar to none, with gradient 0
        wanted = ranks(-(targets[:, None] - targets).abs(), used)
        found: Tensor = _Ranks.apply(units @ units.T, used, self.strength)  # type: ignore[no-untyped-call]
        errors = torch.where(used[:, None] & used, found - wanted, 0.0).square()
        return self.gamma * errors.sum() / used.sum().clamp(min=1)


def first_of_each(targets: Float[Tensor, " N"], kept: Bool[Tensor, " N"] | None) -> Bool[Tensor, " N"]:
    """The kept samples without an equal target among the kept ones before them."""
    same = targets[:, None] == targets
    if kept is None:
        return ~same.tril(-1).any(1)
    return kept & ~(same & kept).tril(-1).any(1)


def ranks(values: Float[Tensor, "N N"], used: Bool[Tensor, " N"]) -> Float[Tensor, "N N"]:
    """The rank of each value of a row among the used ones, from 1 for the greatest, divided by their number."""
    order = values.masked_fill(~used, -torch.inf).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(1, len(used) + 1, device=values.device, dtype=values.dtype)
    return torch.zeros_like(values).scatter_(1, order, places.expand_as(order)) / used.sum().clamp(min=1)


class _Ranks(torch.autograd.Function):
    """`ranks`, with the gradient of a piecewise linear interpolation."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, used: Tensor, strength: float) -> Tensor:
        found = ranks(values, used)
        ctx.save_for_backward(values, used, found)
        ctx.strength = strength
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        values, used, found = ctx.saved_tensors
        moved = ranks(values + ctx.strength * gradient, used)
        return (moved - found) / (ctx.strength + 1e-8), None, None  # as released, finite for a strength of 0


FEATURES = RankSimilarity
