"""Reads images from a folder, a .tar or a .zip, without unpacking."""

import os
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from stat import S_ISREG

from regcls.errors import UserError
from regcls.progress import progress, say

LARGEST = 2**29  # bytes of one file, unpacked; the largest real ones are IMDB-WIKI's imdb.mat and NYUD2's mask of test pixels
TOO_LARGE = f"larger than {LARGEST >> 20} MiB"
LOCAL_HEADER = 30  # bytes of a zip member's local header before its name; it ends with the lengths of name and extra field
ZERO_BLOCK = bytes(tarfile.BLOCKSIZE)  # marks the end of a tar


def missing_remedy(raw: Path, dataset: str, archives: Sequence[str]) -> str:
    """What to do if raw files are missing: fetch the archives of params.yaml, if any, or see the guide."""
    readme = raw.parent / "README.md"
    guide = f"{readme if readme.exists() else 'docs/own-data.md'} says what belongs there"
    return f"Fetch it with: regcls data fetch {dataset}; or put your copy there, {guide}" if archives else guide


@dataclass(frozen=True, slots=True)
class Place:
    """Location of the bytes of an image: a whole file, or a range of an archive."""

    file: str
    offset: int = 0  # bytes
    size: int = -1  # bytes; -1: to the end
    deflated: bool = False

    def read(self) -> bytes:
        """The content.

        Raises:
            ValueError: it cannot be read; with the reason.
        """
        try:
            status = os.stat(self.file)
            if not S_ISREG(status.st_mode):  # a device may have no end, a pipe no beginning
                raise ValueError("not a file, but a folder, a device or a pipe")
            if (status.st_size if self.size < 0 else self.size) > LARGEST:
                raise ValueError(TOO_LARGE)
            with open(self.file, "rb") as handle:
                handle.seek(self.offset)
                content = handle.read(self.size)
            return _inflated(content) if self.deflated else content
        except FileNotFoundError:
            raise ValueError("there is no such file") from None
        except OSError as error:
            raise ValueError(f"cannot be read: {os.strerror(error.errno or 0)}") from None
        except zlib.error as error:
            raise ValueError(f"damaged within the .zip: {error}") from None


