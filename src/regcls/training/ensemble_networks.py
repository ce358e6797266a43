"""What the engine must know of the networks of a run: see networks.py of a task."""

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
    """One network of a run: the run, and the part of it that it learns (a function's name, an activity)."""

    spec: Spec
    part: str


class Networks(Protocol[Spec]):
    """The opened data of a kind, and how runs on it are made of networks."""

    @property
    def dataset(self) -> str:
        """Its name."""

    @property
    def inputs(self) -> int:
        """D."""

    @property
    def parts(self) -> Sequence[str]:
        """A run has one network for each."""

    @property
    def part_name(self) -> str:
        """What a part is: function, activity."""

    @property
    def every_epoch(self) -> Sequence[str]:
        """Evaluation sets that are measured after each epoch; the others after the last one."""

    @property
    def predict(self) -> Sequence[str]:
        """Evaluation sets whose predictions `result` needs."""

    def result_code(self) -> str:
        """Digest of the code that decides a result, next to the spec and the data."""

    def digest(self, spec: Spec) -> str:
        """SHA-256 over all the data that a run sees."""

    def recipe(self, spec: Spec) -> Recipe:
        """The part of a spec that networks trained together must share."""

    def samples(self, member: Member[Spec]) -> int:
        """N, in training."""

    def head_classes(self, member: Member[Spec]) -> int:
        """K: 0 without classes, C for uniform ranges, fewer for equalised ones."""

    def order(self, spec: Spec) -> tuple[Any, ...]:
        """Runs are made in this order, within those with equally many classes."""

    def remarks(self) -> Sequence[str]:
        """What the user should know of the data, once `head_classes` was asked for all networks."""

    def networks(self, members: Sequence[Member[Spec]]) -> list[Network]:
        """What the networks see."""

    def result(self, spec: Spec, trained: Mapping[str, Trained], *, started: float, ended: float) -> RunResult:
        """Part -> trained network, to what a run leaves behind."""

    def reopened(self) -> "Callable[[], Networks[Spec]]":
        """How another process opens the same data."""


class ClassCounter:
    """K of the heads with equalised classes, each made once."""

    def __init__(self) -> None:
        self._known: dict[Hashable, int] = {}
        self._unbalanced = 0  # training sets that keep uniform ranges, since equalising would leave one class

    def __call__(self, key: Hashable, make: Callable[[], ClassRanges]) -> int:
        """K of the training set `key`, whose classes `make` makes."""
        if key not in self._known:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self._known[key] = len(make())
            self._unbalanced += bool(caught)
        return self._known[key]

    def remarks(self) -> list[str]:
        """How many training sets' classes cannot be balanced."""
        if not self._unbalanced:
            return []
        return [
            f"{self._unbalanced} of {len(self._known)} training sets keep uniform classes where balanced ones are asked for: "
            "equalising would leave a single class"
        ]


def mean_accuracy(trained: Iterable[Trained]) -> dict[str, float]:
    """train/accuracy, test/accuracy/all and so on: top-1 of the class head, the mean over a run's networks; nothing without a head."""
    shares = [each.accuracy for each in trained]
    return {f"{name}/accuracy" + "/all" * (name != "train"): float(np.mean([each[name] for each in shares])) for name in shares[0]}


def quietly(make: Callable[[], ClassRanges]) -> ClassRanges:
    """Classes without the warning that they cannot be balanced: the plan has said so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()
