"""Joint augmentation of an image and its depth map: flip, rotation, centre crop, and colours of the image (section 3.2).

Legend: H × W pixels of the crop.
"""

import math
from typing import Any, Literal

import albumentations  # type: ignore[import-untyped]
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from regcls.training.augment import Augmentation  # keeps albumentations quiet

# PCA of the colours of ImageNet's pixels in [0, 1], as for AlexNet (Krizhevsky et al., 2012, section 4.1); eigenvectors are columns.
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
GREY = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue


class RotatedCrop(albumentations.DualTransform):  # type: ignore[misc]
    """Rotation about the centre by up to `rotate` degrees to either side and centre crop, in one resampling.

    The image is resampled bilinearly; the depth map by nearest neighbour at half the size, which invents no depths. Outside the image,
    pixels are black and depth is 0: not measured. albumentations' Affine and CenterCrop in sequence would resample the whole image.
    """

    def __init__(self, crop: tuple[int, int], rotate: float) -> None:
        """`crop`: H, W."""
        super().__init__(p=1.0)
        self.crop, self.rotate = crop, rotate

    def get_params(self) -> dict[str, Any]:
        """The angle in degrees, counter-clockwise."""
        return {"angle": self.py_random.uniform(-self.rotate, self.rotate)}

    def apply(self, img: NDArray[np.uint8], angle: float, **params: Any) -> NDArray[np.uint8]:
        """Rotate and crop the image: (H, W, 3)."""
        height, width = self.crop
        back = self._back(img.shape[0], img.shape[1], angle)
        return np.asarray(cv2.warpAffine(img, back, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))

    def apply_to_mask(self, mask: NDArray[np.unsignedinteger], angle: float, **params: Any) -> NDArray[np.unsignedinteger]:
        """Rotate and crop the depth map: (H / 2, W / 2), pixels (1, 1), (1, 3), … (3, 1), … of the crop, as in Pillow's nearest resize."""
        height, width = self.crop
        back = self._back(mask.shape[0], mask.shape[1], angle) @ np.array([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0], [0.0, 0.0, 1.0]])
        return np.asarray(cv2.warpAffine(mask, back, (width // 2, height // 2), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP))

    def _back(self, height: int, width: int, angle: float) -> NDArray[np.float64]:
        """Affine matrix (2, 3) from a pixel (x, y) of the crop to one of the whole image."""
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        first = np.array([(width - self.crop[1]) // 2, (height - self.crop[0]) // 2])  # of the crop, as at validation and test
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        turn = np.array([[cos, -sin], [sin, cos]])
        return np.column_stack([turn, middle + turn @ (first - middle)])


class MeasuredCrop(RotatedCrop):
    """RotatedCrop for sparse depth maps: a pixel of half the size takes another measured one of its 2 × 2 pixels if its own is not."""

    def apply_to_mask(self, mask: NDArray[np.unsignedinteger], angle: float, **params: Any) -> NDArray[np.unsignedinteger]:
        """Rotate, crop and halve the depth map: (H / 2, W / 2)."""
        height, width = self.crop
        back = self._back(mask.shape[0], mask.shape[1], angle)
        turned = cv2.warpAffine(mask, back, (width, height), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
        half = turned[1::2, 1::2]
        for down, right in ((1, 0), (0, 1), (0, 0)):
            half = np.where(half > 0, half, turned[down::2, right::2])
        return np.asarray(half)


class SplineCrop(RotatedCrop):
    """RotatedCrop as in the release: both are rotated by splines of order 2, then the depth crop is halved bicubically, all in 8 bits.

    This invents depths between near and far pixels. Outside the image, both are 0.
    """

    def apply(self, img: NDArray[np.uint8], angle: float, **params: Any) -> NDArray[np.uint8]:
        """Rotate and crop the image: (H, W, 3)."""
        return self._turned(img, angle)

    def apply_to_mask(self, mask: NDArray[np.unsignedinteger], angle: float, **params: Any) -> NDArray[np.unsignedinteger]:
        """Rotate, crop and halve the depth map: (H / 2, W / 2)."""
        height, width = self.crop
        half = Image.fromarray(self._turned(mask, angle)).resize((width // 2, height // 2), Image.Resampling.BICUBIC)
        return np.asarray(half)

    def _turned(self, array: NDArray[np.uint8], angle: float) -> NDArray[np.uint8]:
        """`array` rotated and cropped."""
        top, left = ((whole - part) // 2 for whole, part in zip(array.shape, self.crop, strict=False))
        turned = ndimage.rotate(array, angle, reshape=False, order=2)
        return np.ascontiguousarray(turned[top : top + self.crop[0], left : left + self.crop[1]])


class Colours(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """PCA lighting, then brightness, contrast and saturation in random order, each changed by up to ±`jitter`. Depth is not changed.

    All steps are affine in a pixel's colour, so they combine to one matrix. Values are clipped to 0 … 255 after the last step only; without
    `clip` they are neither clipped nor rounded: float32, as in the release.
    """

    def __init__(self, lighting: float, jitter: float, *, clip: bool) -> None:
        """`lighting`: standard deviation of the shift along each eigenvector, in eigenvalues; `jitter`: in [0, 1)."""
        super().__init__(p=1.0)
        self.lighting, self.jitter, self.clip = lighting, jitter, clip

    def get_params(self) -> dict[str, Any]:
        """The shift along each eigenvector, and the steps in their order, with blending weights."""
        shift = np.array([self.py_random.gauss(0.0, self.lighting) for _ in EIGENVALUES])
        steps = [(name, self.py_random.uniform(-self.jitter, self.jitter)) for name in ("brightness", "contrast", "saturation")]
        self.py_random.shuffle(steps)
        return {"shift": shift, "steps": steps}

    def apply(self, img: NDArray[np.uint8], shift: NDArray[np.float64], steps: list[tuple[str, float]], **params: Any) -> NDArray[Any]:
        """The image with changed colours, same shape."""
        mean = np.array(cv2.mean(img)[:3])
        matrix, offset = np.eye(3), 255.0 * EIGENVECTORS @ (EIGENVALUES * shift)
        for name, share in steps:
            blended = {  # with black, with the mean grey of the image so far, with each pixel's own grey
                "brightness": (0.0, 0.0),
                "contrast": (0.0, GREY @ (matrix @ mean + offset)),
                "saturation": (GREY @ matrix, GREY @ offset),
            }[name]
            matrix, offset = ((1 - share) * own + share * other for own, other in zip((matrix, offset), blended, strict=True))
        return np.asarray(cv2.transform(img if self.clip else img.astype(np.float32), np.column_stack([matrix, offset])))


def for_depth(
    *,
    crop: tuple[int, int],
    flip: float,
    rotate: float,
    lighting: float,
    jitter: float,
    depth_resampling: Literal["nearest", "measured", "released"],
    clip_colours: bool,
    seed: int,
) -> Augmentation:
    """Augmentation of `image` (h, w, 3) and `mask` (h, w), its depth in levels, to (H, W, 3) and (H / 2, W / 2)."""
    cut = {"nearest": RotatedCrop, "measured": MeasuredCrop, "released": SplineCrop}[depth_resampling](crop, rotate)
    return Augmentation([albumentations.HorizontalFlip(p=flip), cut, Colours(lighting, jitter, clip=clip_colours)], seed=seed)
