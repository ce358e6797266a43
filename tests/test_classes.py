"""Making classes, compared with loops and handmade cases."""

import math
from fractions import Fraction

import numpy as np
import pytest

from regcls.classes import ClassRanges, class_ranges, equalised, uniform_ranges


def ranges_of(counts: list[int]) -> tuple[ClassRanges, np.ndarray]:
    """Uniform ranges [0, 1), [1, 2), … and targets with these counts."""
    return uniform_ranges(len(counts), 0, len(counts)), np.repeat(np.arange(len(counts)) + 0.5, counts)


def test_uniform_ranges_split_the_interval_evenly():
    assert uniform_ranges(4, -1, 1).edges.tolist() == [-1, -0.5, 0, 0.5, 1]


def test_a_range_includes_its_lower_edge_and_the_last_one_both_edges():
    assert uniform_ranges(4, 0, 4).labels([0, 0.999, 1, 2, 3, 4]).tolist() == [0, 0, 1, 2, 3, 3]


def test_targets_outside_the_ranges_are_clamped():
    assert uniform_ranges(3, 0, 3).labels([-5, 99, math.inf]).tolist() == [0, 2, 2]


def test_labels_keep_the_shape_of_the_targets():
    assert uniform_ranges(3, 0, 3).labels(np.zeros((2, 5))).shape == (2, 5)


def test_a_single_class_covers_everything():
    assert uniform_ranges(1, 0, 3).labels([-1, 0, 3, 9]).tolist() == [0, 0, 0, 0]


def test_equal_targets_give_one_class():
    assert len(class_ranges(10, [2.5, 2.5], balanced=False)) == 1


@pytest.mark.parametrize("classes, low, high", [(0, 0, 1), (-1, 0, 1), (2, 1, 0), (2, 0, math.inf), (2, math.nan, 1)])
def test_impossible_ranges_are_refused(classes, low, high):
    with pytest.raises(ValueError, match="classes must be|bounds in order"):
        uniform_ranges(classes, low, high)


def test_there_are_no_more_classes_than_distinct_targets():
    merged = class_ranges(1000, [0.0, 1.0, 1.0, 2.0], balanced=True)
    assert len(merged) == 3
    assert merged.labels([0.0, 1.0, 2.0]).tolist() == [0, 1, 2]


UP = {"ceil": math.ceil, "floor": math.floor, "round": round}


def equalised_by_loop(counts: list[int], rounding: str) -> list[list[int]]:
    """Eq. 12 in words: of the classes from the first occupied one on, class k goes to bin rounded(C/N · cumulative) − 1, at least 0; classes
    of one bin are merged, those in front join the first."""
    empty = next(k for k, count in enumerate(counts) if count)
    seen, bins = 0, []
    for count in counts[empty:]:
        seen += count
        bins.append(max(UP[rounding](Fraction((len(counts) - empty) * seen, sum(counts))) - 1, 0))
    groups = [[k + empty for k, b in enumerate(bins) if b == wanted] for wanted in sorted(set(bins))]
    groups[0] = [*range(empty), *groups[0]]
    return groups


@pytest.mark.parametrize("rounding", list(UP))
@pytest.mark.parametrize("empty", [0, 3])
@pytest.mark.parametrize("seed", range(20))
def test_equalisation_agrees_with_a_loop(seed, empty, rounding):
    random = np.random.default_rng(seed)
    counts = [0] * empty + (random.exponential(size=random.integers(4, 40)) ** 3 * 20).astype(int).tolist()
    counts[empty] += 1
    counts[-1] += sum(counts) // 2 + 1  # at least two classes remain
    groups = equalised_by_loop(counts, rounding)
    merged = equalised(*ranges_of(counts), rounding=rounding)
    totals = np.array([sum(counts[k] for k in group) for group in groups])
    assert merged.edges.tolist() == [group[0] for group in groups] + [len(counts)]
    assert merged.keep == pytest.approx(totals.min() / totals)


def test_already_balanced_ranges_are_unchanged():
    merged = equalised(*ranges_of([7, 7, 7, 7]))
    assert merged.edges.tolist() == [0, 1, 2, 3, 4]
    assert merged.keep.tolist() == [1, 1, 1, 1]


def test_leading_empty_classes_join_the_first_occupied_one():
    ranges, _ = ranges_of([0, 0, 5, 5])
    assert equalised(ranges, [2.5] * 5 + [3.5] * 5).edges.tolist() == [0, 3, 4]


def test_other_empty_classes_join_the_one_before():
    ranges, _ = ranges_of([5, 0, 0, 5])
    assert equalised(ranges, [0.5] * 5 + [3.5] * 5).edges.tolist() == [0, 3, 4]


