"""Prepares one array of all frames from Breakfast's feature files (Kuehne et al. 2014): a text file per video, a line per frame.

Protocol, section 5.
"""

import csv
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls.data.archives import Holder, Place, missing_remedy
from regcls.data.counts import check_count
from regcls.data.store import Writer, deciding_parameters, prepared_writer
from regcls.errors import UserError
from regcls.files import temporary_folder
from regcls.processes import worker_pool
from regcls.progress import progress
from regcls.tasks.sequences.data import SequenceSet
from regcls.tasks.sequences.params import ACTIVITIES, FEATURES, SequenceData, SequenceSplit
from regcls.tasks.sequences.stand_in import write_archive
from regcls.words import counted

LARGEST = float(np.finfo(np.float32).max)
NAME = re.compile(r"P([0-9]{1,9})_([0-9A-Za-z]+)_P([0-9]{1,9})_([0-9A-Za-z]+)\.txt")
ARCHIVES = (".tar", ".zip")
FEW = 300  # files: reading up to so many is faster than starting worker processes


class Video(NamedTuple):
    """A feature file, with the information in its name."""

    activity: str
    person: int
    camera: str
    path: str  # relative to raw/
    place: Place

    @property
    def name(self) -> str:
        """The file name without .txt."""
        return Path(self.path).stem


def find_videos(raw: Path, *, remedy: str) -> tuple[list[Video], dict[str, str]]:
    """The feature files in `raw`, its folders and archives, sorted by activity, person and camera; and path -> reason of rejected files.

    Raises:
        UserError: there are none (the message ends with `remedy`), a video is there twice, or an archive cannot be read in place.
    """
    videos: dict[tuple[str, int, str], Video] = {}
    rejected = {}
    for path, place in _text_files(raw, remedy):
        video = _named(path, place)
        if isinstance(video, str):
            rejected[path] = video
        elif (first := videos.setdefault(video[:3], video)) is not video:
            raise UserError(f"{raw} has {video.name} twice: {first.path} and {video.path}. Keep one of them there")
    if not videos:
        path, reason = next(iter(rejected.items()))
        raise UserError(f"{raw}: none of {len(rejected)} text files is a feature file. For example, {path}: {reason}. {remedy}")
    return sorted(videos.values()), rejected


def _text_files(raw: Path, remedy: str) -> list[tuple[str, Place]]:
    entries = [entry for entry in sorted(raw.iterdir()) if not entry.name.startswith(".")] if raw.is_dir() else []
    files = [(entry.name, Place(str(entry))) for entry in entries if entry.suffix == ".txt" and entry.is_file()]
    archives = [entry for entry in entries if entry.suffix in ARCHIVES and entry.is_file()]
    for top in sorted({entry.stem for entry in archives} | {entry.name for entry in entries if entry.is_dir()}):
        if len(same := [entry.name for entry in archives if entry.stem == top]) > 1:
            raise UserError(f"{raw} has {' and '.join(same)}: keep one of them there")
        holder = Holder(raw, top, remedy=remedy)
        for name in sorted(holder.names()):
            place = holder.place(name)
            # Skip hidden files, which macOS adds to folders and archives.
            if place and name.endswith(".txt") and not Path(name).name.startswith("."):
                files.append((name if holder.origin.is_dir() else f"{holder.origin.name}/{name}", place))
    if not files:
        others = [entry.name for entry in entries if entry.is_file() and entry not in archives]
        packed = f"; {others[0]} is not a .tar or .zip: unpack it there (a compressed archive cannot be read in place)" if others else ""
        raise UserError(f"there are no feature files (P03_cam01_P03_coffee.txt and the like) in {raw}{packed}. {remedy}")
    return [(os.fsencode(path).decode(errors="backslashreplace"), place) for path, place in files]  # names may not be UTF-8


