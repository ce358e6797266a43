"""Worker processes that never outlive their work, writing that Ctrl-C does not cut in two, and ending when told to."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from regcls.errors import UserError

SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish", "ash", "busybox"}
LOOK_EVERY = 0.5  # seconds, for whether the launcher lives


class _Pool(ProcessPoolExecutor):
    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        # Not cut in two, or the process that this starts finds half of what it is sent. It inherits the mask: Ctrl-C reaches it as well,
        # and is this one's to handle, from its first moment on.
        with uninterrupted():
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            try:
                return super().submit(*args, **kwargs)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def worker_pool(processes: int, set_up: Callable[..., object] | None = None, *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes run `set_up(*arguments)` first, leave Ctrl-C to this one and end with it, however it ends.

    Leaving the block by an exception ends the work that is still going on.

    Raises:
        UserError: a worker was ended from outside.
    """
    pool = _Pool(processes, mp_context=get_context("spawn"), initializer=_begin, initargs=(set_up, arguments))
    try:
        yield pool
        pool.shutdown()
    except BrokenProcessPool:
        raise UserError(
            "a worker process was ended from outside, perhaps for want of memory. Start again, with fewer compute.processes "
            "if need be; finished runs are kept."
        ) from None
    finally:
        for process in list((pool._processes or {}).values()):  # work that nobody waits for any more
            process.kill()
        pool.shutdown(cancel_futures=True)


def _begin(set_up: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    parent = parent_process()
    assert parent is not None
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # sent to a whole group, it is for the parent to handle
    # A worker holds both ends of the queue that it waits at: it would never learn that the parent was killed.
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    if set_up is not None:
        set_up(*arguments)


class Termination:
    """Whether SIGTERM has come."""

    def __init__(self) -> None:
        self._came = False

    def __call__(self) -> bool:
        return self._came

    def note(self, number: int, frame: object) -> None:
        """As a signal handler; a second SIGTERM ends the process at once."""
        if self._came:
            raise SystemExit(128 + number)
        self._came = True


@contextmanager
def termination_noted() -> Iterator[Termination]:
    """In the block, SIGTERM interrupts nothing: the block asks whether it came, and ends by itself."""
    termination = Termination()
    before = signal.signal(signal.SIGTERM, termination.note)
    try:
        yield termination
    finally:
        signal.signal(signal.SIGTERM, before)


def process_identity(pid: int) -> str | None:
    """Tells a living process from any other, also from a later one with the same number; None if it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else f"{pid}-{fields[18]}"  # field 22 of proc(5): start time in ticks since boot
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    try:  # no /proc, as on macOS: the number must do
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return str(pid)


def is_living(identity: str) -> bool:
    """Whether the process of that `process_identity` lives."""
    return process_identity(int(identity.partition("-")[0] or 0)) == identity


def end_with_launcher() -> None:
    """Have SIGTERM sent to this process when the `dvc` or `mlflow run` that has started it dies: its successor would start another one.

    They start a shell which starts this, and which would outlive them.
    """
    if not ({"DVC_STAGE", "MLFLOW_RUN_ID"} & set(os.environ)):
        return
    pid = os.getppid()
    while _name(pid) in SHELLS:
        pid = _parent(pid)
    if (identity := process_identity(pid)) and pid > 1:
        threading.Thread(target=_follow, args=[pid, identity], daemon=True).start()


def _follow(pid: int, identity: str) -> None:
    while process_identity(pid) == identity:
        time.sleep(LOOK_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 1


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block is through. Does nothing outside the main thread, which never sees them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    handlers = {number: signal.signal(number, lambda number, frame: caught.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[0])
