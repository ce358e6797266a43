"""Atomic writes of files and folders, and locks that are released when their process dies."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile, gettempdir
from typing import IO, Any

from regcls.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
SPARE = 2**26  # bytes; with less, the disk of temporary files is the likely reason of a failure


@contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn OSErrors that prevent writing `path` (disk full, read-only, permission denied, not a folder, …) into UserErrors."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise UserError(no_space(path)) from error
        check_links(path)
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise UserError(f"cannot write {path}: {error.strerror}. Make the folder writable and start again.") from error
        blocker = next((folder for folder in path.parents if os.path.exists(folder) and not os.path.isdir(folder)), None)
        if blocker:
            raise UserError(f"cannot write {path}: {blocker} is a file, not a folder. Move it away, or choose another place.") from error
        if isinstance(error.filename, str | Path) and _belongs_to(path, Path(error.filename)):  # below /proc, or a name too long
            raise UserError(f"cannot write {path}: {error.strerror}. Choose another place.") from error
        raise


def check_links(path: Path) -> None:
    """Check that no link on the way to `path` leads nowhere.

    Raises:
        UserError: one does; perhaps a disk is not mounted.
    """
    for place in (*reversed(path.parents), path):
        if os.path.islink(place) and is_missing(place):
            raise UserError(f"{place} links to {os.path.realpath(place)}, which does not exist. Mount its disk, or create it.")


def is_missing(path: Path) -> bool:
    """Whether there is nothing at `path`; not if the user merely may not look."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def no_space(path: Path) -> str:
    """The error if a disk is full while `path` is being written: its own disk, or the one of temporary files."""
    if temporary := temporary_home():
        home = _existing(path)
        ours = path == temporary or any(one.parent == temporary and one.name.startswith("regcls-") for one in (path, *path.parents))
        free, elsewhere = shutil.disk_usage(temporary).free, home.stat().st_dev != temporary.stat().st_dev
        if ours or (elsewhere and free < SPARE and free < shutil.disk_usage(home).free):
            what = f"no space left in {temporary}, the folder of temporary files{'' if ours else f', while writing {path}'}"
            remedy = "Free some space there, or set TMPDIR to a folder on another disk, and start again."
            return f"{what}; nothing was replaced. {remedy}"
    return f"no space left on the disk while writing {path}; nothing was replaced. Free some space and start again."


def explained(error: OSError) -> str | None:
    """What is wrong, if an OSError outside `explain_os_errors` is a fault of the machine that the user can mend; else None."""
    if error.errno in FULL and isinstance(error.filename, str | Path):
        return no_space(Path(error.filename))
    if error.errno in FULL:
        places = f"the output, of temporary files ({temporary_home() or 'no folder can be written'}) or of {Path.cwd()}"
        return f"no space left on the disk of {places}. Free some space and start again."
    if "No usable temporary directory" in str(error):  # of the module tempfile
        return "no folder for temporary files can be written. Free some space, or set TMPDIR to a writable folder on another disk."
    return None