def _named(path: str, place: Place) -> Video | str:
    """The video of a file, from its name, or why the file is rejected."""
    if not (parts := NAME.fullmatch(Path(path).name)):
        return "unknown name: not P<person>_<camera>_P<person>_<activity>.txt"
    person, camera, again, activity = parts.groups()
    if int(person) != int(again):
        return f"two persons: P{person} and P{again}"
    if activity not in ACTIVITIES:
        return f"unknown activity: {activity}"
    return Video(activity, int(person), camera, path, place)


def parse(content: bytes) -> NDArray[np.float32]:
    """Parse the content of a feature file to (frames, 64). Numbers are separated by blanks or tabs; empty lines are skipped.

    Raises:
        ValueError: it is not a feature file; the message is `reason` or `reason: details`.
    """
    try:
        with np.errstate(over="ignore"):  # numbers too large for float32 become infinite, and are rejected below
            table = pd.read_csv(BytesIO(content), sep=r"\s+", header=None, dtype=np.float32, quoting=csv.QUOTE_NONE)
        features = np.ascontiguousarray(table.to_numpy())
    except ValueError:
        features = np.empty((0, 0), dtype=np.float32)
    if features.shape[1] != FEATURES or not np.isfinite(features).all():
        raise ValueError(_what_is_wrong(content))
    return features


