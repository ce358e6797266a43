"""ImageNet weights for an encoder, from a file published by torchvision."""

from pathlib import Path

import torch
from torch import Tensor

from regcls.errors import UserError
from regcls.models.resnet import ResNet, load_torchvision


def load_pretrained(encoder: ResNet, file: Path) -> None:
    """Load `file`, a state dict of torchvision's ResNet of the same depth and width, into `encoder`.

    Raises:
        UserError: the file is missing, damaged, or of another network; the encoder is left unchanged.
    """
    needed = f"weights must be torchvision's file for ResNet-{encoder.depth} with width {encoder.width} (or `random`)"
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}; {needed}") from error
    except Exception as error:  # a damaged archive or pickle can raise anything
        raise UserError(f"{file} is damaged or not a PyTorch checkpoint ({type(error).__name__}); fetch it again. {needed}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{file} is not a plain state dict; {needed}")
    try:
        load_torchvision(encoder, state)
    except ValueError as error:
        raise UserError(f"{file} is {error}; {needed}, or choose `model` and `width` to match it") from error
