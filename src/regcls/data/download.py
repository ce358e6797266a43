"""Downloads raw archives from http(s), Google Drive, s3:// or a path: resumes after a cut, and checks the recorded SHA-256.

A partial download is in `.<name>.part`, with version and total size in `.<name>.part.json`.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from regcls.data.sources import CHUNK, SOURCES, Archive, CutError, named
from regcls.errors import UserError
from regcls.files import explain_os_errors, lock, write_atomically, write_json
from regcls.progress import PLAIN_EVERY, Advance, progress, say
from regcls.proxy import proxy_hint

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before another attempt; restarts whenever an attempt has received new bytes


class Content(NamedTuple):
    """Recorded size and digest of a file."""

    bytes: int
    sha256: str  # hexadecimal


def fetch(url: str, folder: Path, *, checksums: Path) -> Path:
    """Fetch a file into `folder` under its own name, and return its path.

    `checksums`: a JSON file {name: {"bytes": n, "sha256": hex}}. The first download adds an entry; later ones are checked against it. An
    existing file is checked (or recorded), not downloaded. A download that was cut is resumed, unless the source has changed.

    Raises:
        UserError: the source cannot be read, or not to its end; the content differs from the record; no space, or no permission.
    """
    archive = named(Archive(url=url))
    target = folder / archive.name
    with lock(folder / f".{target.name}.lock", on_wait=lambda holder: say(f"{holder} is fetching {target.name}; waiting")):
        recorded = _read_records(checksums).get(target.name)
        entry = f'the entry "{target.name}" of {checksums}'
        if target.exists():
            content = _hash_existing(target, recorded)
            if recorded and content != recorded:
                raise UserError(
                    f"{target} is not the file of {entry}: {_difference(content, recorded)}. "
                    "If it is the right one, delete that entry; if not, move it away. Then start again."
                )
        else:
            part = _download(archive, target, recorded, entry)
            content = part.content
            if recorded and content != recorded:
                rejected = target.with_name(f"{target.name}.rejected")
                part.move(rejected)
                raise UserError(
                    f"{archive.shown} does not give the file of {entry}: {_difference(content, recorded)}. The download is kept as "
                    f"{rejected}. To accept it, delete that entry and rename it to {target.name}; else start again, to fetch it anew."
                )
            write_atomically(target, part.move)
        if not recorded:
            _record(checksums, target.name, content, folder)
    say(f"{target}: {_size(content.bytes)}, SHA-256 {content.sha256[:12]}…, {'as' if recorded else 'now'} recorded in {checksums}")
    return target


def _read_records(checksums: Path) -> dict[str, Content]:
    try:
        entries = json.loads(checksums.read_text(encoding="utf-8"))
        return {name: Content(entry["bytes"], entry["sha256"]) for name, entry in entries.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        shape = '{"imdb_crop.tar": {"bytes": 7012157440, "sha256": "…"}}'
        raise UserError(f"{checksums} is not JSON of the form {shape} ({error}). Fix it, or restore it from git.") from None


def _record(checksums: Path, name: str, content: Content, folder: Path) -> None:
    with lock(folder / f".{checksums.name}.lock", on_wait=lambda holder: None):  # another process may be recording another archive
        records = _read_records(checksums) | {name: content}
        write_json(checksums, {name: records[name]._asdict() for name in sorted(records)})


def _difference(content: Content, recorded: Content) -> str:
    if content.bytes != recorded.bytes:
        return f"{content.bytes} bytes instead of {recorded.bytes}"
    return f"SHA-256 {content.sha256[:12]}… instead of {recorded.sha256[:12]}…"


def _hash_existing(target: Path, recorded: Content | None) -> Content:
    size = target.stat().st_size
    if recorded and size != recorded.bytes:
        return Content(size, "")
    hasher = hashlib.sha256()
    _hash(target, hasher, f"{target.name}: checking")
    return Content(size, hasher.hexdigest())


def _hash(file: Path, hasher: "hashlib._Hash", label: str) -> None:
    with file.open("rb") as handle, progress(file.stat().st_size, label) as advance:
        while chunk := handle.read(CHUNK):
            hasher.update(chunk)
            advance(len(chunk))


class _Part:
    """A partial download, with a running SHA-256."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.part")
        self._record = target.with_name(f".{target.name}.part.json")
        self.bytes, self.hasher = 0, hashlib.sha256()
        self.total: int | None = None
        self.version: str | None = None  # None: the next attempt starts from byte 0
        if self.path.exists() and self._record.exists():
            record = json.loads(self._record.read_text(encoding="utf-8"))
            if record["version"]:
                self.bytes, self.total, self.version = self.path.stat().st_size, record["total"], record["version"]
                _hash(self.path, self.hasher, f"{target.name}: checking the {_size(self.bytes)} that are there")

    @property
    def is_complete(self) -> bool:
        return self.bytes == self.total

    @property
    def content(self) -> Content:
        return Content(self.bytes, self.hasher.hexdigest())

    def restart(self, *, version: str | None, total: int | None) -> None:
        """Drop the bytes received so far; the next ones are of `version`."""
        self.path.write_bytes(b"")  # first, so that bytes of one version are never beside the record of another
        self.bytes, self.hasher, self.version, self.total = 0, hashlib.sha256(), version, total
        write_json(self._record, {"version": version, "total": total})

    def take(self, chunks: Iterator[bytes]) -> Iterator[int]:
        """Append each chunk, and yield its size."""
        with self.path.open("ab") as handle:
            for chunk in chunks:
                handle.write(chunk)
                handle.flush()  # bytes that are counted must survive this process
                self.hasher.update(chunk)
                self.bytes += len(chunk)
                yield len(chunk)
            os.fsync(handle.fileno())

    def move(self, place: Path) -> None:
        self.path.replace(place)
        self._record.unlink()