def _what_is_wrong(content: bytes) -> str:
    lines = [(number, line.split()) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
    if not lines:
        return "no frames"
    for number, values in lines:
        if len(values) != FEATURES:
            return f"number of columns is not {FEATURES}: {len(values)} in line {number}"
        for value in values:
            shown = f"{value[:20].decode('ascii', 'backslashreplace')} in line {number}"
            try:
                if not abs(float(value)) <= LARGEST:
                    return f"not finite: {shown}"
            except ValueError:
                return f"not a number: {shown}"
    return "not a number"  # pandas rejects it, Python does not


def write_features(writer: Writer, videos: Sequence[Video], *, processes: int) -> tuple[list[int], dict[str, str]]:
    """Write the array `features` (all frames, 64), video by video.

    Returns the number of frames of each video, 0 if it is rejected, and path -> reason of rejected files.

    Raises:
        UserError: a worker was killed, or no video is left.
        OSError: the disk is full.
    """
    # A video's rows are known only once all videos before it are read, so each goes to its own file first. Reading twice would take longer.
    parts = writer.folder / "parts"
    parts.mkdir()
    results = _write_parts(parts, videos, processes)
    rejected = {video.path: reason for video, reason in zip(videos, results, strict=True) if isinstance(reason, str)}
    frames = [count if isinstance(count, int) else 0 for count in results]
    if not sum(frames):
        path, reason = next(iter(rejected.items()))
        raise UserError(f"no video is left: {counted(len(rejected), 'feature file')} cannot be read, such as {path}: {reason}")
    features = writer.empty("features", (sum(frames), FEATURES), np.float32)
    with open(str(features.filename), "r+b") as out:  # not through the memory map, whose pages would count as this process's memory
        out.seek(features.offset)
        for index in np.flatnonzero(frames):
            part = parts / str(index)
            with part.open("rb") as handle:
                shutil.copyfileobj(handle, out)
            part.unlink()
    parts.rmdir()
    return frames, rejected


def _write_parts(parts: Path, videos: Sequence[Video], processes: int) -> list[int | str]:
    """Number of frames of each video, or why it is rejected."""
    # In the order on disk.
    work = sorted(enumerate(video.place for video in videos), key=lambda item: (item[1].file, item[1].offset))
    frames: list[int | str] = [0] * len(videos)
    rejected = 0
    with progress(len(work), "reading features") as advance, _readers(processes, len(work)) as pool:
        write = partial(_write_part, parts)
        results: Iterable[int | str] = pool.map(write, work) if pool else map(write, work)
        for (index, _), result in zip(work, results, strict=True):
            frames[index] = result
            rejected += isinstance(result, str)
            advance(1, f"{rejected} rejected" if rejected else "")
    return frames


def _readers(processes: int, files: int) -> AbstractContextManager[ProcessPoolExecutor | None]:
    return worker_pool(processes) if processes > 1 and files > FEW else nullcontext()


def _write_part(parts: Path, work: tuple[int, Place]) -> int | str:
    index, place = work
    try:
        features = parse(place.read())
    except ValueError as error:
        return str(error)
    (parts / str(index)).write_bytes(features.data)
    return len(features)


def prepare(data: SequenceData, folder: Path, *, raw: Path, dataset: str, processes: int) -> None:
    """Write the prepared features of `dataset` to `folder`: array `features` (all frames, 64) float32, table and rejected.csv.

    The table has a row per video, sorted by activity, person and camera: video, person, camera, activity, start (first row in features),
    frames. With source `stand-in`, an archive is generated in a temporary folder and read by the same code.

    Raises:
        UserError: a file is missing, there twice or invalid, the number of videos is far from the expected one, a split has too few
            training or test videos, or the disk is full.
    """
    if data.source == "raw":
        remedy = missing_remedy(raw, dataset, data.archives)
        _prepare(data, folder, raw, dataset, processes, expected=data.expected_videos, remedy=remedy)
        return
    with temporary_folder() as archives:
        write_archive(archives, data.stand_in)
        _prepare(data, folder, archives, dataset, processes, expected=None, remedy="")


def _prepare(data: SequenceData, folder: Path, raw: Path, dataset: str, processes: int, *, expected: int | None, remedy: str) -> None:
    videos, rejected = find_videos(raw, remedy=remedy)
    labels = {"what": "videos", "dataset": dataset, "key": "expected_videos"}
    check_count(len(videos), expected, **labels, left_out=_by_reason(rejected))
    with prepared_writer(folder, made_from=deciding_parameters(data)) as writer:
        frames, unreadable = write_features(writer, videos, processes=processes)
        rejected |= unreadable
        rows = [(video.name, video.person, video.camera, video.activity) for video in videos]
        table = pd.DataFrame(rows, columns=["video", "person", "camera", "activity"])
        table = table.assign(start=np.cumsum([0, *frames[:-1]]), frames=frames)
        kept = table[table["frames"] > 0].reset_index(drop=True)
        check_count(len(kept), expected, **labels, left_out=_by_reason(rejected))
        _check_splits(kept, data.test_persons, dataset, rejected)
        writer.save_table(kept)
        reasons = pd.DataFrame(sorted(rejected.items()), columns=["path", "reason"])
        reasons.to_csv(writer.folder / "rejected.csv", index=False)
        writer.notes = {"videos": len(kept), "frames": int(kept["frames"].sum()), "rejected": _by_reason(rejected)}


def counts(folder: Path) -> list[str]:
    """Summarise the prepared data in lines of text: videos and frames by activity and by split, and what was left out and why.

    Raises:
        UserError: `folder` is missing or damaged.
    """
    videos = SequenceSet(folder)
    notes, table = videos.prepared.meta["notes"], videos.table
    by_activity = [(activity, table[table["activity"] == activity]["frames"]) for activity in videos.activities]
    tested = [(split, table[videos.is_tested(split)]["frames"]) for split in videos.splits]
    return [
        f"{notes['videos']} videos of {table['person'].nunique()} persons, {notes['frames']} frames",
        *(
            f"{activity:12s} {len(frames):5d} videos {frames.sum():8d} frames, {frames.min()} to {frames.max()} a video"
            for activity, frames in by_activity
        ),
        *(
            f"{split}: tests on {len(frames)} videos with {frames.sum()} frames, trains on {len(table) - len(frames)}"
            for split, frames in tested
        ),
        *(f"rejected: {number:5d} {reason} (rejected.csv)" for reason, number in notes["rejected"].items()),
    ]


def _by_reason(rejected: Mapping[str, str]) -> dict[str, int]:
    return dict(Counter(reason.partition(":")[0] for reason in rejected.values()))


def _check_splits(
    kept: pd.DataFrame, test_persons: Mapping[SequenceSplit, tuple[int, int]], dataset: str, rejected: Mapping[str, str]
) -> None:
    """Raise a UserError if an activity has no test video or fewer than two training videos (one may be held out) in a split."""
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
