"""Depth from one image: encoder, decoder, multi-scale fusion and refinement of Hu et al. ("Revisiting single image depth estimation", WACV
2019), with a class head per pixel for training (section 3.2).

Legend: B batch size, H × W pixels of the input (depth: half of them per side), F features of the class head, C classes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from regcls.models.predictor import DEPTHS
from regcls.models.resnet import ResNet
from regcls.tasks.depth.class_head import ClassHead, dense_means

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue pixels in [0, 1]
LEAST = 4  # minimum number of channels in the decoder
FAR = 3  # upsampling factor from which the convolution is computed without the upsampled map

Size = tuple[int, int]


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """A convolution without bias, which the following batch norm would cancel."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)


def upsampled_conv(
    x: Float[Tensor, "B I h w"], weight: Float[Tensor, "O I k k"], size: Size, *, align_corners: bool
) -> Float[Tensor, "B O H W"]:
    """Upsample `x` bilinearly to `size` and convolve it (k odd, padded); `align_corners` as for F.interpolate.

    For upsampling factors from FAR on, the order is swapped, which takes a fraction of the time and memory. This is exact: both operations
    are linear, and upsampling acts on each channel alone. Channels are mixed on the small map, for each of the k² offsets; then the maps
    are upsampled along columns and rows, shifted by the offsets: two products with thin matrices, whose result has channels last.
    """
    kernel = weight.shape[-1]
    if size[0] < FAR * x.shape[2]:
        return F.conv2d(F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners), weight, padding=kernel // 2)
    rows, columns = (_shifted(kernel, old, new, weight, align_corners=align_corners) for old, new in zip(x.shape[2:], size, strict=True))
    mixed = F.conv2d(x, weight.permute(2, 3, 0, 1).flatten(0, 2)[..., None, None])  # (B, k · k · O, h, w)
    mixed = mixed.unflatten(1, (kernel, kernel, -1)).permute(0, 1, 4, 2, 5, 3).flatten(3, 4)  # (B, k, h, k · w, O)
    wide = torch.matmul(columns, mixed).flatten(3).flatten(1, 2)  # (B, k · h, W · O)
    tall: Tensor = torch.matmul(rows, wide).unflatten(2, (size[1], -1))  # (B, H, W, O)
    return tall.permute(0, 3, 1, 2)


