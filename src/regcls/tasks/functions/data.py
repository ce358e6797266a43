"""The prepared 1D data, memory-mapped."""

import hashlib
from collections.abc import Hashable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regcls.data.splits import Split
from regcls.data.store import PreparedSet
from regcls.errors import UserError
from regcls.tasks.functions.params import FunctionData, Sampling
from regcls.tasks.functions.runs import FunctionSpec


class FunctionSets(PreparedSet[FunctionData]):
    """The prepared 1D data."""

    def __init__(self, folder: Path, *, verify: bool = False, made_from: FunctionData | None = None) -> None:
        """Raises as `PreparedSet` does."""
        super().__init__(folder, verify=verify, made_from=made_from)
        keys = ["data", "sampling", "function", "repetition", "split"]
        self._rows = {tuple(row[key] for key in keys): row for row in self.prepared.table.to_dict("records")}

    def get(
        self, data: str, sampling: Sampling, function: int, repetition: int, split: Split
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """x and y of a data set, (N,) each, as read-only views.

        Raises:
            UserError: the data set was not prepared.
        """
        row = self._row(data, sampling, function, repetition, split)
        x, y = self.prepared.arrays[data][:, row["start"] : row["stop"]]
        return x, y

    def size(self, data: str, sampling: Sampling, function: int, repetition: int, split: Split) -> int:
        """Number of samples of a data set."""
        return int(self._row(data, sampling, function, repetition, split)["samples"])

    @cached_property
    def functions(self) -> int:
        """Number of functions."""
        return int(self.prepared.table["function"].max()) + 1

    def digest(self, spec: FunctionSpec) -> str:
        """SHA-256 over the data of a run: its own training sets, and the uniform validation and test sets."""
        digest = hashlib.sha256()
        for function in range(self.functions):
            digest.update(self._row(spec.data_key, spec.sampling, function, spec.repetition, "train")["sha256"].encode())
            for split in ("val", "test"):
                digest.update(self._row(spec.data_key, "uniform", function, spec.repetition, split)["sha256"].encode())
        return digest.hexdigest()

    def _row(self, *key: object) -> dict[Hashable, Any]:
        try:
            return self._rows[key]
        except KeyError:
            raise UserError(f"{'/'.join(map(str, key))} is not in {self.prepared.folder}; there: {', '.join(self.prepared.arrays)}. "
                            f"Prepare it with: regcls prepare {self.prepared.folder.parent.name}") from None  # fmt: skip
