"""Prepare pairs of a user's own, which a csv file lists: images and depth maps of any range, shape and sparsity."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls.data.archives import missing_remedy
from regcls.data.counts import check_count
from regcls.data.csv_file import check_copies, check_paths, fault, holders_of, path_in, read_rows, splits_of, top_of
from regcls.data.images import darkness
from regcls.data.splits import SPLITS
from regcls.data.store import Writer, deciding_parameters, prepared_writer
from regcls.errors import UserError
from regcls.processes import worker_pool
from regcls.progress import say, tracked
from regcls.tasks.depth.data import level_buckets
from regcls.tasks.depth.depth_files import LEVELS, NOT_MEASURED, DepthFiles
from regcls.tasks.depth.pairs import Pair, Shape, write_pairs
from regcls.tasks.depth.params import DepthData
from regcls.words import counted


def prepare_csv(data: DepthData, folder: Path, *, raw: Path, dataset: str, processes: int) -> None:
    """Write the pairs that raw/<dataset>.csv lists to `folder`. All their measured pixels in the crop are for training, or test pixels.

    Raises:
        UserError: the csv or a pair is missing or invalid, with the line; a split is empty; or the disk is full.
    """
    file, remedy = raw / f"{dataset}.csv", missing_remedy(raw, dataset, data.archives)
    if not file.exists():
        raise UserError(f"there is no {file.name} in {raw}. {remedy}")
    table = read_csv(file, data)
    listed = pd.concat([table[["path", "line"]], table[["depth_path", "line"]].rename(columns={"depth_path": "path"})])
    holders = holders_of(file, listed, remedy=remedy, links=False)
    parts = {"train": table[table["split"] != "test"], "test": table[table["split"] == "test"]}
    for split, expected in (("train", data.expected_train), ("test", data.expected_test)):
        labels = {"what": f"{split} pairs", "dataset": dataset, "key": f"expected_{split}"}
        check_count(len(parts[split]), expected, **labels, left_out={})
    with (
        prepared_writer(folder, made_from=deciding_parameters(data)) as writer,
        worker_pool(processes) if processes > 1 else nullcontext() as pool,
    ):
        tables, digests, brightest = [], list[bytes](), list[int]()
        train = Shape(
            split="train", short_side=data.short_side, crop=data.crop, files=DepthFiles(scale=data.depth_scale, invalid=data.invalid)
        )
        for shape in (train, replace(train, split="test")):
            part = parts[shape.split]
            images, maps = ([holders[top_of(path)].place(path) for path in part[column]] for column in ("path", "depth_path"))
            written = write_pairs(writer, list(map(Pair, images, maps)), shape, pool=pool)
            if written.rejected:
                raise _unusable(file, part, written.rejected)
            tables.append(part.assign(row=np.arange(len(part))))
            digests += [written.digests[row] for row in range(len(part))]
            brightest += written.brightest.values()
        if dark := darkness(brightest, "multiply their values by {factor}"):
            say(dark)
        kept = pd.concat(tables, ignore_index=True)
        if data.duplicates == "refuse":
            check_copies(file, kept.assign(row=np.arange(len(kept))), dict(enumerate(digests)), dataset)
        writer.save_table(kept.drop(columns="line"))
        _write_levels(writer, kept, data, dataset, centre=train.centre)


def _unusable(file: Path, part: pd.DataFrame, reasons: Mapping[int, str]) -> UserError:
    """The error for rows of `part` whose pairs cannot be used."""
    row, reason = next(iter(reasons.items()))
    pair = part.iloc[row]
    more = f" ({counted(len(reasons) - 1, 'more line is', 'more lines are')} wrong)" if len(reasons) > 1 else ""
    return fault(file, pair["line"], f"{pair['path']} and {pair['depth_path']}: {reason}. Mend the files or remove the line{more}")


def read_csv(file: Path, data: DepthData) -> pd.DataFrame:
    """Read path, depth_path, scene (the group; "" without groups), split and line of each pair. Without splits they are drawn, by groups.

    Raises:
        UserError: it is not a csv file, a column is missing, a split is unknown or empty, a path is outside the file's folder, or an image
            is in several splits or has several depth maps.
    """
    rows = list(read_rows(file, ("image", "depth"), ("split", "group"), named=data.columns))
    if not rows:
        raise UserError(f"{file} lists no pairs: write a line for each, with the paths of an image and of its depth map")
    table = pd.DataFrame(
        {
            "path": [path_in(file, row, "image") for row in rows],
            "depth_path": [path_in(file, row, "depth") for row in rows],
            "scene": [row.texts.get("group", "").strip() for row in rows],
            "line": [row.line for row in rows],
        }
    )
    shares = {"test_share": data.test_share, "validation_share": data.validation_share}
    table["split"] = splits_of(file, rows, table["path"].tolist(), **shares, seed=data.split_seed)
    check_paths(file, table.rename(columns={"depth_path": "target"}), refuse=data.duplicates == "refuse")
    if empty := [split for split in SPLITS if split not in set(table["split"])]:
        raise UserError(f"{file}: no pair is in {', '.join(empty)}: a run needs training, validation and test images")
    return table


def _write_levels(writer: Writer, table: pd.DataFrame, data: DepthData, dataset: str, *, centre: tuple[slice, slice]) -> None:
    """Write the mask, and the number of pixels of each split in the crop at each level (65 536,); note what they say."""
    depth = {name: np.load(writer.folder / f"{name}_depth.npy", mmap_mode="r") for name in ("train", "test")}
    writer.save("test_mask", depth["test"] > 0)
    levels = {}
    for split in SPLITS:
        rows = table.loc[table["split"] == split, "row"].tolist()
        maps = (depth["test"][row] if split == "test" else depth["train"][row][centre] for row in rows)
        levels[split] = _histogram(tracked(maps, len(rows), f"counting {split} pixels"))
        if split != "test":
            writer.save(f"{split}_levels", levels[split])
    per_unit, measured = 1 / data.depth_scale, levels["train"][1:]
    depths = np.arange(LEVELS) / per_unit
    greatest = float(depths[1:][measured > 0][-1])
    deepest = greatest if data.deepest == "data" else data.deepest
    if (beyond := int(measured[depths[1:] > deepest].sum())) > measured.sum() / 2:
        raise UserError(
            f"{beyond:,} of {measured.sum():,} training pixels are deeper than {dataset}.data.deepest = {deepest:g}, up to {greatest:g}: "
            "set it to data, or to the range of the depths, in params.yaml"
        )
    if beyond:
        say(f"{beyond:,} of {measured.sum():,} training pixels are deeper than {deepest:g} (data.deepest): they share the last bucket")
    if full := int(sum(counts[-1] for counts in levels.values())):
        say(f"{counted(full, 'prepared pixel has', 'prepared pixels have')} {NOT_MEASURED}")
    buckets = {split: level_buckets(levels[split], depths, deepest).tolist() for split in SPLITS}
    grouped = {split: table.loc[table["split"] == split, "scene"] for split in ("train", "val")}
    writer.notes |= {
        "own": {"per_unit": per_unit, "deepest": deepest},
        "mask": "all",
        "buckets": buckets | {"mask": buckets["test"]},
        "images": table["split"].value_counts().to_dict(),
        "scenes": {split: int(scenes.nunique()) for split, scenes in grouped.items() if scenes.any()},
        "rejected": {},
    }


def _histogram(maps: Iterator[NDArray[np.uint16]]) -> NDArray[np.int64]:
    levels = np.zeros(LEVELS, dtype=np.int64)
    for one in maps:
        levels += np.bincount(one.ravel(), minlength=LEVELS)
    return levels
