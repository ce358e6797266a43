"""A prepared set of images with depth maps (NYUD2-DIR, protocol section 4), memory-mapped.

N training images, T test images; H, W of the centre crop that the network sees.
"""

import hashlib
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from regcls.datasets.store import Prepared, open_prepared
from regcls.params.depth import BUCKETS, DepthData

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
LEVELS_PER_METRE = 25.5  # of training depth: level 255 is 10 m, level 0 not measured


def deciding_parameters(data: DepthData) -> dict[str, Any]:
    """The parameters that decide what is prepared: not where it is fetched from, nor how it is checked."""
    unused = {"archives", "expected_train", "expected_test"} | ({"stand_in"} if data.source == "raw" else set())
    return {key: value for key, value in asdict(data).items() if key not in unused}


class DepthSet:
    """A prepared set. Rows of the arrays that no split names were rejected: black images, depth 0, no pixel in the mask."""

    def __init__(self, folder: Path, *, verify: bool = False, made_from: DepthData | None = None) -> None:
        """Open `folder`; with `verify`, after reading all of it and comparing checksums.

        Raises:
            UserError: absent, damaged, of another format version, or made from other parameters than `made_from`.
        """
        self.prepared: Prepared = open_prepared(folder)
        if made_from is not None:
            self.prepared.check_made_from(deciding_parameters(made_from))
        if verify:
            self.prepared.verify()

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

    def rows(self, split: Split) -> NDArray[np.int64]:
        """Which rows of the arrays belong to a split (n,), in the order of the csv."""
        return self._of(split, "row").astype(np.int64)

    def paths(self, split: Split) -> list[str]:
        """Paths of the images in the archive."""
        return cast(list[str], self._of(split, "path").tolist())

    def scenes(self, split: Split) -> list[str]:
        """Their scenes; empty for the test images, of which the archive does not tell it."""
        return cast(list[str], self._of(split, "scene").tolist())

    def levels(self, split: Literal["train", "val"]) -> NDArray[np.int64]:
        """How many pixels within the centre crop have each of the 256 levels of depth (256,)."""
        return np.asarray(self.prepared.arrays["train_levels"][self.rows(split)].sum(0, dtype=np.int64))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all that a run sees: pixels, depth, mask and splits, by their recorded checksums."""
        meta = self.prepared.meta
        parts = [meta["table"]["sha256"], *(meta["arrays"][name]["sha256"] for name in sorted(meta["arrays"]))]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _of(self, split: Split, column: str) -> NDArray[Any]:
        table = self.prepared.table
        return table.loc[table["split"] == split, column].to_numpy()


def level_buckets(levels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pixels by level of training depth (256,) -> measured pixels by bucket of 0.1 m (100,)."""
    buckets = np.minimum(np.arange(len(levels)) * 10 // LEVELS_PER_METRE, BUCKETS - 1).astype(np.int64)
    return np.bincount(buckets[1:], levels[1:], minlength=BUCKETS).astype(np.int64)
