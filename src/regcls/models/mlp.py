"""The small multi-layer perceptron of the 1D study and of video progress: D → hidden → 1, with a class head for training."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regcls.choices import Activation

# Weights: PyTorch's default, Xavier uniform with zero biases, or N(0, 0.01²) with zero biases.
Initialisation = Literal["pytorch", "xavier", "normal"]
NORMAL_STD = 0.01


class MLP(nn.Module):
    """A regression head and, if `classes` > 0, a class head on the last hidden features (section 2.1; sigmoid: Kukleva et al.)."""

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        classes: int = 0,
        *,
        activation: Activation = "relu",
        initialisation: Initialisation = "xavier",
    ) -> None:
        """Weights are drawn from torch's global generator in the order of the forward pass, those of the class head last.

        As in the release, PyTorch's default weights are drawn first and then replaced: layer by layer for Xavier, all layers for normal.
        """
        super().__init__()
        widths = [inputs, *hidden]
        self.activation = {"relu": torch.relu, "sigmoid": torch.sigmoid}[activation]

        def linear(a: int, b: int) -> nn.Linear:
            layer = nn.Linear(a, b)
            if initialisation == "xavier":
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
            return layer

        self.layers = nn.ModuleList(linear(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.regressor = linear(widths[-1], 1)
        self.classifier = linear(widths[-1], classes) if classes else None
        if initialisation == "normal":
            for name, values in self.named_parameters():
                nn.init.zeros_(values) if name.endswith("bias") else nn.init.normal_(values, 0.0, NORMAL_STD)

    def features(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch hidden"]:
        """Features of the last hidden layer."""
        for layer in self.layers:
            x = self.activation(layer(x))
        return x

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, " batch"]:
        """The prediction of the regression head."""
        prediction: Tensor = self.regressor(self.features(x))
        return prediction.squeeze(-1)


def initial_weights(inputs: int, hidden: Sequence[int], classes: int, seed: int, initialisation: Initialisation) -> dict[str, Tensor]:
    """Initial float32 weights of the release's networks; they do not depend on the activation.

    With PyTorch's default weights, `reg` and every `reg+cls` of a seed share their initial trunk. With Xavier (the 1D study) only the
    `reg+cls` do: the release draws `reg` first and `reg+cls` after it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if classes and initialisation == "xavier":
            MLP(inputs, hidden)
        network = MLP(inputs, hidden, classes, initialisation=initialisation)
    return {name: value.detach() for name, value in network.state_dict().items()}
