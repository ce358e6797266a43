"""The interface of methods that predict by classes alone, without a regression loss.

A method turns each target into a histogram over C equal bins. Networks learn it by cross-entropy, and predict Σ p·c, the mean of the bins'
centres c by the predicted probabilities p.

Legend: M networks, R >= C rows of a padded class head, N samples. Axis 1 is that of the classes, as in F.cross_entropy; for a single
network, axis 0 is that of the samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from regcls.classes import ClassRanges
from regcls.losses import mean_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Bins:
    """The bins of M networks, in the target's unit, with or without an axis for samples at the end."""

    edges: Float[Tensor, "M edges ..."]  # R + 1; padding repeats the last one
    width: Float[Tensor, "M 1 ..."]
    centres: Float[Tensor, "M R ..."]  # 0 for padding

    @classmethod
    def of(cls, ranges: Sequence[ClassRanges], *, rows: int = 0, dtype: torch.dtype, device: torch.device | str) -> "Bins":
        """The bins of uniform class ranges, padded to `rows` bins."""
        # All training targets may be equal: a single bin around them.
        edges = [each.edges if each.edges[0] < each.edges[-1] else each.edges + (-0.5, 0.5) for each in ranges]
        rows = max(rows, *map(len, ranges))
        values = {
            "edges": [np.pad(own, (0, rows + 1 - len(own)), mode="edge") for own in edges],
            "width": [own[1:2] - own[:1] for own in edges],
            "centres": [np.pad((own[1:] + own[:-1]) / 2, (0, rows + 1 - len(own))) for own in edges],
        }
        return cls(**{name: torch.from_numpy(np.stack(each)).to(device, dtype) for name, each in values.items()})

    def by_sample(self) -> "Bins":
        """With an axis for samples."""
        return Bins(**{each.name: getattr(self, each.name)[..., None] for each in fields(self)})

    def first(self, count: int) -> "Bins":
        """Those of the first `count` networks."""
        return Bins(**{each.name: getattr(self, each.name)[:count] for each in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Distribution(ABC):
    """How a target becomes a distribution. Fields are the method's options."""

    def bins(self, ranges: Sequence[ClassRanges], *, rows: int = 0, dtype: torch.dtype, device: torch.device | str) -> Bins:
        """See Bins.of."""
        return Bins.of(ranges, rows=rows, dtype=dtype, device=device)

    @abstractmethod
    def below(self, targets: Float[Tensor, "M 1 *N"], bins: Bins) -> Float[Tensor, "M edges *N"]:
        """How much of each target's distribution lies below each edge, up to a constant and a factor."""

    def histogram(self, targets: Float[Tensor, "M 1 *N"], bins: Bins) -> Float[Tensor, "M R *N"]:
        """The share of each target's distribution in each bin; 0 for padding. Targets beyond the bins are moved to their end."""
        low, high = bins.edges[:, :1], bins.edges[:, -1:]
        below = self.below(targets.clamp(low, high), bins)
        return below.diff(dim=1) / (below[:, -1:] - below[:, :1])

    def loss(
        self, logits: Float[Tensor, "N C"], targets: Float[Tensor, " N"], kept: Bool[Tensor, " N"] | None, bins: Bins
    ) -> Float[Tensor, ""]:
        """Cross-entropy of a single network, in nats, averaged over its kept samples (None: all); 0 if none is kept."""
        return mean_of(F.cross_entropy(logits, self.histogram(targets[:, None], bins), reduction="none"), kept)
