"""What a training process does: networks of one chunk -> trained networks. It knows nothing of tracking."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from regcls.training.ensemble import Trained, train
from regcls.training.ensemble_kinds import Kind, Member

_kind: Kind[Any]


def set_up(reopened: Callable[[], Kind[Any]], threads: int) -> None:
    """Prepare a process for training, with its own view of the data."""
    global _kind
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # the tails of a softmax are tiny, and denormal arithmetic is a hundred times slower
    _kind = reopened()


def train_chunk(members: Sequence[Member[Any]], device: str) -> list[Trained]:
    """Train the networks of `members` side by side."""
    networks, recipe = _kind.networks(members), _kind.recipe(members[0].spec)
    return train(networks, recipe, device=device, every_epoch=_kind.every_epoch, predict=_kind.predict)
