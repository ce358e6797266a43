"""ImageNet weights for an encoder: fetches them from a path or URL."""

import hashlib
import json
import re
from functools import cache
from pathlib import Path

from regcls.data.download import fetch
from regcls.data.sources import Archive
from regcls.errors import UserError
from regcls.files import write_json

NAMED_DIGEST = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+")  # torch.hub's prefix of the SHA-256, as in resnet50-0676ba61.pth
INSTEAD = "Fetch it by other means and set `weights` to its path; or set weights: random, only if the encoder is meant to start untrained."


def weights_file(source: str, folder: Path) -> Path:
    """The local file of `source`, a path or an http(s):// or s3:// URL. A URL is fetched once, into `folder`.

    Raises:
        UserError: there is no such file, it cannot be fetched, or its SHA-256 differs from the recorded one or from that in its name.
    """
    if "://" not in source:
        file = Path(source).expanduser()
        if not file.is_file():
            raise UserError(f"weights = {source}: there is no such file. {INSTEAD}")
        return file
    archive = Archive(url=source)
    folder /= hashlib.sha256(source.encode()).hexdigest()[:12]  # files of different URLs may have the same name
    checksums = folder / "checksums.json"
    records = _records(checksums)
    cached = next((folder / name for name in records if (folder / name).is_file()), None)
    if cached is not None:  # silently: this is called for every run
        file = cached
        if sha256(file) != records[file.name]["sha256"]:
            raise UserError(f"{file} is not what was fetched from {archive.shown}: it is damaged. Remove it and start again.")
    else:
        try:
            file = fetch(source, folder, checksums=checksums)
        except UserError as error:
            raise UserError(f"cannot get the weights: {error} {INSTEAD}") from error
    prefix, digest = NAMED_DIGEST.search(file.name), _records(checksums)[file.name]["sha256"]
    if prefix and not digest.startswith(prefix[1]):
        file.unlink()
        write_json(checksums, {name: entry for name, entry in _records(checksums).items() if name != file.name})
        raise UserError(f"{archive.shown} is not the file that its name promises: its SHA-256 begins with {digest[:8]}. {INSTEAD}")
    return file


def weights_digest(source: str) -> str:
    """The SHA-256 of a local file, whose content may change under the same `source`; empty for "random" and URLs.

    A URL is assumed to always give the same file; its checksum is recorded when it is fetched.
    """
    file = Path(source).expanduser().resolve()
    if source == "random" or "://" in source or not file.is_file():
        return ""
    status = file.stat()
    return _known_sha256(file, status.st_mtime_ns, status.st_size)


@cache
def _known_sha256(file: Path, modified: int, size: int) -> str:
    """`sha256`, cached: many runs use the same file."""
    return sha256(file)


def sha256(file: Path) -> str:
    """Of a file's content, hexadecimal."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _records(checksums: Path) -> dict[str, dict[str, str]]:
    try:
        records: dict[str, dict[str, str]] = json.loads(checksums.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise UserError(f"{checksums} is damaged: it is not JSON. Remove its folder to fetch the weights again.") from None
    return records
