"""Trains runs of one network each: one after another in this process, or in parallel in worker processes, one at each place."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from regcls.errors import UserError
from regcls.provenance import gpu_name
from regcls.training import worker
from regcls.training.checkpoint import Checkpoints
from regcls.training.device import Place
from regcls.training.loop import DivergedError, Epoch, StoppedError
from regcls.training.places import NodePlace, are_here, nothing, pool_at
from regcls.training.single import Job, Result, Train

POLL_SECONDS = 0.05  # for events of the worker processes


class Ledger(Protocol):
    """Records the start, progress and end of runs."""

    def begin(self, job: Job[Any]) -> bool: ...  # False: the run is finished already
    def on_place(self, key: str, kind: str, name: str) -> None: ...  # gpu and its name; node and its host name
    def on_state(self, key: str, files: Sequence[Path]) -> None: ...  # a node has sent these files of a state
    def on_batch(self, key: str, samples: int, note: str) -> None: ...
    def on_epoch(self, key: str, epoch: Epoch) -> None: ...
    def on_note(self, key: str, text: str) -> None: ...
    def end(self, key: str, result: Result | DivergedError) -> None: ...


@dataclass
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


@dataclass
class _NodeHooks(_RunHooks):
    """Hooks of a run on a node, which may be lost: they also send its states, and an epoch only after a state that includes it."""

    checkpoints: Checkpoints
    seconds: float  # between states
    held: list[Epoch] = field(default_factory=list)
    sent: float = field(default_factory=time.monotonic)  # when the last state was

    def batch(self, samples: int, note: str) -> None:
        super().batch(samples, note)
        self._send_if_due()

    def epoch(self, epoch: Epoch) -> None:
        self.held.append(epoch)
        self._send_if_due()

    def _send_if_due(self) -> None:
        if time.monotonic() - self.sent > self.seconds:
            self.send_state()

    def send_state(self) -> None:
        """Send the newest state, and the epochs before it."""
        if files := list(self.checkpoints.newest().values()):
            self.call("on_state", self.key, files)
        for epoch in self.held:
            super().epoch(epoch)
        self.held.clear()
        self.sent = time.monotonic()


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
        hooks.call("on_place", hooks.key, "gpu", gpu_name())
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
    waiting, running, stopping = iter(jobs), dict[Future[Result | DivergedError], Job[Any]](), False
    function = _train_on_node if isinstance(places[0], NodePlace) else _train_in_worker
    with pool_at(places, nothing) as pool:
        while True:
            if asked_to_stop() and not stopping:
                stopping = True
                pool.ask_to_stop()
            while not stopping and len(running) < len(places) and (job := next(waiting, None)) is not None:
                if ledger.begin(job):
                    running[pool.submit(function, job, train, name=job.spec.name)] = job
            if not running:
                break
            done = [future for future in running if future.done()]  # before reading events, so that none of theirs is missed
            for event in pool.events():
                _call(ledger, *event)
            for future in done:
                job = running.pop(future)
                if not isinstance(future.exception(), StoppedError):
                    ledger.end(job.fingerprint, future.result())
            time.sleep(POLL_SECONDS)
    if stopping:
        raise StoppedError


def _train_in_worker(job: Job[Any], train: Train) -> Result | DivergedError:
    return _train(job, train, _RunHooks(job.fingerprint, worker.report, worker.asked_to_stop))


def _train_on_node(job: Job[Any], train: Train) -> Result | DivergedError:
    checkpoints = Checkpoints(job.checkpoints, fingerprint=job.fingerprint)
    hooks = _NodeHooks(job.fingerprint, worker.report, worker.asked_to_stop, checkpoints, 60 * job.checkpoint_minutes)
    hooks.call("on_place", hooks.key, "node", os.uname().nodename)
    try:
        return _train(job, train, hooks)
    except StoppedError:
        hooks.send_state()
        raise
