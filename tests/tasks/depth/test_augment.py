"""Image and depth stay aligned, no depth is invented, and colours change as in a plain reference."""

import random
from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from regcls.tasks.depth.augment import Colours, RotatedCrop, for_depth

HEIGHT, WIDTH, CROP = 36, 48, (28, 40)
GENERATOR = np.random.default_rng(3)
IMAGE = GENERATOR.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
DEPTH = GENERATOR.integers(1, 256, (HEIGHT, WIDTH), dtype=np.uint8)
AS_IT_IS = {"depth_resampling": "nearest", "clip_colours": True}
STILL = {"flip": 0.0, "rotate": 0.0, "lighting": 0.0, "jitter": 0.0}
TOP, LEFT = 4, 4  # of the centre crop


def augment(image=IMAGE, depth=DEPTH, *, epoch=0, sample=0, **changes):
    transform = for_depth(**({"crop": CROP, "flip": 0.5, "rotate": 5.0, "lighting": 0.1, "jitter": 0.4, "seed": 7} | AS_IT_IS | changes))
    arrays = transform(image=image, mask=depth, epoch=epoch, sample=sample)
    return arrays["image"], arrays["mask"]


def cropped(array):
    return array[TOP : TOP + CROP[0], LEFT : LEFT + CROP[1]]


def test_without_augmentation_the_centre_is_cropped_and_depth_halved():
    image, depth = augment(**STILL)
    assert np.array_equal(image, cropped(IMAGE))
    assert np.array_equal(depth, cropped(DEPTH)[1::2, 1::2])


def test_a_flip_flips_image_and_depth():
    image, depth = augment(**(STILL | {"flip": 1.0}))
    assert np.array_equal(image, cropped(IMAGE[:, ::-1]))
    assert np.array_equal(depth, cropped(DEPTH[:, ::-1])[1::2, 1::2])


def test_flip_is_a_probability():
    flipped = [np.array_equal(augment(sample=n, **(STILL | {"flip": 0.5}))[0], cropped(IMAGE[:, ::-1])) for n in range(400)]
    assert np.mean(flipped) == pytest.approx(0.5, abs=0.075)  # three standard deviations


def test_rotation_invents_no_depth_values():
    sparse = np.where(DEPTH > 128, np.uint8(200), np.uint8(40))
    for sample in range(20):
        assert set(np.unique(augment(depth=sparse, sample=sample, rotate=30.0)[1])) <= {0, 40, 200}


def test_pixels_rotated_in_from_outside_are_black_and_unmeasured():
    bright = np.full_like(IMAGE, 255)
    crop = (HEIGHT, WIDTH)  # the whole image, so that corners come in
    outside = 0
    for sample in range(10):
        image, depth = augment(bright, sample=sample, **(STILL | {"crop": crop, "rotate": 20.0}))
        black = (image[1::2, 1::2] == 0).all(-1)
        assert (depth[black] == 0).all()
        outside += black.sum()
    assert outside > 0


def reference_rotation(array, angle, interpolate):
    """A rotation pixel by pixel: for each pixel of the crop, its position in the whole image."""
    out = np.zeros((*CROP, *array.shape[2:]))
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    for row, column in product(range(CROP[0]), range(CROP[1])):
        y, x = row + TOP - (HEIGHT - 1) / 2, column + LEFT - (WIDTH - 1) / 2
        out[row, column] = interpolate(array, sin * x + cos * y + (HEIGHT - 1) / 2, cos * x - sin * y + (WIDTH - 1) / 2)
    return out


def bilinear(array, y, x):
    top, left = int(np.floor(y)), int(np.floor(x))
    if not (0 <= top < HEIGHT - 1 and 0 <= left < WIDTH - 1):
        return 0.0
    down, right = y - top, x - left
    pairs = ((0, 1 - down), (1, down)), ((0, 1 - right), (1, right))
    return sum(wy * wx * array[top + dy, left + dx].astype(float) for dy, wy in pairs[0] for dx, wx in pairs[1])


def test_image_and_depth_rotate_about_the_same_centre(monkeypatch):
    monkeypatch.setattr(RotatedCrop, "get_params", lambda self: {"angle": 4.0})
    smooth = np.linspace(0, 200, HEIGHT)[:, None, None] + np.linspace(0, 50, WIDTH)[None, :, None] + np.zeros(3)
    image, _ = augment(smooth.astype(np.uint8), **(STILL | {"rotate": 5.0}))
    expected = reference_rotation(smooth.astype(np.uint8), 4.0, bilinear)
    inside = expected.any(-1)
    assert inside.mean() > 0.95
    np.testing.assert_allclose(image[inside], expected[inside], atol=2)  # OpenCV rounds positions to 1 / 32 of a pixel
    nearest = reference_rotation(
        DEPTH, 4.0, lambda array, y, x: array[round(y), round(x)] if 0 <= round(y) < HEIGHT and 0 <= round(x) < WIDTH else 0
    )
    _, depth = augment(**(STILL | {"rotate": 5.0}))
    assert np.mean(depth == nearest[1::2, 1::2]) > 0.97


def test_colour_augmentation_changes_the_image_but_not_the_depth():
    image, depth = augment(**(STILL | {"lighting": 0.1, "jitter": 0.4}))
    assert np.array_equal(depth, cropped(DEPTH)[1::2, 1::2])
    assert np.abs(image.astype(int) - cropped(IMAGE)).mean() > 3


