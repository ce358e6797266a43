"""The interface of methods on the features before the last layer: those of each image, or of each pixel of a depth map.

Legend: N samples (of a batch, or all pixels of a batch of maps), F features.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

# The plain features (N, F) and targets (N,) of the training set, batch by batch, as often as it is called. Pixels without a target: NaN.
Seen = Callable[[], Iterator[tuple[Tensor, Tensor]]]


class FeatureMethod(nn.Module):
    """A method on features, for the training of a single network; by default its hooks do nothing. Evaluation calls none of them.

    Its state is in buffers, which checkpoints save with the network's weights; predictors leave them out.
    """

    def calibrate(self, features: Float[Tensor, "N F"], targets: Float[Tensor, " N"]) -> Float[Tensor, "N F"]:
        """The features that the heads see in training. Targets are NaN where there is none."""
        return features

    def loss(
        self, features: Float[Tensor, "N F"], targets: Float[Tensor, " N"], kept: Bool[Tensor, " N"] | None
    ) -> Float[Tensor, ""] | None:
        """A loss over the kept samples (None: all) of a batch, which is added to the regression loss; None: no loss.

        `features` are plain, not calibrated, in the precision of the weights. Only where the trainer has one vector of features a sample.
        """
        return None

    def after_epoch(self, seen: Seen) -> None:
        """Learn from the features of the training set, as they are after an epoch. What is not iterated over is not computed."""


class FeatureMethods(nn.ModuleDict):
    """The methods on the features of a network, by name."""

    def _all(self) -> Iterable[tuple[str, FeatureMethod]]:
        return cast(Iterable[tuple[str, FeatureMethod]], self.items())

    def calibrate(self, features: Float[Tensor, "N F"], targets: Float[Tensor, " N"]) -> Float[Tensor, "N F"]:
        """See FeatureMethod."""
        for _, method in self._all():
            features = method.calibrate(features, targets)
        return features

    def losses(
        self, features: Float[Tensor, "N F"], targets: Float[Tensor, " N"], kept: Bool[Tensor, " N"] | None
    ) -> dict[str, Float[Tensor, ""]]:
        """The losses that are added to the regression loss, by the names to log: `<method>_loss`. Without autocast."""
        with torch.autocast(features.device.type, enabled=False):
            found = {f"{name}_loss": method.loss(features, targets, kept) for name, method in self._all()}
        return {name: loss for name, loss in found.items() if loss is not None}

    @torch.no_grad()
    def after_epoch(self, seen: Seen) -> None:
        """See FeatureMethod. Without gradients."""
        for _, method in self._all():
            method.after_epoch(seen)
