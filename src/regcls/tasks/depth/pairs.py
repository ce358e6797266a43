"""Decodes, checks and scales pairs of images and depth maps into memory-mapped arrays."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regcls.data.archives import Place
from regcls.data.images import FORMATS, as_rgb, largest_16_bit_value, load_image
from regcls.data.store import Writer
from regcls.progress import progress
from regcls.tasks.depth.depth_files import DepthFiles, load_depth, scaled_measured

LEVELS = 256  # of training depth
GREY = {"train": ("8-bit", "L"), "test": ("16-bit", "I;16")}  # format of depth, and Pillow's mode
CHUNK = 32  # pairs processed at a time
T = TypeVar("T")
Pixels = tuple[NDArray[np.uint8], NDArray[np.unsignedinteger]]  # of a pair


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Target shape of pairs: scaled to `short_side`; test images are then cropped to height and width `crop`.

    NYUD2-DIR's are scaled as a whole. A user's own may have any shape: they are scaled to cover the crop, enlarged until its shorter side
    is `short_side`, and what is beyond it is cut off.
    """

    split: Literal["train", "test"]
    short_side: int
    crop: tuple[int, int]
    files: DepthFiles | None = None  # a user's own depth maps; None: NYUD2-DIR's

    @property
    def scaled(self) -> tuple[int, int]:
        """Height and width after scaling: 4:3, or as the crop."""
        if self.files:
            height, width = (round(side * self.short_side / min(self.crop)) for side in self.crop)
            return height, width
        return self.short_side, self.short_side * 4 // 3

    @property
    def stored(self) -> tuple[int, int]:
        """Height and width in the arrays."""
        return self.scaled if self.split == "train" else self.crop

    @property
    def centre(self) -> tuple[slice, slice]:
        """Slices of the centre crop in scaled images."""
        return _middle(self.scaled, self.crop)


def _middle(whole: tuple[int, int], part: tuple[int, int]) -> tuple[slice, slice]:
    top, left = ((outer - inner) // 2 for outer, inner in zip(whole, part, strict=True))
    return slice(top, top + part[0]), slice(left, left + part[1])


class Written(NamedTuple):
    """What became of pairs."""

    rejected: dict[int, str]  # row -> why it was left 0
    digests: dict[int, bytes]  # row -> SHA-256 of the image's file, of a user's own
    brightest: dict[int, int]  # row -> largest value of a 16-bit image, of a user's own


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


def write_pairs(writer: Writer, pairs: Sequence[Pair], shape: Shape, *, pool: Executor | None) -> Written:
    """Fill `<split>_images` and `<split>_depth`, a row per pair; of NYUD2-DIR also `train_levels`, the pixels in the crop at each level.

    Raises:
        UserError: there is not enough disk space.
        OSError: the disk is full.
    """
    kinds: dict[str, tuple[tuple[int, ...], type]] = {
        "images": ((*shape.stored, 3), np.uint8),
        "depth": (shape.stored, np.uint8 if shape.split == "train" and not shape.files else np.uint16),
    }
    if shape.split == "train" and not shape.files:
        kinds["levels"] = ((LEVELS,), np.uint32)
    arrays = {}
    for name, (size, dtype) in kinds.items():
        array = writer.empty(f"{shape.split}_{name}", (len(pairs), *size), dtype)
        arrays[name] = Array(str(array.filename), array.offset)
    # In the order on disk: the csv lists its archive's files in random order.
    work = sorted(enumerate(pairs), key=lambda item: _at(item[1].image))
    chunks = [work[start : start + CHUNK] for start in range(0, len(work), CHUNK)]
    write, found = partial(_write_chunk, arrays, shape), Written({}, {}, {})
    with progress(len(work), f"decoding {shape.split} pairs") as advance:
        results: Iterable[Written] = pool.map(write, chunks) if pool else map(write, chunks)
        for chunk, written in zip(chunks, results, strict=True):
            found.rejected.update(written.rejected)
            found.digests.update(written.digests)
            found.brightest.update(written.brightest)
            advance(len(chunk), f"{len(found.rejected)} rejected" if found.rejected else "")
    return found._replace(rejected=dict(sorted(found.rejected.items())))


def _at(place: Place | None) -> tuple[str, int]:
    return (place.file, place.offset) if place else ("", 0)


def _write_chunk(arrays: dict[str, Array], shape: Shape, chunk: Sequence[tuple[int, Pair]]) -> Written:
    written = Written({}, {}, {})
    for row, pair in chunk:
        try:
            image, depth = read_pair(pair, shape)
        except ValueError as error:
            written.rejected[row] = str(error)
        else:
            arrays["images"].write(row, image)
            arrays["depth"].write(row, depth)
            if "levels" in arrays:
                arrays["levels"].write(row, np.bincount(depth[shape.centre].ravel(), minlength=LEVELS).astype(np.uint32))
            if shape.files and pair.image:
                content = pair.image.read()
                written.digests[row] = hashlib.sha256(content).digest()
                if (largest := largest_16_bit_value(Image.open(BytesIO(content), formats=FORMATS))) is not None:
                    written.brightest[row] = largest
    return written


def read_pair(pair: Pair, shape: Shape) -> Pixels:
    """RGB pixels (*stored, 3), scaled bilinearly, and levels of depth (*stored), scaled by nearest neighbour, which invents no depths.

    Raises:
        ValueError: the pair is unusable; the message is `reason` or `reason: details`.
    """
    pixels, depth = _own_pair(pair, shape, shape.files) if shape.files else _benchmark_pair(pair, shape)
    return (pixels, depth) if shape.split == "train" else (pixels[shape.centre], depth[shape.centre])


def _benchmark_pair(pair: Pair, shape: Shape) -> Pixels:
    image, depth = _opened("image", pair.image, load_image), _opened("depth", pair.depth, load_image)
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
    return pixels, nearest


def _own_pair(pair: Pair, shape: Shape, files: DepthFiles) -> Pixels:
    image, (values, depths) = _opened("image", pair.image, load_image), _opened("depth", pair.depth, load_depth)
    if image.size != values.shape[::-1]:
        raise ValueError(f"image and depth differ in size: {_size(image)} and {values.shape[1]} × {values.shape[0]}")
    if image.height < shape.crop[0] or image.width < shape.crop[1]:
        raise ValueError(f"smaller than data.crop = {list(shape.crop)} (height, width): {_size(image)}")
    levels = files.levels(values, depths)
    factor = max(shape.scaled[0] / image.height, shape.scaled[1] / image.width)
    height, width = (max(least, round(side * factor)) for side, least in zip(levels.shape, shape.scaled, strict=True))
    part = _middle((height, width), shape.scaled)
    pixels = np.asarray(as_rgb(image).resize((width, height), Image.Resampling.BILINEAR))[part]
    depth = scaled_measured(levels, height, width)[part]
    if not depth[shape.centre].any():
        raise ValueError("no pixel of the depth map is measured within data.crop")
    return pixels, depth


def _opened(what: str, place: Place | None, parse: Callable[[bytes], T]) -> T:
    """Read a file.

    Raises:
        ValueError: the file is missing or unreadable.
    """
    if place is None or not os.path.exists(place.file):
        raise ValueError(f"{what} missing")
    try:
        return parse(place.read())
    except ValueError as error:
        raise ValueError(f"{what} unreadable: {error}") from None


def _size(image: Image.Image) -> str:
    return f"{image.width} × {image.height}"
