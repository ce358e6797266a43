"""Prepare pairs of images and depth maps from the archive of NYUD2-DIR or files in its layout (protocol, section 4), or from a csv.

The rows of rejected test pairs are zero in `test_images`, `test_depth` and `test_mask`.
"""

import csv
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import default_rng
from numpy.typing import NDArray

from regcls.data.archives import Holder, Place, missing_remedy
from regcls.data.counts import check_count
from regcls.data.drawn_splits import held_out
from regcls.data.splits import SPLITS
from regcls.data.store import Writer, deciding_parameters, prepared_writer
from regcls.errors import UserError
from regcls.files import temporary_folder
from regcls.processes import check_memory, worker_pool
from regcls.progress import tracked
from regcls.tasks.depth.data import DEEPEST, LEVELS_PER_METRE, PER_METRE, DepthSet, buckets_of, level_buckets
from regcls.tasks.depth.pairs import LEVELS, Pair, Shape, write_pairs
from regcls.tasks.depth.params import BUCKETS, DepthData, DepthShots, by_bucket
from regcls.tasks.depth.prepare_csv import prepare_csv
from regcls.tasks.depth.stand_in import write_archive
from regcls.words import counted

TOP = "data"  # first folder of all paths
MASK = "test_balanced_mask.npy"
FIRST_BUCKET = 7  # the first one with test pixels: 0.7 m


def prepare(data: DepthData, folder: Path, *, raw: Path, dataset: str, processes: int) -> None:
    """Write the prepared images and depth maps of `dataset` to `folder`.

    With source `stand-in`, an archive is generated in a temporary folder and read by the same code.

    Raises:
        UserError: a file is missing, damaged or invalid, the number of pairs is far from the expected one, or the disk is full.
    """
    if data.layout == "csv":
        prepare_csv(data, folder, raw=raw, dataset=dataset, processes=processes)
        return
    if (widest := Shape(split="test", short_side=data.short_side, crop=data.crop).scaled[1]) < data.crop[1]:
        raise UserError(
            f"{dataset}.data.crop = {list(data.crop)}: with short_side = {data.short_side} images are only {widest} pixels wide"
        )
    if data.source == "raw":
        remedy = missing_remedy(raw, dataset, data.archives)
        _prepare(data, folder, raw, dataset, processes, remedy=remedy)
        return
    with temporary_folder() as archives:
        write_archive(archives, data.stand_in, short_side=data.short_side, processes=processes)
        _prepare(data, folder, archives, dataset, processes, remedy="")


def _prepare(data: DepthData, folder: Path, raw: Path, dataset: str, processes: int, *, remedy: str) -> None:
    holder = Holder(raw, TOP, remedy=remedy)
    listings = {split: read_csv(holder, raw, f"nyu2_{split}.csv", remedy=remedy) for split in ("train", "test")}
    for split, listing in listings.items():
        _check_count(data, dataset, split, len(listing), {})
    official = _official_mask(holder, raw, (len(listings["test"]), *data.crop))
    with (
        prepared_writer(folder, made_from=deciding_parameters(data)) as writer,
        worker_pool(processes) if processes > 1 else nullcontext() as pool,
    ):
        tables, rejected = [], []
        for split, listing in listings.items():
            pairs = [
                Pair(holder.place(image), holder.place(depth)) for image, depth in zip(listing["path"], listing["depth_path"], strict=True)
            ]
            shape = Shape(split="train" if split == "train" else "test", short_side=data.short_side, crop=data.crop)
            reasons = write_pairs(writer, pairs, shape, pool=pool).rejected
            rejected.append(pd.DataFrame({"path": listing["path"].iloc[list(reasons)], "reason": list(reasons.values())}))
            by_reason = Counter(reason.partition(":")[0] for reason in reasons.values())
            _check_count(data, dataset, split, len(listing) - len(reasons), by_reason)
            tables.append(_split(data, dataset, split, listing).drop(index=list(reasons)))
        table, left_out = pd.concat(tables, ignore_index=True), pd.concat(rejected, ignore_index=True)
        _check_splits(table, left_out)
        writer.save_table(table)
        left_out.to_csv(writer.folder / "rejected.csv", index=False)
        _write_mask(writer, official, seed=data.mask_seed)
        _note_counts(writer, table, left_out)


