"""What a trained network of faces is to others: pixels in, targets out.

Legend: B batch, S pixels of a side.
"""

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from regcls.models.heads import RegressionNetwork
from regcls.models.resnet import Depth, ResNet

DEPTHS: dict[str, Depth] = {"resnet18": 18, "resnet34": 34, "resnet50": 50}


def build(model: str, *, width: int, classes: int) -> RegressionNetwork:
    """A new network, drawn from torch's global generator; `classes` 0: without a class head."""
    return RegressionNetwork(ResNet(DEPTHS[model], width=width), classes)


def scaled(images: UInt8[Tensor, "B S S 3"]) -> Float[Tensor, "B 3 S S"]:
    """Pixels to [−1, 1] (section 3.2). The result lies in memory as the pixels did: channels last."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


class Predictor(nn.Module):
    """A network in eval mode that takes pixels as image files have them and gives the regression output alone."""

    def __init__(self, network: RegressionNetwork) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, images: UInt8[Tensor, "B S S 3"]) -> Float[Tensor, " B"]:
        """Targets, for faces in years."""
        predictions: Tensor = self.network(scaled(images))[0]
        return predictions
