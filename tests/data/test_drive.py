"""Files on Google Drive, from a server on loopback that imitates Drive; gdown reads its pages."""

import json
import random
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from regcls.data import download, sources
from regcls.data.download import fetch
from regcls.data.sources import Archive, named
from regcls.errors import UserError

FILE = "1WoOZOBpOWfmwe7bknWS5PMUCLBPFKTOw"
LINK = f"https://drive.google.com/file/d/{FILE}/view"
CONTENT = random.Random(0).randbytes(600_000)
HALF = len(CONTENT) // 2
CONFIRM = """<html><title>Google Drive - Virus scan warning</title>
<p class="uc-warning-caption">Google Drive can't scan this file for viruses.</p>
<form id="download-form" action="{address}/download" method="get"><input type="submit" value="Download anyway"/><input type="hidden" name="id" value="{file}"><input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="{uuid}"></form></html>"""
QUOTA = """<html><p class="uc-error-caption">Sorry, you can't view or download this file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently. Please try again later.</p></html>"""
SIGN_IN = "<html><title>Sign in - Google Accounts</title>Use your account</html>"


@dataclass
class Drive:
    """What the server offers, and how it answers."""

    address: str = ""
    large: bool = True  # asks for confirmation first
    page: str = CONFIRM
    statuses: list[int] = field(default_factory=list)  # of the page, one per request
    refuses: int = 0  # status instead of the file
    disposition: str = 'attachment; filename="data.zip"'
    cuts: list[int] = field(default_factory=list)  # bytes after which the connection is cut, one per request for content
    ranges: list[str | None] = field(default_factory=list)  # Range of each request for the file itself
    pages: int = 0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        drive, parts = self.server.drive, urlsplit(self.path)
        query = parse_qs(parts.query)
        assert query["id"] == [FILE]
        if parts.path == "/uc" and drive.statuses and (status := drive.statuses.pop(0)) != 200:
            self.send_error(status)
        elif parts.path == "/uc" and drive.large:
            drive.pages += 1
            self.html(drive.page.format(address=drive.address, file=FILE, uuid=f"u{drive.pages}"))
        elif parts.path == "/download" and (query["confirm"], query["uuid"]) != (["t"], [f"u{drive.pages}"]):
            self.html("<html>the confirmation is of another page</html>")
        elif drive.refuses:
            self.send_error(drive.refuses)
        else:
            self.file()

    def html(self, text):
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(text.encode())

    def file(self):
        drive, requested = self.server.drive, self.headers.get("Range")
        drive.ranges.append(requested)
        start = int(requested[len("bytes=") : -1]) if requested else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Last-Modified", "Sat, 20 Feb 2021 10:00:00 GMT")
        self.send_header("Content-Type", "application/octet-stream")
        if drive.disposition:
            self.send_header("Content-Disposition", drive.disposition)
        self.end_headers()
        named_only = self.headers.get("Accept-Encoding") != "identity"
        self.wfile.write(b"" if named_only else CONTENT[start : drive.cuts.pop(0) if drive.cuts else None])

    def log_message(self, *_):
        pass


@pytest.fixture
def drive(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.drive = Drive(address=f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(sources, "DRIVE", server.drive.address)
        monkeypatch.setattr(download, "PAUSES", (0.0, 0.0, 0.0))
        monkeypatch.setenv("NO_PROXY", "*")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.drive
        server.shutdown()
        thread.join()


@pytest.fixture
def get(tmp_path):
    """Fetch into raw."""
    return lambda url=LINK: fetch(url, tmp_path / "raw", checksums=tmp_path / "checksums.json")


@pytest.mark.parametrize(
    "url", [LINK, f"{LINK}?usp=sharing", f"https://drive.google.com/uc?id={FILE}", f"https://drive.google.com/open?id={FILE}"]
)
@pytest.mark.parametrize("large", [True, False])
def test_a_file_is_saved_under_the_name_given_by_drive(drive, get, tmp_path, url, large):
    drive.large = large
    assert get(url) == tmp_path / "raw" / "data.zip"
    assert (tmp_path / "raw" / "data.zip").read_bytes() == CONTENT
    assert list(json.loads((tmp_path / "checksums.json").read_text())) == ["data.zip"]


def test_a_broken_download_resumes_with_a_new_confirmation(drive, get):
    drive.cuts = [HALF]
    assert get().read_bytes() == CONTENT
    assert drive.ranges == [None, None, f"bytes={HALF}-"] and drive.pages == 3


def test_an_existing_file_is_not_downloaded(drive, get):
    get()
    drive.ranges.clear()
    get()
    assert len(drive.ranges) == 1  # for its name


@pytest.mark.parametrize("disposition", ["attachment; filename*=UTF-8''my%20data.zip", 'attachment; filename="my data.zip"'])
def test_an_encoded_name_is_decoded(drive, disposition):
    drive.disposition = disposition
    assert named(Archive(url=LINK)).name == "my data.zip"


def test_a_name_that_leaves_the_folder_is_refused(drive, get):
    drive.disposition = 'attachment; filename="../data.zip"'
    with pytest.raises(UserError, match="there is no file name at its end"):
        get()


@pytest.mark.parametrize("page", [QUOTA, SIGN_IN, "<html></html>"], ids=["quota", "sign in", "nothing known"])
def test_a_page_in_place_of_the_file_is_explained_with_a_remedy(drive, get, page):
    drive.page = page
    with pytest.raises(UserError) as caught:
        get()
    assert str(caught.value) == (
        f"Google Drive does not give {LINK}: too many downloads recently, or it is not shared with everyone who has the link. "
        "Open that URL in a browser, download the file, and give its path in place of the URL (or put it into the data set's raw/ "
        "yourself); a copy in s3:// will do as well."
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"statuses": [404]}, "there is no such file"),
        ({"refuses": 403}, "the server answers 403 Forbidden"),
        ({"disposition": ""}, "it answers with a web page"),
    ],
)
def test_an_http_refusal_is_reported(drive, get, changes, why):
    for name, value in changes.items():
        setattr(drive, name, value)
    with pytest.raises(UserError, match=rf"Google Drive does not give .*: {why}\. Open that URL in a browser"):
        get()


def test_a_busy_server_is_reported_and_retried_later(drive, get):
    drive.statuses = [503]
    with pytest.raises(UserError, match=r"Google Drive answers 503 Service Unavailable; try again later\. Open that URL"):
        get()
    drive.statuses = [200, 503, 429, 200]
    assert get().read_bytes() == CONTENT


def test_a_drive_folder_is_refused(drive, get):
    with pytest.raises(
        UserError, match=r"is not a single file of Google Drive, whose address is https://drive\.google\.com/file/d/<id>/view"
    ):
        get("https://drive.google.com/drive/folders/1WoOZOBpOWfmwe7bknWS5PMUCLBPFKTOw")


def test_an_unreachable_drive_is_a_clear_error(monkeypatch, get):
    monkeypatch.setattr(sources, "DRIVE", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(UserError, match="Connection refused; try again later"):
        get()
