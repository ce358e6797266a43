"""The interface of regression losses.

Legend: M networks, N samples (of a batch, or all pixels of a batch of maps), P parameters of a loss.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor, nn

from regcls.choices import RegressionLoss
from regcls.losses import elementwise, mean_of

Facts = Mapping[str, Tensor]  # what a loss has learned of the training targets of each network, by name: (M, …)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingTargets:
    """The training targets of a network, as its loss sees them."""

    values: NDArray[np.floating]  # (N,)
    counts: NDArray[np.int64] | None = None  # (N,), how often each occurs; None: once
    limits: tuple[float, float] | None = None  # the range that params.yaml gives; None: that of the values
    reflected: bool = False  # whether bins are reflected at the ends of the range, for smoothing: for depth


@dataclass(frozen=True, kw_only=True)
class Loss(ABC):
    """A regression loss of M networks that train in parallel, or of a single one. Fields are its options. It may compare samples."""

    kind: RegressionLoss  # error per sample
    huber_delta: float

    @property
    def learned(self) -> tuple[float, ...]:
        """(P,) initial values of the loss's own parameters, which each network's optimizer trains with the weights."""
        return ()

    @property
    def learned_rate(self) -> float | None:
        """Learning rate of these parameters, constant and without weight decay; None: rate and weight decay are those of the weights."""
        return None

    def facts(self, targets: TrainingTargets) -> dict[str, NDArray[np.float64]]:
        """What the loss needs to know of the training targets of one network; shapes do not depend on them."""
        return {}

    def facts_of(self, values: Sequence[NDArray[np.floating]], *, dtype: torch.dtype, device: torch.device | str, **given: Any) -> Facts:
        """The facts of M networks, stacked; `values`: the training targets of each, `given`: further fields of TrainingTargets."""
        found = [self.facts(TrainingTargets(values=each, **given)) for each in values]
        return {name: torch.from_numpy(np.stack([facts[name] for facts in found])).to(device, dtype) for name in found[0]}

    @abstractmethod
    def __call__(
        self,
        predictions: Float[Tensor, "M N"],
        targets: Float[Tensor, "M N"],
        kept: Bool[Tensor, "M N"] | None,
        learned: Float[Tensor, "M P"],
        facts: Facts,
    ) -> Float[Tensor, " M"]:
        """Loss of each network over its kept samples (None: all); 0 if none is kept. `facts`: those of `facts`, stacked."""

    def attach(self, network: nn.Module) -> None:
        """Register the loss's parameters with a single network, so that its optimizer trains and its checkpoints save them."""
        if self.learned:
            network.loss_parameters = nn.Parameter(torch.tensor([self.learned]))

    @property
    def own_rates(self) -> dict[str, float]:
        """Learning rates of parameters that `attach` registers, by name, if they have their own."""
        return {"loss_parameters": self.learned_rate} if self.learned and self.learned_rate is not None else {}

    def logged(self, network: nn.Module) -> dict[str, Tensor]:
        """Scalars of a single network to log beside the loss."""
        return {}

    def alone(
        self,
        network: nn.Module,
        predictions: Float[Tensor, "*shape"],
        targets: Float[Tensor, "*shape"],
        kept: Bool[Tensor, "*shape"] | None,
        facts: Facts,
    ) -> Float[Tensor, ""]:
        """Loss of a single network, over samples or pixels."""
        learned = network.loss_parameters if self.learned else predictions.new_zeros(1, 0)
        assert isinstance(learned, Tensor)
        flat = None if kept is None else kept.reshape(1, -1)
        return self(predictions.reshape(1, -1), targets.reshape(1, -1), flat, learned, facts)[0]


@dataclass(frozen=True, kw_only=True)
class BySample(Loss):
    """A loss that is a mean over samples."""

    @abstractmethod
    def each(self, predictions: Float[Tensor, "M N"], targets: Float[Tensor, "M N"], facts: Facts) -> Float[Tensor, "M N"]:
        """Loss of each sample."""

    def errors(self, predictions: Float[Tensor, "M N"], targets: Float[Tensor, "M N"]) -> Float[Tensor, "M N"]:
        """Error of each sample: |e|, e² or Huber's."""
        return elementwise(predictions, targets, kind=self.kind, huber_delta=self.huber_delta)

    def __call__(
        self,
        predictions: Float[Tensor, "M N"],
        targets: Float[Tensor, "M N"],
        kept: Bool[Tensor, "M N"] | None,
        learned: Float[Tensor, "M P"],
        facts: Facts,
    ) -> Float[Tensor, " M"]:
        """See Loss."""
        return mean_of(self.each(predictions, targets, facts), kept)


class Plain(BySample):
    """reg: the mean error."""

    def each(self, predictions: Float[Tensor, "M N"], targets: Float[Tensor, "M N"], facts: Facts) -> Float[Tensor, "M N"]:
        """See BySample."""
        return self.errors(predictions, targets)
