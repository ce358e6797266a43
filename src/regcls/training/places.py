"""The places where runs train: cores, or GPUs with a process for each."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from typing import Any, TypeVar

import torch

from regcls.params import Compute
from regcls.processes import worker_pool
from regcls.training.device import VISIBLE, Place, device_for, gpus_for

T = TypeVar("T")


def places_for(compute: Compute) -> list[Place]:
    """All places to train at: one for each GPU, or for each process on the CPU. They share the cores.

    A run has as many threads if it is the only one: their number changes rounding, which training amplifies.

    Raises:
        UserError: fewer GPUs are visible than compute.device or compute.gpus requires.
    """
    device = device_for(compute.device)
    gpus = gpus_for(compute.gpus) if device == "cuda" else [None] * compute.process_count
    threads = max(1, compute.cores // len(gpus))
    here = device == "cpu" or len(gpus) == 1
    return [Place(device=device, threads=threads, gpu=gpu, here=here) for gpu in gpus]


def smallest(places: Sequence[Place]) -> Place:
    """The place with the least memory, which all that trains must fit into."""
    return min(places, key=lambda place: place.gpu.memory if place.gpu else 0.0)


@contextmanager
def pool_at(places: Sequence[Place], set_up: Callable[..., object] | None = None, *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """A `worker_pool` with one process at each place, which first runs `set_up(*arguments)`."""
    taken = get_context("spawn").Value("i", 0)
    with worker_pool(len(places), _begin_at, tuple(places), taken, set_up, arguments) as pool:
        yield pool


def _begin_at(places: Sequence[Place], taken: "Synchronized[int]", set_up: Callable[..., object] | None, arguments: Sequence[Any]) -> None:
    with taken.get_lock():  # the next place that no process of the pool has
        place = places[taken.value]
        taken.value += 1
    if place.gpu:  # before CUDA is initialised: the GPU is the only one that this process sees
        os.environ[VISIBLE] = place.gpu.id
    torch.set_num_threads(place.threads)
    if set_up:
        set_up(*arguments)


def are_here(places: Sequence[Place]) -> bool:
    """Whether this process needs no others to train at all places."""
    return len(places) == 1 and places[0].here


def call_at(place: Place, function: Callable[..., T], *arguments: Any) -> T:
    """function(*arguments) at a place: in this process if that is possible, else in another, which ends."""
    if not place.here:
        with pool_at([place]) as pool:
            return pool.submit(function, *arguments).result()
    threads = torch.get_num_threads()
    torch.set_num_threads(place.threads)
    try:
        return function(*arguments)
    finally:
        torch.set_num_threads(threads)
