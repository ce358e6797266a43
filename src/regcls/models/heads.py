"""A regression head on pooled image features and, for training, a class head (section 3.2) and methods on features.

Legend: B batch size, F features, C classes.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regcls.models.resnet import ResNet

if TYPE_CHECKING:
    from regcls.methods.features import FeatureMethods


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
        self.feature_methods: FeatureMethods | None = None  # a trainer may set it

    def forward(
        self, images: Float[Tensor, "B 3 H W"], targets: Float[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "B C"] | None, Float[Tensor, "B F"]]:
        """Predictions, always those of the regression head, class logits (None without a class head), and features.

        If `targets` are given, as the loss sees them, both heads are on features that `feature_methods` calibrate to them; the features
        returned are plain. All have the dtype of the weights (float32), even under autocast: near an age of 40, bfloat16 has steps of 0.25.
        """
        features = self.backbone(images)
        with torch.autocast(features.device.type, enabled=False):
            features = calibrated = features.to(self.regressor.weight.dtype)
            if self.feature_methods is not None and targets is not None:
                calibrated = self.feature_methods.calibrate(features, targets)
            predictions = self.regressor(calibrated).squeeze(-1)
            logits = None if self.classifier is None else self.classifier(calibrated)
        return predictions, logits, features
