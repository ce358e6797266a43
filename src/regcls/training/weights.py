"""Weights of ImageNet that an encoder begins with: from a path or an address to a local file."""

import hashlib
import json
import re
from functools import cache
from pathlib import Path

from regcls.data.download import fetch
from regcls.data.sources import Archive
from regcls.errors import UserError
from regcls.files import write_json

NAMED_DIGEST = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+")  # as in resnet50-0676ba61.pth: the file's SHA-256 begins so (torch.hub)
INSTEAD = "Fetch it elsewhere and give its path as `weights`, or give weights: random, only if you mean an encoder that has seen nothing."


def weights_file(source: str, folder: Path) -> Path:
    """The local file of `source`, a path or an http(s):// or s3:// address. What has an address is fetched once, into `folder`.

    Raises:
        UserError: there is no such file, it cannot be fetched, or it is not the one that was fetched before or that its name promises.
    """
    if "://" not in source:
        file = Path(source).expanduser()
        if not file.is_file():
            raise UserError(f"weights = {source}: there is no such file. {INSTEAD}")
        return file
    archive = Archive(url=source)
    folder /= hashlib.sha256(source.encode()).hexdigest()[:12]  # files of many addresses have one name
    checksums = folder / "checksums.json"
    records = _records(checksums)
    there = next((folder / name for name in records if (folder / name).is_file()), None)
    if there is not None:  # for every run: not a word
        file = there
        if sha256(file) != records[file.name]["sha256"]:
            raise UserError(f"{file} is not what was fetched from {archive.shown}: it is damaged. Remove it and start again.")
    else:
        try:
            file = fetch(source, folder, checksums=checksums)
        except UserError as error:
            raise UserError(f"the weights cannot be had: {error} {INSTEAD}") from error
    named, digest = NAMED_DIGEST.search(file.name), _records(checksums)[file.name]["sha256"]
    if named and not digest.startswith(named[1]):
        file.unlink()
        write_json(checksums, {name: entry for name, entry in _records(checksums).items() if name != file.name})
        raise UserError(f"{archive.shown} is not the file that its name promises: its SHA-256 begins with {digest[:8]}. {INSTEAD}")
    return file


def weights_digest(source: str) -> str:
    """What tells the weights from others that go by the same `source`: the SHA-256 of a local file; empty where `source` says it all.

    An address is taken to give one file for ever; its checksum is recorded when it is fetched.
    """
    file = Path(source).expanduser().resolve()
    if source == "random" or "://" in source or not file.is_file():
        return ""
    status = file.stat()
    return _known_sha256(file, status.st_mtime_ns, status.st_size)


@cache
def _known_sha256(file: Path, modified: int, size: int) -> str:
    """For each of many runs, but read once."""
    return sha256(file)


def sha256(file: Path) -> str:
    """Of its content, hexadecimal."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _records(checksums: Path) -> dict[str, dict[str, str]]:
    try:
        records: dict[str, dict[str, str]] = json.loads(checksums.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise UserError(f"{checksums} is damaged: it is not JSON. Remove its folder; the weights are fetched again.") from None
    return records
