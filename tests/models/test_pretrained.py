"""Weights from files, and unusable files."""

from pathlib import Path

import pytest
import torch

from regcls.errors import UserError
from regcls.models.pretrained import load_pretrained
from regcls.models.resnet import ResNet


def published(width=4, depth=18):
    """A state dict like torchvision's, with an fc layer to be ignored."""
    torch.manual_seed(1)
    return {**ResNet(depth, width=width).state_dict(), "fc.weight": torch.zeros(1000, 8 * width), "fc.bias": torch.zeros(1000)}


def saved(content, path: Path, **options):
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_an_encoder_loads_weights_from_old_and_new_files(tmp_path, zipped):
    encoder = ResNet(18, width=4)
    load_pretrained(encoder, saved(published(), tmp_path / "resnet18.pth", _use_new_zipfile_serialization=zipped))
    assert all(torch.equal(value, published()[name]) for name, value in encoder.state_dict().items())


def damaged(path):
    content = bytearray(saved(published(), path).read_bytes())
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "cannot be read: No such file"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (damaged, "damaged or not a PyTorch checkpoint"),
        (lambda path: path.write_bytes(b""), "damaged or not a PyTorch checkpoint"),
        (lambda path: path.write_text("<html>Sign in</html>"), "damaged or not a PyTorch checkpoint"),
        (lambda path: saved(ResNet(18, width=4), path), "damaged or not a PyTorch checkpoint"),
        (lambda path: saved({"state_dict": published(), "epoch": 3}, path), "is not a plain state dict"),
        (lambda path: saved([1, 2], path), "is not a plain state dict"),
        (lambda path: saved(published(width=8), path), "conv1.weight has shape"),
        (lambda path: saved(published(depth=34), path), "layer1.2.conv1.weight is unexpected"),
        (lambda path: saved({}, path), "conv1.weight is missing"),
    ],
)
def test_an_unusable_file_is_reported_and_changes_nothing(tmp_path, write, message):
    file = tmp_path / "weights.pth"
    write(file)
    encoder = ResNet(18, width=4)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(UserError, match=message) as caught:
        load_pretrained(encoder, file)
    text = str(caught.value)
    assert str(file) in text and "ResNet-18 with width 4" in text and "\n" not in text
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
