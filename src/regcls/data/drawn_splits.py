"""Splits drawn from a seed, by whole groups of samples, such as scenes."""

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from numpy.random import RandomState

from regcls.data.splits import Split
from regcls.errors import UserError
from regcls.words import counted


def held_out(groups: Sequence[str], *, share: float, seed: int) -> frozenset[str]:
    """The groups to hold out. numpy shuffles the n sorted names; the first ⌊(1 − share) · n⌋, at least one, are for training."""
    names = sorted(set(groups))
    RandomState(seed).shuffle(names)
    training = math.floor((1 - Fraction(str(share))) * len(names))  # exact: 0.8 · n as a float may be just below a whole number
    return frozenset(names[max(1, training) :])


def drawn_splits(file: Path, groups: Sequence[str], *, test_share: float, validation_share: float, seed: int) -> list[Split]:
    """The split of each sample (N,) by its group (N,): first `test_share` of the groups, then `validation_share` of the others.

    Raises:
        UserError: there are fewer than three groups; `file` is the csv, for the message.
    """
    if (number := len(set(groups))) < 3:
        raise UserError(
            f"{file} has no column split, and {counted(number, 'group')} cannot be split in three: add more, or write the splits"
        )
    test = held_out(groups, share=test_share, seed=seed)
    val = held_out([group for group in groups if group not in test], share=validation_share, seed=seed)
    return ["test" if group in test else "val" if group in val else "train" for group in groups]
