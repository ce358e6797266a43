"""Augmentation of one image: padding, random crop to the old size, horizontal flip (section 3.2), by albumentations.

What an image becomes is a function of (seed, epoch, sample) alone. Legend: S pixels of a side.
"""

import os
import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations  # type: ignore[import-untyped]

STREAM = 2  # of the random numbers of a seed: see feed.py


class PaddedCrop(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Pad with black, then crop to the old size at random. In one copy: albumentations' Pad and RandomCrop take three times as long."""

    def __init__(self, pad: int) -> None:
        super().__init__(p=1.0)
        self.pad = pad

    def get_params(self) -> dict[str, Any]:
        """Where the crop begins, in pixels of the image without padding: −pad … pad, down and right."""
        return {name: self.py_random.randint(-self.pad, self.pad) for name in ("down", "right")}

    def apply(self, img: NDArray[np.uint8], down: int, right: int, **params: Any) -> NDArray[np.uint8]:
        """The crop, of the shape of `img` (S, S, 3)."""
        height, width = img.shape[:2]
        out = np.zeros_like(img)
        out[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)] = img[
            max(0, down) : height - max(0, -down), max(0, right) : width - max(0, -right)
        ]
        return out


class Augmentation:
    """The augmentation of one run."""

    def __init__(self, *, pad: int, flip: float, seed: int) -> None:
        """`pad` pixels on each side; `flip`: probability; `seed`: of the run."""
        self.seed = seed
        self._numpy, self._python = np.random.default_rng(0), random.Random(0)
        self._transform = albumentations.Compose([PaddedCrop(pad), albumentations.HorizontalFlip(p=flip)])
        # Not set_random_seed for each sample: it makes new generators for each transform, three times the work of the transforms.
        self._transform.set_random_state(self._numpy, self._python)
        self._state = self._numpy.bit_generator.state

    def __call__(self, image: NDArray[np.uint8], *, epoch: int, sample: int) -> NDArray[np.uint8]:
        """`image` (S, S, 3) as it is seen this epoch, same shape."""
        self._python.seed((STREAM << 96) | (self.seed << 64) | (epoch << 40) | sample)
        # For transforms that draw with NumPy: none of today's does.
        self._numpy.bit_generator.state = {**self._state, "state": {**self._state["state"], "state": self._python.getrandbits(128)}}
        return np.asarray(self._transform(image=image)["image"])
