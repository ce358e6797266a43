"""A prepared set of images with depth maps (NYUD2-DIR, protocol section 4), memory-mapped.

N training images, T test images; H × W pixels of the centre crop that the network sees.
"""

from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from regcls.data.splits import Split, SplitSet
from regcls.tasks.depth.params import BUCKETS, DepthData

LEVELS_PER_METRE = 25.5  # of training depth: level 255 is 10 m, level 0 is not measured


class DepthSet(SplitSet[DepthData]):
    """A prepared set of images with depth maps. Rejected pairs have black images, depth 0 and an empty mask."""

    @property
    def train_images(self) -> NDArray[np.uint8]:
        """Training and validation images (N, short side, long side, 3), RGB, not cropped."""
        return self.prepared.arrays["train_images"]

    @property
    def train_depth(self) -> NDArray[np.uint8]:
        """Depth of the training and validation images (N, short side, long side) in levels of 1 / 25.5 m; 0: not measured."""
        return self.prepared.arrays["train_depth"]

    @property
    def test_images(self) -> NDArray[np.uint8]:
        """Test images (T, H, W, 3), RGB."""
        return self.prepared.arrays["test_images"]

    @property
    def test_depth(self) -> NDArray[np.uint16]:
        """Depth of the test images (T, H, W) in millimetres; 0: not measured."""
        return self.prepared.arrays["test_depth"]

    @property
    def test_mask(self) -> NDArray[np.bool_]:
        """Mask (T, H, W) of the test pixels, all of which are measured."""
        return self.prepared.arrays["test_mask"]

    @property
    def has_drawn_mask(self) -> bool:
        """Whether the test pixels were drawn here instead of read from the benchmark's file."""
        return bool(self.prepared.meta["notes"]["mask"] == "drawn")

    @property
    def crop(self) -> tuple[int, int]:
        """H and W."""
        return cast(tuple[int, int], self.test_images.shape[1:3])

    def images(self, split: Split) -> NDArray[np.uint8]:
        """The array of images that `rows` of the split index."""
        return self.test_images if split == "test" else self.train_images

    def scenes(self, split: Split) -> list[str]:
        """Scenes of the split's images; "" for test images, whose scenes the archive does not give."""
        return cast(list[str], self._of(split, "scene").tolist())

    def levels(self, split: Literal["train", "val"]) -> NDArray[np.int64]:
        """Number of pixels within the centre crop at each of the 256 depth levels (256,)."""
        return np.asarray(self.prepared.arrays["train_levels"][self.rows(split)].sum(0, dtype=np.int64))


def level_buckets(levels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Convert pixel counts by depth level (256,) to counts of measured pixels by bucket of 0.1 m (100,)."""
    buckets = np.minimum(np.arange(len(levels)) * 10 // LEVELS_PER_METRE, BUCKETS - 1).astype(np.int64)
    return np.bincount(buckets[1:], levels[1:], minlength=BUCKETS).astype(np.int64)