def read_csv(holder: Holder, raw: Path, name: str, *, remedy: str) -> pd.DataFrame:
    """Read a csv without a header, in the archive or next to it: path, depth_path, scene (the image's folder; "" for test images), row.

    Raises:
        UserError: the csv is missing, or a line is not two paths that begin with data/.
    """
    if (place := _find(holder, raw, name)) is None:
        raise UserError(f"{name} is neither in {holder.origin} nor next to it. {remedy}")
    file, rows = f"{name} in {holder.origin}", []
    try:
        reader = csv.reader(StringIO(place.read().decode("utf-8-sig"), newline=""), skipinitialspace=True)
        for line in reader:
            if not line:
                continue
            if len(line) != 2 or not all(path.startswith(f"{TOP}/") for path in line):
                raise UserError(
                    f"{file}, line {reader.line_num}: {','.join(line)!r}: write the image's path and its depth map's, both beginning with "
                    f"{TOP}/, separated by a comma; no heading"
                )
            rows.append((line[0], line[1]))
    except (ValueError, csv.Error) as error:
        raise UserError(f"{file} is not a CSV file in UTF-8: {error}") from None
    table = pd.DataFrame(rows, columns=["path", "depth_path"], dtype=str)
    scenes = [path.split("/")[-2] if "train" in name else "" for path in table["path"]]
    return table.assign(scene=scenes, row=np.arange(len(table)))


def _find(holder: Holder, raw: Path, name: str) -> Place | None:
    """The location of a file: in the archive, else next to it."""
    places = (holder.place(f"{TOP}/{name}"), Place(str(raw / name)))
    return next((place for place in places if place and Path(place.file).exists()), None)


def _split(data: DepthData, dataset: str, split: str, listing: pd.DataFrame) -> pd.DataFrame:
    if split == "test":
        return listing.assign(split="test")
    if (scenes := listing["scene"].nunique()) < 2:
        raise UserError(
            f"{dataset}: training images are from {counted(scenes, 'scene')}, but validation needs whole scenes to hold out: put each "
            f"scene's images into its own folder, {TOP}/nyu2_train/<scene>/"
        )
    validation = held_out(listing["scene"].tolist(), share=data.validation_share, seed=data.split_seed)
    return listing.assign(split=np.where(listing["scene"].isin(validation), "val", "train"))


def _official_mask(holder: Holder, raw: Path, shape: tuple[int, int, int]) -> NDArray[np.bool_] | None:
    """The benchmark's mask of `shape` (T, H, W), if there is one.

    Raises:
        UserError: it has another shape, or other values than 0 and 1.
    """
    if (place := _find(holder, raw, MASK)) is None:
        return None
    name = place.file if place.file.endswith(MASK) else f"{MASK} in {place.file}"
    try:
        mask = np.load(BytesIO(place.read()), allow_pickle=False)
    except Exception as error:  # a damaged header can raise anything
        raise UserError(f"{name} is not a NumPy array: {error}. Fetch it again, or remove it to have a mask drawn") from None
    if mask.shape != shape:
        raise UserError(
            f"{name} has shape {mask.shape}; {shape[0]} test images of {shape[1]} × {shape[2]} pixels need {shape}. "
            "Remove it to have a mask drawn"
        )
    if mask.dtype.kind not in "bui" or mask.max() > 1 or mask.min() < 0:
        raise UserError(f"{name} has other values than 0 and 1. Fetch it again, or remove it to have a mask drawn")
    return np.asarray(mask, dtype=np.bool_)


def _write_mask(writer: Writer, official: NDArray[np.bool_] | None, *, seed: int) -> None:
    """Write the array `test_mask`: the measured pixels of the official mask, or a drawn mask without one."""
    depth = np.load(writer.folder / "test_depth.npy", mmap_mode="r")
    check_memory(20 * depth.size, f"choosing test pixels from {counted(len(depth), 'image')}")  # masks, buckets, and 64-bit positions
    mask = draw_mask(depth, seed=seed) if official is None else official & (depth > 0)
    if not mask.any():
        why = "no test image has depths from 0.7 m on" if official is None else f"{MASK} selects no measured pixel"
        raise UserError(f"no pixel is left to test on: {why}")
    writer.save("test_mask", mask)
    writer.notes |= {
        "mask": "drawn" if official is None else MASK,
        "buckets": {"test": _histogram(_buckets(depth)[depth > 0]), "mask": _histogram(_buckets(depth)[mask])},
    }