def test_the_rarest_class_is_always_kept():
    assert equalised(*ranges_of([100, 1, 30, 2, 50])).keep.max() == 1


def test_leading_empty_classes_do_not_count_as_classes():
    # The three others reach 0.9, 2.1 and 3 of 3 bins; of 4 bins it would be 1.2, 2.8 and 4, and none were merged.
    assert equalised(*ranges_of([0, 3, 4, 3])).edges.tolist() == [0, 2, 4]


@pytest.mark.parametrize("counts", [[97, 1, 1, 1], [3, 2], [500, 1]])
def test_uniform_ranges_are_kept_if_only_one_class_would_remain(counts):
    ranges, targets = ranges_of(counts)
    with pytest.warns(UserWarning, match="leaves one: .*the uniform ranges are kept, balanced"):
        kept = equalised(ranges, targets)
    assert kept.edges.tolist() == ranges.edges.tolist()
    assert kept.keep.tolist() == [min(counts) / count for count in counts]


def test_a_class_without_targets_does_not_affect_the_others():
    with pytest.warns(UserWarning, match="leaves one"):
        assert equalised(*ranges_of([9, 0])).keep.tolist() == [1, 1]


def test_rounding_changes_the_merged_bins():
    counts = [10, 10, 10, 10]
    assert equalised(*ranges_of(counts), rounding="floor").edges.tolist() == [0, 1, 2, 3, 4]
    uneven = [5, 10, 10, 15]  # cumulative 0.5, 1.5, 2.5, 4 bins: down 0 1 2 4, up 1 2 3 4, to the nearest and, halfway, even one 0 2 2 4
    assert len(equalised(*ranges_of(uneven), rounding="floor")) == 3
    assert len(equalised(*ranges_of(uneven), rounding="ceil")) == 4
    assert equalised(*ranges_of(uneven), rounding="round").edges.tolist() == [0, 1, 3, 4]


def test_equalising_no_targets_is_refused():
    with pytest.raises(ValueError, match="at least one target"):
        equalised(uniform_ranges(2, 0, 1), [])


def test_samples_are_kept_in_inverse_proportion_to_their_class():
    ranges, targets = ranges_of([9000, 1000])
    merged = ClassRanges(edges=ranges.edges, keep=np.array([1 / 9, 1.0]))
    labels = merged.labels(targets)
    kept = merged.kept(labels, np.random.default_rng(0).random(labels.size))
    assert kept[labels == 1].all()
    assert kept[labels == 0].sum() == pytest.approx(1000, abs=5 * math.sqrt(1000))


@pytest.mark.parametrize("rounding", ["ceil", "floor", "round"])
@pytest.mark.parametrize("seed", range(10))
def test_counted_levels_are_equivalent_to_all_their_pixels(seed, rounding):
    random = np.random.default_rng(seed)
    levels, counts = np.arange(256) / 25.5, random.integers(0, 40, 256).astype(np.uint32)
    counts[random.random(256) < 0.3] = 0
    ranges = uniform_ranges(100, 0, 10)
    weighed, repeated = (
        equalised(ranges, levels, counts=counts, rounding=rounding),
        equalised(ranges, np.repeat(levels, counts), rounding=rounding),
    )
    assert weighed.edges.tolist() == repeated.edges.tolist()
    assert weighed.keep.tolist() == repeated.keep.tolist()


def test_counts_of_a_large_data_set_do_not_overflow():
    merged = equalised(uniform_ranges(4, 0, 4), np.arange(4) + 0.5, counts=np.full(4, 2**32 - 1, dtype=np.uint32))
    assert merged.keep.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("counts", [np.zeros(3, dtype=np.int64), np.array([])])
def test_empty_counts_are_refused(counts):
    with pytest.raises(ValueError, match="at least one target|whole numbers"):
        equalised(uniform_ranges(3, 0, 3), [0.5, 1.5, 2.5], counts=counts)


@pytest.mark.parametrize("counts", [np.array([1, 2]), np.array([1, -1, 2]), np.array([0.5, 1, 1]), np.ones((3, 1), dtype=int)])
def test_invalid_counts_are_refused(counts):
    with pytest.raises(ValueError, match="counts must be whole numbers from 0, one for each of 3 targets"):
        equalised(uniform_ranges(3, 0, 3), [0.5, 1.5, 2.5], counts=counts)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_a_depth_level_on_an_edge_belongs_to_the_class_above(classes):
    levels = np.arange(256)
    assert uniform_ranges(classes, 0, 10).labels(levels / 25.5).tolist() == np.minimum(levels * classes // 255, classes - 1).tolist()
