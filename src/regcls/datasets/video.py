"""Progress of videos: the feature files of Breakfast (Kuehne et al. 2014) -> one array of all frames, and who is tested on whom.

Protocol, section 5.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.random import default_rng
from numpy.typing import NDArray

from regcls.datasets.counts import check_count
from regcls.datasets.store import PreparedSet, deciding_parameters, prepared_writer
from regcls.datasets.video_prepare import ACTIVITIES, find_videos, write_features
from regcls.datasets.walks import write_archive
from regcls.errors import UserError
from regcls.files import explain_os_errors
from regcls.params.video import VideoData, VideoSplit

Part = Literal["train", "val", "test"]


def prepare(data: VideoData, folder: Path, *, raw: Path, dataset: str, processes: int) -> None:
    """Write the prepared features of `dataset` to `folder`: array `features` (all frames, 64) float32, table and rejected.csv.

    The table has a row a video, by activity, person and camera: video, person, camera, activity, start (first row in features), frames.
    With source `stand-in`, an archive is generated into a temporary folder, read by the same code, and removed.

    Raises:
        UserError: a file is missing, there twice or not as it should be; far from the expected number of videos; a split in which there
            is nothing to train or test on; the disk is full.
    """
    if data.source == "raw":
        remedy = f"{raw.parent / 'README.md'} says what belongs there"
        if data.archives:
            remedy = f"Fetch it with: regcls data fetch {dataset}; or put your copy there, {remedy}"
        _prepare(data, folder, raw, dataset, processes, expected=data.expected_videos, remedy=remedy)
        return
    with TemporaryDirectory(prefix=f"regcls-{dataset}-") as made:
        with explain_os_errors(Path(made)):
            write_archive(Path(made), data.stand_in)
        _prepare(data, folder, Path(made), dataset, processes, expected=None, remedy="")


def _prepare(data: VideoData, folder: Path, raw: Path, dataset: str, processes: int, *, expected: int | None, remedy: str) -> None:
    videos, rejected = find_videos(raw, remedy=remedy)
    named = {"what": "videos", "dataset": dataset, "key": "expected_videos"}
    check_count(len(videos), expected, **named, left_out=_by_reason(rejected))
    with prepared_writer(folder, made_from=deciding_parameters(data)) as writer:
        frames, unreadable = write_features(writer, videos, processes=processes)
        rejected |= unreadable
        rows = [(video.name, video.person, video.camera, video.activity) for video in videos]
        table = pd.DataFrame(rows, columns=["video", "person", "camera", "activity"])
        table = table.assign(start=np.cumsum([0, *frames[:-1]]), frames=frames)
        kept = table[table["frames"] > 0].reset_index(drop=True)
        check_count(len(kept), expected, **named, left_out=_by_reason(rejected))
        _check_splits(kept, data.test_persons, dataset, rejected)
        writer.save_table(kept)
        listed = pd.DataFrame(sorted(rejected.items()), columns=["path", "reason"])
        listed.to_csv(writer.folder / "rejected.csv", index=False)
        writer.notes = {"videos": len(kept), "frames": int(kept["frames"].sum()), "rejected": _by_reason(rejected)}


def counts(folder: Path) -> list[str]:
    """What `prepare` wrote to `folder`, in lines: videos and frames by activity and by split, and what was left out and why.

    Raises:
        UserError: `folder` is absent or damaged.
    """
    videos = VideoSet(folder)
    notes, table = videos.prepared.meta["notes"], videos.table
    by_activity = [(activity, table[table["activity"] == activity]["frames"]) for activity in videos.activities]
    tested = [(split, table[videos.is_tested(split)]["frames"]) for split in videos.splits]
    return [
        f"{notes['videos']} videos of {table['person'].nunique()} persons, {notes['frames']} frames",
        *(f"{activity:12s} {len(of):5d} videos {of.sum():8d} frames, {of.min()} to {of.max()} a video" for activity, of in by_activity),
        *(f"{split}: tests on {len(of)} videos with {of.sum()} frames, trains on {len(table) - len(of)}" for split, of in tested),
        *(f"rejected: {number:5d} {reason} (rejected.csv)" for reason, number in notes["rejected"].items()),
    ]


class VideoSet(PreparedSet[VideoData]):
    """A prepared set of videos."""

    @property
    def features(self) -> NDArray[np.float32]:
        """All frames (N, 64), video after video in the order of the table."""
        return self.prepared.arrays["features"]

    @property
    def table(self) -> pd.DataFrame:
        """Video, person, camera, activity, start (first row in `features`) and frames."""
        return self.prepared.table

    @property
    def activities(self) -> tuple[str, ...]:
        """Those of which there are videos, in the order of ACTIVITIES."""
        present = set(self.table["activity"])
        return tuple(activity for activity in ACTIVITIES if activity in present)

    @property
    def splits(self) -> tuple[VideoSplit, ...]:
        """Those that the set was prepared for."""
        return tuple(self.prepared.meta["made_from"]["test_persons"])

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all that a run sees: features, who is tested on whom and what is held out.

        Of arrays and table by their recorded checksums.
        """
        made_from = self.prepared.meta["made_from"]
        return self.prepared.digest(*(made_from[name] for name in ("test_persons", "validation_share", "split_seed")))

    def is_tested(self, split: VideoSplit) -> pd.Series:
        """Which rows of the table are of the split's test persons."""
        return self.table["person"].between(*self.prepared.meta["made_from"]["test_persons"][split])

    def videos(self, activity: str, split: VideoSplit, part: Part, *, held_out: bool) -> pd.DataFrame:
        """Rows of the table: the activity's videos of the split's test persons (`test`), or those of all others (`train`).

        With `held_out`, a share of the latter is `val` and not trained on, drawn without regard to persons for each activity and split:
        validation_share of them, rounded, at least one and at most all but one. Else `val` is empty.
        """
        tested = self.is_tested(split)
        rows = self.table[(self.table["activity"] == activity) & (tested if part == "test" else ~tested)]
        if part != "test":
            chosen = self._validation(activity, split, rows["video"]) if held_out else set[str]()
            rows = rows[rows["video"].isin(chosen) == (part == "val")]
        return rows.reset_index(drop=True)

    def samples(self, activity: str, split: VideoSplit, part: Part, *, held_out: bool) -> int:
        """How many frames these videos have."""
        return int(self.videos(activity, split, part, held_out=held_out)["frames"].sum())

    def _validation(self, activity: str, split: VideoSplit, training: pd.Series) -> set[str]:
        made_from, names = self.prepared.meta["made_from"], sorted(training)
        size = min(max(1, round(made_from["validation_share"] * len(names))), len(names) - 1)
        rng = default_rng([made_from["split_seed"], ACTIVITIES.index(activity), get_args(VideoSplit).index(split)])
        return {names[index] for index in rng.permutation(len(names))[:size]}


def _by_reason(rejected: Mapping[str, str]) -> dict[str, int]:
    return dict(Counter(reason.partition(":")[0] for reason in rejected.values()))


def _check_splits(
    kept: pd.DataFrame, test_persons: Mapping[VideoSplit, tuple[int, int]], dataset: str, rejected: Mapping[str, str]
) -> None:
    """Every activity has a network of its own in every split, and of the videos that it trains on some may be held out."""
    example = next((f" Left out: {len(rejected)}, such as {path}: {reason}" for path, reason in rejected.items()), "")
    for split, (first, last) in test_persons.items():
        tested = kept["person"].between(first, last)
        for activity, videos in kept.groupby("activity"):
            test = int(tested[videos.index].sum())
            if test < 1 or len(videos) - test < 2:
                raise UserError(
                    f"{dataset}: in split {split} (test persons {first} to {last}) {activity} has {test} test and {len(videos) - test} "
                    "training videos; at least 1 and 2 are needed. Add videos, or change "
                    f"{dataset}.data.test_persons in params.yaml.{example}"
                )
