"""The small multi-layer perceptron of the 1D study and of video progress: D → hidden → 1, and a class head for training."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Activation = Literal["relu", "sigmoid"]


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Xavier-uniform weights, zero biases. PyTorch's own initialisation is drawn first, as in the release."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Module):
    """A regression output and, if `classes` > 0, a class head on the last hidden features (section 2.1; sigmoid: Kukleva et al.)."""

    def __init__(self, inputs: int, hidden: Sequence[int], classes: int = 0, *, activation: Activation = "relu") -> None:
        """Weights are drawn from torch's global generator, layer by layer in the order of the forward pass."""
        super().__init__()
        widths = [inputs, *hidden]
        self.activation = {"relu": torch.relu, "sigmoid": torch.sigmoid}[activation]
        self.layers = nn.ModuleList(_linear(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.regressor = _linear(widths[-1], 1)
        self.classifier = _linear(widths[-1], classes) if classes else None

    def features(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch hidden"]:
        """Last hidden features."""
        for layer in self.layers:
            x = self.activation(layer(x))
        return x

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, " batch"]:
        """The prediction: always the regression output."""
        prediction: Tensor = self.regressor(self.features(x))
        return prediction.squeeze(-1)


def initial_weights(inputs: int, hidden: Sequence[int], classes: int, seed: int) -> dict[str, Tensor]:
    """Float32 weights of the release's networks: within a seed `reg` is drawn first and `reg+cls` after it.

    So every `reg+cls` of a seed starts from one trunk, whatever its number of classes, and that is not reg's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MLP(inputs, hidden)
        if classes:
            network = MLP(inputs, hidden, classes)
    return {name: value.detach() for name, value in network.state_dict().items()}
