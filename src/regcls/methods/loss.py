"""What a regression loss is to all trainers.

Legend: M networks, N samples: those of a batch, or all pixels of a batch of maps; P parameters of a loss.
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
    """The regression loss of networks side by side, or of one that trains alone. Its options are fields. It may look at the whole batch."""

    kind: RegressionLoss  # of the error that it builds on
    huber_delta: float
    learned: ClassVar[
        tuple[float, ...]
    ] = ()  # (P,) parameters of its own as they begin; each network's optimizer learns them with the weights

    @abstractmethod
    def __call__(
        self,
        predictions: Float[Tensor, "M N"],
        targets: Float[Tensor, "M N"],
        kept: Bool[Tensor, "M N"] | None,
        learned: Float[Tensor, "M P"],
    ) -> Float[Tensor, " M"]:
        """Of each network, over the samples that are kept (None: all); 0 where none is."""

    def errors(self, predictions: Float[Tensor, "M N"], targets: Float[Tensor, "M N"]) -> Float[Tensor, "M N"]:
        """Of each sample: |e|, e² or Huber's."""
        return elementwise(predictions, targets, kind=self.kind, huber_delta=self.huber_delta)

    def attach(self, network: nn.Module) -> None:
        """Give a network that trains alone the parameters of its loss: its optimizer learns them, its checkpoints keep them."""
        if self.learned:
            network.loss_parameters = nn.Parameter(torch.tensor([self.learned]))

    def alone(
        self,
        network: nn.Module,
        predictions: Float[Tensor, "*shape"],
        targets: Float[Tensor, "*shape"],
        kept: Bool[Tensor, "*shape"] | None,
    ) -> Float[Tensor, ""]:
        """The loss of such a network, over samples or pixels."""
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
