"""What the three Balanced MSE losses share: the negative log likelihood of a target among imbalanced ones.

Ren et al., "Balanced MSE for imbalanced visual regression", CVPR 2022. A prediction ŷ stands for the density N(y; ŷ, s²) among balanced
targets. Among the training targets, whose density is p, that of y is then N(y; ŷ, s²) p(y) / ∫ N(t; ŷ, s²) p(t) dt (Bayes). The loss is
its negative logarithm, up to a constant, times 2s²; for p as a mixture of K Gaussians of weight π, mean μ and variance v, and e = ŷ − y:

    2s² · (e² / (2s²) + log Σ_k π_k √(s² / (v_k + s²)) exp(−(ŷ − μ_k)² / (2 (v_k + s²))))

The methods differ in this mixture: see their files. The factor 2s² has no gradient; it gives the loss the size of e². The error is e²
whatever `loss` in params.yaml says. The loss may be negative. Where all training targets are equal it is constant, or nearly: there is
nothing to tell apart.

Options of all three: `sigma`, the initial noise s, in the unit in which the loss sees targets (their own, or standard deviations);
`rate`, its learning rate, which is constant, without weight decay; rate=0: s stays the same. As released, the learned parameter is σ, and
s² its square; 10⁻⁸ is added, so that s is never 0. The release uses σ = 10 for ages, and σ = 1, fixed, for depth.

Legend: M networks, N samples, K Gaussians.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from regcls.losses import mean_of
from regcls.methods.loss import Facts, Loss

LEAST = 1e-8  # added to σ²
# Pairs of a sample and a Gaussian to compute at once, but of 64 samples at least: a batch of depth maps has tens of millions. A CPU's cache
# holds few.
PIECE = {"cpu": 2**18, "cuda": 2**22}


@dataclass(frozen=True, kw_only=True)
class BalancedMSE(Loss):
    """A loss of this kind."""

    sigma: float
    rate: float

    @property
    def learned(self) -> tuple[float, ...]:
        """σ, unless it is fixed."""
        return (self.sigma,) if self.rate else ()

    @property
    def learned_rate(self) -> float:
        """See Loss."""
        return self.rate

    def logged(self, network: nn.Module) -> dict[str, Tensor]:
        """noise_sigma: s, if it is learned."""
        if not self.learned:
            return {}
        assert isinstance(network.loss_parameters, Tensor)
        return {"noise_sigma": _variance(network.loss_parameters.detach()[0, 0]).sqrt()}

    @abstractmethod
    def mixture(
        self, targets: Float[Tensor, "M N"], kept: Bool[Tensor, "M N"] | None, facts: Facts
    ) -> tuple[Float[Tensor, "M K"], Float[Tensor, "M K"], Float[Tensor, "M #K"]]:
        """log π, μ and v."""

    def chosen(
        self, predictions: Float[Tensor, "M N"], targets: Float[Tensor, "M N"], kept: Bool[Tensor, "M N"] | None
    ) -> tuple[Float[Tensor, "M n"], Float[Tensor, "M n"], Bool[Tensor, "M n"] | None]:
        """The samples that enter the loss: predictions, targets, and which of them are kept; by default all."""
        return predictions, targets, kept

    def __call__(
        self,
        predictions: Float[Tensor, "M N"],
        targets: Float[Tensor, "M N"],
        kept: Bool[Tensor, "M N"] | None,
        learned: Float[Tensor, "M P"],
        facts: Facts,
    ) -> Float[Tensor, " M"]:
        """See Loss."""
        predictions, targets, kept = self.chosen(predictions.to(targets.dtype), targets, kept)  # from bf16
        variance = _variance(learned if self.learned else torch.full_like(targets[:, :1], self.sigma))
        evidence: Tensor = _LogEvidence.apply(predictions, variance, *self.mixture(targets, kept, facts))  # type: ignore[no-untyped-call]
        return mean_of(2 * variance.detach() * ((predictions - targets).square() / (2 * variance) + evidence), kept)


def _variance(sigma: Tensor) -> Tensor:
    return sigma.square() + LEAST


class _LogEvidence(torch.autograd.Function):
    """The logarithm of the sum over Gaussians (M, N). Computes its derivatives as well, so that nothing of size K × N need be kept."""

    @staticmethod
    def forward(ctx: Any, predictions: Tensor, variance: Tensor, log_weights: Tensor, means: Tensor, variances: Tensor) -> Tensor:
        """predictions (M, N), variance s² (M, 1), log π and μ (M, K), v (M, K) or (M, 1)."""
        precisions = 1 / (variances + variance)
        log_weights = log_weights + (precisions * variance).log() / 2
        by_weight = (1 / variance - precisions) / 2  # derivative of log √(s² / (v + s²)) by s²
        pairs = 64 * means.numel()  # of 64 samples: a multiple of the vector length, see ensemble.py
        samples = min(predictions.shape[1], max(1, PIECE[predictions.device.type] // pairs) * 64)
        room = predictions.new_empty(3, samples * means.numel())  # once: memory that is new to the process costs more than the arithmetic
        pieces = [_piece(piece, log_weights, means, precisions, by_weight, room) for piece in predictions.split(samples, 1)]
        value, by_prediction, by_variance = (torch.cat(parts, 1) for parts in zip(*pieces, strict=True))
        ctx.save_for_backward(by_prediction, by_variance)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the predictions and of s²."""
        by_prediction, by_variance = ctx.saved_tensors
        return gradient * by_prediction, (gradient * by_variance).sum(1, keepdim=True), None, None, None


def _piece(
    predictions: Tensor, log_weights: Tensor, means: Tensor, precisions: Tensor, by_weight: Tensor, room: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The logarithm for some samples (M, n), and its derivatives by ŷ and s²."""
    log_weights, means, precisions, by_weight = (each[..., None] for each in (log_weights, means, precisions, by_weight))
    shape = (*means.shape[:2], predictions.shape[1])
    terms, slopes, products = room[:, : math.prod(shape)].view(3, *shape)
    torch.sub(predictions[:, None], means, out=terms)
    torch.mul(terms, precisions, out=slopes)
    terms.mul_(slopes).mul_(-0.5).add_(log_weights)
    largest = terms.amax(1)
    terms.sub_(largest[:, None]).exp_()
    total = terms.sum(1)
    torch.mul(terms, slopes, out=products)
    by_prediction = -products.sum(1) / total
    by_variance = (products.mul_(slopes).sum(1) / 2 + terms.mul_(by_weight).sum(1)) / total
    return total.log() + largest, by_prediction, by_variance
