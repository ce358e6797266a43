import numpy as np
import pytest

from regcls.tasks.depth import figures
from regcls.tasks.depth.data import DEEPEST, LEVELS_PER_METRE, level_buckets

LIMITS = {"many": frozenset(range(10, 30)), "medium": frozenset(range(30, 50))}
METRES = {"per_unit": 1000.0, "unit": "m"}


def histogram(counts):
    """The histogram of pixels by level of NYUD2-DIR's training depth."""
    return figures.training_histogram(level_buckets(counts, np.arange(256) / LEVELS_PER_METRE, DEEPEST), LIMITS, DEEPEST)


def examples(count: int = 2, size: tuple[int, int] = (12, 16), *, off: int = 100) -> dict[str, np.ndarray]:
    """Examples of a network whose error is `off` millimetres everywhere."""
    rng = np.random.default_rng(1)
    truth = rng.integers(1000, 6000, (count, *size)).astype(np.uint16)
    truth[:, 0] = 0
    images = rng.integers(0, 256, (count, *size, 3)).astype(np.uint8)
    return {"rows": np.arange(count) * 7, "images": images, "truth": truth, "prediction": (truth + off).astype(np.uint16)}


def test_levels_are_counted_in_the_bucket_of_their_depth() -> None:
    counts = np.zeros(256, np.int64)
    counts[[0, 25, 26, 102, 253, 255]] = [9, 1, 2, 3, 4, 5]  # not measured, 0.98, 1.02, 4.0, 9.92 and 10 m
    table = histogram(counts).set_index("bucket")
    assert table["training_pixels"][table["training_pixels"] > 0].to_dict() == {9: 1, 10: 2, 40: 3, 99: 9}
    assert (table.loc[10, "shot"], table.loc[40, "shot"], table.loc[99, "shot"]) == ("many", "medium", "few")
    assert (table.loc[40, "depth_from"], table.loc[40, "depth_to"]) == (4.0, 4.1)


def test_the_buckets_of_levels_are_those_of_their_depths_in_metres() -> None:
    counts = np.arange(256)
    by_hand = np.zeros(100)
    for level in range(1, 256):
        by_hand[min(99, int(np.floor(round(level * 10 / 25.5, 9))))] += level
    assert histogram(counts)["training_pixels"].tolist() == by_hand.tolist()


def test_the_sheet_has_a_picture_per_column_and_is_reproducible() -> None:
    found = {"reg": examples(), "reg+cls · 100": examples(off=50)}
    svg = figures.sheet(found, **METRES)
    assert svg == figures.sheet(found, **METRES)
    assert svg.count("<image ") == 2 * 6 + 2  # including colour bars
    for text in ("measured", "reg+cls · 100", "|error|, reg", "test image 7", "RMSE 0.10 m", "RMSE 0.05 m"):
        assert f"<!-- {text} -->" in svg


def test_errors_under_the_pictures_are_over_measured_pixels_only() -> None:
    found = examples()
    found["prediction"][0, 0] = 9000  # where nothing is measured
    found["truth"][1] = 0
    table = figures.errors_of_examples({"reg": found}, per_unit=1000.0)
    assert (table["image"].tolist(), table["pixels"].tolist()) == ([0, 7], [11 * 16, 0])
    assert (table["rmse"][0], table["mae"][0]) == pytest.approx((0.1, 0.1)) and np.isnan(table["rmse"][1])


@pytest.mark.parametrize(
    "spoiled",
    [
        {"truth": np.zeros((2, 12, 16), np.uint16)},
        {"prediction": np.zeros((2, 12, 16), np.uint16)},
        {"truth": np.zeros((2, 12, 16), np.uint16), "prediction": np.zeros((2, 12, 16), np.uint16)},
    ],
)
def test_pictures_without_measured_pixels_are_drawn_too(spoiled: dict[str, np.ndarray]) -> None:
    svg = figures.sheet({"reg": examples() | spoiled}, **METRES)
    assert ("<!-- nothing measured -->" in svg) == ("truth" in spoiled)


def test_at_most_four_examples_are_shown_and_large_ones_are_shrunk() -> None:
    svg = figures.sheet({"reg": examples(6, (228, 304))}, **METRES)
    assert "<!-- test image 21 -->" in svg and "<!-- test image 28 -->" not in svg
    assert len(svg) < 1.5e6  # of noise, which cannot be compressed
