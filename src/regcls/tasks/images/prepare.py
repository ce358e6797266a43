"""Images with a csv, or IMDB-WIKI's archives -> prepared images with target and split. Protocol, section 3.

Filter, paths and the balanced split are those of the imbalanced-regression benchmark (Yang et al. 2021).
"""

import csv
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.io import loadmat

from regcls.data.archives import Holder, Place, missing_remedy
from regcls.data.counts import check_count
from regcls.data.images import write_images
from regcls.data.splits import SPLITS
from regcls.data.store import deciding_parameters, prepared_writer
from regcls.errors import UserError
from regcls.files import explain_os_errors
from regcls.progress import say
from regcls.tasks.images.data import ImageSet
from regcls.tasks.images.params import ImageData, Shots
from regcls.tasks.images.stand_in import FROM_MATLAB, write_archives

PARTS = ("imdb", "wiki")  # in the benchmark's order
FIELDS = ("dob", "photo_taken", "full_path", "face_score", "second_face_score")
OLDEST = 200  # years; above, a date is wrong
SPLIT_AGES = range(121)  # older images are for training
EPOCH = 719163  # Python's ordinal of 1970-01-01


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What is to be prepared: a table of path, target and split, where the paths lie, and how many rows the filter left out, by reason."""

    table: pd.DataFrame
    holders: Mapping[str, Holder]  # by the first folder of a path
    filtered: Mapping[str, int] = field(default_factory=dict)


def prepare(data: ImageData, folder: Path, *, raw: Path, dataset: str, processes: int) -> pd.DataFrame:
    """Write the prepared images of `dataset` to `folder` and return their table: path, target (float32), split, row of the array.

    With source `stand-in`, archives are generated into a temporary folder, read by the same code, and removed.

    Raises:
        UserError: a file is missing, damaged or not as it should be; far from the expected number of images; the disk is full.
    """
    if data.source == "raw":
        return _prepare(data, folder, _listing(data, raw, dataset), dataset, processes)
    with TemporaryDirectory(prefix=f"regcls-{dataset}-") as made:
        with explain_os_errors(Path(made)):
            write_archives(Path(made), data.stand_in, size=data.size, processes=processes)
        return _prepare(data, folder, _from_mat(data, Path(made), remedy=""), dataset, processes)


def _listing(data: ImageData, raw: Path, dataset: str) -> Listing:
    remedy = missing_remedy(raw, dataset, data.archives)
    if (listed := raw / f"{dataset}.csv").exists():
        table = read_csv(listed, target=data.target)
        return Listing(
            table=table, holders={top: Holder(raw, top, remedy=remedy) for top in sorted({_top(path) for path in table["path"]})}
        )
    if data.layout == "imdb-wiki":
        return _from_mat(data, raw, remedy=remedy)
    raise UserError(f"there is no {listed.name} in {raw}. {remedy}")


def _prepare(data: ImageData, folder: Path, listing: Listing, dataset: str, processes: int) -> pd.DataFrame:
    named = {"what": "images", "dataset": dataset, "key": "expected_images"}
    table, expected = listing.table, data.expected_images if data.source == "raw" else None
    check_count(len(table), expected, **named, left_out=listing.filtered)
    places = [listing.holders[_top(path)].place(path) for path in table["path"]]
    with prepared_writer(folder, made_from=deciding_parameters(data)) as writer:
        reasons = write_images(writer, places, size=data.size, processes=processes)
        rejected = pd.DataFrame({"path": table["path"].iloc[list(reasons)], "reason": list(reasons.values())})
        kept = table.assign(row=np.arange(len(table))).drop(index=list(reasons))
        by_reason = Counter(reason.partition(":")[0] for reason in reasons.values())
        check_count(len(kept), expected, **named, left_out=by_reason)
        _check_splits(kept, rejected, listing.holders)
        writer.save_table(kept)
        rejected.to_csv(writer.folder / "rejected.csv", index=False)
        writer.notes = {"images": kept["split"].value_counts().to_dict(), "filtered": dict(listing.filtered), "rejected": dict(by_reason)}
    return kept


def counts(folder: Path, shots: Shots) -> list[str]:
    """What `prepare` wrote to `folder`, in lines: images by split, targets by shot group, and what was left out and why.

    Raises:
        UserError: `folder` is absent or damaged.
    """
    images = ImageSet(folder)
    notes = images.prepared.meta["notes"]
    groups = shots.groups(images.targets("train"))
    training = np.array(list(groups.counts.values()))
    many, few = int((training > groups.many_above).sum()), int((training < groups.few_below).sum())
    each = "targets" if shots.by == "integer" else "bins of targets"
    return [
        *(f"{split:5s} {notes['images'][split]:7d} images" for split in SPLITS),
        f"{each} with more than {groups.many_above:g} training images: {many}; with {groups.few_below:g} to {groups.many_above:g}: "
        f"{len(training) - many - few}; with fewer than {groups.few_below:g}: {few}",
        *(f"left out: {number:7d} {reason}" for reason, number in notes["filtered"].items()),
        *(f"rejected: {number:7d} {reason} (rejected.csv)" for reason, number in notes["rejected"].items()),
    ]


def read_csv(file: Path, *, target: str) -> pd.DataFrame:
    """A csv with columns path, split (train, val or test) and `target` (any number) -> path, target (float32), split; others are ignored.

    Raises:
        UserError: a column is missing, or a line's target is no number or its split unknown.
    """
    rows = []
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, skipinitialspace=True)
            needed = (target, "path", "split")
            if missing := [column for column in needed if column not in (reader.fieldnames or ())]:
                raise UserError(
                    f"{file} has no column {', '.join(missing)}; it needs {', '.join(needed)}, separated by commas, in its first line"
                )
            for row in reader:
                if not row["path"]:
                    raise UserError(f"{file}, line {reader.line_num}: there is no path")
                if row["split"] not in SPLITS:
                    raise UserError(f"{file}, line {reader.line_num}: split = {row['split']!r}: write train, val or test")
                rows.append((row["path"], _number(file, reader.line_num, target, row[target]), row["split"]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} is no csv in UTF-8: {error}") from None
    table = pd.DataFrame(rows, columns=["path", "target", "split"]).astype({"target": np.float32})
    if several := int((table.groupby("path")["split"].nunique() > 1).sum()):
        say(f"{file}: {several} images stand in more than one split: they are trained on and tested on")
    return table


def _number(file: Path, line: int, target: str, text: str | None) -> float:
    try:
        if math.isfinite(number := float(text or "")):
            return number
    except ValueError:
        pass
    raise UserError(f"{file}, line {line}: {target} = {text!r} is not a number")


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


def _mat_content(beside: Path, crop: str, holder: Holder, remedy: str) -> tuple[bytes, Path]:
    """The content of imdb.mat / wiki.mat, in the archive or else `beside` it, and where it was found."""
    for place, where in ((holder.place(f"{crop}/{beside.name}"), holder.origin / beside.name), (Place(str(beside)), beside)):
        try:
            if place is not None:
                return place.read(), where
        except ValueError:
            continue
    raise UserError(f"{beside.name} is neither in {holder.origin} nor beside it. {remedy}")


def read_mat(content: bytes, file: Path, part: str, *, min_face_score: float) -> tuple[pd.DataFrame, dict[str, int]]:
    """A MATLAB v5 file's struct `part` -> path and age (whole years) of the rows that are kept, and the number left out, by reason.

    Kept: face_score of at least `min_face_score`, no second face, 0 to 200 years.

    Raises:
        UserError: it is no such file, or the struct or a field is missing; `file` is its name.
    """
    try:
        struct = loadmat(BytesIO(content), variable_names=[part]).get(part)  # type: ignore[arg-type]  # it takes files as well
    except Exception as error:  # whatever a damaged file leads to
        raise UserError(f"{file} is not a MATLAB v5 file: {error}. Remove it and bring it anew") from None
    if missing := [name for name in FIELDS if struct is None or name not in (struct.dtype.names or ())]:
        raise UserError(f"{file} has no field {', '.join(missing)} in a struct {part}: it is not the one of IMDB-WIKI")
    dob, taken, paths, score, second = (struct[0, 0][name].reshape(-1) for name in FIELDS)  # type: ignore[index]
    age = ages(dob, taken)
    # In the benchmark's comparisons a score that is not a number passes.
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
    """Whole years (N,) in the year `taken` (N,), from birth as MATLAB's serial day `dob` (N,).

    Who was born in July or later has not had that year's birthday yet.
    """
    # Fields of a few rows are nonsense (day 47 of the year 0): those become ages that the filter leaves out.
    ordinal = np.clip(np.nan_to_num(dob.astype(np.float64)).astype(np.int64) - FROM_MATLAB, 1, None)
    months = (ordinal - EPOCH).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    year, month = months // 12 + 1970, months % 12 + 1
    return taken.astype(np.int64) - year - (month >= 7)


def balanced_split(paths: Sequence[str], ages: Sequence[int], *, seed: int, most: int) -> list[str]:
    """The benchmark's split: of each age from 0 to 120 the same number in val and in test, a third but at most `most`; the rest in train.

    The draws are those of Python's `random` seeded with `seed`: one shuffle an age, in order, over the paths in their order.
    """
    draws, of_age = random.Random(seed), {age: list[str]() for age in SPLIT_AGES}
    for path, age in zip(paths, ages, strict=True):
        if age in of_age:
            of_age[age].append(path)
    val, test = set[str](), set[str]()
    for same in of_age.values():
        draws.shuffle(same)
        size = min(len(same) // 3, most)
        val.update(same[:size])
        test.update(same[size : 2 * size])
    return ["test" if path in test else "val" if path in val else "train" for path in paths]


def _top(path: str) -> str:
    """The first folder of a path; "" for a file without one."""
    return path.partition("/")[0] if "/" in path else ""


def _check_splits(kept: pd.DataFrame, rejected: pd.DataFrame, holders: Mapping[str, Holder]) -> None:
    present = set(kept["split"])
    if empty := [split for split in SPLITS if split not in present]:
        message = f"no image is left in {', '.join(empty)}: a run needs training, validation and test images"
        if len(rejected):
            path, reason = rejected.iloc[0]
            holder = holders[_top(path)]
            there = f"{holder.origin} holds for instance {next(holder.names(), 'nothing')}"
            message += f". {len(rejected)} could not be read, such as {path}: {reason} ({there})"
        raise UserError(message)
