"""Depth from one image: encoder, decoder, multi-scale fusion and refinement of Hu et al. ("Revisiting single image depth estimation", WACV
2019), with a class head per pixel for training (section 3.2).

Legend: B batch, H × W pixels of the input (depth has half of them a side), F features of the class head, C classes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from regcls.models.predictor import DEPTHS
from regcls.models.resnet import ResNet
from regcls.tasks.depth.class_head import ClassHead

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, red, green and blue, in [0, 1]
LEAST = 4  # channels of the decoder's narrowest maps in a small network
FAR = 3  # times: beyond that the convolution of an upsampled map is computed without that map

Size = tuple[int, int]


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """No bias: the batch norm that follows would take it out again."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)


def upsampled_conv(
    x: Float[Tensor, "B I h w"], weight: Float[Tensor, "O I k k"], size: Size, *, align_corners: bool
) -> Float[Tensor, "B O H W"]:
    """The convolution (k odd, padded) of `x` upsampled bilinearly to `size`; `align_corners` as for F.interpolate.

    Far upsampling is done last, for a small part of the work and of the memory: both are linear, and upsampling works on each channel
    alone. So channels are mixed on the small map, for each of the k² offsets; what is left is upsampling along columns and rows, shifted by
    the offsets: two products with thin matrices, whose result has channels last.
    """
    kernel = weight.shape[-1]
    if size[0] < FAR * x.shape[2]:
        return F.conv2d(F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners), weight, padding=kernel // 2)
    rows, columns = (_shifted(kernel, old, new, weight, align_corners=align_corners) for old, new in zip(x.shape[2:], size, strict=True))
    mixed = F.conv2d(x, weight.permute(2, 3, 0, 1).flatten(0, 2)[..., None, None])  # (B, k · k · O, h, w)
    mixed = mixed.unflatten(1, (kernel, kernel, -1)).permute(0, 1, 4, 2, 5, 3).flatten(3, 4)  # (B, k, h, k · w, O)
    wide = torch.matmul(columns, mixed).flatten(3).flatten(1, 2)  # (B, k · h, W · O)
    found: Tensor = torch.matmul(rows, wide).unflatten(2, (size[1], -1))
    return found.permute(0, 3, 1, 2)


