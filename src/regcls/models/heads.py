"""A regression output on pooled image features and, for training, a class head beside it (section 3.2).

Legend: B batch, C classes.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regcls.models.resnet import ResNet


class RegressionNetwork(nn.Module):
    """Linear F → 1 on the backbone's features and, if `classes` > 0, linear F → C, which is used in training only."""

    def __init__(self, backbone: ResNet, classes: int) -> None:
        """Heads as PyTorch initialises them, from its global generator.

        The class head comes last: after one seed, reg and every reg+cls begin with the same backbone and regression head.
        """
        super().__init__()
        self.backbone = backbone
        self.regressor = nn.Linear(backbone.features, 1)
        self.classifier = nn.Linear(backbone.features, classes) if classes else None

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, " B"], Float[Tensor, "B C"] | None]:
        """Predictions, always the regression output, and the classes' logits: None without a class head.

        Both have the type of the weights (float32), also under autocast: the steps of bfloat16 are 0.25 near an age of 40.
        """
        features = self.backbone(images)
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.regressor.weight.dtype)
            predictions = self.regressor(features).squeeze(-1)
            logits = None if self.classifier is None else self.classifier(features)
        return predictions, logits
