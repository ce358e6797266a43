"""Depth maps of a user's own: 8-bit or 16-bit images, or .npy arrays, dense or sparse, as 16-bit levels.

Legend: h × w pixels of a map. Level k is a depth of k · scale; level 0 is not measured.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regcls.data.images import load_image

LEVELS = 2**16
NOT_MEASURED = "the value 65535, which often means not measured: if so, set data.invalid: [65535]"
NPY = b"\x93NUMPY"  # the first bytes of a .npy file
GREY = ("L", "I", "I;16", "I;16B", "F")  # Pillow's modes of one channel


def load_depth(content: bytes) -> tuple[NDArray[Any], bool]:
    """The values of a depth file (h, w), and whether they are depths (.npy, float images) or steps (8-bit and 16-bit images).

    Raises:
        ValueError: it is damaged, or not a map of one channel.
    """
    if content.startswith(NPY):
        try:
            array = np.load(BytesIO(content), allow_pickle=False)
        except Exception as error:  # a damaged header can raise anything
            raise ValueError(f"not an intact .npy file: {error}") from None
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise ValueError(f"an array of {array.dtype} and shape {array.shape}: save numbers of shape (height, width)")
        return np.asarray(array), True
    image = load_image(content)
    if image.mode not in GREY:
        channels = len(image.getbands())
        raise ValueError(
            f"{channels if channels > 1 else 'one'} channel{'s' if channels > 1 else ''} of kind {image.mode}: save it as 8-bit or 16-bit "
            "grey, or as .npy"
        )
    return np.asarray(image), image.mode == "F"


@dataclass(frozen=True, kw_only=True)
class DepthFiles:
    """How the values of depth files become levels."""

    scale: float  # depth of a level, and of a value of an 8-bit or 16-bit image; .npy and float images have depths as they are
    invalid: tuple[float, ...]  # values that mean not measured, besides 0, NaN and infinity

    def levels(self, values: NDArray[Any], depths: bool) -> NDArray[np.uint16]:
        """Levels (h, w) of values (h, w); `depths`: they are depths, not steps.

        Raises:
            ValueError: none is measured, or one is negative or above the last level.
        """
        measured = np.isfinite(values) & (values != 0) & ~np.isin(values, self.invalid)
        if not measured.any():
            raise ValueError("no pixel of the depth map is measured: all are 0, NaN, infinite or in data.invalid")
        lowest, highest = (float(limit) for limit in (values[measured].min(), values[measured].max()))
        if lowest < 0:
            raise ValueError(f"depth {lowest:g} is negative: add it to data.invalid if it means not measured")
        steps = np.rint(np.where(measured, values, 0) / (self.scale if depths else 1))
        if steps.max() >= LEVELS:
            raise ValueError(
                f"{highest:g} is above 65535 steps of data.depth_scale = {self.scale:g}: set data.depth_scale to at least "
                f"{1.05 * highest / (LEVELS - 1):.2g}, or add the value to data.invalid if it means not measured"
            )
        return np.where(measured, np.maximum(steps, 1), 0).astype(np.uint16)


def scaled_measured(levels: NDArray[np.uint16], height: int, width: int) -> NDArray[np.uint16]:
    """Scale a map (h, w) to (height, width) by nearest neighbour, as Pillow does, and keep what is measured in sparse maps.

    Where the nearest pixel is not measured, the result is the nearest measured one of those whose centre the new pixel covers; 0 if there
    is none.
    """
    (h, w), size = levels.shape, (height, width)
    down, right = ((np.arange(new) + 0.5) * old / new for old, new in zip((h, w), size, strict=True))  # centres of the new pixels
    nearest = levels[np.ix_(down.astype(int), right.astype(int))]
    y, x = np.nonzero(levels)
    row, column = (2 * y + 1) * height // (2 * h), (2 * x + 1) * width // (2 * w)  # of the new pixel that covers (y, x)
    empty = nearest[row, column] == 0
    y, x, row, column = y[empty], x[empty], row[empty], column[empty]
    distance = (y + 0.5 - down[row]) ** 2 + (x + 0.5 - right[column]) ** 2
    order = np.argsort(-distance, kind="stable")  # the nearest last: it overwrites the others
    filled = nearest.copy()
    filled[row[order], column[order]] = levels[y[order], x[order]]
    return filled
