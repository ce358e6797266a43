"""What a training process does: networks of one chunk -> trained networks. It knows nothing of tracking."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from regcls.training.ensemble import Trained, train
from regcls.training.ensemble_networks import Member, Networks

Tell = Callable[[tuple[int, int]], None]  # of a chunk's place in the plan, and how many more epochs it has gone through

TELL_EVERY = 0.5  # seconds
_networks: Networks[Any]
_tell: Tell


def set_up(reopened: Callable[[], Networks[Any]], threads: int, tell: Tell) -> None:
    """Prepare a process for training, with its own view of the data."""
    global _networks, _tell
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # the tails of a softmax are tiny, and denormal arithmetic is a hundred times slower
    _networks, _tell = reopened(), tell


def train_chunk(place: int, members: Sequence[Member[Any]], device: str) -> list[Trained]:
    """Train the networks of `members`, the chunk at `place` of the plan, side by side."""
    told, epochs = time.monotonic(), 0

    def on_epoch() -> None:
        nonlocal told, epochs
        epochs += 1
        if time.monotonic() - told >= TELL_EVERY:
            _tell((place, epochs))
            told, epochs = time.monotonic(), 0

    networks, recipe = _networks.networks(members), _networks.recipe(members[0].spec)
    return train(networks, recipe, device=device, every_epoch=_networks.every_epoch, predict=_networks.predict, on_epoch=on_epoch)
