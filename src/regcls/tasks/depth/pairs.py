"""Decodes, checks and scales pairs of images and depth maps into memory-mapped arrays."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regcls.data.archives import Place
from regcls.data.images import as_rgb, load_image
from regcls.data.store import Writer
from regcls.progress import progress

LEVELS = 256  # of training depth
GREY = {"train": ("8-bit", "L"), "test": ("16-bit", "I;16")}  # format of depth, and Pillow's mode
CHUNK = 32  # pairs processed at a time


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Target shape of pairs: scaled to `short_side`; test images are then cropped to height and width `crop`."""

    split: Literal["train", "test"]
    short_side: int
    crop: tuple[int, int]

    @property
    def scaled(self) -> tuple[int, int]:
        """Height and width after scaling, 4:3."""
        return self.short_side, self.short_side * 4 // 3

    @property
    def stored(self) -> tuple[int, int]:
        """Height and width in the arrays."""
        return self.scaled if self.split == "train" else self.crop

    @property
    def centre(self) -> tuple[slice, slice]:
        """Slices of the centre crop in scaled images."""
        top, left = ((whole - part) // 2 for whole, part in zip(self.scaled, self.crop, strict=True))
        return slice(top, top + self.crop[0]), slice(left, left + self.crop[1])


class Pair(NamedTuple):
    """Locations of an image and its depth map; None if a file is missing."""

    image: Place | None
    depth: Place | None


class Array(NamedTuple):
    """An array file that worker processes write to, and the offset of its rows."""

    file: str
    offset: int  # bytes

    def write(self, row: int, content: NDArray[np.generic]) -> None:
        """Write a row, without mapping the file: mapped pages would count as this process's memory."""
        with open(self.file, "r+b", buffering=0) as out:
            out.seek(self.offset + row * content.nbytes)
            out.write(np.ascontiguousarray(content).data)


def write_pairs(writer: Writer, pairs: Sequence[Pair], shape: Shape, *, pool: Executor | None) -> dict[int, str]:
    """Fill `<split>_images` and `<split>_depth`, a row per pair, and `train_levels`, the number of pixels in the crop at each level.

    Returns row -> reason, for rejected pairs, whose rows stay 0.

    Raises:
        UserError: there is not enough disk space.
        OSError: the disk is full.
    """
    kinds: dict[str, tuple[tuple[int, ...], type]] = {
        "images": ((*shape.stored, 3), np.uint8),
        "depth": (shape.stored, np.uint8 if shape.split == "train" else np.uint16),
    }
    if shape.split == "train":
        kinds["levels"] = ((LEVELS,), np.uint32)
    arrays = {}
    for name, (size, dtype) in kinds.items():
        array = writer.empty(f"{shape.split}_{name}", (len(pairs), *size), dtype)
        arrays[name] = Array(str(array.filename), array.offset)
    # In the order on disk: the csv lists its archive's files in random order.
    work = sorted(enumerate(pairs), key=lambda item: _at(item[1].image))
    chunks = [work[start : start + CHUNK] for start in range(0, len(work), CHUNK)]
    write, rejected = partial(_write_chunk, arrays, shape), dict[int, str]()
    with progress(len(work), f"decoding {shape.split} pairs") as advance:
        results: Iterable[dict[int, str]] = pool.map(write, chunks) if pool else map(write, chunks)
        for chunk, reasons in zip(chunks, results, strict=True):
            rejected |= reasons
            advance(len(chunk), f"{len(rejected)} rejected" if rejected else "")
    return dict(sorted(rejected.items()))


def _at(place: Place | None) -> tuple[str, int]:
    return (place.file, place.offset) if place else ("", 0)


def _write_chunk(arrays: dict[str, Array], shape: Shape, chunk: Sequence[tuple[int, Pair]]) -> dict[int, str]:
    rejected = {}
    for row, pair in chunk:
        try:
            image, depth = read_pair(pair, shape)
        except ValueError as error:
            rejected[row] = str(error)
        else:
            arrays["images"].write(row, image)
            arrays["depth"].write(row, depth)
            if "levels" in arrays:
                arrays["levels"].write(row, np.bincount(depth[shape.centre].ravel(), minlength=LEVELS).astype(np.uint32))
    return rejected


def read_pair(pair: Pair, shape: Shape) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | NDArray[np.uint16]]:
    """RGB pixels (*stored, 3), scaled bilinearly, and depth (*stored), scaled by nearest neighbour, which invents no depths.

    Raises:
        ValueError: the pair is unusable; the message is `reason` or `reason: details`.
    """
    image, depth = _opened("image", pair.image), _opened("depth", pair.depth)
    if image.size != depth.size:
        raise ValueError(f"image and depth differ in size: {_size(image)} and {_size(depth)}")
    height, width = shape.scaled
    if abs(image.width * height - width * image.height) >= image.height:  # at least a pixel off after scaling
        raise ValueError(f"not 4:3: {_size(image)}")
    if image.height < shape.crop[0] or image.width < shape.crop[1]:
        raise ValueError(f"smaller than the crop: {_size(image)}")
    bits, mode = GREY[shape.split]
    if depth.mode != mode:
        raise ValueError(f"depth is not {bits} grey: {depth.mode}")
    pixels = np.asarray(as_rgb(image).resize((width, height), Image.Resampling.BILINEAR))
    nearest = np.asarray(depth.resize((width, height), Image.Resampling.NEAREST))
    if not nearest[shape.centre].any():
        raise ValueError("all-zero depth")
    return (pixels, nearest) if shape.split == "train" else (pixels[shape.centre], nearest[shape.centre])


def _opened(what: str, place: Place | None) -> Image.Image:
    """Read an image.

    Raises:
        ValueError: the file is missing or unreadable.
    """
    if place is None or not os.path.exists(place.file):
        raise ValueError(f"{what} missing")
    try:
        return load_image(place.read())
    except ValueError as error:
        raise ValueError(f"{what} unreadable: {error}") from None


def _size(image: Image.Image) -> str:
    return f"{image.width} × {image.height}"
