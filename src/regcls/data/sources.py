"""Sources of raw archives: http(s)://, a file on Google Drive, s3://bucket/key, file:// or a path.

A source opens an archive at byte `start`, provided that it is still `version` (None: at byte 0), and yields a Reply.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from email.message import Message
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from regcls.errors import UserError
from regcls.object_store import CREDENTIALS, explain_client_error, innermost, s3_client
from regcls.proxy import proxy_hint

if TYPE_CHECKING:
    from requests import Response

CHUNK = 1 << 18  # bytes read and written at a time
TIMEOUTS = (10.0, 60.0)  # seconds to connect, and between two bytes, after which an attempt counts as cut
DRIVE = "https://drive.google.com"
DRIVE_HOSTS = ("drive.google.com", "docs.google.com")
TEMPORARY = {408, 425, 429}  # HTTP statuses, besides all from 500 on


@dataclass(frozen=True, kw_only=True)
class Archive:
    """URL of a raw file: http(s)://, a file on Google Drive, s3://bucket/key, file:// or a path.

    Raises:
        UserError: another scheme, or no file name at the end.
    """

    url: str
    called: str = ""  # file name, if the URL does not contain it: see `named`

    def __post_init__(self) -> None:
        if self.scheme not in SOURCES:
            raise UserError(f"cannot fetch {self.shown}: give a URL with https://, http://, s3:// or file://, or a path")
        if self.scheme == "drive" and not self.called:
            return
        if self.name in ("", ".", "..") or "/" in self.name or "\0" in self.name:  # %2F could escape the folder
            raise UserError(f"cannot fetch {self.shown}: there is no file name at its end")

    @property
    def scheme(self) -> str:
        """http, https, s3, file or drive; empty for a path."""
        scheme = self.url.partition("://")[0].lower() if "://" in self.url else ""
        return "drive" if scheme in ("http", "https") and urlsplit(self.url).hostname in DRIVE_HOSTS else scheme

    @property
    def path(self) -> str:
        """The path after the host; for s3://, bucket/key."""
        if self.scheme == "s3":
            return self.url.partition("://")[2]  # a key may contain ?, # and %
        return unquote(urlsplit(self.url).path) if self.scheme else str(Path(self.url).expanduser())

    @property
    def name(self) -> str:
        """The file name at the end."""
        match self.scheme:
            case "":
                return self.path.rpartition("/")[2]
            case "drive":
                return self.called
            case "s3":
                return self.path.partition("/")[2].rpartition("/")[2]
            case _:
                return unquote(urlsplit(self.url).path.rpartition("/")[2])

    @property
    def shown(self) -> str:
        """The URL without password and signature, for messages."""
        if self.scheme not in ("http", "https"):
            return self.url
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


class CutError(Exception):
    """A download was cut; another attempt may get the rest. `spoiled`: the bytes received so far must not be resumed from."""

    def __init__(self, why: object, *, spoiled: bool = False) -> None:
        super().__init__(str(why))
        self.spoiled = spoiled


class Reply(NamedTuple):
    """The answer of a source to a request for the bytes from `start` on."""

    start: int  # 0 if the source has changed, or cannot start elsewhere
    total: int | None  # bytes of the whole file, if known
    version: str | None  # ETag or time of the last change, which changes with the content
    chunks: Iterator[bytes]


def _response(archive: Archive, url: str, headers: dict[str, str]) -> "Response":
    import requests

    try:
        return requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS)
    except requests.exceptions.SSLError as error:
        raise UserError(f"{archive.shown}: no secure connection ({innermost(error)})") from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise CutError(innermost(error)) from error
    except requests.RequestException as error:
        raise UserError(f"cannot fetch {archive.shown}: {error}") from error


@contextmanager
def _over_http(archive: Archive, start: int, version: str | None, *, at: str = "") -> Iterator[Reply]:
    """`at`: the URL to request, if it is not the archive's own."""
    import urllib3

    request_headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-", "If-Range": version} if version else {})
    with _response(archive, at or archive.url, request_headers) as response:
        status, headers = response.status_code, response.headers
        byte_range, _, total = headers.get("Content-Range", "").removeprefix("bytes ").rpartition("/")
        if start and (status == 416 or (status == 206 and not byte_range.startswith(f"{start}-"))):
            with _over_http(archive, 0, None, at=at) as reply:
                yield reply
            return
        if status >= 500 or status in TEMPORARY:
            raise CutError(f"the server answers {status} {response.reason}")
        if status not in (200, 206):
            hint = proxy_hint(archive.url) if status in (403, 407) else ""  # perhaps the proxy's answer
            raise UserError(f"{archive.shown}: the server answers {status} {response.reason}. {_instead(archive)}{hint}")
        if headers.get("Content-Type", "").startswith("text/html") and not archive.name.endswith(("html", "htm")):
            what = f"{archive.shown}: the server answers with a web page, not with the file"
            raise UserError(f"{what}. {_instead(archive)}{proxy_hint(archive.url)}")
        total = total if status == 206 else headers.get("Content-Length", "")
        etag = headers.get("ETag", "W/")  # a weak one does not guarantee equal bytes
        yield Reply(
            start=start if status == 206 else 0,
            total=int(total) if total.isdecimal() else None,
            version=headers.get("Last-Modified") if etag.startswith("W/") else etag,
            chunks=_chunks(partial(response.raw.read, decode_content=False), urllib3.exceptions.HTTPError),
        )


