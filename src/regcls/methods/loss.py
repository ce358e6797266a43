"""The interface of regression losses.

Legend: M networks, N samples (of a batch, or all pixels of a batch of maps), P parameters of a loss.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from regcls.choices import RegressionLoss
from regcls.losses import elementwise, mean_of


@dataclass(frozen=True, kw_only=True)
class Loss(ABC):
    """A regression loss of M networks that train in parallel, or of a single one. Fields are its options. It may compare samples."""

    kind: RegressionLoss  # error per sample
    huber_delta: float
    learned: ClassVar[
        tuple[float, ...]
    ] = ()  # (P,) initial values of the loss's own parameters, which each network's optimizer trains with the weights

    @abstractmethod
    def __call__(
        self,
        predictions: Float[Tensor, "M N"],
        targets: Float[Tensor, "M N"],
        kept: Bool[Tensor, "M N"] | None,
        learned: Float[Tensor, "M P"],
    ) -> Float[Tensor, " M"]:
        """Loss of each network over its kept samples (None: all); 0 if none is kept."""

    def errors(self, predictions: Float[Tensor, "M N"], targets: Float[Tensor, "M N"]) -> Float[Tensor, "M N"]:
        """Error of each sample: |e|, e² or Huber's."""
        return elementwise(predictions, targets, kind=self.kind, huber_delta=self.huber_delta)

    def attach(self, network: nn.Module) -> None:
        """Register the loss's parameters with a single network, so that its optimizer trains and its checkpoints save them."""
        if self.learned:
            network.loss_parameters = nn.Parameter(torch.tensor([self.learned]))

    def alone(
        self,
        network: nn.Module,
        predictions: Float[Tensor, "*shape"],
        targets: Float[Tensor, "*shape"],
        kept: Bool[Tensor, "*shape"] | None,
    ) -> Float[Tensor, ""]:
        """Loss of a single network, over samples or pixels."""
        learned = network.loss_parameters if self.learned else predictions.new_zeros(1, 0)
        assert isinstance(learned, Tensor)
        flat = None if kept is None else kept.reshape(1, -1)
        return self(predictions.reshape(1, -1), targets.reshape(1, -1), flat, learned)[0]


class Plain(Loss):
    """reg: the mean error."""

    def __call__(
        self,
        predictions: Float[Tensor, "M N"],
        targets: Float[Tensor, "M N"],
        kept: Bool[Tensor, "M N"] | None,
        learned: Float[Tensor, "M P"],
    ) -> Float[Tensor, " M"]:
        """See Loss."""
        return mean_of(self.errors(predictions, targets), kept)
