"""A process on a node of a Ray cluster, which trains one run or chunk at a time. Only Ray's processes import this module."""

import os
import pickle
import shutil
import threading
import traceback
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import ray

from regcls.errors import UserError
from regcls.processes import is_living, process_identity
from regcls.training import worker
from regcls.training.cluster.copies import scratch
from regcls.training.cluster.travel import Travel

EVENT_SECONDS = 0.5  # that `events` waits for the first one

Event = tuple[str, Any]  # "event": a pickled event for the main process; "say": a text for the user


class Worker:
    """Calls functions. Ray calls `call` in one thread and `events` in another."""

    def __init__(self, threads: int, set_up: bytes, environment: Mapping[str, str]) -> None:
        """`set_up`: a pickled function with its arguments, to call first."""
        os.environ.update(environment)
        self._threads, self._set_up = threads, set_up
        self._events: list[Event] = []
        self._condition, self._asked_to_stop = threading.Condition(), False

    def hello(self) -> tuple[str, str]:
        """The node's name, and the version of PyTorch."""
        return os.uname().nodename, metadata.version("torch").partition("+")[0]

    def call(self, content: bytes) -> tuple[list[Event], bytes]:
        """Call a pickled function with its arguments; the last events, and the pickled outcome: (True, value) or (False, error)."""
        import torch  # here, since it takes seconds, and the bridge needs no torch

        torch.set_num_threads(self._threads)  # of this thread
        try:
            if self._set_up:
                self._travel = Travel(_own_folder())
                worker.set_up(reports=self._report, asks=lambda: self._asked_to_stop, says=lambda text: self._add("say", text))
                self._run(self._set_up)
                self._set_up = b""
            pickled = self._travel.dumps((True, self._run(content)))
        except UserError as error:
            host = os.uname().nodename
            pickled = _pickled(error if host in str(error) else UserError(f"{host}: {error}"))
        except Exception as error:
            pickled = _pickled(error)
        else:
            shutil.rmtree(self._travel.exchanged, ignore_errors=True)
        return self._taken(), pickled

    def _run(self, content: bytes) -> Any:
        try:
            function, arguments = self._travel.loads(content)
        except ImportError as error:
            raise UserError(f"{os.uname().nodename} cannot import {error.name}. Install requirements.lock there.") from error
        return function(*arguments)

    @ray.method(concurrency_group="events")
    def events(self, stop: bool) -> list[Event]:
        """What the function has reported since the last call; waits a moment for it. `stop`: ask the function to stop."""
        self._asked_to_stop |= stop
        with self._condition:
            self._condition.wait_for(lambda: self._events, EVENT_SECONDS)
        return self._taken()

    def _taken(self) -> list[Event]:
        with self._condition:
            taken, self._events = self._events, []
        return taken

    def _report(self, *event: Any) -> None:
        self._add("event", self._travel.dumps(event))

    def _add(self, kind: str, content: Any) -> None:
        with self._condition:
            self._events.append((kind, content))
            self._condition.notify()


def _pickled(error: Exception) -> bytes:
    text = "".join(traceback.format_exception(error))
    if not isinstance(error, UserError):
        error.add_note(f"on {os.uname().nodename}:\n{text}")  # a traceback is not pickled
    try:
        content = pickle.dumps((False, error))
        pickle.loads(content)
    except Exception:
        return pickle.dumps((False, RuntimeError(text)))
    return content


def _own_folder() -> Path:
    """A folder for the checkpoints of this process; removes those that killed processes of this machine or container have left."""
    namespace = Path("/proc/self/ns/pid")  # in which process ids are unique
    home = scratch() / "workers" / f"{os.uname().nodename}-{namespace.stat().st_ino if namespace.exists() else ''}"
    for left in home.glob("*"):
        if not is_living(left.name):
            shutil.rmtree(left, ignore_errors=True)
    return home / (process_identity(os.getpid()) or str(os.getpid()))


def actor() -> Any:
    """`Worker` as a class of Ray actors."""
    remote: Any = ray.remote
    return remote(concurrency_groups={"events": 1})(Worker)
