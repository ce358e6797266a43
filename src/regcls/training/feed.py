"""Images to a network: their order, and bringing them, augmented, while it computes.

All chance is a function of (seed, epoch, sample), so that a resumed run sees what an uninterrupted one would.
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
ORDER, KEEP = 0, 1  # what a stream of random numbers is for; 2 is augment.py's
AHEAD = 4  # batches made before they are asked for


def order(samples: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of 0 … N − 1, a new one each epoch."""
    return np.random.default_rng([ORDER, seed, epoch]).permutation(samples)


def draws(samples: int, *, seed: int, epoch: int) -> NDArray[np.float32]:
    """A uniform number in [0, 1) for each sample, anew each epoch, for Eq. 13."""
    return np.random.default_rng([KEEP, seed, epoch]).random(samples, dtype=np.float32)


def moved(array: NDArray[Any], device: Device) -> Tensor:
    """On the device; from pinned memory, so that the step does not wait for the GPU."""
    tensor = torch.from_numpy(array)
    return tensor if device == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def batches_of(samples: int, batch_size: int) -> list[slice]:
    """An epoch cut into batches. A last one of a single sample is left out: batch norm cannot take it where images shrink to a pixel."""
    cuts = whole_of(samples, batch_size)
    return cuts[:-1] if len(cuts) > 1 and cuts[-1].stop - cuts[-1].start == 1 else cuts


def whole_of(samples: int, batch_size: int) -> list[slice]:
    """All samples cut into batches, for an evaluation: none is left out."""
    return [slice(start, min(start + batch_size, samples)) for start in range(0, samples, batch_size)]


Key = tuple[int, NDArray[np.int64]]  # epoch, samples of a batch


def epochs_of(samples: int, cuts: Sequence[slice], *, seed: int, first: int, last: int) -> Iterator[Key]:
    """The batches of the epochs `first` … `last` − 1, each in an order of its own."""
    for epoch in range(first, last):
        shuffled = order(samples, seed=seed, epoch=epoch)
        yield from ((epoch, shuffled[cut]) for cut in cuts)


Made = tuple[Key, dict[str, Tensor]]  # the key, and the arrays of its batch (B, …), uint8 but for colours that are not cut


class AugmentedBatches(Dataset[Made]):
    """Augmented batches by (epoch, samples), read from memory-mapped files: one for each array of a sample."""

    def __init__(self, files: Mapping[str, Path], rows: NDArray[np.int64], augmentation: Callable[[], Augmentation]) -> None:
        """`files` by the names that albumentations knows, as `image` and `mask`; `rows` (N,) of them; `augmentation` makes the run's."""
        self.files, self.rows, self.augmentation = files, rows, augmentation
        self._arrays: dict[str, NDArray[np.uint8]] = {}

    def __getitem__(self, key: Key) -> Made:
        """The key, and its batch."""
        if not self._arrays:  # opened in the process that reads
            import cv2

            cv2.setNumThreads(0)  # one process a core already
            # Plain views: indexing a memmap is slow.
            self._arrays = {name: np.asarray(np.load(file, mmap_mode="r")) for name, file in self.files.items()}
            self._augment = self.augmentation()
        epoch, samples = key
        batch: dict[str, NDArray[Any]] = {}
        for place, sample in enumerate(samples.tolist()):
            row = self.rows[sample]
            made = self._augment(epoch=epoch, sample=sample, **{name: array[row] for name, array in self._arrays.items()})
            if not batch:
                batch = {name: np.empty((len(samples), *array.shape), dtype=array.dtype) for name, array in made.items()}
            for name, array in made.items():
                batch[name][place] = array
        return key, {name: torch.from_numpy(array) for name, array in batch.items()}


def stream(batches: AugmentedBatches, keys: Iterable[Key], *, loaders: int, pinned: bool) -> Iterator[Made]:
    """The batches of `keys` in order, made by `loaders` processes, or by a thread if that is 0, before they are asked for."""
    if loaders == 0:
        return prefetched(lambda key: batches[key], keys)
    loader = DataLoader(
        batches,
        sampler=keys,
        batch_size=None,
        num_workers=loaders,
        prefetch_factor=AHEAD,
        pin_memory=pinned,
        generator=torch.Generator(),  # its own: the loader draws a seed for its processes
        multiprocessing_context="forkserver",  # not fork: a process with threads of its own (PyTorch, CUDA) must not be copied
    )
    return iter(loader)


def prefetched(make: Callable[[T], U], keys: Iterable[T]) -> Iterator[U]:
    """make(key) for each key, a few ahead, in a thread. What goes wrong there is raised here; leaving early ends the thread."""
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
