"""What the class loss stands for (paper, section 2.2): L_extra and likelihoods of Gaussian errors, measured while networks train.

p̃(k) is the share of class k in training, p_k the softmax of the class head and c the true class of a sample.
L_cls = −log p_c; L_extra = log p̃(c) − log Σ_k p_k p̃(k) (Eq. 9). For the likelihood of a regression network, errors are Gaussian, with the
mean squared training error as σ², and p̃ is a histogram of the training targets: −log p(y|x) is the balanced one and
−log p̃(y|x) = −log p(y|x) − log p̃(y) + log ∫ p(y'|x) p̃(y') dy' the imbalanced one (Eq. 6 and 8).

A sample counts if training has samples of its class (for likelihoods: of its bin): otherwise log p̃ is −∞.

Legend: M networks, B batch, D inputs, n samples, R rows of the class head, E edges of bins.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regcls.classes import ClassRanges, class_ranges
from regcls.training.ensemble_data import EvaluationSet, Network, Samples

# Columns of `Likelihoods.measure`, means over samples except for the correlation of L_cls and L_extra. other_classes: Σ_{k≠c} p_k.
# seen: share of the samples that count. Values of the class head are NaN without one.
MEASURES = ("class_loss", "extra_loss", "correlation", "other_classes", "seen", "balanced_nll", "imbalanced_nll")
SAMPLES = 512  # of a set, evenly spaced
BINS = 64  # of training targets

Outputs = Callable[[Tensor], tuple[Tensor, Tensor]]  # x (M, D + 1, B) -> predictions (M, 1, B), logits (M, R, B)


class Likelihoods:
    """A sample of the set `name` of each network: `train`, or an evaluation set."""

    def __init__(self, networks: Sequence[Network], name: str, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        pairs = [_sample((n.x, n.y) if name == "train" else n.evaluate[name]) for n in networks]
        self.data, self.batch, self.rows = EvaluationSet(pairs, batch, dtype, device), batch, networks[0].head_rows

        def columns(rows: Sequence[NDArray[np.floating]], width: int) -> Tensor:
            """Rows of different lengths (M, 1, width), with zeros at the end."""
            table = np.zeros((len(rows), 1, width))
            for line, row in zip(table, rows, strict=True):
                line[0, : row.size] = row
            return torch.from_numpy(table).to(device, dtype)

        ranges = [n.classes for n in networks if n.classes is not None]
        if self.rows:
            self.labels = self.data.labels(ranges).long()
            self.class_shares = columns([shares(r, n.y) for r, n in zip(ranges, networks, strict=True)], self.rows)
        bins = [class_ranges(BINS, n.y, balanced=False) for n in networks]
        densities = [shares(b, n.y) / np.diff(b.edges).clip(1e-9) for b, n in zip(bins, networks, strict=True)]
        self.edges = columns([b.edges for b in bins], BINS + 1).mT
        # ∫ p p̃ is a sum over bins of density · (Φ(upper edge) − Φ(lower edge)), hence over edges of Φ · (density below − density above).
        self.steps = columns([-np.diff(density, prepend=0, append=0) for density in densities], BINS + 1)
        self.log_density = columns(densities, BINS).gather(2, self.data.labels(bins).long()).log()

    def measure(self, outputs: Outputs, mse: Tensor) -> Tensor:
        """(M, len(MEASURES)) after an epoch; mse (M,): the training error of that epoch."""
        sigma = mse.clamp_min(torch.finfo(mse.dtype).tiny).sqrt().to(self.edges.dtype).view(-1, 1, 1)
        blocks = []
        for start in range(0, self.data.longest, self.batch):
            block = slice(start, start + self.batch)
            predictions, logits = outputs(self.data.inputs(block))
            classes = class_losses(logits, self.labels[..., block], self.class_shares) if self.rows else []
            blocks.append(torch.cat([*classes, *self._gaussian(predictions, sigma, block)], 1))
        *classes, balanced, imbalanced = torch.cat(blocks, 2).double().unbind(1)
        share = self.data.share[:, 0].double()
        nll = _means(share, torch.isfinite(imbalanced), balanced, imbalanced)
        if not classes:
            return torch.cat([torch.full((len(share), 5), math.nan, dtype=nll.dtype, device=nll.device), nll], 1)
        loss, extra, others = classes
        seen = torch.isfinite(extra)
        means = _means(share, seen, loss, extra, others, loss * loss, extra * extra, loss * extra)
        spread = (means[:, 3] - means[:, 0] ** 2) * (means[:, 4] - means[:, 1] ** 2)
        correlation = (means[:, 5] - means[:, 0] * means[:, 1]) / spread.clamp_min(0).sqrt()
        return torch.cat([torch.stack([*means[:, :2].T, correlation, means[:, 2], (share * seen).sum(1)], 1), nll], 1)

    def _gaussian(self, predictions: Tensor, sigma: Tensor, block: slice) -> tuple[Tensor, Tensor]:
        """Predictions (M, 1, B) -> −log p(y|x) and −log p̃(y|x), (M, 1, B) each."""
        balanced = ((self.data.y[..., block] - predictions) / sigma).square() / 2 + (sigma.log() + math.log(2 * math.pi) / 2)
        # Φ(z) = (1 + erf(z / √2)) / 2, and the steps add up to 0.
        integral = torch.bmm(self.steps, (self.edges - predictions).div_(sigma * math.sqrt(2)).erf_()).div_(2)
        smallest = torch.finfo(integral.dtype).eps  # a prediction far outside the training targets: rounding decides below
        return balanced, balanced - self.log_density[..., block] + integral.clamp_min(smallest).log()


def class_losses(logits: Tensor, labels: Tensor, class_shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """L_cls, L_extra and Σ_{k≠c} p_k of each sample, (M, 1, B) each; L_extra is −∞ if training has no sample of the class.

    logits (M, R, B), changed in place; labels (M, 1, B); class_shares (M, 1, R): p̃.
    """
    logits.sub_(logits.amax(1, keepdim=True))
    own = logits.gather(1, labels)
    total = logits.exp_().sum(1, keepdim=True)
    expected = torch.bmm(class_shares, logits).clamp_min_(torch.finfo(logits.dtype).tiny) / total
    loss = total.log() - own
    return loss, class_shares.gather(2, labels).log() - expected.log(), -torch.expm1(-loss)


def shares(ranges: ClassRanges, targets: NDArray[np.floating]) -> NDArray[np.float64]:
    """p̃ (K,): the share of each class among targets (N,)."""
    return np.bincount(ranges.labels(targets), minlength=len(ranges)) / targets.size


def _sample(pair: Samples) -> Samples:
    x, y = pair
    if y.size <= SAMPLES:
        return pair
    chosen = np.linspace(0, y.size - 1, SAMPLES).astype(int)
    return x[:, chosen], y[chosen]


def _means(share: Tensor, counts: Tensor, *values: Tensor) -> Tensor:
    """(M, number of values): means over the samples that count; share and values (M, n)."""
    weight = torch.where(counts, share, 0)
    weight = weight / weight.sum(1, keepdim=True)
    return torch.stack([torch.where(counts, value, 0).mul(weight).sum(1) for value in values], 1)
