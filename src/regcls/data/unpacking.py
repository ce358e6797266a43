"""Unpacks archives safely: no member leaves the folder, and existing files are never replaced."""

import errno
import gzip
import os
import shutil
import tarfile
import zipfile
import zlib
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from stat import S_ISLNK

from regcls.data.sources import CHUNK
from regcls.errors import UserError
from regcls.files import explain_os_errors, lock
from regcls.progress import progress, say

_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, LZMAError, ValueError, OverflowError)
_UNREADABLE = (*_DAMAGED, RuntimeError)  # the last: encrypted
_IMPOSSIBLE = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)  # a member is a file and a folder, or its name too long


def extract(archive: Path, folder: Path) -> int:
    """Unpack a .zip or a .tar, compressed or not, into `folder`; return the number of files. Existing files are never replaced.

    Members are unpacked into a temporary folder, and moved into place when all are complete.

    Raises:
        UserError: a member would be written outside, is a link or a device, or exists already; the archive is damaged, or the disk full.
    """
    if not archive.is_file():
        raise UserError(f"there is no archive {archive}")
    aside = folder / f".{archive.name}.unpacked.part"
    with (
        lock(folder / f".{archive.name}.lock", on_wait=lambda holder: say(f"{holder} is unpacking {archive.name}; waiting")),
        explain_os_errors(folder),
    ):
        shutil.rmtree(aside, ignore_errors=True)  # left by a killed process
        aside.mkdir()
        try:
            count = (_unzip if archive.suffix.lower() == ".zip" else _untar)(archive, folder, aside)
            os.sync()  # once for all: half a million single syncs take half an hour
            for entry in sorted(aside.iterdir()):
                entry.rename(folder / entry.name)
        except _UNREADABLE as error:
            reason = str(error).partition(":\n")[0]  # tarfile appends a line for each compression it tried
            raise UserError(f"cannot unpack {archive}: {reason}. Nothing was unpacked. Fetch it again, or unpack it by hand.") from error
        except OSError as error:
            if error.errno not in _IMPOSSIBLE:
                raise
            name = str(error.filename).removeprefix(f"{aside}/")
            raise UserError(f"cannot unpack {archive}: {name}: {error.strerror}. Nothing was unpacked. Unpack it by hand.") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return count


def _untar(archive: Path, folder: Path, aside: Path) -> int:
    count = done = 0
    with (
        archive.open("rb") as handle,
        progress(archive.stat().st_size, f"unpacking {archive.name}") as advance,
        tarfile.open(fileobj=handle) as tar,
    ):
        while member := tar.next():
            _check_member(archive, member.name, folder, plain=member.isfile() or member.isdir())
            tar.extract(member, aside, filter="data")
            tar.members = []  # type: ignore[attr-defined]  # else all headers stay in memory
            count += member.isfile()
            advance(handle.tell() - done, f"{count} files")
            done = handle.tell()
        _check_end(tar)
    return count


def _check_end(tar: tarfile.TarFile) -> None:
    """Check the end mark: tarfile mistakes a cut or damaged header for the end, unless it is the first."""
    assert tar.fileobj
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it is cut short or damaged: the mark of its end is missing")
    while tar.fileobj.read(CHUNK):  # up to the checksum, if compressed
        pass


def _unzip(archive: Path, folder: Path, aside: Path) -> int:
    count = 0
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        with progress(sum(member.file_size for member in members), f"unpacking {archive.name}") as advance:
            for member in members:
                _check_member(archive, member.filename, folder, plain=not S_ISLNK(member.external_attr >> 16))
                packed.extract(member, aside)
                count += not member.is_dir()
                advance(member.file_size, f"{count} files")
    return count


def _check_member(archive: Path, name: str, folder: Path, *, plain: bool) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{archive}: the member {name} would be written outside {folder}. Nothing was unpacked.")
    if not plain:
        raise UserError(f"{archive}: the member {name} is a link or a device, which can lead outside {folder}. Nothing was unpacked.")
    if path.parts and (folder / path.parts[0]).exists():
        raise UserError(f"{folder / path.parts[0]} is there already. Move it away to unpack {archive.name}. Nothing was unpacked.")
