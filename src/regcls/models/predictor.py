"""Image networks and their predictor: pixels in, targets out.

Legend: B batch size, S side length in pixels.
"""

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from regcls.models.heads import RegressionNetwork
from regcls.models.resnet import Depth, ResNet

DEPTHS: dict[str, Depth] = {"resnet18": 18, "resnet34": 34, "resnet50": 50}


def build(model: str, *, width: int, classes: int) -> RegressionNetwork:
    """A new network with weights from torch's global generator; `classes` = 0: without a class head."""
    return RegressionNetwork(ResNet(DEPTHS[model], width=width), classes)


def scaled(images: UInt8[Tensor, "B S S 3"]) -> Float[Tensor, "B 3 S S"]:
    """Scale pixels to [−1, 1] (section 3.2). The result keeps their memory layout: channels last."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


class Predictor(nn.Module):
    """A network in eval mode that takes uint8 pixels and returns only its predictions."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, images: UInt8[Tensor, "B S S 3"]) -> Float[Tensor, " B"]:
        """Predictions in the target's unit."""
        predictions: Tensor = self.network(scaled(images))[0]
        return predictions
