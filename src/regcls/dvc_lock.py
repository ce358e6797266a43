"""dvc.lock, which DVC writes in place: a killed DVC or a full disk leaves it empty or cut, and then no DVC command works any more.

The same holds for .dvc/tmp/rwlock, in which running DVC commands list the files that they use.
"""

import json
import shutil
from contextlib import suppress
from itertools import chain
from pathlib import Path

from regcls.errors import UserError
from regcls.files import explain_os_errors, try_lock, write_atomically
from regcls.processes import process_identity
from regcls.provenance import locked_stages

NAME = "dvc.lock"


def keep(root: Path) -> None:
    """Copy dvc.lock to .regcls, from where `repair` puts it back, if it is whole; does nothing where that is impossible.

    DVC checks the file before it starts a command, so this need not be as strict.
    """
    with suppress(OSError, UserError):
        content = (root / NAME).read_bytes()
        if not _kept_content(root).startswith(content) and content.endswith(b"\n") and locked_stages(root):
            write_atomically(_kept(root), lambda aside: aside.write_bytes(content))


def faults(root: Path) -> dict[Path, str]:
    """The files in `root` that stop DVC from working, and what is wrong with each."""
    found = {root / NAME: _lock_fault(root / NAME) or _cut_at_a_line(root), _rwlock(root): _rwlock_fault(_rwlock(root))}
    return {file: fault for file, fault in found.items() if fault}


def repair(root: Path) -> list[str]:
    """Put back the last whole dvc.lock in place of a damaged one, or remove that one, and remove a faulty rwlock; say so in lines.

    Without an entry in dvc.lock a stage is run again, but finished runs are not trained again.

    Raises:
        UserError: DVC is running, or the files cannot be written.
    """
    if not faults(root):
        keep(root)
        return []
    guard = try_lock(root / ".dvc" / "tmp" / "lock")  # DVC holds it while it writes
    if guard is None:
        raise UserError(f"DVC is running in {root}. Wait until it has ended.")
    with guard:
        return [_mend(root, file, fault) for file, fault in faults(root).items()]


def _mend(root: Path, file: Path, fault: str) -> str:
    with explain_os_errors(file):
        if file.name != NAME:
            file.unlink()
            return f"{file} {fault}: removed"
        damaged = file.with_name(f"{NAME}.damaged")
        shutil.copyfile(file, damaged)
        if not _kept(root).exists() or _lock_fault(_kept(root)):
            file.unlink()
            return f"{file} {fault}: moved to {damaged.name}. dvc repro runs the stages again; finished runs are kept"
        write_atomically(file, lambda aside: shutil.copyfile(_kept(root), aside))
        return f"{file} {fault}: replaced by its last whole version. The damaged one is {damaged.name}"


def _kept(root: Path) -> Path:
    return root / ".regcls" / f"{NAME}.whole"  # not *.lock: those are locks


def _rwlock(root: Path) -> Path:
    return root / ".dvc" / "tmp" / "rwlock"


def _lock_fault(file: Path) -> str | None:
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # type: ignore[import-untyped]
    from dvc.utils import strictyaml  # type: ignore[import-untyped]

    try:
        content, text = strictyaml.load(str(file), COMPILED_LOCKFILE_SCHEMA)
    except FileNotFoundError:
        return None
    except (DvcException, RecursionError):
        return "is damaged" if file.stat().st_size else "is empty"
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    return None if "stages" in content and text.endswith("\n") else "is cut"  # DVC would accept it, and run stages again


def _cut_at_a_line(root: Path) -> str | None:
    """A cut between two lines leaves a valid file; it is the beginning of the kept one."""
    lock, kept = root / NAME, _kept_content(root)
    return "is cut" if lock.exists() and (content := lock.read_bytes()) != kept and kept.startswith(content) else None


def _kept_content(root: Path) -> bytes:
    return _kept(root).read_bytes() if _kept(root).exists() else b""


def _rwlock_fault(file: Path) -> str | None:
    """DVC drops entries of dead processes itself, but not if another program has reused a process id."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        users = [*entries.get("write", {}).values(), *chain.from_iterable(entries.get("read", {}).values())]
        living = sorted({int(user["pid"]) for user in users if process_identity(int(user["pid"]))})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        return "is damaged"
    if living and not any(map(_is_dvc, living)):
        return f"names process {living[0]}, which is not DVC"
    return None


def _is_dvc(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:  # no /proc, as on macOS
        return True
    return "dvc" in (Path(word).name for word in words)
