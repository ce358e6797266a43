"""Image networks trained on standardised targets, with predictions in the target's unit."""

import torch
from jaxtyping import Float
from torch import Tensor

from regcls.models.heads import RegressionNetwork
from regcls.models.predictor import DEPTHS, build
from regcls.models.resnet import ResNet


class StandardisedNetwork(RegressionNetwork):
    """A network whose regression head outputs z, for the target mean + std · z."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: ResNet, classes: int, *, mean: float, std: float) -> None:
        super().__init__(backbone, classes)
        self.register_buffer("mean", torch.tensor(mean))  # buffers: a checkpoint has them, so predictions need no data
        self.register_buffer("std", torch.tensor(std))

    def forward(
        self, images: Float[Tensor, "B 3 H W"], targets: Float[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "B C"] | None, Float[Tensor, "B F"]]:
        """See RegressionNetwork. Predictions are z in training mode, for the loss, and in the target's unit in eval mode."""
        predictions, logits, features = super().forward(images, targets)
        return predictions if self.training else self.mean + self.std * predictions, logits, features


def build_scaled(model: str, *, width: int, classes: int, scale: tuple[float, float] | None) -> RegressionNetwork:
    """As `predictor.build`, for targets standardised with `scale`, their mean and standard deviation; None: for raw targets."""
    if scale is None:
        return build(model, width=width, classes=classes)
    mean, std = scale
    return StandardisedNetwork(ResNet(DEPTHS[model], width=width), classes, mean=mean, std=std)
