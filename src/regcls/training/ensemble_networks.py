"""The interface through which a task describes the networks of its runs: see a task's networks.py."""

import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from regcls.classes import ClassRanges
from regcls.runs import RunResult, RunSpec
from regcls.training.ensemble import Recipe, Trained
from regcls.training.ensemble_data import Network

Spec = TypeVar("Spec", bound=RunSpec)


@dataclass(frozen=True, kw_only=True)
class Member(Generic[Spec]):
    """One network of a run, which learns one part of it (a function's name, an activity)."""

    spec: Spec
    part: str


class Networks(Protocol[Spec]):
    """An opened data set, and the networks of the runs on it."""

    @property
    def dataset(self) -> str:
        """Name of the data set."""

    @property
    def inputs(self) -> int:
        """D."""

    @property
    def parts(self) -> Sequence[str]:
        """The parts that a run learns, with one network each."""

    @property
    def part_name(self) -> str:
        """The word for a part: function, activity."""

    @property
    def every_epoch(self) -> Sequence[str]:
        """Evaluation sets to measure after each epoch; the others are measured after the last."""

    @property
    def predict(self) -> Sequence[str]:
        """Evaluation sets whose predictions `result` needs."""

    def result_code(self) -> str:
        """Digest of the code that decides a result."""

    def digest(self, spec: Spec) -> str:
        """SHA-256 of all data that a run sees."""

    def recipe(self, spec: Spec) -> Recipe:
        """The recipe of a run; networks train together only if theirs are equal."""

    def samples(self, member: Member[Spec]) -> int:
        """N, the number of training samples."""

    def head_classes(self, member: Member[Spec]) -> int:
        """K: 0 without classes, C for uniform ranges, fewer for equalised ones."""

    def order(self, spec: Spec) -> tuple[Any, ...]:
        """Sort key of a run among those with the same number of classes."""

    def remarks(self) -> Sequence[str]:
        """Remarks on the data for the user, complete once `head_classes` has been called for all networks."""

    def networks(self, members: Sequence[Member[Spec]]) -> list[Network]:
        """The data of each network."""

    def result(self, spec: Spec, trained: Mapping[str, Trained], *, started: float, ended: float) -> RunResult:
        """The result of a run from its trained networks by part. `started`, `ended`: Unix seconds."""

    def reopened(self) -> "Callable[[], Networks[Spec]]":
        """A function that opens the same data in another process."""


class ClassCounter:
    """Counts the classes K of heads with equalised classes, once for each training set."""

    def __init__(self) -> None:
        self._counts: dict[Hashable, int] = {}
        self._unbalanced = 0  # training sets that keep uniform ranges, since equalising would leave one class

    def __call__(self, key: Hashable, make: Callable[[], ClassRanges]) -> int:
        """K of the training set `key`; `make` returns its classes."""
        if key not in self._counts:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self._counts[key] = len(make())
            self._unbalanced += bool(caught)
        return self._counts[key]

    def remarks(self) -> list[str]:
        """A remark on the training sets whose classes cannot be balanced, if any."""
        if not self._unbalanced:
            return []
        return [
            f"{self._unbalanced} of {len(self._counts)} training sets keep uniform classes where balanced ones are asked for: "
            "equalising would leave a single class"
        ]


def mean_accuracy(trained: Iterable[Trained]) -> dict[str, float]:
    """train/accuracy, test/accuracy/all and so on: top-1 accuracy, the mean over a run's networks; empty without a class head."""
    accuracies = [network.accuracy for network in trained]
    means = {name: float(np.mean([accuracy[name] for accuracy in accuracies])) for name in accuracies[0]}
    return {f"{name}/accuracy" if name == "train" else f"{name}/accuracy/all": mean for name, mean in means.items()}


def quietly(make: Callable[[], ClassRanges]) -> ClassRanges:
    """Call `make` without the warning that classes cannot be balanced: `ClassCounter.remarks` has reported it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()