@contextmanager
def _over_drive(archive: Archive, start: int, version: str | None) -> Iterator[Reply]:
    with _over_http(archive, start, version, at=_drive_address(archive)) as reply:
        yield reply


def named(archive: Archive) -> Archive:
    """`archive` with its file name, which is requested from Google Drive, since its URLs do not contain it.

    Raises:
        UserError: Drive refuses the file, or cannot be reached.
    """
    if archive.scheme != "drive" or archive.called:
        return archive
    try:
        with _response(archive, _drive_address(archive), {}) as response:
            heading = Message()
            heading["Content-Disposition"] = response.headers.get("Content-Disposition", "")
    except CutError as cut:
        raise UserError(f"{archive.url}: {cut}; try again later. {_instead(archive)}") from cut
    if not response.ok:
        raise _refused(archive, f"the server answers {response.status_code} {response.reason}")
    if not (name := heading.get_filename()):
        raise _refused(archive, "it answers with a web page")
    return replace(archive, called=name)


def _drive_address(archive: Archive) -> str:
    """The download URL of a file on Drive: behind a confirmation page, if it is too large for the virus scan."""
    from gdown.download import get_url_from_gdrive_confirmation
    from gdown.exceptions import FileURLRetrievalError
    from gdown.parse_url import parse_url

    file, _ = parse_url(archive.url)
    if not file:
        raise UserError(f"{archive.url} is not a single file of Google Drive, whose address is https://drive.google.com/file/d/<id>/view")
    address = f"{DRIVE}/uc?export=download&id={file}"
    with _response(archive, address, {}) as response:
        if response.status_code >= 500 or response.status_code in TEMPORARY:
            raise CutError(f"Google Drive answers {response.status_code} {response.reason}")
        if response.status_code == 404:
            raise _refused(archive, "there is no such file")
        if "Content-Disposition" in response.headers:  # a small file
            return address
        try:
            return get_url_from_gdrive_confirmation(response.text)
        except FileURLRetrievalError:  # its message is about gdown
            why = "too many downloads recently, or it is not shared with everyone who has the link"
            raise _refused(archive, why) from None


def _refused(archive: Archive, why: str) -> UserError:
    return UserError(f"Google Drive does not give {archive.url}: {why}. {_instead(archive)}")


@contextmanager
def _over_s3(archive: Archive, start: int, version: str | None) -> Iterator[Reply]:
    from botocore import exceptions  # type: ignore[import-untyped]

    bucket, _, key = archive.path.partition("/")
    conditions = {"Range": f"bytes={start}-", "IfMatch": version} if version else {}
    try:
        client = s3_client(timeouts=TIMEOUTS)
    except UserError as error:
        raise UserError(f"cannot fetch {archive.shown}: {error}") from error
    with closing(client):
        try:
            response = client.get_object(Bucket=bucket, Key=key, **conditions)
        except exceptions.ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if start and status in (412, 416):
                with _over_s3(archive, 0, None) as reply:
                    yield reply
                return
            if status >= 500 or status in TEMPORARY:
                raise CutError(f"S3 answers {status} {error.response['Error']['Code']}") from error
            raise UserError(
                f"{archive.shown}: {explain_client_error(error, action='read it')} (at {client.meta.endpoint_url}). {_instead(archive)}"
            ) from error
        except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
            raise CutError(error) from error
        except exceptions.ParamValidationError as error:
            raise UserError(f"cannot fetch {archive.shown}: {bucket} cannot be the name of a bucket") from error
        except exceptions.BotoCoreError as error:
            raise UserError(f"cannot fetch {archive.shown}: {error}. {CREDENTIALS}") from error
        with closing(response["Body"]) as body:
            yield Reply(
                start=start,
                total=start + response["ContentLength"],
                version=response["ETag"],
                chunks=_chunks(body.read, exceptions.BotoCoreError, spoiled_by=exceptions.FlexibleChecksumError),
            )


@contextmanager
def _from_disk(archive: Archive, start: int, version: str | None) -> Iterator[Reply]:
    file = Path(archive.path)
    if not file.is_file():
        raise UserError(f"there is no file {file}")
    try:
        handle = file.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    with handle:
        stat = os.fstat(handle.fileno())
        now = f"{stat.st_size} bytes of {stat.st_mtime_ns} ns"
        start = handle.seek(start if now == version else 0)
        yield Reply(start=start, total=stat.st_size, version=now, chunks=_chunks(handle.read, OSError))


_Source = Callable[[Archive, int, str | None], AbstractContextManager[Reply]]
SOURCES: dict[str, _Source] = {
    "https": _over_http,
    "http": _over_http,
    "drive": _over_drive,
    "s3": _over_s3,
    "file": _from_disk,
    "": _from_disk,
}


def _chunks(read: Callable[[int], bytes], cut_by: type[Exception], spoiled_by: type[Exception] | tuple[()] = ()) -> Iterator[bytes]:
    try:
        while chunk := read(CHUNK):
            yield chunk
    except cut_by as error:
        raise CutError(f"reading broke off ({innermost(error)})", spoiled=isinstance(error, spoiled_by)) from error


def _instead(archive: Archive) -> str:
    if archive.scheme == "drive":
        return (
            "Open that URL in a browser, download the file, and give its path in place of the URL (or put it into the data set's "
            "raw/ yourself); a copy in s3:// will do as well."
        )
    return f"If you have {archive.name}, give its path in place of the URL."
