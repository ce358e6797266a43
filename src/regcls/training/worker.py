"""What a training process does: networks of one chunk -> trained networks. It knows nothing of tracking."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from regcls.classes import class_ranges
from regcls.datasets.synthetic import Split, SyntheticSets
from regcls.params import Sampling
from regcls.runs import RunSpec
from regcls.training.ensemble import Network, Recipe, Trained, train

_sets: SyntheticSets


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network of a run: the run and the function it learns."""

    spec: RunSpec
    function: int


def set_up(prepared: Path, threads: int | None) -> None:
    """Prepare a process for training: one thread a core, and its own view of the data."""
    global _sets
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # the tails of a softmax are tiny, and denormal arithmetic is a hundred times slower
    _sets = SyntheticSets(prepared)


def recipe(spec: RunSpec) -> Recipe:
    """The part of a spec that networks trained together must share."""
    h1, h2 = spec.hidden
    return Recipe(hidden=(h1, h2), epochs=spec.epochs, batch_size=spec.batch_size, optimizer=spec.optimizer,
                  learning_rate=spec.learning_rate, weight_decay=spec.weight_decay, precision=spec.precision)  # fmt: skip


def train_chunk(members: Sequence[Member], device: str) -> list[Trained]:
    """Train the networks of `members` side by side; validated after each epoch and tested at the end, on the uniform sets."""
    return train([_network(member) for member in members], recipe(members[0].spec), device=device, every_epoch=("val",))


def _network(member: Member) -> Network:
    spec = member.spec

    def load(sampling: Sampling, split: Split) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        x, y = _sets.get(spec.data_key, sampling, member.function, spec.repetition, split)
        return x[None], y

    x, y = load(spec.sampling, "train")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where classes cannot be balanced, the planning process has said so
        classes = None if spec.method == "reg" else class_ranges(spec.classes, y, balanced=spec.balanced)
    return Network(
        x=x,
        y=y,
        classes=classes,
        lam=1.0 if spec.lam is None else spec.lam,
        seed=spec.seed,
        evaluate={"val": load("uniform", "val"), "test": load("uniform", "test")},
    )
