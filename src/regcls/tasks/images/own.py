"""Looks at images of a user and their csv, and proposes a section of params.yaml."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from regcls.data.archives import Place
from regcls.data.images import load_image
from regcls.data.listed_files import all_columns, copies_of, noticed, path_column, remarks_on
from regcls.data.splits import SPLITS
from regcls.errors import UserError
from regcls.params.shots import DensityShots
from regcls.tasks.images.csv_file import read_csv
from regcls.tasks.images.params import Images
from regcls.tasks.task import Draft, NewFile
from regcls.words import counted

SHOTS = DensityShots(by="density", bins=20, many_above=1.0, few_below=0.25)
SIDE, SMALLEST_SIDE = 64, 32  # pixels of the network's input
EPOCHS = {2_000: 30, 20_000: 20}  # up to so many training images; beyond, 10
SAMPLE = 30  # images opened to see their size


def draft(new: NewFile) -> Draft:
    """See `Task.draft`."""
    base: Images = new.base
    table, separator = all_columns(new.file)
    path = path_column(new.file, table, "path")
    columns, splits = noticed(new.file, table, split=new.split, group=new.group)
    used = {path, *columns.values(), "split", "group"}
    target = new.target or _only_number(new.file, table.drop(columns=[name for name in table if name in used]), comma=separator != ",")
    if target in (path, *columns.values()):
        raise UserError(f"{new.file}: {target} cannot be the target and something else: name another column with --target")
    columns |= {"path": path} if path.casefold() != "path" else {}
    data = replace(base.data, source="raw", layout="csv", target=target, columns=columns, duplicates="refuse")
    listed = read_csv(new.file, data)
    copies, places = copies_of(new.file, listed, new.name, links=not new.in_place)
    existing = listed[listed["path"].isin(list(places))]
    counts = existing["split"].value_counts()
    if empty := [split for split in SPLITS if split not in counts]:
        raise UserError(f"{new.file}: no image is in {', '.join(empty)}: a run needs training, validation and test images")
    training = existing.loc[existing["split"] == "train", "target"].to_numpy(dtype=np.float64)
    side = _side(places.values())
    names = {path: "the image", target: "the target", **{name: key for key, name in columns.items() if name and key != "path"}}
    return Draft(
        section=_section(data.target, new.unit, columns, size=max(SMALLEST_SIDE, min(SIDE, side)), images=len(training)),
        files=copies,
        columns=names,
        target=target,
        training=training,
        tested=existing.loc[existing["split"] == "test", "target"].to_numpy(dtype=np.float64),
        things="images",
        shots=SHOTS,
        remarks=[
            f"{counted(len(existing), 'image')} ({', '.join(f'{counts[split]:,} {split}' for split in SPLITS)}), "
            f"typically {side} pixels on their shorter side",
            *splits,
            *remarks_on(listed, places),
        ],
    )


def _section(target: str, unit: str, columns: dict[str, str | None], *, size: int, images: int) -> dict[str, object]:
    epochs = next((count for most, count in EPOCHS.items() if images <= most), 10)
    classes = [count for count in (10, 100) if count <= images / 2] or [2]
    return {
        "data": {
            "source": "raw",
            "layout": "csv",
            "target": target,
            "unit": unit,
            **({"columns": columns} if columns else {}),
            "archives": [],
            "size": size,
            "exif": True,
            "expected_images": None,
        },
        "training": {
            "targets": "standardised",
            "class_range": "data",
            "model": "resnet18",
            "width": 8,
            "epochs": epochs,
            "milestones": [epochs * 2 // 3, epochs * 5 // 6],
            "batch_size": 32,
            "learning_rate": 0.004,
            "pad": 4,
        },
        "shots": vars(SHOTS),
        "run": {"classes": classes[-1]},
        "grids": {
            "table3": {"methods": ["reg", "reg+cls", "reg+cls-bal"], "classes": [*classes], "lambdas": "searched", "seeds": 3},
            "table4": None,
            "lambda_search": {"classes": classes, "lambdas": [0.1, 1.0, 10.0], "seeds": 1},
        },
    }


def _only_number(file: Path, table: pd.DataFrame, *, comma: bool) -> str:
    found = []
    for name, column in table.items():
        texts = column[column != ""]
        numbers = pd.to_numeric(texts.str.replace(",", ".") if comma else texts, errors="coerce")
        found += [str(name)] if name and len(texts) and numbers.notna().all() else []
    if len(found) != 1:
        there = f"the columns of numbers are {', '.join(found)}" if found else "no column has numbers only"
        raise UserError(f"{file}: name the target with --target; {there}")
    return found[0]


def _side(places: Iterable[Place]) -> int:
    """The median length of the shorter side of a few images, in pixels."""
    sides = []
    for place in islice(places, SAMPLE):
        with suppress(ValueError):  # prepare says which ones cannot be read
            sides.append(min(load_image(place.read()).size))
    if not sides:
        raise UserError(f"none of the first {SAMPLE} images can be read; docs/own-data.md lists the formats")
    return int(np.median(sides))
