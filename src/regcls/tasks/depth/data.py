"""A prepared set of images with depth maps (NYUD2-DIR, protocol section 4), memory-mapped.

N training images, T test images; H, W of the centre crop that the network sees.
"""

from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from regcls.data.splits import Split, SplitSet
from regcls.tasks.depth.params import BUCKETS, DepthData

LEVELS_PER_METRE = 25.5  # of training depth: level 255 is 10 m, level 0 not measured


class DepthSet(SplitSet[DepthData]):
    """A prepared set of images with depth maps. Rejected are black images, depth 0, no pixel in the mask."""

    @property
    def train_images(self) -> NDArray[np.uint8]:
        """RGB pixels (N, short side, long side, 3), of training and validation; not cropped."""
        return self.prepared.arrays["train_images"]

    @property
    def train_depth(self) -> NDArray[np.uint8]:
        """Their depth (N, short side, long side) in levels of 1 / 25.5 m; 0 is not measured."""
        return self.prepared.arrays["train_depth"]

    @property
    def test_images(self) -> NDArray[np.uint8]:
        """RGB pixels (T, H, W, 3)."""
        return self.prepared.arrays["test_images"]

    @property
    def test_depth(self) -> NDArray[np.uint16]:
        """Their depth (T, H, W) in millimetres; 0 is not measured."""
        return self.prepared.arrays["test_depth"]

    @property
    def test_mask(self) -> NDArray[np.bool_]:
        """The pixels (T, H, W) that are tested on; all of them are measured."""
        return self.prepared.arrays["test_mask"]

    @property
    def has_drawn_mask(self) -> bool:
        """Whether the test pixels were drawn here, not given by the benchmark's own file."""
        return bool(self.prepared.meta["notes"]["mask"] == "drawn")

    @property
    def crop(self) -> tuple[int, int]:
        """H and W."""
        return cast(tuple[int, int], self.test_images.shape[1:3])

    def images(self, split: Split) -> NDArray[np.uint8]:
        """The array that `rows` of the split are of."""
        return self.test_images if split == "test" else self.train_images

    def scenes(self, split: Split) -> list[str]:
        """Their scenes; empty for the test images, of which the archive does not tell it."""
        return cast(list[str], self._of(split, "scene").tolist())

    def levels(self, split: Literal["train", "val"]) -> NDArray[np.int64]:
        """How many pixels within the centre crop have each of the 256 levels of depth (256,)."""
        return np.asarray(self.prepared.arrays["train_levels"][self.rows(split)].sum(0, dtype=np.int64))


def level_buckets(levels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pixels by level of training depth (256,) -> measured pixels by bucket of 0.1 m (100,)."""
    buckets = np.minimum(np.arange(len(levels)) * 10 // LEVELS_PER_METRE, BUCKETS - 1).astype(np.int64)
    return np.bincount(buckets[1:], levels[1:], minlength=BUCKETS).astype(np.int64)
