"""Decodes and resizes images once, into one memory-mapped array (N images, S pixels per side).

As in the benchmark: torchvision's bilinear resize to S × S regardless of the aspect ratio, and no rotation by EXIF tags.
"""

import warnings
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from regcls.data.archives import Place
from regcls.data.store import Writer
from regcls.processes import worker_pool
from regcls.progress import progress

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # not all of Pillow's: some of the others start external programs
CHUNK = 64  # images per task of a worker process


class UnknownRangeError(ValueError):
    """Pixels that cannot be converted to 8 bits, because their range is unknown."""


def decode(content: bytes, size: int) -> NDArray[np.uint8]:
    """An image file's content -> RGB pixels (size, size, 3), scaled bilinearly. Raises as `load_image` and `as_rgb` do."""
    return np.asarray(as_rgb(load_image(content)).resize((size, size), Image.Resampling.BILINEAR))


def load_image(content: bytes) -> Image.Image:
    """Open an image file's content and load all its pixels, unconverted.

    Raises:
        ValueError: it cannot be read; with the reason, and details of this file after a colon.
    """
    if not content:
        raise ValueError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(content), formats=FORMATS)
            image.load()
            return image
    except MemoryError:  # the machine's fault, not the file's
        raise
    except UnidentifiedImageError:
        raise ValueError("not an image of a known format") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(f"larger than {(Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels") from None
    except Exception as error:  # on damaged files, Pillow can raise anything
        raise ValueError(f"cut short or damaged: {error or type(error).__name__}") from None


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert grey, CMYK and palette images to RGB and 16 to 8 bits; drop transparency.

    Raises:
        UnknownRangeError: pixels cannot be converted to 8 bits.
        ValueError: they cannot be converted; with the reason.
    """
    if image.mode.startswith("I;16"):  # convert() would clip at 255 instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise UnknownRangeError(f"pixels of kind {image.mode} have no known range")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about dropped transparency
            return image if image.mode == "RGB" else image.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"cut short or damaged: {error or type(error).__name__}") from None


def write_images(writer: Writer, places: Sequence[Place | None], *, size: int, processes: int) -> dict[int, str]:
    """Fill the array `images` (N, size, size, 3) with one row per place; None is a missing file. Returns row -> why it was left black.

    Raises:
        UserError: a worker process was killed.
        OSError: the disk is full.
    """
    images = writer.empty("images", (len(places), size, size, 3), np.uint8)
    rejected = {row: "not in the archive" for row, place in enumerate(places) if place is None}
    # In the order of their positions in the archive: rows of imdb.mat are in random order.
    work = sorted(((row, place) for row, place in enumerate(places) if place is not None), key=lambda item: (item[1].file, item[1].offset))
    chunks = [work[start : start + CHUNK] for start in range(0, len(work), CHUNK)]
    write = partial(_write_chunk, str(images.filename), images.offset, size)
    with progress(len(work), "decoding images") as advance, worker_pool(processes) if processes > 1 else nullcontext() as pool:
        failures: Iterable[dict[int, str]] = pool.map(write, chunks) if pool else map(write, chunks)
        for chunk, reasons in zip(chunks, failures, strict=True):
            rejected |= reasons
            advance(len(chunk), f"{len(rejected)} rejected" if rejected else "")
    return dict(sorted(rejected.items()))


def _write_chunk(file: str, offset: int, size: int, chunk: Sequence[tuple[int, Place]]) -> dict[int, str]:
    """Decode and write a chunk. With write calls, not a memory map, whose pages would count as this process's memory."""
    rejected = {}
    with open(file, "r+b", buffering=0) as out:
        for row, place in chunk:
            try:
                pixels = decode(place.read(), size)
            except ValueError as error:
                rejected[row] = str(error)
            else:
                out.seek(offset + row * pixels.nbytes)
                out.write(pixels.data)
    return rejected
