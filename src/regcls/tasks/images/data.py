"""A prepared set of images with a target each, memory-mapped (N images of S × S pixels)."""

import numpy as np
from numpy.typing import NDArray

from regcls.data.splits import Split, SplitSet
from regcls.tasks.images.params import ImageData


class ImageSet(SplitSet[ImageData]):
    """A prepared set of images with one target each."""

    @property
    def images(self) -> NDArray[np.uint8]:
        """All images (N, S, S, 3), RGB; rows that belong to no split are black."""
        return self.prepared.arrays["images"]

    @property
    def size(self) -> int:
        """Side length S in pixels."""
        return int(self.images.shape[1])

    def targets(self, split: Split) -> NDArray[np.float32]:
        """Targets of the split's n images (n,)."""
        return self._of(split, "target").astype(np.float32)
