"""Worker processes that never outlive the main process, control over SIGINT and SIGTERM, and free memory."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from regcls.errors import UserError

SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish", "ash", "busybox"}
POLL_SECONDS = 0.5  # for whether the launcher lives
# Files of a control group, and the pages in its memory.stat that are only cached files: versions 1 and 2.
OLD_GROUP = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
GROUP = ("memory.max", "memory.current", ("inactive_file", "active_file"))


class _Pool(ProcessPoolExecutor):
    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        with _starting():
            return super().submit(*args, **kwargs)


@contextmanager
def _starting() -> Iterator[None]:
    """For starting a process: uninterrupted, or the new one might receive incomplete data.

    It inherits the signal mask: Ctrl-C is sent to it too, but only the parent handles it, from the first moment on.
    """
    with uninterrupted():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def worker_pool(processes: int, set_up: Callable[..., object] | None = None, *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes first run `set_up(*arguments)`, ignore Ctrl-C, and end when this process ends, however it ends.

    Leaving the block by an exception kills running work.

    Raises:
        UserError: a worker was killed.
    """
    pool = _Pool(processes, mp_context=get_context("spawn"), initializer=_begin, initargs=(set_up, arguments))
    try:
        yield pool
        pool.shutdown()
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, perhaps because memory ran out. Start again, with fewer compute.processes "
            "or compute.gpus if need be; finished runs are kept."
        ) from None
    finally:
        for process in list((pool._processes or {}).values()):  # nobody waits for their work any more
            process.kill()
        pool.shutdown(cancel_futures=True)


def companion(function: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Start a process that runs function(*arguments), ignores Ctrl-C and SIGTERM, and ends when this process ends, however it ends."""
    process = get_context("spawn").Process(target=_begin, args=(function, arguments), daemon=True)
    with _starting():
        process.start()
    return process


def _begin(set_up: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    parent = parent_process()
    assert parent is not None
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # if sent to the process group, the parent handles it
    # A worker has both ends of its queue open, so it would not notice that the parent was killed.
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    if set_up is not None:
        set_up(*arguments)


_noted: list[int] = []  # SIGTERM, once it is


@contextmanager
def termination_noted() -> Iterator[Callable[[], bool]]:
    """In the block, SIGTERM is only noted: the block must ask for it, and end by itself. A second one ends the process at once."""

    def note(number: int, frame: object) -> None:
        if _noted:
            raise SystemExit(128 + number)
        _noted.append(number)

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: bool(_noted)
    finally:
        signal.signal(signal.SIGTERM, before)
        _noted.clear()


def process_identity(pid: int) -> str | None:
    """Unique identity of a live process, also distinct from a later process with the same pid; None if it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else f"{pid}-{fields[18]}"  # field 22 of proc(5): start time in ticks since boot
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    try:  # no /proc, as on macOS: the pid must do
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return str(pid)


def is_living(identity: str) -> bool:
    """Whether the process with this `process_identity` is alive."""
    return process_identity(int(identity.partition("-")[0] or 0)) == identity


def end_with_launcher() -> None:
    """Send SIGTERM to this process when the `dvc` or `mlflow run` that started it dies: starting that again would start a second process.

    They start this process through a shell, which would outlive them.
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
        time.sleep(POLL_SECONDS)
    if not _noted:  # sent to the process group; a second one would end this process before it has saved anything
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
    """Defer Ctrl-C and SIGTERM to the end of the block. Does nothing outside the main thread, since other threads never receive them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals: list[int] = []
    handlers = {number: signal.signal(number, lambda number, frame: signals.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if signals:
            signal.raise_signal(signals[0])


def check_memory(needed: float, what: str) -> None:
    """Raise a UserError if `what` needs more bytes than are free of this machine's memory."""
    free = free_memory()
    if needed > free:
        raise UserError(f"{what} needs about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free. Choose smaller numbers.")


def free_memory(system: Path = Path("/")) -> float:
    """Bytes that this process may still take on the machine and in its control groups (containers); infinite if unknown."""
    free = [1024 * number for number in _numbers(system / "proc/meminfo", ["MemAvailable:"])]
    for folder, (limit, used, cached) in _control_groups(system):
        for most in _numbers(folder / limit, [""]):
            free.append(most - sum(_numbers(folder / used, [""])) + sum(_numbers(folder / "memory.stat", cached)))
    return min(free, default=math.inf)


def _control_groups(system: Path) -> Iterator[tuple[Path, tuple[str, str, tuple[str, ...]]]]:
    """The folders of the control groups that limit this process's memory, and the names of their files."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and "memory" not in controllers.split(","):
            continue
        top, files = (system / "sys/fs/cgroup/memory", OLD_GROUP) if controllers else (system / "sys/fs/cgroup", GROUP)
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                yield folder, files


def _numbers(file: Path, names: Iterable[str]) -> list[int]:
    """The numbers after `names` in a kernel file, or its only number if the name is empty; missing ones are left out."""
    try:
        words = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return []
    found = {"" if len(entry) == 1 else entry[0]: entry[min(1, len(entry) - 1)] for entry in words if entry}
    return [int(found[name]) for name in names if found.get(name, "").isdecimal()]  # without a limit: max
