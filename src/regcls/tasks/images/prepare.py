"""Prepare images with targets and splits, from images with a csv or from IMDB-WIKI's archives. Protocol, section 3.

The filter, the paths and the balanced split are those of the imbalanced-regression benchmark (Yang et al. 2021).
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.io import loadmat

from regcls.data.archives import Holder, Place, missing_remedy
from regcls.data.counts import check_count
from regcls.data.csv_file import check_copies, holders_of, top_of
from regcls.data.images import darkness, write_images
from regcls.data.splits import SPLITS
from regcls.data.store import deciding_parameters, prepared_writer
from regcls.errors import UserError
from regcls.files import temporary_folder
from regcls.params.shots import Shots
from regcls.progress import say
from regcls.tasks.images.csv_file import read_csv
from regcls.tasks.images.data import ImageSet
from regcls.tasks.images.params import ImageData
from regcls.tasks.images.stand_in import FROM_MATLAB, write_archives

PARTS = ("imdb", "wiki")  # in the benchmark's order
FIELDS = ("dob", "photo_taken", "full_path", "face_score", "second_face_score")
OLDEST = 200  # years; beyond, a date must be wrong
SPLIT_AGES = range(121)  # images with a greater age all go to training
EPOCH = 719163  # Python's ordinal of 1970-01-01


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The images to prepare: a table of path, target and split, the sources of the paths, and counts of filtered rows by reason."""

    file: Path | None = None  # the csv, if there is one; the table then has the line of each image
    table: pd.DataFrame
    holders: Mapping[str, Holder]  # by the first folder of a path
    filtered: Mapping[str, int] = field(default_factory=dict)


def prepare(data: ImageData, folder: Path, *, raw: Path, dataset: str, processes: int) -> pd.DataFrame:
    """Write the prepared images of `dataset` to `folder` and return their table: path, target (float32), split, row of the array.

    With source `stand-in`, archives are generated in a temporary folder and read by the same code.

    Raises:
        UserError: a file is missing, damaged or invalid, the number of images is far from the expected one, or the disk is full.
    """
    if data.source == "raw":
        return _prepare(data, folder, _listing(data, raw, dataset), dataset, processes)
    with temporary_folder() as archives:
        write_archives(archives, data.stand_in, size=data.size, processes=processes)
        return _prepare(data, folder, _from_mat(data, archives, remedy=""), dataset, processes)


def _listing(data: ImageData, raw: Path, dataset: str) -> Listing:
    remedy = missing_remedy(raw, dataset, data.archives)
    if (file := raw / f"{dataset}.csv").exists():
        table = read_csv(file, data)
        return Listing(file=file, table=table, holders=holders_of(file, table, remedy=remedy, links=data.layout != "csv"))
    if data.layout == "imdb-wiki":
        return _from_mat(data, raw, remedy=remedy)
    raise UserError(f"there is no {file.name} in {raw}. {remedy}")


def _prepare(data: ImageData, folder: Path, listing: Listing, dataset: str, processes: int) -> pd.DataFrame:
    labels = {"what": "images", "dataset": dataset, "key": "expected_images"}
    table, expected = listing.table, data.expected_images if data.source == "raw" else None
    check_count(len(table), expected, **labels, left_out=listing.filtered)
    places = [listing.holders[top_of(path)].place(path) for path in table["path"]]
    with prepared_writer(folder, made_from=deciding_parameters(data)) as writer:
        reasons, digests, brightest = write_images(
            writer, places, size=data.size, exif=data.exif, bits=data.bits or 16, processes=processes
        )
        rejected = pd.DataFrame({"path": table["path"].iloc[list(reasons)], "reason": list(reasons.values())})
        kept = table.assign(row=np.arange(len(table))).drop(index=list(reasons))
        by_reason = Counter(reason.partition(":")[0] for reason in reasons.values())
        check_count(len(kept), expected, **labels, left_out=by_reason)
        _check_splits(kept, rejected, listing.holders)
        if listing.file and data.refuses_duplicates:
            check_copies(listing.file, kept, digests, dataset)
        if data.bits is None and (dark := darkness([*brightest.values()], f"set {dataset}.data.bits: {{bits}} in params.yaml")):
            say(dark)
        kept = kept.drop(columns="line", errors="ignore")
        writer.save_table(kept)
        rejected.to_csv(writer.folder / "rejected.csv", index=False)
        writer.notes = {"images": kept["split"].value_counts().to_dict(), "filtered": dict(listing.filtered), "rejected": dict(by_reason)}
    return kept


def counts(folder: Path, shots: Shots) -> list[str]:
    """Summarise the prepared data in lines of text: images by split, targets by shot group, and what was left out and why.

    Raises:
        UserError: `folder` is missing or damaged.
    """
    images = ImageSet(folder)
    notes = images.prepared.meta["notes"]
    groups = shots.groups(images.targets("train"))
    training = np.array(list(groups.counts.values()))
    if shots.by == "density":
        training = np.pad(training, (0, shots.bins - len(training)))  # the empty bins
    many, few = int((training > groups.many_above).sum()), int((training < groups.few_below).sum())
    each = "targets" if shots.by == "integer" else "bins of targets"
    return [
        *(f"{split:5s} {notes['images'][split]:7d} images" for split in SPLITS),
        f"{each} with more than {groups.many_above:g} training images: {many}; with {groups.few_below:g} to {groups.many_above:g}: "
        f"{len(training) - many - few}; with fewer than {groups.few_below:g}: {few}",
        *(f"left out: {number:7d} {reason}" for reason, number in notes["filtered"].items()),
        *(f"rejected: {number:7d} {reason} (rejected.csv)" for reason, number in notes["rejected"].items()),
    ]


