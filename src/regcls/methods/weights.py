"""Weights of samples by the density of the training targets around theirs.

Legend: M networks, N samples, K bins.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from regcls.methods.bins import edges_of, histogram
from regcls.methods.loss import BySample, Facts, TrainingTargets


@dataclass(frozen=True, kw_only=True)
class Weighting(ABC):
    """A weight for each bin of targets. Fields are its options."""

    bins: float  # number of bins; 0: see bins.py

    @abstractmethod
    def density(self, counts: NDArray[np.float64], *, reflected: bool) -> NDArray[np.float64]:
        """(K,) what the weights of bins are inverse to; above 0 in each bin that has training samples."""

    def weighing(self, loss: BySample) -> "Weighted":
        """The weighted loss."""
        return Weighted(kind=loss.kind, huber_delta=loss.huber_delta, loss=loss, weighting=self)


@dataclass(frozen=True, kw_only=True)
class Weighted(BySample):
    """A mean over samples with weights, whose mean over the training samples is 1."""

    loss: BySample
    weighting: Weighting

    def facts(self, targets: TrainingTargets) -> dict[str, NDArray[np.float64]]:
        """edges (K − 1,) between bins, and their weights (K,); a bin without training samples has that of the nearest one with some."""
        edges = edges_of(targets, self.weighting.bins)
        counts = histogram(targets, edges)
        density = self.weighting.density(counts, reflected=targets.reflected)
        occupied = np.flatnonzero(counts)
        nearest = occupied[np.abs(np.arange(len(counts))[:, None] - occupied).argmin(axis=1)]
        weights = 1 / density[nearest]
        return {"edges": edges[1:-1], "weights": weights * counts.sum() / (counts * weights).sum()}

    def each(self, predictions: Float[Tensor, "M N"], targets: Float[Tensor, "M N"], facts: Facts) -> Float[Tensor, "M N"]:
        """See BySample."""
        bins = torch.searchsorted(facts["edges"], targets.contiguous(), right=True)
        return facts["weights"].gather(1, bins) * self.loss.each(predictions, targets, facts)