def _shifted(kernel: int, old: int, new: int, like: Tensor, *, align_corners: bool) -> Tensor:
    """Matrix (new, kernel · old) that upsamples `kernel` lines of `old` pixels, shifts each by its offset and adds them."""
    pixels = torch.eye(old, device=like.device, dtype=like.dtype)[None]
    line = F.interpolate(pixels, size=new, mode="linear", align_corners=align_corners)[0]  # (old, new)
    return F.pad(line, (kernel // 2, kernel // 2)).unfold(1, new, 1).permute(2, 1, 0).flatten(1)


class UpProjection(nn.Module):
    """Bilinear upsampling, then 5×5 and 3×3 convolutions with a 5×5 shortcut, each with batch norm (Laina et al., 3DV 2016)."""

    def __init__(self, inputs: int, outputs: int, *, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.conv1, self.bn1 = _conv(inputs, outputs, 5), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.shortcut, self.shortcut_bn = _conv(inputs, outputs, 5), nn.BatchNorm2d(outputs)

    def forward(self, x: Float[Tensor, "B I h w"], size: Size) -> Float[Tensor, "B O H W"]:
        """Up-project `x` to `size`."""
        weights = torch.cat([self.conv1.weight, self.shortcut.weight])  # one pass over the upsampled map instead of two
        first, shortcut = upsampled_conv(x, weights, size, align_corners=self.align_corners).chunk(2, dim=1)
        out = self.bn2(self.conv2(F.relu(self.bn1(first), inplace=True)))
        return F.relu(out + self.shortcut_bn(shortcut), inplace=True)


class Decoder(nn.Module):
    """A 1×1 convolution to half of the encoder's channels, then four up-projections, each of which halves them again."""

    def __init__(self, features: int, *, align_corners: bool) -> None:
        super().__init__()
        channels = [max(features // 2**k, LEAST) for k in range(1, 6)]  # ResNet-50: 1024, 512, 256, 128, 64
        self.conv, self.bn = _conv(features, channels[0], 1), nn.BatchNorm2d(channels[0])
        self.up = nn.ModuleList(UpProjection(a, b, align_corners=align_corners) for a, b in zip(channels, channels[1:], strict=False))
        self.channels = channels[-1]

    def forward(self, stages: Sequence[Tensor], size: Size) -> Tensor:
        """Upsample the coarsest of the encoder's maps (finest first) through the sizes of the others to `size`."""
        x = F.relu(self.bn(self.conv(stages[-1])), inplace=True)
        sizes = [*(tuple(stage.shape[2:]) for stage in stages[-2::-1]), size]
        for up, target in zip(self.up, sizes, strict=True):
            x = up(x, target)
        return x


class Fusion(nn.Module):
    """Multi-scale fusion (Hu et al.): the encoder's maps, each up-projected to width / 4 channels, and a 5×5 convolution over all."""

    def __init__(self, features: int, width: int, *, align_corners: bool) -> None:
        super().__init__()
        each = max(width // 4, 1)
        self.up = nn.ModuleList(UpProjection(features // 2**k, each, align_corners=align_corners) for k in (3, 2, 1, 0))
        self.channels = 4 * each
        self.conv, self.bn = _conv(self.channels, self.channels, 5), nn.BatchNorm2d(self.channels)

    def forward(self, stages: Sequence[Tensor], size: Size) -> Tensor:
        """Fuse the encoder's maps at `size`."""
        x = torch.cat([up(stage, size) for up, stage in zip(self.up, stages, strict=True)], dim=1)
        return F.relu(self.bn(self.conv(x)), inplace=True)


class DepthNetwork(nn.Module):
    """Depth at half the input's size and, if `classes` > 0, a class head on the same features, used only in training.

    With class `centres` (C,), it has a class head but no regression head, and predicts the mean of these depths by predicted probability.
    """

    centres: Tensor | None

    def __init__(self, encoder: ResNet, classes: int, *, align_corners: bool, centres: Tensor | None = None) -> None:
        """Layers have PyTorch's default initialisation, drawn from its global generator, except the class head (see ClassHead).

        `align_corners`: of all up-projections; on in the authors' release, off in the benchmark's code.

        The class head is drawn last: with the same seed, reg and every reg+cls start from the same encoder, decoder and regression head.
        """
        super().__init__()
        self.encoder = encoder
        self.decoder = Decoder(encoder.features, align_corners=align_corners)
        self.fusion = Fusion(encoder.features, encoder.width, align_corners=align_corners)
        features = self.decoder.channels + self.fusion.channels  # 128 with ResNet-50
        self.refinement = nn.Sequential(*_refined(features), *_refined(features))
        self.regressor = nn.Conv2d(features, 1, 5, padding=2) if centres is None else None
        classes = classes if centres is None else len(centres)
        self.classifier = ClassHead(features, max(4 * encoder.width, 16), classes) if classes else None
        self.register_buffer("centres", centres)  # a buffer: a checkpoint has it, so predictions need no data

    def forward(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B (H+1)//2 (W+1)//2"] | None, Float[Tensor, "B F (H+1)//2 (W+1)//2"] | None]:
        """Depth, and the features for `classifier` (see `dense_class_loss`; None without it).

        Depth is always that of the regression head; without one, it is the mean over classes, and None in training, which does not need it.
        It has the dtype of the weights (float32), even under autocast: near 5 m, bfloat16 has steps of 3 cm.
        """
        size = ((images.shape[2] + 1) // 2, (images.shape[3] + 1) // 2)
        stages = self.encoder.stages(images)
        features = self.refinement(torch.cat([self.decoder(stages, size), self.fusion(stages, size)], dim=1))
        with torch.autocast(features.device.type, enabled=False):
            depth = self._depth(features)
        return depth, None if self.classifier is None else features

    def _depth(self, features: Tensor) -> Tensor | None:
        if self.regressor is not None:
            depth: Tensor = self.regressor(features.to(self.regressor.weight.dtype)).squeeze(1)
            return depth
        assert self.classifier is not None and self.centres is not None
        return None if self.training else dense_means(self.classifier, features.to(self.centres.dtype), self.centres)


def _refined(channels: int) -> tuple[nn.Module, ...]:
    return _conv(channels, channels, 5), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


def build_depth(model: str, *, width: int, classes: int, align_corners: bool, centres: Tensor | None = None) -> DepthNetwork:
    """A new network with weights from torch's global generator; `classes` = 0: without a class head, except with `centres`.

    The paper's width is 64.
    """
    return DepthNetwork(ResNet(DEPTHS[model], width=width), classes, align_corners=align_corners, centres=centres)


def normalised(images: UInt8[Tensor, "B H W 3"] | Float[Tensor, "B H W 3"]) -> Float[Tensor, "B 3 H W"]:
    """Normalise pixels in 0 … 255 by ImageNet's mean and standard deviation (section 3.2). The result has channels last in memory."""
    mean, std = (images.new_tensor([255 * value for value in values], dtype=torch.float32).view(3, 1, 1) for values in (MEAN, STD))
    return images.permute(0, 3, 1, 2).float().sub(mean).div(std)


class DepthPredictor(nn.Module):
    """A network in eval mode that takes uint8 pixels and returns the depth of each."""

    def __init__(self, network: DepthNetwork) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, images: UInt8[Tensor, "B H W 3"]) -> Float[Tensor, "B H W"]:
        """Depth at the input's size, resized bilinearly as in the evaluation."""
        depth = self.network(normalised(images))[0]
        return F.interpolate(depth[:, None], size=images.shape[1:3], mode="bilinear", align_corners=True).squeeze(1)
