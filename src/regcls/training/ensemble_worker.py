"""Trains the networks of one chunk at a place, mostly in a worker process. Independent of tracking."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from regcls.provenance import gpu_name
from regcls.training import worker
from regcls.training.device import Device
from regcls.training.ensemble import Trained, train
from regcls.training.ensemble_networks import Member, Networks

REPORT_SECONDS = 0.5  # between reports
_networks: Networks[Any]


def set_up(reopened: Callable[[], Networks[Any]]) -> None:
    """Prepare a process for training, with its own view of the data."""
    global _networks
    torch.set_flush_denormal(True)  # the tails of a softmax are tiny, and denormal arithmetic is a hundred times slower
    _networks = reopened()


def train_chunk(index: int, members: Sequence[Member[Any]], device: Device) -> tuple[list[Trained], str]:
    """Train the networks of `members`, the chunk at `index` of the plan, together; return them, and the name of the GPU, if it is one.

    Reports `index`, and the number of epochs since the last report.
    """
    last_report, epochs = time.monotonic(), 0

    def on_epoch() -> None:
        nonlocal last_report, epochs
        epochs += 1
        if time.monotonic() - last_report >= REPORT_SECONDS:
            worker.report(index, epochs)
            last_report, epochs = time.monotonic(), 0

    networks, recipe = _networks.networks(members), _networks.recipe(members[0].spec)
    trained = train(networks, recipe, device=device, every_epoch=_networks.every_epoch, predict=_networks.predict, on_epoch=on_epoch)
    return trained, gpu_name() if device == "cuda" else ""