def draw_mask(depth: NDArray[np.uint16], *, seed: int) -> NDArray[np.bool_]:
    """A balanced mask (T, H, W) for `depth` (millimetres): from each bucket from 0.7 m on, as many pixels as the rarest of them has.

    Empty buckets are disregarded.
    """
    buckets, rng = _buckets(depth).ravel(), default_rng(seed)
    present = np.bincount(buckets, minlength=BUCKETS)
    tested = [bucket for bucket in range(FIRST_BUCKET, BUCKETS) if present[bucket]]
    mask = np.zeros(buckets.shape, dtype=np.bool_)
    for bucket in tracked(tested, len(tested), "drawing test pixels"):
        mask[rng.choice(np.flatnonzero(buckets == bucket), present[tested].min(), replace=False)] = True
    return mask.reshape(depth.shape)


def _buckets(depth: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Buckets of depths in millimetres; unmeasured pixels are in bucket 0, which is never tested."""
    return buckets_of(np.arange(2**16) / PER_METRE, DEEPEST)[depth]


def _histogram(buckets: NDArray[np.uint8]) -> list[int]:
    counted: list[int] = np.bincount(buckets, minlength=BUCKETS).tolist()
    return counted


def _note_counts(writer: Writer, table: pd.DataFrame, left_out: pd.DataFrame) -> None:
    levels = np.load(writer.folder / "train_levels.npy", mmap_mode="r")
    of_split = {split: table[table["split"] == split] for split in SPLITS}
    for split in ("train", "val"):
        pixels = levels[of_split[split]["row"].to_numpy()].sum(0, dtype=np.int64)
        writer.notes["buckets"][split] = level_buckets(pixels, np.arange(LEVELS) / LEVELS_PER_METRE, DEEPEST).tolist()
    writer.notes |= {
        "images": {split: len(rows) for split, rows in of_split.items()},
        "scenes": {split: int(of_split[split]["scene"].nunique()) for split in ("train", "val")},
        "rejected": dict(Counter(reason.partition(":")[0] for reason in left_out["reason"])),
    }


def counts(folder: Path, shots: DepthShots) -> list[str]:
    """Summarise the prepared data in lines of text: images and scenes by split, pixels by shot group, and what was rejected and why.

    Raises:
        UserError: `folder` is missing or damaged.
    """
    notes = DepthSet(folder).prepared.meta["notes"]
    groups = by_bucket(shots.groups(notes["buckets"]["train"]))

    def pixels(*names: str) -> str:
        grouped = Counter[str]()
        for shot, number in zip(groups, np.sum([notes["buckets"][name] for name in names], axis=0).tolist(), strict=True):
            grouped[shot] += number
        return "; ".join(f"{shot} {grouped[shot]} ({grouped[shot] / grouped.total():.1%})" for shot in ("many", "medium", "few"))

    def scenes(split: str) -> str:
        return f" of {notes['scenes'][split]} scenes" if split in notes["scenes"] else ""

    return [
        *(f"{split:5s} {notes['images'][split]:7d} images{scenes(split)}" for split in ("train", "val")),
        f"test  {notes['images']['test']:7d} images",
        f"train and val pixels with depth: {pixels('train', 'val')}",
        f"test pixels with depth: {pixels('test')}",
        *([] if notes["mask"] == "all" else [f"test pixels in the mask ({notes['mask']}): {pixels('mask')}"]),
        *(f"rejected: {number:7d} {reason} (rejected.csv)" for reason, number in notes["rejected"].items()),
    ]


def _check_count(data: DepthData, dataset: str, split: str, pairs: int, left_out: Mapping[str, int]) -> None:
    expected = (data.expected_train if split == "train" else data.expected_test) if data.source == "raw" else None
    check_count(pairs, expected, what=f"{split} pairs", dataset=dataset, key=f"expected_{split}", left_out=left_out)


def _check_splits(table: pd.DataFrame, left_out: pd.DataFrame) -> None:
    if empty := [split for split in SPLITS if split not in set(table["split"])]:
        message = f"no pair is left in {', '.join(empty)}: a run needs training, validation and test images"
        if len(left_out):
            message += f". {len(left_out)} were rejected, such as {left_out['path'][0]}: {left_out['reason'][0]}"
        raise UserError(message)
