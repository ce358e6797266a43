"""Prepared image sets with training, validation and test splits."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls.data.store import Data, PreparedSet

Split = Literal["train", "val", "test"]
SPLIT_COLUMNS = ("split", "set", "fold", "subset")  # names of a column of splits in a user's table
SPLITS: tuple[Split, ...] = ("train", "val", "test")
OTHER_NAMES: Mapping[str, Split] = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


def split_of(text: str) -> Split | None:
    """The split that a text in a user's table names, in any case: `Validation` is val; None if it names none."""
    name = text.strip().casefold()
    return OTHER_NAMES.get(name, next((split for split in SPLITS if split == name), None))


def split_column(table: pd.DataFrame) -> str | None:
    """The column split or, if all its values name splits, set, fold or subset, in any case; None if there is none."""
    for name in table:
        key, values = str(name).casefold(), table[name].dropna().unique()
        if key == SPLIT_COLUMNS[0] or (key in SPLIT_COLUMNS and len(values) and all(split_of(str(value)) for value in values)):
            return str(name)
    return None


class SplitSet(PreparedSet[Data]):
    """A prepared set whose table has columns path, split and row (in the arrays). Rows without an entry were rejected."""

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Rows of a split in the arrays (n,), in the order of the source."""
        return self._of(split, "row").astype(np.int64)

    def paths(self, split: Split) -> list[str]:
        """Paths of the images in the source."""
        return cast(list[str], self._of(split, "path").tolist())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all data that a run sees: arrays, targets and splits, by their recorded checksums."""
        return self.prepared.digest()

    def _of(self, split: Split, column: str) -> NDArray[Any]:
        table = self.prepared.table
        return table.loc[table["split"] == split, column].to_numpy()
