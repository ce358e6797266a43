"""The prepared features of videos, memory-mapped, and their splits."""

from functools import cached_property
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.random import default_rng
from numpy.typing import NDArray

from regcls.data.store import PreparedSet
from regcls.tasks.sequences.params import ACTIVITIES, SequenceData, SequenceSplit

Part = Literal["train", "val", "test"]


class SequenceSet(PreparedSet[SequenceData]):
    """A prepared set of videos."""

    @property
    def features(self) -> NDArray[np.float32]:
        """All frames (N, 64), by video in the order of the table."""
        return self.prepared.arrays["features"]

    @property
    def table(self) -> pd.DataFrame:
        """One row per video: video, person, camera, activity, start (first row in `features`), frames."""
        return self.prepared.table

    @property
    def activities(self) -> tuple[str, ...]:
        """The activities that have videos, in the order of ACTIVITIES."""
        present = set(self.table["activity"])
        return tuple(activity for activity in ACTIVITIES if activity in present)

    @property
    def splits(self) -> tuple[SequenceSplit, ...]:
        """The splits that the set was prepared for."""
        return tuple(self.prepared.meta["made_from"]["test_persons"])

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the data of a run: features and table (by their recorded checksums), test persons and held-out videos."""
        made_from = self.prepared.meta["made_from"]
        return self.prepared.digest(*(made_from[name] for name in ("test_persons", "validation_share", "split_seed")))

    def is_tested(self, split: SequenceSplit) -> pd.Series:
        """Mask of the table's rows: videos of the split's test persons."""
        return self.table["person"].between(*self.prepared.meta["made_from"]["test_persons"][split])

    def videos(self, activity: str, split: SequenceSplit, part: Part, *, held_out: bool) -> pd.DataFrame:
        """Rows of the table: the activity's videos of the split's test persons (`test`) or of all others (`train`).

        With `held_out`, some of the latter are `val` instead: a share of validation_share, rounded, at least one and at most all but one,
        drawn for each activity and split regardless of persons. Otherwise `val` is empty.
        """
        tested = self.is_tested(split)
        rows = self.table[(self.table["activity"] == activity) & (tested if part == "test" else ~tested)]
        if part != "test":
            validation = self._validation(activity, split, rows["video"]) if held_out else set[str]()
            rows = rows[rows["video"].isin(validation) == (part == "val")]
        return rows.reset_index(drop=True)

    def samples(self, activity: str, split: SequenceSplit, part: Part, *, held_out: bool) -> int:
        """Number of frames of these videos."""
        return int(self.videos(activity, split, part, held_out=held_out)["frames"].sum())

    def _validation(self, activity: str, split: SequenceSplit, training: pd.Series) -> set[str]:
        made_from, names = self.prepared.meta["made_from"], sorted(training)
        size = min(max(1, round(made_from["validation_share"] * len(names))), len(names) - 1)
        rng = default_rng([made_from["split_seed"], ACTIVITIES.index(activity), get_args(SequenceSplit).index(split)])
        return {names[index] for index in rng.permutation(len(names))[:size]}
