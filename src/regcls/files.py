"""Files that are whole or absent, and locks that die with their owner."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from regcls.errors import UserError


@contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn "disk full", "read-only", "permission denied", "not a folder" and what else keeps `path` from being made into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(
                f"no space left on the disk while writing {path}; nothing was replaced. Free some space and start again."
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise UserError(f"cannot write {path}: {error.strerror}. Make the folder writable and start again.") from error
        blocker = next((folder for folder in path.parents if os.path.exists(folder) and not os.path.isdir(folder)), None)
        if blocker:
            raise UserError(f"cannot write {path}: {blocker} is a file, not a folder. Move it away, or choose another place.") from error
        if isinstance(error.filename, str | Path) and _belongs_to(path, Path(error.filename)):  # below /proc, or a name too long
            raise UserError(f"cannot write {path}: {error.strerror}. Choose another place.") from error
        raise


def _belongs_to(path: Path, file: Path) -> bool:
    """Whether `file` is `path`, a folder above it, or what is written aside for it."""
    return file in (path, *path.parents) or (file.parent == path.parent and file.name.startswith(f".{path.name}."))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, then rename it: a reader sees the old file or the whole new one.

    Raises:
        UserError: the disk is full or the folder is not writable; `path` is as it was.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with explain_os_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(aside)
            _sync(aside)
            aside.replace(path)
            _sync(path.parent)
        finally:
            aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_atomically` for text (UTF-8)."""
    write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """`write_atomically` for JSON, keys in the order given, one trailing newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def link_or_copy(file: Path, to: Path) -> None:
    """Have `file` at `to` as well; the content is shared where the file system can, so neither may be written to."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, to)
    except OSError:  # another file system
        shutil.copyfile(file, to)


@contextmanager
def folder_written_aside(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; on success it takes `folder`'s place, on failure it is removed.

    Raises:
        UserError: the disk is full or the parent is not writable; `folder` is as it was.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    with explain_os_errors(folder):
        try:
            _remove_leftovers(folder)
            aside.mkdir(parents=True)
            yield aside
            for file in aside.rglob("*"):
                _sync(file)
            if folder.exists():
                folder.rename(old)
            aside.rename(folder)
            _sync(folder.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed while it wrote `folder` has left beside it."""
    for leftover in folder.parent.glob(f".{folder.name}.*.*"):
        pid, kind = leftover.name.split(".")[-2:]
        if pid.isdecimal() and kind in ("part", "old") and (int(pid) == os.getpid() or not _is_alive(int(pid))):
            if kind == "old" and not folder.exists():  # killed between the two renames: the old one is whole
                leftover.rename(folder)
            shutil.rmtree(leftover, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


@contextmanager
def lock(path: Path, *, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the advisory lock `path`; the kernel frees it when the process dies, however it dies.

    `waiting` is called once, with the holder's note, if another process holds the lock; then this one waits for it.
    """
    held = try_lock(path)
    if held is None:
        waiting(lock_holder(path))
        held = _lock_file(path)
        fcntl.flock(held, fcntl.LOCK_EX)
        _sign(held)
    with held:
        yield  # closing the handle frees the lock


def try_lock(path: Path) -> IO[str] | None:
    """The lock `path` as an open file, to be closed; None if another process holds it."""
    handle = _lock_file(path)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    _sign(handle)
    return handle


def lock_holder(path: Path) -> str:
    """The note of whoever holds the lock `path`."""
    try:
        return path.read_text().strip() or "another process"
    except OSError:
        return "another process"


def _lock_file(path: Path) -> IO[str]:
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")


def _sign(handle: IO[str]) -> None:
    handle.truncate(0)
    handle.write(f"process {os.getpid()} on {os.uname().nodename}\n")
    handle.flush()