def _shifted(kernel: int, old: int, new: int, like: Tensor, *, align_corners: bool) -> Tensor:
    """Matrix (new, kernel · old) from `kernel` lines of `old` pixels to the sum of the upsampled ones, each shifted by its offset."""
    pixels = torch.eye(old, device=like.device, dtype=like.dtype)[None]
    line = F.interpolate(pixels, size=new, mode="linear", align_corners=align_corners)[0]  # (old, new)
    return F.pad(line, (kernel // 2, kernel // 2)).unfold(1, new, 1).permute(2, 1, 0).flatten(1)


class UpProjection(nn.Module):
    """Bilinear upsampling, then convolutions 5×5 and 3×3 beside one of 5×5, each with batch norm (Laina et al., 3DV 2016)."""

    def __init__(self, inputs: int, outputs: int, *, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.conv1, self.bn1 = _conv(inputs, outputs, 5), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.shortcut, self.shortcut_bn = _conv(inputs, outputs, 5), nn.BatchNorm2d(outputs)

    def forward(self, x: Float[Tensor, "B I h w"], size: Size) -> Float[Tensor, "B O H W"]:
        """Of the given size."""
        weights = torch.cat([self.conv1.weight, self.shortcut.weight])  # one pass over the upsampled map instead of two
        first, beside = upsampled_conv(x, weights, size, align_corners=self.align_corners).chunk(2, dim=1)
        out = self.bn2(self.conv2(F.relu(self.bn1(first), inplace=True)))
        return F.relu(out + self.shortcut_bn(beside), inplace=True)


class Decoder(nn.Module):
    """Half of the encoder's channels by a 1×1 convolution, then four up-projections, each of which halves them again."""

    def __init__(self, features: int, *, align_corners: bool) -> None:
        super().__init__()
        channels = [max(features // 2**k, LEAST) for k in range(1, 6)]  # ResNet-50: 1024, 512, 256, 128, 64
        self.conv, self.bn = _conv(features, channels[0], 1), nn.BatchNorm2d(channels[0])
        self.up = nn.ModuleList(UpProjection(a, b, align_corners=align_corners) for a, b in zip(channels, channels[1:], strict=False))
        self.channels = channels[-1]

    def forward(self, stages: Sequence[Tensor], size: Size) -> Tensor:
        """From the encoder's maps, finest first: through the sizes of the finer ones to `size`."""
        x = F.relu(self.bn(self.conv(stages[-1])), inplace=True)
        for up, to in zip(self.up, [tuple(map_.shape[2:]) for map_ in stages[-2::-1]] + [size], strict=True):
            x = up(x, to)
        return x


class Fusion(nn.Module):
    """Each of the encoder's maps up-projected to one size with 16 channels, a 5×5 convolution over all (Hu et al., multi-scale fusion)."""

    def __init__(self, features: int, width: int, *, align_corners: bool) -> None:
        super().__init__()
        each = max(width // 4, 1)
        self.up = nn.ModuleList(UpProjection(features // 2**k, each, align_corners=align_corners) for k in (3, 2, 1, 0))
        self.channels = 4 * each
        self.conv, self.bn = _conv(self.channels, self.channels, 5), nn.BatchNorm2d(self.channels)

    def forward(self, stages: Sequence[Tensor], size: Size) -> Tensor:
        """At the given size."""
        x = torch.cat([up(stage, size) for up, stage in zip(self.up, stages, strict=True)], dim=1)
        return F.relu(self.bn(self.conv(x)), inplace=True)


class DepthNetwork(nn.Module):
    """Depth in metres at half of the input's size and, if `classes` > 0, a class head on the same features, used in training only."""

    def __init__(self, encoder: ResNet, classes: int, *, align_corners: bool) -> None:
        """The encoder as it is given; the rest as PyTorch initialises it, from its global generator, but the class head: see ClassHead.

        `align_corners`: in every up-projection, as in the authors' release; the benchmark's code has it off there.

        The class head comes last: after one seed, reg and every reg+cls begin with the same encoder, decoder and regression output.
        """
        super().__init__()
        self.encoder = encoder
        self.decoder = Decoder(encoder.features, align_corners=align_corners)
        self.fusion = Fusion(encoder.features, encoder.width, align_corners=align_corners)
        features = self.decoder.channels + self.fusion.channels  # 128 with ResNet-50
        self.refinement = nn.Sequential(*_refined(features), *_refined(features))
        self.regressor = nn.Conv2d(features, 1, 5, padding=2)
        self.classifier = ClassHead(features, max(4 * encoder.width, 16), classes) if classes else None

    def forward(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B (H+1)//2 (W+1)//2"], Float[Tensor, "B F (H+1)//2 (W+1)//2"] | None]:
        """Depth, always the regression output, and what `classifier` takes (see `dense_class_loss`): None without it.

        Depth has the type of the weights (float32), also under autocast: the steps of bfloat16 are 3 cm near 5 m.
        """
        size = ((images.shape[2] + 1) // 2, (images.shape[3] + 1) // 2)
        stages = self.encoder.stages(images)
        features = self.refinement(torch.cat([self.decoder(stages, size), self.fusion(stages, size)], dim=1))
        with torch.autocast(features.device.type, enabled=False):
            depth = self.regressor(features.to(self.regressor.weight.dtype)).squeeze(1)
        return depth, None if self.classifier is None else features


def _refined(channels: int) -> tuple[nn.Module, ...]:
    return _conv(channels, channels, 5), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


def build_depth(model: str, *, width: int, classes: int, align_corners: bool) -> DepthNetwork:
    """A new network, drawn from torch's global generator; `classes` 0: without a class head. Width 64 is the paper's."""
    return DepthNetwork(ResNet(DEPTHS[model], width=width), classes, align_corners=align_corners)


def normalised(images: UInt8[Tensor, "B H W 3"] | Float[Tensor, "B H W 3"]) -> Float[Tensor, "B 3 H W"]:
    """Pixels, to 255, by ImageNet's mean and standard deviation (section 3.2). The result lies in memory as they did: channels last."""
    mean, std = (images.new_tensor([255 * value for value in values], dtype=torch.float32).view(3, 1, 1) for values in (MEAN, STD))
    return images.permute(0, 3, 1, 2).float().sub(mean).div(std)


class DepthPredictor(nn.Module):
    """A network in eval mode that takes pixels as image files have them and gives depth for each."""

    def __init__(self, network: DepthNetwork) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, images: UInt8[Tensor, "B H W 3"]) -> Float[Tensor, "B H W"]:
        """Metres; resized bilinearly as in the evaluation."""
        depth = self.network(normalised(images))[0]
        return F.interpolate(depth[:, None], size=images.shape[1:3], mode="bilinear", align_corners=True).squeeze(1)
