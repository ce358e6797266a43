"""The CPU and the GPUs of this machine."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from regcls.errors import UserError
from regcls.processes import check_memory
from regcls.words import counted

Device = Literal["cpu", "cuda"]

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU that this process may use."""

    id: str  # an entry of CUDA_VISIBLE_DEVICES: an index, a UUID, or the id of a MIG device
    memory: float  # bytes, used ones included


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where networks train, one run or chunk at a time: on some cores, or on one GPU."""

    device: Device
    threads: int
    gpu: Gpu | None = None
    here: bool = True  # whether this process can train there itself: on the CPU, or on the only GPU; else only a process of its own


def visible_gpus() -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves visible, in its order.

    This needs no CUDA context, which would take memory from the processes that train, or a whole GPU in exclusive mode.
    """
    if not torch.cuda.is_available():
        return []
    count, listed = torch.cuda.device_count(), os.environ.get(VISIBLE)
    ids = [str(index) for index in range(count)] if listed is None else [entry.strip() for entry in listed.split(",")]
    memory = [float(torch.cuda.get_device_properties(index).total_memory) for index in range(count)]
    if ids[0].startswith("MIG-"):  # of these a process sees only the first, whichever are listed
        return [Gpu(id=entry, memory=memory[0]) for entry in ids if entry.startswith("MIG-")]
    return [Gpu(id=entry, memory=size) for entry, size in zip(ids, memory, strict=False)]  # CUDA ignores entries after an invalid one


def device_for(setting: Literal["auto", "cpu", "cuda"]) -> Device:
    """The device for a setting; auto: CUDA if available.

    Raises:
        UserError: the setting is cuda, but there is no GPU.
    """
    available = bool(visible_gpus())
    if setting == "cuda" and not available:
        raise UserError(
            "compute.device = cuda, but PyTorch sees no GPU. Check nvidia-smi and `docker run --gpus all`, or set compute.device to auto."
        )
    return "cuda" if available and setting != "cpu" else "cpu"


def gpus_for(setting: Literal["auto"] | int) -> list[Gpu]:
    """The GPUs for a setting: all that are visible, or the first ones.

    Raises:
        UserError: there are not so many.
    """
    gpus = visible_gpus()
    wanted = len(gpus) if setting == "auto" else setting
    if wanted > len(gpus):
        hidden = f" ({VISIBLE}={os.environ[VISIBLE]})" if VISIBLE in os.environ else ""
        raise UserError(
            f"compute.gpus = {wanted}, but PyTorch sees only {counted(len(gpus), 'GPU')}{hidden}. Set compute.gpus to auto, or to at most "
            f"{len(gpus)}."
        )
    return gpus[:wanted]


def check_device_memory(needed: float, what: str, place: Place) -> None:
    """Raise a UserError if `what` needs more bytes than the GPU has, or than are free for the CPU."""
    if place.gpu is None:
        check_memory(needed, what)
    elif needed > place.gpu.memory:
        raise UserError(
            f"{what} needs about {needed / 1e9:.1f} GB of memory, and the GPU has {place.gpu.memory / 1e9:.1f} GB. Choose smaller numbers."
        )


def training_bytes(make: Callable[[], nn.Module]) -> int:
    """What training a network takes at least: float32 weights, their gradients, and two averages of the optimizer."""
    with torch.device("meta"):  # without memory
        return 4 * 4 * sum(weight.numel() for weight in make().parameters())
