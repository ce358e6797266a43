"""Looks at images and depth maps of a user and their csv, and proposes a section of params.yaml."""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls.data.archives import Place
from regcls.data.csv_file import fault
from regcls.data.images import load_image
from regcls.data.listed_files import all_columns, copies_of, noticed, path_column, remarks_on
from regcls.data.splits import SPLITS
from regcls.errors import UserError
from regcls.params.shots import DensityShots
from regcls.progress import tracked
from regcls.tasks.depth.depth_files import LEVELS, NOT_MEASURED, load_depth
from regcls.tasks.depth.params import Depth
from regcls.tasks.depth.prepare_csv import read_csv
from regcls.tasks.task import Draft, NewFile
from regcls.words import counted

SHOTS = DensityShots(by="density", bins=20, many_above=1.0, few_below=0.25)
SAMPLE = 40  # depth maps of a split that are opened
PIXELS = 10_000  # of a map, at most, drawn evenly
SHORTER = 64  # pixels of the crop's shorter side
SMALLEST_SIDE = 32
MILLIMETRE = 0.001


def draft(new: NewFile) -> Draft:
    """See `Task.draft`."""
    base: Depth = new.base
    table, _ = all_columns(new.file)
    columns, splits = noticed(new.file, table, split=new.split, group=new.group)
    image = path_column(new.file, table.drop(columns=[name for name in (new.target,) if name in table]), "image")
    columns |= {key: name for key, name in {"image": image, "depth": new.target}.items() if name and name.casefold() != key}
    data = replace(base.data, source="raw", layout="csv", columns=columns, duplicates="refuse")
    listed = read_csv(new.file, data)
    files = pd.concat([listed[["path", "line"]], listed[["depth_path", "line"]].rename(columns={"depth_path": "path"})])
    copies, places = copies_of(new.file, files, new.name, links=not new.in_place)
    for row in listed.itertuples():
        if lacking := [path for path in (str(row.path), str(row.depth_path)) if path not in places]:
            raise fault(new.file, int(str(row.line)), f"{lacking[0]} does not exist. Paths are relative to {new.file.parent}")
    train, test = (_sampled(new, listed[listed["split"] == split], places) for split in ("train", "test"))
    depths = np.concatenate([values for values, _ in train])
    steps = not all(is_depth for _, is_depth in train)
    scale = MILLIMETRE if steps else max(MILLIMETRE, float(f"{1.5 * depths.max() / (LEVELS - 1):.1g}"))
    unit_of_values = scale if steps else 1.0
    crop = _crop(new, listed, places)
    target, unit = new.target or "depth", new.unit or base.data.unit
    counts = listed["split"].value_counts()
    return Draft(
        section=_section(target, unit, columns, scale=scale, crop=crop),
        files=copies,
        columns={columns.get(key) or key: meaning for key, meaning in {"image": "an image", "depth": "its depth map"}.items()},
        target=target,
        training=depths * unit_of_values,
        tested=np.concatenate([values for values, _ in test]) * unit_of_values,
        things="pixels",
        shots=SHOTS,
        remarks=[
            f"{counted(len(listed), 'pair')} ({', '.join(f'{counts[split]:,} {split}' for split in SPLITS)})",
            f"a step of depth is {scale:g} {unit}: change data.depth_scale if it is another (1/256 m in KITTI)"
            if steps
            else f"depths are rounded to {scale:g} {unit} (data.depth_scale)",
            *([f"some pixels have {NOT_MEASURED}"] if steps and depths.max() == LEVELS - 1 else []),
            f"pixels: of up to {SAMPLE} maps of a split, and up to {PIXELS:,} of each map",
            *splits,
            *remarks_on(files, places),
        ],
    )


def _sampled(new: NewFile, listed: pd.DataFrame, places: dict[str, Place]) -> list[tuple[NDArray[np.float64], bool]]:
    """Measured values of evenly chosen maps of a split, and whether they are depths, not steps."""
    chosen = listed.iloc[np.unique(np.linspace(0, len(listed) - 1, min(SAMPLE, len(listed)), dtype=int))]
    sampled = []
    for path, line in tracked(zip(chosen["depth_path"], chosen["line"], strict=True), len(chosen), "looking at depth maps"):
        try:
            values, is_depth = load_depth(places[path].read())
        except ValueError as error:
            raise fault(new.file, int(line), f"{path}: {error}") from None
        flat = values.ravel().astype(np.float64)
        measured = flat[np.isfinite(flat) & (flat > 0)]
        sampled.append((measured[:: max(1, len(measured) // PIXELS)], is_depth))
    if not any(len(values) for values, _ in sampled):
        raise UserError(f"{new.file}: no depth map has a pixel above 0")
    return sampled


def _crop(new: NewFile, listed: pd.DataFrame, places: dict[str, Place]) -> list[int]:
    """Even height and width of the network's input, in the shape of the first image; no looked-at image has a shorter shorter side."""
    sizes = []
    for path, line in zip(listed["path"][:SAMPLE], listed["line"][:SAMPLE], strict=True):
        try:
            sizes.append(load_image(places[path].read()).size[::-1])
        except ValueError as error:
            raise fault(new.file, int(line), f"{path}: {error}") from None
    scale = min(SHORTER, *map(min, sizes)) / min(sizes[0])
    return [max(SMALLEST_SIDE, int(side * scale) // 2 * 2) for side in sizes[0]]


def _section(target: str, unit: str, columns: dict[str, str | None], *, scale: float, crop: list[int]) -> dict[str, object]:
    return {
        "data": {
            "layout": "csv",
            "source": "raw",
            "target": target,
            "unit": unit,
            **({"columns": columns} if columns else {}),
            "depth_scale": scale,
            "deepest": "data",
            "archives": [],
            "short_side": min(crop) + 8,
            "crop": crop,
            "expected_train": None,
            "expected_test": None,
        },
        "training": {
            "class_range": "data",
            "depth_resampling": "measured",
            "model": "resnet18",
            "width": 8,
            "weights": "random",
            "epochs": 10,
            "milestones": [8],
            "accumulate": 1,
            "balanced_batch_size": 16,
            "balanced_accumulate": 1,
            "learning_rate": 0.002,
        },
        "shots": {"by": "density"},
        "grids": {
            "table2": {"methods": ["reg", "reg+cls", "reg+cls-bal"], "classes": [10, 100], "lambdas": "searched", "seeds": 3},
            "table4": None,
            "lambda_search": {"classes": [10, 100], "lambdas": [0.1, 1.0, 10.0], "seeds": 1},
        },
    }
