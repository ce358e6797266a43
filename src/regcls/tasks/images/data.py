"""A prepared set of images with a number each, memory-mapped (N images, S pixels a side)."""

import numpy as np
from numpy.typing import NDArray

from regcls.data.splits import Split, SplitSet
from regcls.tasks.images.params import ImageData


class ImageSet(SplitSet[ImageData]):
    """A prepared set of images, each with one number to predict."""

    @property
    def images(self) -> NDArray[np.uint8]:
        """All pixels (N, S, S, 3), RGB; rows that no split names are black."""
        return self.prepared.arrays["images"]

    @property
    def size(self) -> int:
        """Pixels of a side, S."""
        return int(self.images.shape[1])

    def targets(self, split: Split) -> NDArray[np.float32]:
        """Their targets (n,)."""
        return self._of(split, "target").astype(np.float32)
