"""The device to compute on."""

from typing import Literal

import torch

from regcls.errors import UserError

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
