"""What prepared sets of images share: each row belongs to training, validation or test."""

from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from regcls.data.store import Data, PreparedSet

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class SplitSet(PreparedSet[Data]):
    """A prepared set whose table has path, split and row of the arrays. Rows that no split names were rejected."""

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Which rows of the arrays belong to a split (n,), in the order of the source."""
        return self._of(split, "row").astype(np.int64)

    def paths(self, split: Split) -> list[str]:
        """Paths of the images in the source."""
        return cast(list[str], self._of(split, "path").tolist())

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all that a run sees: arrays, targets and splits, by their recorded checksums."""
        return self.prepared.digest()

    def _of(self, split: Split, column: str) -> NDArray[Any]:
        table = self.prepared.table
        return table.loc[table["split"] == split, column].to_numpy()
