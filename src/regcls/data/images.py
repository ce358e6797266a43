"""Images with a target each: every file is decoded and resized once, into one memory-mapped array (N images, S pixels a side).

Kept as the benchmark sees them: torchvision's bilinear resize to S × S whatever the shape, no rotation by EXIF tags.
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

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # a few more are known to Pillow, of which some start other programs
CHUNK = 64  # images that a process takes at a time


class UnknownRangeError(ValueError):
    """Pixels that cannot be brought to 8 bits without knowing their range."""


def decode(content: bytes, size: int) -> NDArray[np.uint8]:
    """An image file's content -> RGB pixels (size, size, 3), scaled bilinearly. Raises as `opened` and `as_rgb` do."""
    return np.asarray(as_rgb(opened(content)).resize((size, size), Image.Resampling.BILINEAR))


def opened(content: bytes) -> Image.Image:
    """An image file's content, whole and as it is.

    Raises:
        ValueError: it cannot be read; the reason, what is particular to this file behind a colon.
    """
    if not content:
        raise ValueError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
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
    except Exception as error:  # damaged files make Pillow fail in every way there is
        raise ValueError(f"cut short or damaged: {error or type(error).__name__}") from None


def reason_of(error: OSError | ValueError) -> str:
    """Why a file could not be opened or decoded."""
    return str((error.strerror if isinstance(error, OSError) else None) or error)


def as_rgb(image: Image.Image) -> Image.Image:
    """Grey, CMYK and palette become RGB, 16 bits become 8, transparency is dropped.

    Raises:
        UnknownRangeError: pixels cannot be brought to 8 bits.
        ValueError: they cannot be converted; the reason.
    """
    if image.mode.startswith("I;16"):  # convert() would cut at 255 instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise UnknownRangeError(f"pixels of kind {image.mode} have no known range")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of transparency that is dropped
            return image if image.mode == "RGB" else image.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"cut short or damaged: {error or type(error).__name__}") from None


def write_images(writer: Writer, places: Sequence[Place | None], *, size: int, processes: int) -> dict[int, str]:
    """Fill the array `images` (N, size, size, 3), a row a place; None is a file that is missing. Returns why rows were left black, by row.

    Raises:
        UserError: a worker was ended from outside.
        OSError: the disk is full.
    """
    images = writer.empty("images", (len(places), size, size, 3), np.uint8)
    rejected = {row: "not in the archive" for row, place in enumerate(places) if place is None}
    # In the order in which they lie on the disk: rows of imdb.mat go through its archive at random.
    work = sorted(((row, place) for row, place in enumerate(places) if place is not None), key=lambda item: (item[1].file, item[1].offset))
    chunks = [work[start : start + CHUNK] for start in range(0, len(work), CHUNK)]
    write = partial(_write_chunk, str(images.filename), images.offset, size)
    with progress(len(work), "decoding images") as advance, worker_pool(processes) if processes > 1 else nullcontext() as pool:
        failed: Iterable[dict[int, str]] = pool.map(write, chunks) if pool else map(write, chunks)
        for chunk, reasons in zip(chunks, failed, strict=True):
            rejected |= reasons
            advance(len(chunk), f"{len(rejected)} rejected" if rejected else "")
    return dict(sorted(rejected.items()))


def _write_chunk(file: str, offset: int, size: int, chunk: Sequence[tuple[int, Place]]) -> dict[int, str]:
    """By writing, not through a map of the file: the pages would count as this process's memory."""
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
