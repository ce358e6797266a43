"""Augmentation with albumentations. For faces: padding, random crop to the original size, horizontal flip (section 3.2).

An augmented sample is a function of (seed, epoch, sample) alone. Legend: S side length in pixels.
"""

import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations  # type: ignore[import-untyped]

STREAM = 2  # of random numbers, see feed.py


class Augmentation:
    """A sequence of albumentations transforms, seeded for one run."""

    def __init__(self, transforms: Sequence[albumentations.BasicTransform], *, seed: int) -> None:
        """`seed`: of the run."""
        self.seed = seed
        self._numpy, self._python = np.random.default_rng(0), random.Random(0)
        self._transform = albumentations.Compose(list(transforms))
        # Not set_random_seed for each sample: it creates new generators for each transform, three times the work of the transforms.
        self._transform.set_random_state(self._numpy, self._python)
        self._state = self._numpy.bit_generator.state

    def __call__(self, *, epoch: int, sample: int, **arrays: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Augment a sample for an epoch: its arrays by albumentations' target names (`image`, `mask`)."""
        self._python.seed((STREAM << 96) | (self.seed << 64) | (epoch << 40) | sample)
        # For transforms that draw with NumPy; at present none does.
        self._numpy.bit_generator.state = {**self._state, "state": {**self._state["state"], "state": self._python.getrandbits(128)}}
        augmented: dict[str, NDArray[Any]] = self._transform(**arrays)
        return augmented


def for_faces(*, pad: int, flip: float, seed: int) -> Augmentation:
    """The augmentation of faces: `pad` pixels on each side, `flip` probability. Images (S, S, 3) keep their shape."""
    return Augmentation([PaddedCrop(pad), albumentations.HorizontalFlip(p=flip)], seed=seed)


class PaddedCrop(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Pad with black, then randomly crop to the original size. One copy: albumentations' Pad and RandomCrop take three times as long."""

    def __init__(self, pad: int) -> None:
        super().__init__(p=1.0)
        self.pad = pad

    def get_params(self) -> dict[str, Any]:
        """Offset of the crop, down and right, in pixels relative to the unpadded image: −pad … pad."""
        return {name: self.py_random.randint(-self.pad, self.pad) for name in ("down", "right")}

    def apply(self, img: NDArray[np.uint8], down: int, right: int, **params: Any) -> NDArray[np.uint8]:
        """The crop, with the shape of `img` (S, S, 3)."""
        height, width = img.shape[:2]
        out = np.zeros_like(img)
        out[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)] = img[
            max(0, down) : height - max(0, -down), max(0, right) : width - max(0, -right)
        ]
        return out
