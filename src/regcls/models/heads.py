"""A regression head on pooled image features and, for training, a class head (section 3.2).

Legend: B batch size, F features, C classes.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regcls.models.resnet import ResNet


class RegressionNetwork(nn.Module):
    """A linear head F → 1 on the backbone's features and, if `classes` > 0, a class head F → C, used only in training."""

    def __init__(self, backbone: ResNet, classes: int) -> None:
        """Heads have PyTorch's default initialisation, drawn from its global generator.

        The class head is drawn last: with the same seed, reg and every reg+cls start from the same backbone and regression head.
        """
        super().__init__()
        self.backbone = backbone
        self.regressor = nn.Linear(backbone.features, 1)
        self.classifier = nn.Linear(backbone.features, classes) if classes else None

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, " B"], Float[Tensor, "B C"] | None]:
        """Predictions, always those of the regression head, and class logits (None without a class head).

        Both have the dtype of the weights (float32), even under autocast: near an age of 40, bfloat16 has steps of 0.25.
        """
        features = self.backbone(images)
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.regressor.weight.dtype)
            predictions = self.regressor(features).squeeze(-1)
            logits = None if self.classifier is None else self.classifier(features)
        return predictions, logits
