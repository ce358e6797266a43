"""Image networks that predict by classes alone, without a regression head.

Legend: B batch size, F features, C classes.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regcls.models.predictor import DEPTHS
from regcls.models.resnet import ResNet


class DistributionNetwork(nn.Module):
    """A linear class head on the backbone's features, which predicts Σ p·c: the mean of the class centres c by predicted probability p."""

    centres: Tensor

    def __init__(self, backbone: ResNet, centres: Float[Tensor, " C"]) -> None:
        """`centres`: in the target's unit. Weights are drawn as in a RegressionNetwork: with the same seed, the backbone starts as its."""
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.features, len(centres))
        self.register_buffer("centres", centres.clone())  # a buffer: a checkpoint has it, so predictions need no data

    def forward(
        self, images: Float[Tensor, "B 3 H W"], targets: Float[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "B C"], Float[Tensor, "B F"]]:
        """Predictions, in the target's unit, class logits, and features, all in the dtype of the weights (float32), even under autocast.

        `targets`, as for a RegressionNetwork, change nothing: methods on features need a regression head.
        """
        features = self.backbone(images)
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.classifier.weight.dtype)
            logits = self.classifier(features)
            return logits.softmax(1) @ self.centres, logits, features


def build_distribution(model: str, *, width: int, centres: Float[Tensor, " C"]) -> DistributionNetwork:
    """A new network with weights from torch's global generator."""
    return DistributionNetwork(ResNet(DEPTHS[model], width=width), centres)