def _from_mat(data: ImageData, raw: Path, *, remedy: str) -> Listing:
    holders = {f"{part}_crop": Holder(raw, f"{part}_crop", remedy=remedy) for part in PARTS}
    tables, filtered = [], Counter[str]()
    for part, (crop, holder) in zip(PARTS, holders.items(), strict=True):
        say(f"reading {part}.mat")
        content, file = _mat_content(raw / f"{part}.mat", crop, holder, remedy)
        table, left_out = read_mat(content, file, part, min_face_score=data.min_face_score)
        tables.append(table.assign(path=f"{crop}/" + table["path"]))
        filtered.update(left_out)
    table = pd.concat(tables, ignore_index=True)
    split = balanced_split(table["path"].tolist(), table["age"].tolist(), seed=data.split_seed, most=data.split_most)
    table = pd.DataFrame({"path": table["path"], "target": table["age"].astype(np.float32), "split": split})
    return Listing(table=table, holders=holders, filtered=filtered)


def _mat_content(file: Path, crop: str, holder: Holder, remedy: str) -> tuple[bytes, Path]:
    """The content and path of imdb.mat or wiki.mat: the one in the archive, else `file` next to it."""
    for place, path in ((holder.place(f"{crop}/{file.name}"), holder.origin / file.name), (Place(str(file)), file)):
        try:
            if place is not None:
                return place.read(), path
        except ValueError:
            continue
    raise UserError(f"{file.name} is neither in {holder.origin} nor next to it. {remedy}")


def read_mat(content: bytes, file: Path, part: str, *, min_face_score: float) -> tuple[pd.DataFrame, dict[str, int]]:
    """Read path and age (whole years) of the rows to keep from the struct `part` of a MATLAB v5 file, and count dropped rows by reason.

    Kept are rows with a face_score of at least `min_face_score`, no second face, and an age of 0 to 200 years.

    Raises:
        UserError: the content is not a MATLAB v5 file, or lacks the struct or a field; `file` is its name in the message.
    """
    try:
        struct = loadmat(BytesIO(content), variable_names=[part]).get(part)  # type: ignore[arg-type]  # it takes files as well
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"{file} is not a MATLAB v5 file: {error}. Remove it and fetch it again") from None
    if missing := [name for name in FIELDS if struct is None or name not in (struct.dtype.names or ())]:
        raise UserError(f"{file} has no field {', '.join(missing)} in a struct {part}: it is not IMDB-WIKI's file")
    dob, taken, paths, score, second = (struct[0, 0][name].reshape(-1) for name in FIELDS)  # type: ignore[index]
    age = ages(dob, taken)
    # As in the benchmark, NaN scores pass these comparisons.
    doubts = {
        f"face score below {min_face_score:g}": score < min_face_score,
        "a second face": second > 0,
        f"age not within 0 to {OLDEST}": (age < 0) | (age > OLDEST),
    }
    kept, left_out = np.ones(len(age), dtype=bool), {}
    for reason, doubtful in doubts.items():
        left_out[reason] = int((kept & doubtful).sum())
        kept &= ~doubtful
    return pd.DataFrame({"path": [str(path[0]) for path in paths[kept]], "age": age[kept]}), left_out


def ages(dob: NDArray[np.number], taken: NDArray[np.number]) -> NDArray[np.int64]:
    """Ages in whole years (N,) in the years `taken` (N,); `dob` (N,) are dates of birth as MATLAB serial days.

    People born in July or later count as not having had their birthday that year.
    """
    # A few rows have nonsense dates (day 47 of year 0); their ages fail the filter.
    ordinal = np.clip(np.nan_to_num(dob.astype(np.float64)).astype(np.int64) - FROM_MATLAB, 1, None)
    months = (ordinal - EPOCH).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    year, month = months // 12 + 1970, months % 12 + 1
    return taken.astype(np.int64) - year - (month >= 7)


def balanced_split(paths: Sequence[str], ages: Sequence[int], *, seed: int, most: int) -> list[str]:
    """The benchmark's split: val and test each get a third of the images of each age from 0 to 120, at most `most`; train gets the rest.

    Python's `random`, seeded with `seed`, shuffles the paths of each age once, ages in ascending order.
    """
    rng, of_age = random.Random(seed), {age: list[str]() for age in SPLIT_AGES}
    for path, age in zip(paths, ages, strict=True):
        if age in of_age:
            of_age[age].append(path)
    val, test = set[str](), set[str]()
    for same in of_age.values():
        rng.shuffle(same)
        size = min(len(same) // 3, most)
        val.update(same[:size])
        test.update(same[size : 2 * size])
    return ["test" if path in test else "val" if path in val else "train" for path in paths]


def _check_splits(kept: pd.DataFrame, rejected: pd.DataFrame, holders: Mapping[str, Holder]) -> None:
    present = set(kept["split"])
    if empty := [split for split in SPLITS if split not in present]:
        message = f"no image is left in {', '.join(empty)}: a run needs training, validation and test images"
        if len(rejected):
            path, reason = rejected.iloc[0]
            holder = holders[top_of(path)]
            example = next(holder.names(), None)
            content = f"contains, for example, {example}" if example else "is empty"
            message += f". {len(rejected)} could not be read, such as {path}: {reason} ({holder.origin} {content})"
        raise UserError(message)
