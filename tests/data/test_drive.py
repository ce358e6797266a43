"""Files of Google Drive, from a server on loopback that answers as Drive does; gdown reads its pages."""

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
    """What it has, and how it answers."""

    address: str = ""
    large: bool = True  # asks for confirmation first
    page: str = CONFIRM
    statuses: list[int] = field(default_factory=list)  # of the page, one a request
    refuses: int = 0  # status instead of the file
    disposition: str = 'attachment; filename="data.zip"'
    cuts: list[int] = field(default_factory=list)  # bytes after which the connection is cut, one a request of content
    asked: list[str | None] = field(default_factory=list)  # Range of each request of the file itself
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
        drive, asked = self.server.drive, self.headers.get("Range")
        drive.asked.append(asked)
        start = int(asked[len("bytes=") : -1]) if asked else 0
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
    """fetch, into raw."""
    return lambda url=LINK: fetch(url, tmp_path / "raw", checksums=tmp_path / "checksums.json")


@pytest.mark.parametrize(
    "url", [LINK, f"{LINK}?usp=sharing", f"https://drive.google.com/uc?id={FILE}", f"https://drive.google.com/open?id={FILE}"]
)
@pytest.mark.parametrize("large", [True, False])
def test_a_file_comes_under_the_name_that_drive_says(drive, get, tmp_path, url, large):
    drive.large = large
    assert get(url) == tmp_path / "raw" / "data.zip"
    assert (tmp_path / "raw" / "data.zip").read_bytes() == CONTENT
    assert list(json.loads((tmp_path / "checksums.json").read_text())) == ["data.zip"]


def test_a_cut_is_taken_up_with_a_new_confirmation(drive, get):
    drive.cuts = [HALF]
    assert get().read_bytes() == CONTENT
    assert drive.asked == [None, None, f"bytes={HALF}-"] and drive.pages == 3


def test_a_file_that_is_there_already_is_not_downloaded(drive, get):
    get()
    drive.asked.clear()
    get()
    assert len(drive.asked) == 1  # for its name


@pytest.mark.parametrize("disposition", ["attachment; filename*=UTF-8''my%20data.zip", 'attachment; filename="my data.zip"'])
def test_a_name_may_be_encoded(drive, disposition):
    drive.disposition = disposition
    assert named(Archive(url=LINK)).name == "my data.zip"


def test_a_name_that_leads_out_of_the_folder_is_refused(drive, get):
    drive.disposition = 'attachment; filename="../data.zip"'
    with pytest.raises(UserError, match="there is no file name at its end"):
        get()


@pytest.mark.parametrize("page", [QUOTA, SIGN_IN, "<html></html>"], ids=["quota", "sign in", "nothing known"])
def test_a_page_instead_of_the_file_says_why_it_may_be_and_what_to_do(drive, get, page):
    drive.page = page
    with pytest.raises(UserError) as caught:
        get()
    assert str(caught.value) == (
        f"Google Drive does not give {LINK}: too many have fetched it of late, or it is not open to everyone with the link. "
        "Open that address in a browser, download the file, and give its path in place of the address (or put it into the data set's raw/ "
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
def test_a_refusal_by_status_is_told(drive, get, changes, why):
    for name, value in changes.items():
        setattr(drive, name, value)
    with pytest.raises(UserError, match=rf"Google Drive does not give .*: {why}\. Open that address in a browser"):
        get()


def test_a_busy_server_is_named_at_first_and_asked_again_later(drive, get):
    drive.statuses = [503]
    with pytest.raises(UserError, match=r"Google Drive answers 503 Service Unavailable; try again later\. Open that address"):
        get()
    drive.statuses = [200, 503, 429, 200]
    assert get().read_bytes() == CONTENT


def test_a_folder_of_drive_is_not_a_file(drive, get):
    with pytest.raises(
        UserError, match=r"is not a single file of Google Drive, whose address is https://drive\.google\.com/file/d/<id>/view"
    ):
        get("https://drive.google.com/drive/folders/1WoOZOBpOWfmwe7bknWS5PMUCLBPFKTOw")


def test_a_drive_that_is_not_there_is_a_clear_error(monkeypatch, get):
    monkeypatch.setattr(sources, "DRIVE", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(UserError, match="Connection refused; try again later"):
        get()
