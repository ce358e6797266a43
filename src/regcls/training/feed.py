"""Images to a network: their order, and bringing them, augmented, while it computes.

All chance is a function of (seed, epoch, sample), so that a resumed run sees what an uninterrupted one would.
Legend: N samples, B batch, S pixels of a side.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from regcls.training.augment import Augmentation

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


def batches_of(samples: int, batch_size: int) -> list[slice]:
    """An epoch cut into batches. A last one of a single sample is left out: batch norm cannot take it where images shrink to a pixel."""
    cuts = [slice(start, min(start + batch_size, samples)) for start in range(0, samples, batch_size)]
    return cuts[:-1] if len(cuts) > 1 and cuts[-1].stop - cuts[-1].start == 1 else cuts


Key = tuple[int, NDArray[np.int64]]  # epoch, samples of a batch


class AugmentedBatches(Dataset[tuple[Key, Tensor]]):
    """Batches of augmented images by (epoch, samples), read from a memory-mapped file."""

    def __init__(self, file: Path, rows: NDArray[np.int64], *, pad: int, flip: float, seed: int) -> None:
        self.file, self.rows = file, rows
        self.pad, self.flip, self.seed = pad, flip, seed
        self._images: NDArray[np.uint8] | None = None

    def __getitem__(self, key: Key) -> tuple[Key, Tensor]:
        """The key, and the images (B, S, S, 3), uint8."""
        if self._images is None:  # opened in the process that reads
            import cv2

            cv2.setNumThreads(0)  # one process a core already
            self._images = np.asarray(np.load(self.file, mmap_mode="r"))  # a plain view: indexing a memmap is slow
            self._augment = Augmentation(pad=self.pad, flip=self.flip, seed=self.seed)
        epoch, samples = key
        batch = np.empty((len(samples), *self._images.shape[1:]), dtype=np.uint8)
        for place, sample in enumerate(samples.tolist()):
            batch[place] = self._augment(self._images[self.rows[sample]], epoch=epoch, sample=sample)
        return key, torch.from_numpy(batch)


def stream(batches: AugmentedBatches, keys: Iterable[Key], *, loaders: int, pinned: bool) -> Iterator[tuple[Key, Tensor]]:
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