def _download(archive: Archive, target: Path, recorded: Content | None, entry: str) -> _Part:
    """Download a complete file. Retries as long as attempts receive new bytes."""
    with explain_os_errors(target):
        part = _Part(target)
        furthest, pauses = part.bytes, iter(PAUSES)
        while not part.is_complete:
            try:
                _attempt(archive, part, recorded, entry)
            except CutError as cut:
                if cut.spoiled:
                    part.restart(version=None, total=None)
                if part.bytes > furthest:
                    furthest, pauses = part.bytes, iter(PAUSES)
                received = f"{_amount(part.bytes, part.total)} of {target.name} are there" if part.bytes else "nothing received yet"
                if (pause := next(pauses, None)) is None:
                    advice = (
                        f"{received}, in {part.path}; the same command resumes from there"
                        if part.bytes and part.version
                        else "try again later"
                    )
                    raise UserError(f"{archive.shown}: {cut}; {advice}.{proxy_hint(archive.url)}") from cut
                say(f"{cut}; {received}; another attempt in {pause:.0f} s")
                time.sleep(pause)
    return part


def _attempt(archive: Archive, part: _Part, recorded: Content | None, entry: str) -> None:
    start = part.bytes if part.version else 0
    with SOURCES[archive.scheme](archive, start, part.version if start else None) as reply:
        if reply.total == 0:
            raise UserError(f"{archive.shown} is empty (0 bytes)")
        if recorded and reply.total not in (None, recorded.bytes):
            raise UserError(
                f"{archive.shown} has {reply.total} bytes, {entry} says {recorded.bytes}; nothing was downloaded. "
                "If the archive has changed for good, delete that entry and start again."
            )
        if reply.start == 0:
            if part.bytes:
                say(f"{part.target.name}: the source has changed, or cannot resume; starting from the beginning")
            part.restart(version=reply.version, total=reply.total)
        elif reply.total != part.total:
            raise CutError(f"the total length has changed from {part.total} to {reply.total} bytes", spoiled=True)
        _check_space(part.target, (reply.total or 0) - part.bytes)
        started, before = time.monotonic(), part.bytes
        label = f"{part.target.name} from {_size(before)} on" if before else part.target.name
        with _bar(reply.total and reply.total - before, label) as bar:
            for size in part.take(reply.chunks):
                rate = (part.bytes - before) / (time.monotonic() - started)
                bar(size, f"{_amount(part.bytes, reply.total)}, {_size(rate)}/s")
    if reply.total not in (None, part.bytes):
        raise CutError("the connection ended before the file did")
    part.total = part.bytes


def _check_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise UserError(f"{target} needs {_size(needed)} more, {_size(free)} are free there. Free some space and start again.")


@contextmanager
def _bar(total: int | None, label: str) -> Iterator[Advance]:
    """A progress bar, or an occasional line if the total is unknown."""
    if total is not None:
        with progress(total, label) as advance:
            yield advance
        return
    last_print = time.monotonic()

    def count(amount: float, note: str = "") -> None:
        nonlocal last_print
        if time.monotonic() - last_print >= PLAIN_EVERY:
            last_print = time.monotonic()
            say(f"{label}: {note}")

    yield count


def _size(count: float) -> str:
    """1234567 -> 1.2 MB"""
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if count >= unit), (1, "bytes"))
    return f"{count / unit:.{int(unit > 1 and count < 100 * unit)}f} {name}"


def _amount(done: int, total: int | None) -> str:
    """1.2 GB of 7.0 GB"""
    return _size(done) if total is None else f"{_size(done)} of {_size(total)}"