def blended(image, name, share):
    """One colour step on a float image, as in the release."""
    grey = image @ np.array([0.299, 0.587, 0.114])
    other = {"brightness": 0.0, "contrast": grey.mean(), "saturation": grey[..., None]}[name]
    return (1 - share) * image + share * other


@pytest.mark.parametrize("sample", range(8))
def test_colour_steps_are_applied_one_after_another(sample):
    rng = random.Random(sample)
    shift = np.array([rng.gauss(0, 0.1) for _ in range(3)])
    steps = [(name, rng.uniform(-0.4, 0.4)) for name in rng.sample(["brightness", "contrast", "saturation"], 3)]
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    expected = IMAGE / 255.0
    for channel in range(3):
        expected[..., channel] += sum(vectors[channel, k] * shift[k] * (0.2175, 0.0188, 0.0045)[k] for k in range(3))
    for name, share in steps:
        expected = blended(expected, name, share)
    found = Colours(0.1, 0.4, clip=True).apply(IMAGE, shift=shift, steps=steps)
    np.testing.assert_allclose(found, np.clip(255 * expected, 0, 255), atol=0.75)  # OpenCV rounds the matrix too
    free = Colours(0.1, 0.4, clip=False).apply(IMAGE, shift=shift, steps=steps)
    assert free.dtype == np.float32
    np.testing.assert_allclose(free, 255 * expected, atol=1e-3)


def test_unclipped_colours_reach_the_batch_unchanged():
    found = [augment(sample=n, clip_colours=False)[0] for n in range(20)]
    assert min(image.min() for image in found) < -1 and max(image.max() for image in found) > 256
    for n, image in enumerate(found):
        np.testing.assert_allclose(augment(sample=n)[0], np.clip(image, 0, 255), atol=1)


def spline_by_scipy(array, angle):
    """The release's order: the whole image is rotated by a spline of order 2, then cropped, both in 8 bits."""
    return cropped(ndimage.rotate(array, angle, reshape=False, order=2, mode="constant", cval=0))


@pytest.mark.parametrize("angle", [0.0, 4.0, -3.3])
def test_as_released_rotation_uses_splines_and_halving_is_bicubic(monkeypatch, angle):
    monkeypatch.setattr(RotatedCrop, "get_params", lambda self: {"angle": angle})
    image, depth = augment(**STILL, depth_resampling="released")
    assert np.array_equal(image, spline_by_scipy(IMAGE, angle))
    assert depth.dtype == np.uint8 and depth.shape == (CROP[0] // 2, CROP[1] // 2)
    # Bicubic over twice the pixels, a = −0.5, as Pillow's: columns, then rows, rounded to 8 bits after each.
    weights = np.array([[-3, -9, 29, 111, 111, 29, -9, -3]]) / 256
    found = spline_by_scipy(DEPTH, angle).astype(float)
    for _ in range(2):
        columns = [found[:, 2 * n - 3 : 2 * n + 5] @ weights[0] for n in range(2, found.shape[1] // 2 - 2)]
        found = np.clip(np.rint(np.stack(columns, 1)), 0, 255).T
    np.testing.assert_allclose(depth[2:-2, 2:-2], found, atol=1)


def test_both_resampling_methods_rotate_alike_and_agree_on_a_slope():
    slope = np.broadcast_to(np.linspace(20, 220, WIDTH).astype(np.uint8), (HEIGHT, WIDTH))
    slope = np.ascontiguousarray(np.where(np.arange(HEIGHT)[:, None] > 20, slope, slope // 2))
    for sample in range(5):
        nearest = augment(depth=slope, sample=sample, rotate=20.0)[1].astype(float)
        released = augment(depth=slope, sample=sample, rotate=20.0, depth_resampling="released")[1].astype(float)
        assert np.median(np.abs(nearest - released)[4:-4, 4:-4]) < 3


def test_colour_steps_occur_in_every_order_and_direction():
    colours = Colours(0.1, 0.4, clip=True)
    colours.set_random_seed(0)
    drawn = [colours.get_params() for _ in range(200)]
    assert len({tuple(name for name, _ in one["steps"]) for one in drawn}) == 6
    shares = np.array([share for one in drawn for _, share in one["steps"]])
    assert -0.4 < shares.min() < -0.3 and 0.3 < shares.max() < 0.4
    shifts = np.array([one["shift"] for one in drawn])
    assert shifts.std(0) == pytest.approx([0.1] * 3, rel=0.15) and abs(shifts.mean()) < 0.02


def test_augmentation_depends_only_on_seed_epoch_and_sample():
    alone = {(epoch, sample): augment(epoch=epoch, sample=sample) for epoch in (0, 1) for sample in (3, 4)}
    transform = for_depth(crop=CROP, flip=0.5, rotate=5.0, lighting=0.1, jitter=0.4, seed=7, **AS_IT_IS)
    transform(image=IMAGE, mask=DEPTH, epoch=9, sample=0)
    for (epoch, sample), (image, depth) in reversed(alone.items()):
        arrays = transform(image=IMAGE, mask=DEPTH, epoch=epoch, sample=sample)
        assert np.array_equal(arrays["image"], image) and np.array_equal(arrays["mask"], depth)
    seen = {augment(epoch=epoch, sample=sample, seed=seed)[0].tobytes() for epoch, sample, seed in product(range(3), repeat=3)}
    assert len(seen) == 27