def _inflated(content: bytes) -> bytes:
    """Decompress at most LARGEST bytes: a megabyte may stand for a gigabyte of zeros."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = stream.decompress(content, LARGEST + 1)
    if len(inflated) > LARGEST:
        raise ValueError(TOO_LARGE)
    if not stream.eof:
        raise zlib.error("incomplete or truncated stream")
    return inflated


def spelled(folder: Path, path: str, listings: dict[str, dict[str, str | None]]) -> str:
    """`path` as the files in `folder` spell it: macOS writes an accented letter as two characters (NFD), most others as one (NFC).

    Unchanged if it exists as written, or if no file or several have it in another spelling. `listings` keeps what is read of folders.
    """
    if path.isascii() or os.path.lexists(folder / path):
        return path
    parts = list[str]()
    for part in path.split("/"):
        here = os.path.join(folder, *parts)
        if here not in listings:
            listings[here] = {}
            with suppress(OSError, ValueError):
                listings[here] = _by_spelling(os.listdir(here))
        parts.append(part if os.path.lexists(os.path.join(here, part)) else listings[here].get(_nfc(part)) or part)
    return "/".join(parts)


def _by_spelling(names: Iterable[str]) -> dict[str, str | None]:
    """NFC form -> name; None if several have it. Names in a .zip of macOS are UTF-8 that is marked as cp437, so both are tried."""
    found = dict[str, str | None]()
    for name in names:
        forms = {_nfc(name)}
        with suppress(UnicodeError):
            forms.add(_nfc(name.encode("cp437").decode()))
        for form in forms:
            found[form] = None if form in found else name
    return found


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


class Holder:
    """The files in raw/<top>/ or, if there is no such folder, in raw/<top>.tar or raw/<top>.zip."""

    def __init__(self, raw: Path, top: str, *, remedy: str) -> None:
        """Find `top` in `raw` and, if it is an archive, index it. If `top` is empty, the folder is `raw` itself.

        Raises:
            UserError: there is no such folder or archive (the message ends with `remedy`), or the archive is damaged, encrypted or
                compressed as a whole.
        """
        self._listings = dict[str, dict[str, str | None]]()
        self.raw, self.origin = raw, raw / spelled(raw, top, self._listings)
        self._places: Mapping[str, Place] | None = None  # in an archive
        # os.path, since pathlib raises an OSError if a name is too long.
        names = [spelled(raw, f"{top}{suffix}", self._listings) for suffix in (".tar", ".zip")] if top else []
        archives = [file for name in names if os.path.isfile(file := raw / name)]
        if os.path.isdir(self.origin):
            for archive in archives:
                say(f"reading the folder {self.origin}, not {archive}")
        elif archives:
            self.origin = archives[0]
            self._places = (_index_tar if self.origin.suffix == ".tar" else _index_zip)(self.origin)
        else:
            raise UserError(f"there is no {top}.tar, {top}.zip or folder {top} in {raw}. {remedy}")

    def place(self, path: str) -> Place | None:
        """Location of `path`, which begins with `top`; None if an archive does not have it. In a folder, existence is not checked.

        See `spelled` for accented letters.
        """
        if self._places is None:
            return Place(str(self.raw / spelled(self.raw, path, self._listings)))
        if path in self._places or path.isascii():
            return self._places.get(path)
        return self._places.get(self._spellings.get(_nfc(path)) or path)

    @cached_property
    def _spellings(self) -> dict[str, str | None]:
        return _by_spelling(self._places or ())

    def names(self) -> Iterator[str]:
        """Paths of all files."""
        if self._places is not None:
            return iter(self._places)
        return (str(file.relative_to(self.raw)) for file in self.origin.rglob("*") if file.is_file())


def _index_tar(archive: Path) -> dict[str, Place]:
    size, places = archive.stat().st_size, {}
    try:
        with tarfile.open(archive, "r:") as tar, progress(size, f"indexing {archive.name}") as advance:
            position = 0
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else all headers stay in memory
                if member.isreg():
                    places[member.name.removeprefix("./")] = Place(str(archive), member.offset_data, member.size)
                advance(tar.offset - position)
                position = tar.offset
    except OSError as error:
        raise UserError(f"{archive} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged or malicious header can raise nearly anything
        raise _damaged(archive, str(error)) from None
    with archive.open("rb") as handle:  # tarfile mistakes damage in the middle for the end
        handle.seek(position)
        if handle.read(tarfile.BLOCKSIZE) != ZERO_BLOCK:
            raise _damaged(archive, f"cut short or overwritten at byte {position} of {size}")
    return places


def _index_zip(archive: Path) -> dict[str, Place]:
    places = {}
    try:
        with zipfile.ZipFile(archive) as opened, archive.open("rb") as handle:
            for member in opened.infolist():
                if member.flag_bits & 1:
                    raise UserError(
                        f"{archive} is encrypted: unpack it there with its password (7z x {archive.name}); then the folder is read"
                    )
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise UserError(f"{archive} is not compressed the usual way (deflate): unpack it there; then the folder is read")
                handle.seek(member.header_offset)
                header = handle.read(LOCAL_HEADER)
                name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
                start = member.header_offset + LOCAL_HEADER + name + extra
                if not member.is_dir():
                    deflated = member.compress_type == zipfile.ZIP_DEFLATED
                    places[member.filename.replace("\\", "/")] = Place(str(archive), start, member.compress_size, deflated)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{archive} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged or malicious header can raise nearly anything
        raise _damaged(archive, str(error)) from None
    return places


def _damaged(archive: Path, why: str) -> UserError:
    return UserError(f"{archive} is not an intact {archive.suffix} archive: {why}. Remove it and get a new copy")
