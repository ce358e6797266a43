"""Feeds images to a network: shuffles them, and augments batches ahead while it computes.

All randomness is a function of (seed, epoch, sample), so that a resumed run sees the same batches as an uninterrupted one.
Legend: N samples, B batch.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from regcls.training.augment import Augmentation
from regcls.training.device import Device

T = TypeVar("T")
U = TypeVar("U")
ORDER, KEEP = 0, 1  # streams of random numbers; augment.py uses 2
AHEAD = 4  # batches prepared in advance


def order(samples: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of 0 … N − 1 for each epoch."""
    return np.random.default_rng([ORDER, seed, epoch]).permutation(samples)


def draws(samples: int, *, seed: int, epoch: int) -> NDArray[np.float32]:
    """(N,) uniform draws in [0, 1) for each epoch, to compare with ρ (Eq. 13)."""
    return np.random.default_rng([KEEP, seed, epoch]).random(samples, dtype=np.float32)


def to_device(array: NDArray[Any], device: Device) -> Tensor:
    """Copy an array to the device; from pinned memory, so that the step does not wait for the GPU."""
    tensor = torch.from_numpy(array)
    return tensor if device == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def batches_of(samples: int, batch_size: int) -> list[slice]:
    """Slices of the batches of an epoch. A last batch of one sample is dropped: batch norm fails on it where images shrink to one pixel."""
    cuts = evaluation_batches(samples, batch_size)
    return cuts[:-1] if len(cuts) > 1 and cuts[-1].stop - cuts[-1].start == 1 else cuts


def evaluation_batches(samples: int, batch_size: int) -> list[slice]:
    """Slices of the batches of an evaluation, which drops no sample."""
    return [slice(start, min(start + batch_size, samples)) for start in range(0, samples, batch_size)]


Key = tuple[int, NDArray[np.int64]]  # epoch, sample indices of a batch


def batch_keys(samples: int, cuts: Sequence[slice], *, seed: int, first: int, last: int) -> Iterator[Key]:
    """The keys of all batches of the epochs `first` … `last` − 1, reshuffled in each."""
    for epoch in range(first, last):
        shuffled = order(samples, seed=seed, epoch=epoch)
        yield from ((epoch, shuffled[cut]) for cut in cuts)


KeyedBatch = tuple[Key, dict[str, Tensor]]  # the key, and arrays (B, …) by name; uint8, except colours that are not clipped


class AugmentedBatches(Dataset[KeyedBatch]):
    """Augmented batches by (epoch, sample indices), read from memory-mapped files, one file for each array of a sample."""

    def __init__(self, files: Mapping[str, Path], rows: NDArray[np.int64], augmentation: Callable[[], Augmentation]) -> None:
        """`files`: by albumentations' target names (`image`, `mask`); `rows` (N,): of the samples; `augmentation`: creates the run's."""
        self.files, self.rows, self.augmentation = files, rows, augmentation
        self._arrays: dict[str, NDArray[np.uint8]] = {}

    def __getitem__(self, key: Key) -> KeyedBatch:
        """The key, and its batch."""
        if not self._arrays:  # opened in the process that reads
            import cv2

            cv2.setNumThreads(0)  # there is one process per core already
            # Plain views: indexing a memmap is slow.
            self._arrays = {name: np.asarray(np.load(file, mmap_mode="r")) for name, file in self.files.items()}
            self._augment = self.augmentation()
        epoch, samples = key
        batch: dict[str, NDArray[Any]] = {}
        for index, sample in enumerate(samples.tolist()):
            row = self.rows[sample]
            augmented = self._augment(epoch=epoch, sample=sample, **{name: array[row] for name, array in self._arrays.items()})
            if not batch:
                batch = {name: np.empty((len(samples), *array.shape), dtype=array.dtype) for name, array in augmented.items()}
            for name, array in augmented.items():
                batch[name][index] = array
        return key, {name: torch.from_numpy(array) for name, array in batch.items()}


def stream(batches: AugmentedBatches, keys: Iterable[Key], *, loaders: int, pinned: bool) -> Iterator[KeyedBatch]:
    """The batches of `keys` in order, prepared ahead by `loaders` processes, or by a thread if `loaders` is 0."""
    if loaders == 0:
        return prefetched(lambda key: batches[key], keys)
    loader = DataLoader(
        batches,
        sampler=keys,
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=loaders,
        prefetch_factor=AHEAD,
        pin_memory=pinned,
        generator=torch.Generator(),  # not the global one: the loader draws a seed for its processes
        multiprocessing_context="forkserver",  # not fork: a process with threads (PyTorch, CUDA) must not be copied
    )
    return iter(loader)


def _unchanged(batch: Any) -> Any:
    """Instead of the loader's own function, which makes the key's array a tensor."""
    return batch


def prefetched(make: Callable[[T], U], keys: Iterable[T]) -> Iterator[U]:
    """make(key) for each key, computed a few ahead in a thread. Re-raises the thread's exceptions; closing the iterator ends the thread."""
    ready: queue.Queue[tuple[str, object]] = queue.Queue(AHEAD)
    leaving = threading.Event()

    def put(kind: str, value: object) -> bool:
        while not leaving.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                pass
        return False

    def work() -> None:
        try:
            for key in keys:
                if not put("item", make(key)):
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]
    finally:
        leaving.set()
        thread.join()
