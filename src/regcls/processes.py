"""Worker processes that never outlive their work, and writing that Ctrl-C does not cut in two."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any

from regcls.errors import UserError


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
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _begin(set_up: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    parent = parent_process()
    assert parent is not None
    # A worker holds both ends of the queue that it waits at: it would never learn that the parent was killed.
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    if set_up is not None:
        set_up(*arguments)


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
