"""Order and draws depend only on seed and epoch; batches come in order, and their producers end."""

import threading
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from regcls.training.augment import for_faces
from regcls.training.feed import AugmentedBatches, batch_keys, batches_of, draws, order, prefetched, stream

SIZE, PAD = 12, 3
IMAGES = np.random.default_rng(5).integers(0, 256, (20, SIZE, SIZE, 3), dtype=np.uint8)
KEYS = [(epoch, np.arange(start, start + 5)) for epoch in (0, 1) for start in (0, 5, 10)]


def test_an_order_is_a_new_permutation_for_each_epoch_and_seed():
    first = order(1000, seed=1, epoch=0)
    assert sorted(first.tolist()) == list(range(1000))
    assert np.array_equal(first, order(1000, seed=1, epoch=0))
    others = [order(1000, seed=seed, epoch=epoch) for seed, epoch in ((1, 1), (2, 0), (0, 1))]
    assert all((one != other).mean() > 0.9 for one, other in pairwise([first, *others]))


def test_draws_are_uniform_and_new_for_each_epoch_and_seed():
    first = draws(100_000, seed=1, epoch=0)
    assert np.array_equal(first, draws(100_000, seed=1, epoch=0))
    assert first.min() >= 0 and first.max() < 1
    assert np.histogram(first, 10, (0, 1))[0] == pytest.approx(10_000, abs=500)
    for other in (draws(100_000, seed=1, epoch=1), draws(100_000, seed=2, epoch=0), order(100_000, seed=1, epoch=0)):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.02


@pytest.mark.parametrize("samples, sizes", [(10, [4, 4, 2]), (8, [4, 4]), (9, [4, 4]), (3, [3]), (1, [1]), (0, [])])
def test_batches_cover_all_samples_except_a_single_last_one(samples, sizes):
    cuts = batches_of(samples, 4)
    assert [len(range(samples)[cut]) for cut in cuts] == sizes
    assert [sample for cut in cuts for sample in range(samples)[cut]] == list(range(sum(sizes)))


@pytest.fixture
def batches(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    rows = np.arange(20)[::-1].copy()
    return AugmentedBatches({"image": tmp_path / "images.npy"}, rows, partial(for_faces, pad=PAD, flip=0.5, seed=7))


def test_a_batch_holds_the_augmented_images_of_its_samples(batches):
    key, arrays = batches[(1, np.array([4, 2]))]
    assert key[0] == 1 and key[1].tolist() == [4, 2]
    assert arrays.keys() == {"image"} and arrays["image"].dtype == torch.uint8
    augment = for_faces(pad=PAD, flip=0.5, seed=7)
    expected = [augment(image=IMAGES[19 - sample], epoch=1, sample=sample)["image"] for sample in (4, 2)]
    assert np.array_equal(arrays["image"].numpy(), expected)


def test_an_epochs_batches_have_each_sample_once_in_its_own_order():
    keys = list(batch_keys(10, batches_of(10, 4), seed=3, first=1, last=3))
    assert [epoch for epoch, _ in keys] == [1, 1, 1, 2, 2, 2]
    for epoch in (1, 2):
        assert np.array_equal(np.concatenate([samples for at, samples in keys if at == epoch]), order(10, seed=3, epoch=epoch))


def as_lists(stream):
    found = list(stream)
    assert {type(samples) for (_, samples), _ in found} == {np.ndarray}
    return [(epoch, samples.tolist(), arrays["image"].numpy().tolist()) for (epoch, samples), arrays in found]


def test_a_stream_yields_batches_in_order(batches):
    assert as_lists(stream(batches, iter(KEYS), loaders=0, pinned=False)) == as_lists(batches[key] for key in KEYS)


@pytest.mark.usefixtures("all_cores")  # PyTorch warns of more loaders than cores
def test_processes_give_the_same_batches_as_a_thread(batches):
    before = torch.get_rng_state()
    assert as_lists(stream(batches, iter(KEYS), loaders=2, pinned=False)) == as_lists(batches[key] for key in KEYS)
    assert torch.equal(torch.get_rng_state(), before)  # or a resumed run would continue with other numbers


def test_items_are_prefetched_in_order():
    produced = []
    items = prefetched(lambda n: produced.append(n) or 10 * n, range(50))
    assert next(items) == 0
    deadline = threading.Event()
    while len(produced) < 4 and not deadline.wait(0.01):
        pass
    assert len(produced) < 10  # not all of them
    assert list(items) == [10 * n for n in range(1, 50)]


def makers(before):
    return [thread for thread in threading.enumerate() if thread not in before]


@pytest.mark.parametrize("where", ["maker", "keys"])
def test_an_error_in_the_thread_is_raised_at_its_item(where):
    def failing(n):
        if n == 3 and where == "maker":
            raise OSError("gone")
        return n

    def keys():
        yield from range(3)
        if where == "keys":
            raise OSError("gone")
        yield 3

    before, got = threading.enumerate(), []
    with pytest.raises(OSError, match="gone"):
        for n in prefetched(failing, keys()):
            got.append(n)
    assert got == [0, 1, 2]
    assert not makers(before)


def test_leaving_the_loop_early_ends_the_thread():
    before = threading.enumerate()
    things = prefetched(lambda n: n, iter(int, 1))  # endless
    next(things)
    assert makers(before)
    things.close()
    assert not makers(before)
