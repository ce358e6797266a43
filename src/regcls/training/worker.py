"""What a training process does: networks of one chunk -> trained networks. It knows nothing of tracking."""

from collections.abc import Sequence
from pathlib import Path

import torch

from regcls.datasets.synthetic import SyntheticSets
from regcls.training.ensemble import Trained, train
from regcls.training.networks import Member, network, recipe

_sets: SyntheticSets


def set_up(prepared: Path, threads: int | None) -> None:
    """Prepare a process for training: one thread a core, and its own view of the data."""
    global _sets
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # the tails of a softmax are tiny, and denormal arithmetic is a hundred times slower
    _sets = SyntheticSets(prepared)


def train_chunk(members: Sequence[Member], device: str) -> list[Trained]:
    """Train the networks of `members` side by side; validated after each epoch and tested at the end."""
    return train([network(member, _sets) for member in members], recipe(members[0].spec), device=device, every_epoch=("val",))
