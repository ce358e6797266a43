"""Augmentation of one sample, by albumentations; that of faces: padding, random crop to the old size, horizontal flip (section 3.2).

What a sample becomes is a function of (seed, epoch, sample) alone. Legend: S pixels of a side.
"""

import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations  # type: ignore[import-untyped]

STREAM = 2  # of the random numbers of a seed: see feed.py


class Augmentation:
    """Transforms of albumentations, one after the other, as the samples of one run go through them."""

    def __init__(self, transforms: Sequence[albumentations.BasicTransform], *, seed: int) -> None:
        """`seed`: of the run."""
        self.seed = seed
        self._numpy, self._python = np.random.default_rng(0), random.Random(0)
        self._transform = albumentations.Compose(list(transforms))
        # Not set_random_seed for each sample: it makes new generators for each transform, three times the work of the transforms.
        self._transform.set_random_state(self._numpy, self._python)
        self._state = self._numpy.bit_generator.state

    def __call__(self, *, epoch: int, sample: int, **arrays: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """The sample as it is seen this epoch: its arrays by the names that albumentations knows, as `image` and `mask`."""
        self._python.seed((STREAM << 96) | (self.seed << 64) | (epoch << 40) | sample)
        # For transforms that draw with NumPy: none of today's does.
        self._numpy.bit_generator.state = {**self._state, "state": {**self._state["state"], "state": self._python.getrandbits(128)}}
        made: dict[str, NDArray[Any]] = self._transform(**arrays)
        return made


def for_faces(*, pad: int, flip: float, seed: int) -> Augmentation:
    """`pad` pixels on each side; `flip`: probability. Images (S, S, 3) keep their shape."""
    return Augmentation([PaddedCrop(pad), albumentations.HorizontalFlip(p=flip)], seed=seed)


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
