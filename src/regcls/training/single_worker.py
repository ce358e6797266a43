"""Trains runs of one network each: one after another in this process, or in parallel in worker processes, one at each place."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from typing import Any, Protocol

import torch

from regcls.errors import UserError
from regcls.provenance import gpu_name
from regcls.training.device import Place
from regcls.training.loop import DivergedError, Epoch, StoppedError
from regcls.training.places import are_here, pool_at
from regcls.training.single import Job, Result, Train

POLL_SECONDS = 0.05  # for events of the worker processes


class Ledger(Protocol):
    """Records the start, progress and end of runs."""

    def begin(self, job: Job[Any]) -> bool: ...  # False: the run is finished already
    def on_gpu(self, key: str, name: str) -> None: ...
    def on_batch(self, key: str, samples: int, note: str) -> None: ...
    def on_epoch(self, key: str, epoch: Epoch) -> None: ...
    def on_note(self, key: str, text: str) -> None: ...
    def end(self, key: str, result: Result | DivergedError) -> None: ...


@dataclass(frozen=True)
class _RunHooks:
    """The loop's hooks for the run `key`: they call the ledger, or send the call to the main process."""

    key: str
    call: Callable[..., None]  # takes the name of a ledger method, and its arguments
    asked_to_stop: Callable[[], bool]

    def batch(self, samples: int, note: str) -> None:
        self.call("on_batch", self.key, samples, note)
        if self.asked_to_stop():
            raise StoppedError

    def epoch(self, epoch: Epoch) -> None:
        self.call("on_epoch", self.key, epoch)

    def say(self, text: str) -> None:
        self.call("on_note", self.key, text)


def train_jobs(
    jobs: Sequence[Job[Any]], train: Train, ledger: Ledger, *, places: Sequence[Place], asked_to_stop: Callable[[], bool]
) -> None:
    """Train all runs, one at a time at each place.

    Raises:
        UserError: see `train`; or a worker process was killed.
        StoppedError: asked to stop; the states of the runs in progress are saved.
    """
    if not are_here(places):
        _train_in_parallel(jobs, train, ledger, places, asked_to_stop)
        return
    torch.set_num_threads(places[0].threads)
    for job in jobs:
        if asked_to_stop():
            raise StoppedError
        if ledger.begin(job):
            call = partial(_call, ledger)
            ledger.end(job.fingerprint, _train(job, train, _RunHooks(job.fingerprint, call, asked_to_stop)))


def _call(ledger: Ledger, method: str, *arguments: Any) -> None:
    getattr(ledger, method)(*arguments)


def _train(job: Job[Any], train: Train, hooks: _RunHooks) -> Result | DivergedError:
    if job.device == "cuda":
        hooks.call("on_gpu", hooks.key, gpu_name())
    try:
        return train(job, hooks, hooks.say)
    except DivergedError as error:
        return error
    except torch.OutOfMemoryError as error:  # of a GPU
        raise UserError(
            f"{job.spec.name} does not fit into the GPU's memory. Use a smaller batch_size with accumulate > 1, or precision: bf16."
        ) from error


def _train_in_parallel(
    jobs: Sequence[Job[Any]], train: Train, ledger: Ledger, places: Sequence[Place], asked_to_stop: Callable[[], bool]
) -> None:
    context = get_context("spawn")
    events: SimpleQueue[tuple[Any, ...]] = context.SimpleQueue()
    stop = context.Event()
    waiting, running = iter(jobs), dict[Future[Result | DivergedError], Job[Any]]()
    with pool_at(places, _set_up, events, stop) as pool:
        while True:
            if asked_to_stop():
                stop.set()
            while not stop.is_set() and len(running) < len(places) and (job := next(waiting, None)) is not None:
                if ledger.begin(job):
                    running[pool.submit(_train_in_worker, job, train)] = job
            if not running:
                break
            done = [future for future in running if future.done()]  # before reading events, so that none of theirs is missed
            while not events.empty():
                _call(ledger, *events.get())
            for future in done:
                job = running.pop(future)
                if not isinstance(future.exception(), StoppedError):
                    ledger.end(job.fingerprint, future.result())
            time.sleep(POLL_SECONDS)
    if stop.is_set():
        raise StoppedError


_events: "SimpleQueue[tuple[Any, ...]]"  # of a worker process
_stop: Event


def _set_up(events: "SimpleQueue[tuple[Any, ...]]", stop: Event) -> None:
    global _events, _stop
    _events, _stop = events, stop


def _train_in_worker(job: Job[Any], train: Train) -> Result | DivergedError:
    return _train(job, train, _RunHooks(job.fingerprint, lambda *event: _events.put(event), _stop.is_set))
