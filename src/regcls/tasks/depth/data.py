"""A prepared set of images with depth maps (NYUD2-DIR, protocol section 4, or pairs of a user's own), memory-mapped.

N training images, T test images; H × W pixels of the centre crop that the network sees; L depth levels of the training maps. Depth is in
the data set's unit, metres for NYUD2-DIR.
"""

from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regcls.data.splits import Split, SplitSet
from regcls.tasks.depth.params import BUCKETS, DepthData

LEVELS_PER_METRE = 25.5  # of NYUD2-DIR's training depth: level 255 is 10 m, level 0 is not measured
PER_METRE = 1000.0  # of its test depth, in millimetres
DEEPEST = 10.0  # metres, upper end of its buckets


class DepthSet(SplitSet[DepthData]):
    """A prepared set of images with depth maps. Rejected pairs have black images, depth 0 and an empty mask."""

    @property
    def train_images(self) -> NDArray[np.uint8]:
        """Training and validation images (N, height, width, 3), RGB, not cropped."""
        return self.prepared.arrays["train_images"]

    @property
    def train_depth(self) -> NDArray[np.unsignedinteger]:
        """Levels of depth (see `depths`) of the training and validation images (N, height, width); 0: not measured."""
        return self.prepared.arrays["train_depth"]

    @property
    def test_images(self) -> NDArray[np.uint8]:
        """Test images (T, H, W, 3), RGB."""
        return self.prepared.arrays["test_images"]

    @property
    def test_depth(self) -> NDArray[np.uint16]:
        """Depth of the test images (T, H, W) in steps of 1 / `per_unit`; 0: not measured."""
        return self.prepared.arrays["test_depth"]

    @property
    def test_mask(self) -> NDArray[np.bool_]:
        """Mask (T, H, W) of the test pixels, all of which are measured."""
        return self.prepared.arrays["test_mask"]

    def test_targets(self, where: Any) -> NDArray[np.float32]:
        """Depth of the test images, or of those pixels of them that the index `where` selects."""
        return np.asarray(self.test_depth[where].astype(np.float32) / self.per_unit, dtype=np.float32)

    @property
    def has_drawn_mask(self) -> bool:
        """Whether the test pixels were drawn here instead of read from the benchmark's file."""
        return bool(self.prepared.meta["notes"]["mask"] == "drawn")

    @property
    def tests_all(self) -> bool:
        """Whether all measured pixels are test pixels, not equally many of each depth."""
        return bool(self.prepared.meta["notes"]["mask"] == "all")

    @property
    def _own(self) -> dict[str, float] | None:
        """Of a user's own pairs: per_unit and deepest."""
        return cast(dict[str, float] | None, self.prepared.meta.get("notes", {}).get("own"))

    @property
    def per_unit(self) -> float:
        """Steps of test depth in a unit of depth."""
        return self._own["per_unit"] if self._own else PER_METRE

    @property
    def deepest(self) -> float:
        """Upper end of the buckets."""
        return self._own["deepest"] if self._own else DEEPEST

    @cached_property
    def depths(self) -> NDArray[np.float64]:
        """The depth of each level (L,) of the training maps."""
        levels = int(np.iinfo(self.train_depth.dtype).max) + 1
        return np.arange(levels) / (self.per_unit if self._own else LEVELS_PER_METRE)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all data that a run sees."""
        return self.prepared.digest(*self._own.values()) if self._own else self.prepared.digest()

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
        """Number of pixels within the centre crop at each depth level (L,)."""
        if self._own:
            return np.asarray(self.prepared.arrays[f"{split}_levels"])
        return np.asarray(self.prepared.arrays["train_levels"][self.rows(split)].sum(0, dtype=np.int64))

    def training_pixels(self) -> NDArray[np.int64]:
        """Measured training pixels by bucket (100,)."""
        return level_buckets(self.levels("train"), self.depths, self.deepest)


def buckets_of(depths: ArrayLike, deepest: float) -> NDArray[np.uint8]:
    """The bucket of each depth, same shape: 100 equal ones from 0 to `deepest`; the last one has all greater depths too.

    In float32 as the benchmark: 0.7 m is in bucket 7.
    """
    buckets = np.asarray(depths, dtype=np.float32) * np.float32(BUCKETS / deepest)
    return np.asarray(np.minimum(buckets, BUCKETS - 1), dtype=np.uint8)


def level_buckets(levels: NDArray[np.int64], depths: NDArray[np.float64], deepest: float) -> NDArray[np.int64]:
    """Convert pixel counts by level (L,) to counts of measured pixels by bucket (100,); `depths` (L,) of the levels."""
    return np.bincount(buckets_of(depths, deepest)[1:], levels[1:], minlength=BUCKETS).astype(np.int64)
