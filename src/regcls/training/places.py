"""The places where runs train: cores, or GPUs with a process for each, of this machine or of a Ray cluster."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from regcls.errors import UserError
from regcls.params import Compute
from regcls.processes import worker_pool
from regcls.progress import say
from regcls.training import worker
from regcls.training.cluster.connection import Cluster, NodePool, connect
from regcls.training.device import VISIBLE, Gpu, Place, device_for, gpus_for
from regcls.words import counted

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class NodePlace(Place):
    """A place on some node of a cluster."""

    cluster: Cluster


def places_for(compute: Compute, root: Path) -> list[Place]:
    """All places to train at: one for each GPU, or for each process on the CPU. They share the cores.

    A run has as many threads if it is the only one: their number changes rounding, which training amplifies. `root`: of the project.

    Raises:
        UserError: fewer GPUs are visible than compute.device or compute.gpus requires; or see `connect`.
    """
    if compute.engine == "ray":
        return _node_places(compute, connect(compute.address, root))
    device = device_for(compute.device)
    gpus = gpus_for(compute.gpus) if device == "cuda" else [None] * compute.process_count
    threads = max(1, compute.cores // len(gpus))
    here = device == "cpu" or len(gpus) == 1
    return [Place(device=device, threads=threads, gpu=gpu, here=here) for gpu in gpus]


def _node_places(compute: Compute, cluster: Cluster) -> list[Place]:
    nodes = cluster.nodes
    threads = max(1, min((node.cpus // node.gpus for node in nodes if node.gpus), default=1))
    gpus, cpus = sum(min(node.gpus, node.cpus // threads) for node in nodes), sum(node.cpus for node in nodes)
    there = f"the cluster at {cluster.address} has {counted(gpus, 'GPU')} and {counted(cpus, 'CPU')} on {counted(len(nodes), 'node')}"
    if gpus and compute.device != "cpu":
        count = gpus if compute.gpus == "auto" else compute.gpus
        if count > gpus:
            raise UserError(f"compute.gpus = {count}, but {there}. Set compute.gpus to auto, or start more nodes.")
        # Ray does not say how much memory its GPUs have: a run that does not fit says so itself.
        return [NodePlace(device="cuda", threads=threads, gpu=Gpu(id="", memory=float("inf")), here=False, cluster=cluster)] * count
    if compute.device == "cuda":
        raise UserError(f"compute.device = cuda, but {there}. Start nodes with GPUs, or set compute.device to auto.")
    count = cpus if compute.processes == "auto" else compute.processes
    most = max((node.cpus for node in nodes), default=0)
    fitting = [threads for threads in range(1, most + 1) if sum(node.cpus // threads for node in nodes) >= count]
    if not count or not fitting:
        raise UserError(f"compute.processes = {compute.processes}, but {there}. Set compute.processes to auto, or start more nodes.")
    return [NodePlace(device="cpu", threads=max(fitting), here=False, cluster=cluster)] * count


@contextmanager
def claim_for(compute: Compute, root: Path, what: str, *, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Be the only process of the cluster in a block for `what`; on_wait is called with the other one. Without a cluster, does nothing.

    Raises:
        UserError: see `connect`.
    """
    if compute.engine == "local":
        yield
        return
    with connect(compute.address, root).claim(what, on_wait=lambda: on_wait("another process on the cluster")):
        yield


def smallest(places: Sequence[Place]) -> Place:
    """The place with the least memory, which all that trains must fit into."""
    return min(places, key=lambda place: place.gpu.memory if place.gpu else 0.0)


class Pool(Protocol):
    """Processes, one at each place. In each, `worker.report` reports events, and `worker.asked_to_stop` tells whether to stop."""

    def submit(self, function: Callable[..., Any], *arguments: Any, name: str) -> "Future[Any]":
        """Call a function in the next free process; `name` says in messages what it does."""

    def events(self) -> Iterable[tuple[Any, ...]]:
        """What has been reported since the last call, earliest first. On a cluster, futures change only during this call."""

    def ask_to_stop(self) -> None:
        """Ask all functions to stop."""


@contextmanager
def pool_at(places: Sequence[Place], set_up: Callable[..., object], *arguments: Any) -> Iterator[Pool]:
    """A pool with a process at each place, which first runs `set_up(*arguments)`.

    The processes end with this one, however it ends; leaving the block by an exception ends them at once.

    Raises:
        UserError: a process was killed, or the cluster is lost.
    """
    place = places[0]
    if isinstance(place, NodePlace):
        gpus = int(place.device == "cuda")
        with closing(NodePool(place.cluster, len(places), cpus=place.threads, gpus=gpus, set_up=set_up, arguments=arguments)) as pool:
            yield pool
        return
    context = get_context("spawn")
    taken, events, stop = context.Value("i", 0), context.SimpleQueue(), context.Event()
    with worker_pool(len(places), _begin_at, tuple(places), taken, events, stop, partial(set_up, *arguments)) as processes:
        yield _LocalPool(processes, events, stop)


def _begin_at(
    places: Sequence[Place], taken: "Synchronized[int]", events: "SimpleQueue[Any]", stop: Event, set_up: Callable[[], object]
) -> None:
    with taken.get_lock():  # the next place that no process of the pool has
        place = places[taken.value]
        taken.value += 1
    if place.gpu:  # before CUDA is initialised: the GPU is the only one that this process sees
        os.environ[VISIBLE] = place.gpu.id
    torch.set_num_threads(place.threads)
    worker.set_up(reports=lambda *event: events.put(event), asks=stop.is_set, says=say)
    set_up()


@dataclass(frozen=True)
class _LocalPool:
    """Processes of this machine: a Pool."""

    _processes: ProcessPoolExecutor
    _events: "SimpleQueue[tuple[Any, ...]]"
    _stop: Event

    def submit(self, function: Callable[..., Any], *arguments: Any, name: str) -> "Future[Any]":
        return self._processes.submit(function, *arguments)

    def events(self) -> Iterator[tuple[Any, ...]]:
        while not self._events.empty():
            yield self._events.get()

    def ask_to_stop(self) -> None:
        self._stop.set()


def are_here(places: Sequence[Place]) -> bool:
    """Whether this process needs no others to train at all places."""
    return len(places) == 1 and places[0].here


def nothing() -> None:
    """For processes that need no `set_up`."""


def call_at(place: Place, function: Callable[..., T], *arguments: Any) -> T:
    """function(*arguments) at a place of this machine: in this process if that is possible, else in another, which ends."""
    assert not isinstance(place, NodePlace)  # its futures need calls of `events`
    if not place.here:
        with pool_at([place], nothing) as pool:
            return pool.submit(function, *arguments, name="").result()  # type: ignore[no-any-return]
    threads = torch.get_num_threads()
    torch.set_num_threads(place.threads)
    try:
        return function(*arguments)
    finally:
        torch.set_num_threads(threads)
