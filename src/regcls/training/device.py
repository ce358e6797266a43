"""The device to compute on."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from regcls.errors import UserError
from regcls.processes import check_memory

Device = Literal["cpu", "cuda"]


def device_for(setting: Literal["auto", "cpu", "cuda"]) -> Device:
    """The device for a setting; auto: CUDA if available.

    Raises:
        UserError: the setting is cuda, but there is no GPU.
    """
    available = torch.cuda.is_available()
    if setting == "cuda" and not available:
        raise UserError(
            "compute.device = cuda, but PyTorch sees no GPU. Check nvidia-smi and `docker run --gpus all`, or set compute.device to auto."
        )
    return "cuda" if available and setting != "cpu" else "cpu"


def check_device_memory(needed: float, what: str, device: Device) -> None:
    """Raise a UserError if `what` needs more bytes than the device has free."""
    check_memory(needed, what, free=torch.cuda.mem_get_info()[0] if device == "cuda" else None)


def training_bytes(make: Callable[[], nn.Module]) -> int:
    """What training a network takes at least: float32 weights, their gradients, and two averages of the optimizer."""
    with torch.device("meta"):  # without memory
        return 4 * 4 * sum(weight.numel() for weight in make().parameters())
