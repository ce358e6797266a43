"""Decodes and resizes images once, into one memory-mapped array (N images, S pixels per side).

As in the benchmark: torchvision's bilinear resize to S × S regardless of the aspect ratio.
"""

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from regcls.data.archives import Place
from regcls.data.store import Writer
from regcls.processes import worker_pool
from regcls.progress import progress
from regcls.words import counted

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # not all of Pillow's: some of the others start external programs
CHUNK = 64  # images per task of a worker process
DARK = 2**14  # values of 16-bit images; if all are below, they probably hold 8 to 14 bits


class Written(NamedTuple):
    """What became of the rows of an array of images."""

    rejected: dict[int, str]  # row -> why it was left black
    digests: dict[int, bytes]  # row -> SHA-256 of the image's file
    brightest: dict[int, int]  # row -> largest value of a 16-bit image


class UnknownRangeError(ValueError):
    """Pixels that cannot be converted to 8 bits, because their range is unknown."""


def decode(content: bytes, size: int, *, exif: bool = False, bits: int = 16) -> NDArray[np.uint8]:
    """An image file's content -> RGB pixels (size, size, 3), scaled bilinearly. Raises as `load_image` and `as_rgb` do."""
    return _scaled(load_image(content, exif=exif), size, bits)


def _scaled(image: Image.Image, size: int, bits: int) -> NDArray[np.uint8]:
    return np.asarray(as_rgb(image, bits).resize((size, size), Image.Resampling.BILINEAR))


def load_image(content: bytes, *, exif: bool = False) -> Image.Image:
    """Open an image file's content and load all its pixels, unconverted; with `exif`, turned upright by its EXIF orientation.

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
            return ImageOps.exif_transpose(image) if exif else image
    except MemoryError:  # the machine's fault, not the file's
        raise
    except UnidentifiedImageError:
        raise ValueError("not an image of a known format") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(f"larger than {(Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels") from None
    except Exception as error:  # on damaged files, Pillow can raise anything
        raise ValueError(f"cut short or damaged: {error or type(error).__name__}") from None


def darkness(brightest: Sequence[int], remedy: str) -> str | None:
    """What to say of 16-bit images that seem to hold fewer bits; None if they do not.

    `brightest`: the largest value of each; `remedy` may have places for {bits} and {factor}, which makes them bright.
    """
    if not brightest or (largest := max(brightest)) >= DARK:
        return None
    bits = max(8, largest.bit_length())
    images, remedy = counted(len(brightest), "16-bit image"), remedy.format(bits=bits, factor=2 ** (16 - bits))
    return f"the largest value of the {images} is {largest:,}, so they become dark: if they hold {bits} bits, {remedy}"


def largest_16_bit_value(image: Image.Image) -> int | None:
    """The largest value of a 16-bit image; None for other images."""
    return int(np.asarray(image).max()) if _has_16_bits(image) else None


def _has_16_bits(image: Image.Image) -> bool:
    return image.mode.startswith("I;16")


def as_rgb(image: Image.Image, bits: int = 16) -> Image.Image:
    """Convert grey, CMYK and palette images to RGB and 16 to 8 bits; drop transparency.

    Of the `bits` bits that 16-bit images hold, the upper 8 are kept, whatever the brightest pixel: the images of a data set must keep their
    brightness relative to each other.

    Raises:
        UnknownRangeError: pixels cannot be converted to 8 bits.
        ValueError: they cannot be converted; with the reason.
    """
    if _has_16_bits(image):  # convert() would clip at 255 instead of scaling
        upper = np.asarray(image) >> (bits - 8)
        if upper.max() > 255:
            raise ValueError(f"more than {bits} bits: its largest value is {np.asarray(image).max()}")
        image = Image.fromarray(upper.astype(np.uint8))
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


def write_images(
    writer: Writer, places: Sequence[Place | None], *, size: int, exif: bool = False, bits: int = 16, processes: int
) -> Written:
    """Fill the array `images` (N, size, size, 3) with one row per place; None is a missing file.

    Raises:
        UserError: a worker process was killed.
        OSError: the disk is full.
    """
    images = writer.empty("images", (len(places), size, size, 3), np.uint8)
    rejected = {row: "not in the archive" for row, place in enumerate(places) if place is None}
    digests, brightest = dict[int, bytes](), dict[int, int]()
    # In the order of their positions in the archive: rows of imdb.mat are in random order.
    work = sorted(((row, place) for row, place in enumerate(places) if place is not None), key=lambda item: (item[1].file, item[1].offset))
    chunks = [work[start : start + CHUNK] for start in range(0, len(work), CHUNK)]
    write = partial(_write_chunk, str(images.filename), images.offset, size, exif, bits)
    with progress(len(work), "decoding images") as advance, worker_pool(processes) if processes > 1 else nullcontext() as pool:
        results: Iterable[Written] = pool.map(write, chunks) if pool else map(write, chunks)
        for chunk, written in zip(chunks, results, strict=True):
            rejected |= written.rejected
            digests |= written.digests
            brightest |= written.brightest
            advance(len(chunk), f"{len(rejected)} rejected" if rejected else "")
    return Written(dict(sorted(rejected.items())), digests, brightest)


def _write_chunk(file: str, offset: int, size: int, exif: bool, bits: int, chunk: Sequence[tuple[int, Place]]) -> Written:
    """Decode and write a chunk. With write calls, not a memory map, whose pages would count as this process's memory."""
    written = Written({}, {}, {})
    with open(file, "r+b", buffering=0) as out:
        for row, place in chunk:
            try:
                content = place.read()
                image = load_image(content, exif=exif)
                pixels = _scaled(image, size, bits)
            except ValueError as error:
                written.rejected[row] = str(error)
            else:
                written.digests[row] = hashlib.sha256(content).digest()
                if (largest := largest_16_bit_value(image)) is not None:
                    written.brightest[row] = largest
                out.seek(offset + row * pixels.nbytes)
                out.write(pixels.data)
    return written
