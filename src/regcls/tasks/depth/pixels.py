"""Pixels of depth maps for the losses: depth, measured or not, class, and drawn or not (Eq. 13).

Legend: B batch size, h × w pixels of the depth map in training, H × W = 2h × 2w; K classes; L depth levels.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from regcls.classes import ClassRanges
from regcls.training.device import Device


def keep_by_level(ranges: ClassRanges, depths: NDArray[np.float64]) -> NDArray[np.float32]:
    """ρ (Eq. 13) of each level (L,) from its depth; 0 for level 0, not measured."""
    return np.where(np.arange(len(depths)) > 0, ranges.keep[ranges.labels(depths)], 0.0).astype(np.float32)


class DeviceRanges:
    """Class ranges on a device, for depths."""

    def __init__(self, ranges: ClassRanges, device: Device) -> None:
        self.edges = torch.from_numpy(ranges.edges[1:-1].copy()).to(device)
        self.keep = torch.from_numpy(ranges.keep.astype(np.float32)).to(device)  # (K,), ρ

    def labels(self, depths: Float[Tensor, "*BHW"]) -> Int[Tensor, "*BHW"]:
        """Class of each depth; see ClassRanges.labels."""
        return torch.bucketize(depths.double(), self.edges, right=True)

    def kept(self, depths: Float[Tensor, "*BHW"], draws: Float[Tensor, "*BHW"]) -> Bool[Tensor, "*BHW"]:
        """Mask of the drawn depths; `draws` are uniform on [0, 1)."""
        return draws < self.keep[self.labels(depths)]


def doubled(pixels: Tensor) -> Tensor:
    """Upsample (B, h, w) to (B, H, W) by nearest neighbour."""
    return pixels.repeat_interleave(2, 1).repeat_interleave(2, 2)


def doubled_bilinearly(pixels: Float[Tensor, "B h w"]) -> Float[Tensor, "B H W"]:
    """Upsample bilinearly with aligned corners, as the release does with depth before it takes classes."""
    size = (2 * pixels.shape[1], 2 * pixels.shape[2])
    return F.interpolate(pixels[:, None], size=size, mode="bilinear", align_corners=True).squeeze(1)
