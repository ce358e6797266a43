"""Counting the classes of networks."""

from functools import partial

import numpy as np

from regcls.classes import class_ranges
from regcls.training.ensemble_networks import ClassCounter, quietly

SPREAD, ALIKE = np.linspace(0, 1, 100), np.append(np.zeros(99), 1.0)  # targets; the second ones leave a single equalised class


def test_training_sets_that_cannot_be_balanced_are_counted_once():
    counter = ClassCounter()
    sizes = [counter(name, partial(class_ranges, 4, y, balanced=True)) for name, y in (("a", SPREAD), ("b", ALIKE), ("b", ALIKE))]
    assert sizes == [4, 4, 4]
    assert counter.remarks() == [
        "1 of 2 training sets keep uniform classes where balanced ones are asked for: equalising would leave a single class"
    ]


def test_nothing_is_reported_if_all_classes_can_be_balanced():
    counter = ClassCounter()
    counter("a", partial(class_ranges, 4, SPREAD, balanced=True))
    assert counter.remarks() == []


def test_classes_are_computed_silently_after_the_plan_reported_them():
    assert len(quietly(partial(class_ranges, 4, ALIKE, balanced=True))) == 4
