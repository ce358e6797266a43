"""Which device to compute on."""

from typing import Literal

import torch

from regcls.errors import UserError

Device = Literal["cpu", "cuda"]


def device_for(asked: Literal["auto", "cpu", "cuda"]) -> Device:
    """The device asked for; auto is CUDA where it is there.

    Raises:
        UserError: cuda is asked for and not there.
    """
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise UserError(
            "compute.device = cuda, but PyTorch sees no GPU. Check nvidia-smi and `docker run --gpus all`, or set compute.device to auto."
        )
    return "cuda" if there and asked != "cpu" else "cpu"
