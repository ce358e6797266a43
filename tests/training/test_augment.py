"""Augmented images are crops of the padded image, and depend only on seed, epoch and sample."""

from itertools import product

import numpy as np
import pytest

from regcls.training.augment import for_faces

SIZE, PAD = 12, 3
IMAGES = np.random.default_rng(5).integers(0, 256, (20, SIZE, SIZE, 3), dtype=np.uint8)


def augmentation(**changes):
    transform = for_faces(**({"pad": PAD, "flip": 0.5, "seed": 7} | changes))
    return lambda image, **place: transform(image=image, **place)["image"]


def all_crops(image, pad):
    """Every crop of the zero-padded image, flipped or not: bytes -> (top, left, flipped)."""
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    places = product(range(2 * pad + 1), range(2 * pad + 1), (False, True))
    return {
        padded[top : top + SIZE, left : left + SIZE][:, :: -1 if flip else 1].tobytes(): (top, left, flip) for top, left, flip in places
    }


def test_augmentation_crops_the_padded_image_and_may_flip_it():
    augment = augmentation()
    found = [
        all_crops(image, PAD)[augment(image, epoch=epoch, sample=n).tobytes()] for epoch in range(30) for n, image in enumerate(IMAGES)
    ]
    tops, lefts, flips = zip(*found, strict=True)
    assert set(tops) == set(lefts) == set(range(2 * PAD + 1))
    assert np.mean(flips) == pytest.approx(0.5, abs=0.06)  # 600 draws: three standard deviations
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.15 and abs(np.corrcoef(tops, flips)[0, 1]) < 0.15


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_flip_is_a_probability(flip):
    augment = augmentation(flip=flip, pad=0)
    expected = IMAGES[:, :, :: -1 if flip else 1]
    assert all(np.array_equal(augment(image, epoch=0, sample=n), expected[n]) for n, image in enumerate(IMAGES))


def test_augmentation_depends_only_on_seed_epoch_and_sample():
    alone = {(e, n): augmentation()(IMAGES[n], epoch=e, sample=n) for e in (0, 1) for n in (3, 4, 5)}
    augment = augmentation()
    for _ in range(3):
        augment(IMAGES[0], epoch=9, sample=0)
    for (epoch, sample), expected in reversed(alone.items()):
        assert np.array_equal(augment(IMAGES[sample], epoch=epoch, sample=sample), expected)


def test_each_seed_epoch_and_sample_has_its_own_augmentation():
    image = IMAGES[0]
    seen = {}
    for seed, epoch, sample in product(range(4), range(4), range(4)):
        key = all_crops(image, PAD)[augmentation(seed=seed)(image, epoch=epoch, sample=sample).tobytes()]
        seen.setdefault(key, []).append((seed, epoch, sample))
    assert len(seen) > 40  # of 64 draws from 98, about 47 are distinct
