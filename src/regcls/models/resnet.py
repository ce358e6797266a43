"""ResNet-18, -34 and -50 (He et al., CVPR 2016) up to the pooled features, with torchvision's parameter names.

Legend: B batch size, F features; stage k of four has F / 2^(4 − k) channels at 1 / 2^(k + 1) of the input's height and width (rounded up).
"""

from collections.abc import Mapping
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Depth = Literal[18, 34, 50]
ONEDNN_BLOCK = 16  # channels that oneDNN processes at once


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, which the following batch norm would cancel."""
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


class _SampledConv(nn.Conv2d):
    """A 1×1 convolution with stride 2, computed with stride 1 on every second pixel: same results and parameter names.

    On the CPU, with channels last and fewer than 16 input channels, oneDNN's weight gradient of the strided convolution writes past its
    memory (https://github.com/uxlfoundation/oneDNN/issues/6035): wrong values, or a crash.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :, ::2, ::2])


def _downsample(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """The shortcut's projection to the block's output shape; None if the shapes agree."""
    if inputs == outputs and stride == 1:
        return None
    pointwise = _SampledConv(inputs, outputs, 1, bias=False) if stride == 2 and inputs < ONEDNN_BLOCK else _conv(inputs, outputs, 1, stride)
    return nn.Sequential(pointwise, nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (ResNet-18 and -34)."""

    expansion = 1  # output channels for each of `channels`

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, channels, 3, stride), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = _conv(channels, channels, 3), nn.BatchNorm2d(channels)
        self.downsample = _downsample(inputs, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(out + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """1×1 (down), 3×3 and 1×1 (up) convolutions and a shortcut (ResNet-50)."""

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = channels * self.expansion
        self.conv1, self.bn1 = _conv(inputs, channels, 1), nn.BatchNorm2d(channels)
        # He et al. put the stride into the first 1×1; torchvision's checkpoints are trained with it here.
        self.conv2, self.bn2 = _conv(channels, channels, 3, stride), nn.BatchNorm2d(channels)
        self.conv3, self.bn3 = _conv(channels, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = _downsample(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(out + shortcut, inplace=True)


BLOCKS: Mapping[Depth, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {  # He et al., Table 1
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}


class ResNet(nn.Module):
    """Images to F pooled features. `width`: channels of the first convolution, 64 in the paper; all others scale with it."""

    def __init__(self, depth: Depth, *, width: int) -> None:
        """Convolutions are drawn from torch's global generator (He normal, fan-out); batch norms start at scale 1 and shift 0."""
        super().__init__()
        block, (first, second, third, fourth) = BLOCKS[depth]
        self.depth, self.width = depth, width
        self.features = 8 * width * block.expansion
        self.conv1, self.bn1 = _conv(3, width, 7, stride=2), nn.BatchNorm2d(width)
        self.layer1 = _stage(block, first, width, width, stride=1)
        self.layer2 = _stage(block, second, width * block.expansion, 2 * width, stride=2)
        self.layer3 = _stage(block, third, 2 * width * block.expansion, 4 * width, stride=2)
        self.layer4 = _stage(block, fourth, 4 * width * block.expansion, 8 * width, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B F1 H1 W1"], Float[Tensor, "B F2 H2 W2"], Float[Tensor, "B F3 H3 W3"], Float[Tensor, "B F H4 W4"]]:
        """The feature maps of all four stages, finest first, for a depth decoder."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        first = self.layer1(F.max_pool2d(x, kernel_size=3, stride=2, padding=1))
        second = self.layer2(first)
        third = self.layer3(second)
        return first, second, third, self.layer4(third)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B F"]:
        """The last stage's features, averaged over all positions; any input size works."""
        return self.stages(images)[-1].mean((2, 3))


def _stage(block: type[BasicBlock | Bottleneck], blocks: int, inputs: int, channels: int, *, stride: int) -> nn.Sequential:
    """A sequence of blocks; the first one has the stride and changes the number of channels."""
    rest = (block(channels * block.expansion, channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(block(inputs, channels, stride), *rest)


def load_torchvision(model: ResNet, state: Mapping[str, Tensor]) -> None:
    """Copy the weights of a torchvision checkpoint (a state dict) into `model`, except its classifier fc.*.

    `num_batches_tracked` may be missing, as in old files: these batch norms do not use it.

    Raises:
        ValueError: a key is missing, unexpected or of another shape; the model is left unchanged.
    """
    own = model.state_dict()
    weights = {name: value for name, value in state.items() if not name.startswith("fc.")}
    wrong = [f"{name} is missing" for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    wrong += [f"{name} is unexpected" for name in weights if name not in own]
    wrong += [
        f"{name} has shape {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in weights.items()
        if name in own and value.shape != own[name].shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise ValueError(f"not a checkpoint of ResNet-{model.depth} with width {model.width}: {'; '.join(wrong[:3])}{more}")
    model.load_state_dict(own | weights)