def temporary_home() -> Path | None:
    """The folder of temporary files: TMPDIR or the system's; None if none can be written."""
    try:
        return Path(gettempdir())
    except FileNotFoundError:
        return None


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder in TMPDIR, which is removed at the end.

    Raises:
        UserError: the disk of TMPDIR is full.
    """
    with TemporaryDirectory(prefix="regcls-") as name:
        try:
            yield Path(name)
        except OSError as error:
            if error.errno != errno.ENOSPC or shutil.disk_usage(home := Path(gettempdir())).free >= SPARE:
                raise  # perhaps on another disk
            raise UserError(no_space(home)) from error


def _existing(path: Path) -> Path:
    """`path`, or the nearest existing folder above it."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _belongs_to(path: Path, file: Path) -> bool:
    """Whether `file` is `path`, a folder above it, or a temporary file for it."""
    return file in (path, *path.parents) or (file.parent == path.parent and file.name.startswith(f".{path.name}."))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` on a temporary file beside `path`, then rename it: readers see either the old file or the complete new one.

    Raises:
        UserError: the disk is full or the folder is not writable; `path` is unchanged.
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
    """`write_atomically` for JSON, with the keys in their order and a trailing newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def link_or_copy(file: Path, to: Path) -> None:
    """Hard-link `file` to `to`, or copy it to another file system. Neither may be written to afterwards."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, to)
    except OSError:  # another file system
        shutil.copyfile(file, to)


@contextmanager
def folder_written_aside(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; on success it replaces `folder`, on failure it is removed.

    If `folder` is a link, for example to a folder on another disk, all of this happens there, and the link stays.

    Raises:
        UserError: the disk is full, the parent is not writable, or `folder` is a mounted disk or a link to nowhere; `folder` is unchanged.
    """
    folder = _replaceable(folder)
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


def _replaceable(folder: Path) -> Path:
    """`folder`, or the one that it links to."""
    target = folder.resolve() if folder.is_symlink() else folder
    if target != folder and not target.parent.is_dir():
        raise UserError(f"{folder} is a link to {target}, but there is no folder {target.parent}. Mount its disk, or remove the link.")
    if target.is_mount():
        raise UserError(f"{target} is a mounted disk, which cannot be replaced as a whole. Make {folder} a link to a folder on that disk.")
    return target


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary folders of processes that were killed while writing `folder`."""
    for leftover in folder.parent.glob(f".{folder.name}.*.*"):
        pid, kind = leftover.name.split(".")[-2:]
        if pid.isdecimal() and kind in ("part", "old") and (int(pid) == os.getpid() or not _is_alive(int(pid))):
            if kind == "old" and not folder.exists():  # killed between the two renames: the old folder is complete
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
def lock(path: Path, *, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the advisory lock `path`; the kernel releases it when the process dies, however it dies.

    If another process holds the lock, calls `on_wait` once with the holder's name, then waits.

    Raises:
        UserError: the disk has no file locks, or the folder is not writable.
    """
    handle = try_lock(path)
    if handle is None:
        on_wait(lock_holder(path))
        handle = _lock_file(path)
        _flock(handle, fcntl.LOCK_EX, path)
        _sign(handle, path)
    with handle:
        yield  # closing the handle releases the lock


def try_lock(path: Path) -> IO[str] | None:
    """Acquire the lock `path`; returns an open file whose closing releases it, or None if another process holds it.

    Raises as `lock` does.
    """
    handle = _lock_file(path)
    try:
        _flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, path)
    except BlockingIOError:
        return None
    _sign(handle, path)
    return handle


def _flock(handle: IO[Any], how: int, path: Path) -> None:
    try:
        fcntl.flock(handle, how)
    except OSError as error:
        handle.close()
        if error.errno not in NO_LOCKS:
            raise
        raise UserError(
            f"cannot lock {path}: the disk of {path.parent} has no file locks ({error.strerror}), like some network mounts. Put the "
            "folder on another disk, or mount this one with locks: NFS with vers=4 or, if only one machine uses it, with local_lock=all."
        ) from error


def check_locks(folder: Path) -> None:
    """Try a lock in an existing folder, and leave nothing behind. Raises as `lock` does."""
    with explain_os_errors(folder), TemporaryFile(dir=folder) as handle:
        _flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, folder / "lock")


def lock_holder(path: Path) -> str:
    """The process that holds the lock `path`, as it has noted in the file."""
    try:
        return path.read_text().strip() or "another process"
    except OSError:
        return "another process"


def _lock_file(path: Path) -> IO[str]:
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")


def _sign(handle: IO[str], path: Path) -> None:
    with explain_os_errors(path):
        try:
            os.ftruncate(handle.fileno(), 0)
            os.write(handle.fileno(), f"process {os.getpid()} on {os.uname().nodename}\n".encode())  # unbuffered: closing writes no more
        except OSError:
            handle.close()
            raise
