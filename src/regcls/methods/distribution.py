"""The interface of methods that predict by classes alone, without a regression loss.

A method turns each target into a histogram over C equal bins. Networks learn it by cross-entropy, and predict Σ p·c, the mean of the bins'
centres c by the predicted probabilities p.

Legend: M networks, R >= C rows of a padded class head, N samples. Axis 1 is that of the classes, as in F.cross_entropy; for a single
network, axis 0 is that of the samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from regcls.classes import ClassRanges
from regcls.losses import mean_of


@dataclass(frozen=True, kw_only=True)
class Distribution(ABC):
    """How a target becomes a distribution. Fields are the method's options."""

    @abstractmethod
    def below(
        self, targets: Float[Tensor, "M 1 *N"], edges: Float[Tensor, "M edges ..."], width: Float[Tensor, "M 1 ..."]
    ) -> Float[Tensor, "M edges *N"]:
        """How much of each target's distribution lies below each edge of the bins, up to a constant and a factor.

        Targets are within the bins; `width`: of a bin.
        """

    def histograms(self, ranges: Sequence[ClassRanges], *, rows: int = 0, dtype: torch.dtype, device: torch.device | str) -> "Histograms":
        """The histograms of M networks, over their uniform class ranges, padded to `rows` bins."""
        # All training targets may be equal: a single bin around them.
        edges = [each.edges if each.edges[0] < each.edges[-1] else each.edges + np.array([-0.5, 0.5]) for each in ranges]
        rows = max(rows, *map(len, ranges))

        def stacked(values: Sequence[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(values)).to(device, dtype)

        return Histograms(
            below=self.below,
            edges=stacked([np.pad(own, (0, rows + 1 - len(own)), mode="edge") for own in edges]),
            width=stacked([own[1:2] - own[:1] for own in edges]),
            centres=stacked([np.pad((own[1:] + own[:-1]) / 2, (0, rows + 1 - len(own))) for own in edges]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Histograms:
    """The histograms of targets over the bins of M networks, in the target's unit."""

    below: Callable[[Tensor, Tensor, Tensor], Tensor]  # Distribution.below
    edges: Float[Tensor, "M edges ..."]  # R + 1 of them; padding repeats the last one
    width: Float[Tensor, "M 1 ..."]
    centres: Float[Tensor, "M R ..."]  # 0 for padding

    def by_sample(self) -> "Histograms":
        """The same, for targets with an axis for the samples of each network at the end."""
        return replace(self, edges=self.edges[..., None], width=self.width[..., None], centres=self.centres[..., None])

    def first(self, count: int) -> "Histograms":
        """Those of the first `count` networks."""
        return replace(self, edges=self.edges[:count], width=self.width[:count], centres=self.centres[:count])

    def of(self, targets: Float[Tensor, "M 1 *N"]) -> Float[Tensor, "M R *N"]:
        """The share of each target's distribution in each bin; 0 for padding. Targets beyond the bins are moved to their end."""
        below = self.below(targets.clamp(self.edges[:, :1], self.edges[:, -1:]), self.edges, self.width)
        return below.diff(dim=1).div_(below[:, -1:] - below[:, :1])

    def losses(self, logits: Float[Tensor, "N C"], targets: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Cross-entropy of each sample of a single network, in nats."""
        return F.cross_entropy(logits, self.of(targets[:, None]), reduction="none")

    def loss(self, logits: Float[Tensor, "N C"], targets: Float[Tensor, " N"], kept: Bool[Tensor, " N"] | None) -> Float[Tensor, ""]:
        """Mean of `losses` over the kept samples (None: all); 0 if none is kept."""
        return mean_of(self.losses(logits, targets), kept)
