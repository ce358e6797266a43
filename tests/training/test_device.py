"""Which GPUs are visible, and what fits into them."""

from types import SimpleNamespace

import pytest
import torch

from regcls.errors import UserError
from regcls.training.device import VISIBLE, Gpu, Place, check_device_memory, gpus_for, visible_gpus
from training.fake_gpus import plug_in


@pytest.fixture
def cuda(monkeypatch):
    """PyTorch reports so many GPUs, with 10, 20, 30 … bytes."""

    def make(count, listed=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(total_memory=10 * (index + 1)))
        if listed is None:
            monkeypatch.delenv(VISIBLE, raising=False)
        else:
            monkeypatch.setenv(VISIBLE, listed)

    return make


@pytest.mark.parametrize(
    "count, listed, ids",
    [
        (3, None, ["0", "1", "2"]),
        (2, "3,1", ["3", "1"]),
        (2, " GPU-8f6a , GPU-01bc", ["GPU-8f6a", "GPU-01bc"]),
        (1, "2,-1,3", ["2"]),  # CUDA ignores what follows an invalid entry
        (1, "MIG-1111,MIG-2222", ["MIG-1111", "MIG-2222"]),  # a process sees only the first
        (0, "", []),
        (0, None, []),
    ],
)
def test_visible_gpus_keep_their_ids_and_order(cuda, count, listed, ids):
    cuda(count, listed)
    assert [gpu.id for gpu in visible_gpus()] == ids


def test_each_gpu_has_its_own_memory(cuda):
    cuda(2, "5,4")
    assert visible_gpus() == [Gpu(id="5", memory=10.0), Gpu(id="4", memory=20.0)]
    small, large = (Place(device="cuda", threads=1, gpu=gpu) for gpu in visible_gpus())
    check_device_memory(20, "training", large)
    with pytest.raises(UserError, match="^training needs about 0.0 GB of memory, and the GPU has 0.0 GB. Choose smaller numbers.$"):
        check_device_memory(20, "training", small)


def test_more_gpus_than_are_visible_are_a_clear_error(monkeypatch):
    plug_in(monkeypatch, "2", "3")
    monkeypatch.setenv(VISIBLE, "2,3")
    message = "compute.gpus = 3, but PyTorch sees only 2 GPUs (CUDA_VISIBLE_DEVICES=2,3). Set compute.gpus to auto, or to at most 2."
    with pytest.raises(UserError) as error:
        gpus_for(3)
    assert str(error.value) == message
