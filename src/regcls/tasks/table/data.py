"""A prepared table, memory-mapped, its folds, and the inputs of networks on each."""

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls.data.splits import Split
from regcls.data.store import PreparedSet
from regcls.tasks.table.model import inputs_of
from regcls.tasks.table.params import TableData

BLOCK = 2**16  # rows that are standardised at a time


class TableSet(PreparedSet[TableData]):
    """A prepared table of N rows. A part is a network's share of the work: the rows to train, validate and test it on."""

    @property
    def targets(self) -> NDArray[np.float64]:
        """(N,), in their unit."""
        return self.prepared.arrays["targets"]

    @property
    def columns(self) -> list[dict[str, Any]]:
        """The features; see model.Column."""
        return [{str(key): value for key, value in row.items()} for row in self.prepared.table.to_dict("records")]

    @property
    def remarks(self) -> list[str]:
        """Sentences on rows and columns that were left out."""
        return list(self.prepared.meta["notes"]["remarks"])

    @cached_property
    def most_classes(self) -> int:
        """The number of distinct targets, but at most that of training rows: no more classes make sense."""
        return min(len(np.unique(self.targets)), *(len(self.rows(part, "train")) for part in self.parts))

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """`fold_1`, `fold_2` and so on, repeat after repeat; `split` if there is only one."""
        count = self.prepared.meta["notes"]["parts"]
        return ("split",) if count == 1 else tuple(f"fold_{index + 1}" for index in range(count))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the data of a run: features, targets and folds, by their recorded checksums."""
        return self.prepared.digest(self.prepared.meta["notes"]["folds"], len(self.parts))

    def rows(self, part: str, split: Split) -> NDArray[np.int64]:
        """The rows of a part: `test`, a fold; `val`, the next one; `train`, all others."""
        folds = self.prepared.meta["notes"]["folds"]
        repeat, tested = divmod(self.parts.index(part), folds)
        fold, validated = self.prepared.arrays["fold"][repeat], (tested + 1) % folds
        mask = {"test": fold == tested, "val": fold == validated, "train": (fold != tested) & (fold != validated)}[split]
        return np.flatnonzero(mask)

    @cached_property
    def size(self) -> int:
        """D, the inputs of a network, the same for all parts: a number, indicators of missing ones, and a level each."""
        levels, indicators = self._levels, self._indicators
        return int(self.prepared.arrays["numbers"].shape[1] + len(indicators) + levels.sum())

    @cached_property
    def _levels(self) -> NDArray[np.int64]:
        """The number of levels of each nominal column (K,)."""
        nominal = [column for column in self.columns if column["kind"] == "nominal"]
        return np.array([len(column["levels"]) for column in nominal], dtype=np.int64)

    @cached_property
    def _indicators(self) -> NDArray[np.int64]:
        """The numeric columns with missing values."""
        numbers = self.prepared.arrays["numbers"]
        missing = np.zeros(numbers.shape[1], dtype=bool)
        for start in range(0, len(numbers), BLOCK):
            missing |= np.isnan(numbers[start : start + BLOCK]).any(axis=0)
        return np.flatnonzero(missing)

    def fitted(self, part: str) -> dict[str, np.ndarray]:
        """What `model.inputs_of` needs, fitted on the training rows of a part; `target`: mean and standard deviation of their targets."""
        from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]  # here: it takes a second

        rows = self.rows(part, "train")
        numbers, codes = self.prepared.arrays["numbers"][rows], self.prepared.arrays["codes"][rows]
        mean, median = np.zeros(numbers.shape[1]), np.zeros(numbers.shape[1])
        scale = np.full(numbers.shape[1], np.inf)  # a column that has one value in training, or none, is 0 everywhere
        present = np.flatnonzero(~np.isnan(numbers).all(axis=0))
        if len(present):
            scaler = StandardScaler().fit(numbers[:, present])
            varies = scaler.var_ > (1e-12 * np.abs(scaler.mean_)) ** 2
            mean[present], scale[present] = scaler.mean_, np.where(varies, scaler.scale_, np.inf)
            median[present] = np.nanmedian(numbers[:, present], axis=0)
        seen_levels = [np.isin(np.arange(count), codes[:, k]) for k, count in enumerate(self._levels)]
        seen = np.concatenate([np.isnan(numbers[:, self._indicators]).any(axis=0), *seen_levels])
        targets = self.targets[rows]
        deviation = float(targets.std())
        return {
            "mean": mean,
            "scale": scale,
            "median": median,
            "indicators": self._indicators,
            "levels": self._levels,
            "seen": seen,
            "target": np.array([targets.mean(), deviation if deviation > 0 else 1.0]),
        }

    def inputs(self, part: str, split: Split, fitted: dict[str, np.ndarray]) -> NDArray[np.float32]:
        """The inputs of a network (D, n) on the rows of a split."""
        rows, arrays = self.rows(part, split), self.prepared.arrays
        inputs = np.empty((len(rows), self.size), dtype=np.float32)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            inputs[start : start + BLOCK] = inputs_of(arrays["numbers"][block], arrays["codes"][block], fitted)
        return inputs.T

    def raw_frame(self, rows: NDArray[np.int64]) -> pd.DataFrame:
        """Features as they are, for methods that take missing values and nominal columns: numbers (number_0 …) and codes (code_0 …)."""
        arrays = self.prepared.arrays
        numbers = pd.DataFrame(arrays["numbers"][rows]).add_prefix("number_")
        codes = pd.DataFrame(arrays["codes"][rows]).add_prefix("code_")
        return pd.concat([numbers, codes], axis=1)
