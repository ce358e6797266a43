"""Raw files from real servers on loopback that cut connections, lie and change their content."""

import hashlib
import json
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from network import free_port, refusing_proxy
from regcls.data import download, sources
from regcls.data.download import fetch
from regcls.data.sources import Archive
from regcls.errors import UserError

CONTENT = random.Random(0).randbytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No waiting between attempts; no proxy, credentials or endpoint of this machine."""
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setenv("NO_PROXY", "*")
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "ENDPOINT_URL", "ENDPOINT_URL_S3", "REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.delenv("MLFLOW_S3_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


@dataclass
class Served:
    """What the server offers, and what it does wrong."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    cuts: list[int] = field(default_factory=list)  # bytes after which the connection is cut, one per request
    takes_ranges: bool = True
    answers_from: list[int] = field(default_factory=list)  # instead of the requested start
    says_length: bool = True
    more: int = 0  # bytes announced but not sent
    statuses: list[int] = field(default_factory=list)  # instead of a response, one per request
    kind: str = "application/x-tar"
    released: threading.Event = field(default_factory=threading.Event)  # a cut connection is closed only after this
    ranges: list[tuple[str | None, str | None]] = field(default_factory=list)  # Range and If-Range of each request
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        served = self.server.served
        requested, condition = self.headers.get("Range"), self.headers.get("If-Range")
        served.ranges.append((requested, condition))
        if served.statuses:
            self.send_error(served.statuses.pop(0))
            return
        length = len(served.content) + served.more
        start = int(requested[len("bytes=") : -1]) if requested and served.takes_ranges and condition == served.etag else 0
        if start and start >= len(served.content):
            self.send_error(416)
            return
        if start and served.answers_from:
            start = served.answers_from.pop()
        self.send_response(206 if start else 200)
        if served.says_length:
            self.send_header("Content-Length", str(length - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{length - 1}/{length}")
        if served.etag:
            self.send_header("ETag", served.etag)
        self.send_header("Content-Type", served.kind)
        self.end_headers()
        stop = served.cuts.pop(0) if served.cuts else None
        self.wfile.write(served.content[start:stop])
        if stop is not None:
            served.released.wait(60)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):  # the client was killed
        pass


@pytest.fixture
def served():
    with Server(("127.0.0.1", 0), Handler) as server:
        server.served = Served(url=f"http://127.0.0.1:{server.server_port}/static/faces.tar")
        server.served.released.set()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.served
        server.served.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


@pytest.fixture
def get(raw, tmp_path):
    """Fetch into raw."""
    return lambda url: fetch(str(url), raw, checksums=tmp_path / "checksums.json")


@pytest.fixture
def recorded(tmp_path):
    """Write or read the recorded checksums."""

    def access(**entries):
        if entries:
            (tmp_path / "checksums.json").write_text(json.dumps({f"{name}.tar": entry for name, entry in entries.items()}))
        return json.loads((tmp_path / "checksums.json").read_text())

    return access


def visible_files(folder):
    """Names of the visible files in a folder."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def hidden_files(folder):
    """Names of the hidden files except locks, which stay."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".") and path.suffix != ".lock")


# Names


@pytest.mark.parametrize(
    "url, name",
    [
        ("https://host/static/imdb_crop.tar", "imdb_crop.tar"),
        ("HTTPS://host/a%20b.tar?signature=x/y#part", "a b.tar"),
        ("s3://bucket/deep/key?#%20.tar", "key?#%20.tar"),
        ("s3://bucket/key.tar", "key.tar"),
        ("file:///data/a%20b.tar", "a b.tar"),
        ("data/raw/a%20b.tar", "a%20b.tar"),
        ("~/faces.zip", "faces.zip"),
    ],
)
def test_a_file_is_named_after_the_end_of_its_url(url, name):
    assert Archive(url=url).name == name


@pytest.mark.parametrize(
    "url",
    ["https://host", "https://host/", "https://host/..", "https://host/..%2F..%2Fpasswd", "s3://bucket", "s3://bucket/", "file:///", ""],
)
def test_a_url_without_a_file_name_is_refused(url):
    with pytest.raises(UserError, match="there is no file name at its end"):
        Archive(url=url)


def test_other_url_schemes_are_refused():
    with pytest.raises(UserError, match="cannot fetch ftp://host/a.tar: give a URL with https://"):
        Archive(url="ftp://host/a.tar")


def test_messages_hide_passwords_and_signatures():
    assert Archive(url="https://me:secret@host:8080/a.tar?X-Amz-Signature=secret").shown == "https://host:8080/a.tar"


# Over http


def test_a_downloaded_file_is_saved_with_its_checksum(served, get, raw, recorded):
    assert get(served.url) == raw / "faces.tar"
    assert (raw / "faces.tar").read_bytes() == CONTENT
    assert recorded() == {"faces.tar": {"bytes": len(CONTENT), "sha256": SHA256}}
    assert hidden_files(raw) == []


def test_checksums_of_other_files_are_kept(served, get, recorded):
    recorded(other={"bytes": 1, "sha256": "aa"})
    get(served.url)
    assert recorded() == {"faces.tar": {"bytes": len(CONTENT), "sha256": SHA256}, "other.tar": {"bytes": 1, "sha256": "aa"}}


def test_a_broken_download_resumes_where_it_stopped(served, get, capsys):
    served.cuts = [HALF, 700_001]
    assert get(served.url).read_bytes() == CONTENT
    assert served.ranges == [(None, None), (f"bytes={HALF}-", '"one"'), ("bytes=700001-", '"one"')]
    assert (
        "reading broke off (IncompleteRead(500000 bytes read, 500000 more expected)); 500 kB of 1.0 MB of faces.tar are there; another attempt in 0 s"
        in capsys.readouterr().err
    )


def test_attempts_that_make_progress_are_not_counted(served, get):
    served.cuts = list(range(50_000, 1_000_000, 50_000))
    assert get(served.url).read_bytes() == CONTENT
    assert len(served.ranges) == 20


def test_after_all_attempts_failed_the_next_command_resumes(served, get, raw, recorded):
    served.cuts = [HALF] * 5
    with pytest.raises(
        UserError, match=r"500 kB of 1\.0 MB of faces\.tar are there, in .*raw/\.faces\.tar\.part; the same command resumes from there\."
    ):
        get(served.url)
    assert visible_files(raw) == []
    served.ranges.clear(), served.cuts.clear()
    assert get(served.url).read_bytes() == CONTENT
    assert served.ranges == [(f"bytes={HALF}-", '"one"')]
    assert recorded()["faces.tar"]["sha256"] == SHA256


def test_a_killed_download_resumes_from_what_had_arrived(served, get, raw, tmp_path):
    served.released.clear()
    served.cuts = [HALF]
    code = "import sys; from pathlib import Path; from regcls.data.download import fetch; fetch(sys.argv[1], Path(sys.argv[2]), checksums=Path(sys.argv[3]))"
    arguments = [served.url, str(raw), str(tmp_path / "checksums.json")]
    with subprocess.Popen([sys.executable, "-c", code, *arguments]) as process:
        wait_for(lambda: (raw / ".faces.tar.part").exists() and (raw / ".faces.tar.part").stat().st_size >= sources.CHUNK)
        process.kill()
    had_come = (raw / ".faces.tar.part").stat().st_size
    assert get(served.url).read_bytes() == CONTENT
    assert served.ranges[1:] == [(f"bytes={had_come}-", '"one"')]


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_complete_download_is_finalised_without_another_request(served, get, raw, monkeypatch):
    def ended(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(download, "write_atomically", ended)
        get(served.url)
    served.statuses = [404]
    assert get(served.url).read_bytes() == CONTENT
    assert hidden_files(raw) == []


def test_old_and_new_content_are_not_mixed(served, get, capsys):
    served.cuts = [HALF] * 4
    with pytest.raises(UserError):
        get(served.url)
    served.content, served.etag = CONTENT[::-1], '"two"'
    assert get(served.url).read_bytes() == CONTENT[::-1]
    assert served.ranges[-1] == (f"bytes={HALF}-", '"one"')
    assert "the source has changed" in capsys.readouterr().err


def test_a_changed_length_under_the_same_etag_is_not_mixed(served, get):
    served.cuts = [HALF] * 4
    with pytest.raises(UserError):
        get(served.url)
    served.content = CONTENT[::-1] + b"more"
    assert get(served.url).read_bytes() == CONTENT[::-1] + b"more"


def test_without_range_support_the_download_starts_over(served, get):
    served.takes_ranges = False
    served.cuts = [HALF, HALF]
    assert get(served.url).read_bytes() == CONTENT


def test_a_response_with_a_different_range_is_not_appended(served, get):
    served.answers_from = [HALF + 1]
    served.cuts = [HALF, 700_000]
    assert get(served.url).read_bytes() == CONTENT


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_version_marker_nothing_is_resumed(served, get, etag):
    served.etag = etag
    served.cuts = [HALF] * 4
    with pytest.raises(UserError, match="; try again later"):
        get(served.url)
    assert get(served.url).read_bytes() == CONTENT
    assert served.ranges == [(None, None)] * 5


def test_a_partial_file_longer_than_the_file_is_discarded(served, get, raw):
    served.cuts = [HALF] * 4
    with pytest.raises(UserError):
        get(served.url)
    with (raw / ".faces.tar.part").open("ab") as part:
        part.write(CONTENT)
    assert get(served.url).read_bytes() == CONTENT


def test_a_partial_file_without_metadata_is_discarded(served, get, raw):
    raw.mkdir()
    (raw / ".faces.tar.part").write_bytes(CONTENT[:-1] + b"?")
    assert get(served.url).read_bytes() == CONTENT


def test_a_file_shorter_than_announced_is_refused(served, get, raw):
    served.more = 100
    with pytest.raises(UserError, match=r"faces\.tar: .*1\.0 MB of 1\.0 MB of faces\.tar are there"):
        get(served.url)
    assert visible_files(raw) == []


def test_a_file_of_unannounced_length_ends_with_the_connection(served, get, recorded):
    served.says_length = False
    assert get(served.url).read_bytes() == CONTENT
    assert recorded()["faces.tar"]["bytes"] == len(CONTENT)


def test_a_busy_server_is_retried(served, get):
    served.statuses = [503, 429, 500]
    assert get(served.url).read_bytes() == CONTENT


def test_a_server_that_stays_busy_is_an_error(served, get):
    served.statuses = [503] * 9
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:\d+/static/faces\.tar: the server answers 503 Service Unavailable"):
        get(served.url)
    assert len(served.ranges) == 4


@pytest.mark.parametrize("status, reason", [(404, "Not Found"), (403, "Forbidden"), (410, "Gone")])
def test_a_refusal_is_final_and_suggests_giving_a_path(served, get, raw, status, reason):
    served.statuses = [status] * 2
    with pytest.raises(
        UserError, match=rf"faces\.tar: the server answers {status} {reason}\. If you have faces\.tar, give its path in place of the URL"
    ):
        get(served.url)
    assert len(served.ranges) == 1
    assert visible_files(raw) == hidden_files(raw) == []


def test_a_web_page_is_not_accepted_as_an_archive(served, get, raw):
    served.kind = "text/html; charset=utf-8"
    with pytest.raises(UserError, match="the server answers with a web page, not with the file"):
        get(served.url)
    assert visible_files(raw) == []


def test_an_empty_file_is_refused(served, get):
    served.content = b""
    with pytest.raises(UserError, match=r"faces\.tar is empty"):
        get(served.url)


def test_an_unreachable_server_is_reported_with_the_reason(get):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/faces.tar"
        with pytest.raises(UserError, match=rf"{url}: Connection refused; try again later"):
            get(url)


def test_a_proxy_before_a_server_is_named(served, get, monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    nobody = f"http://127.0.0.1:{free_port()}"
    with refusing_proxy() as refusing:
        for proxy, message in ((nobody, "try again later."), (refusing, "give its path in place of the URL.")):
            monkeypatch.setenv("http_proxy", proxy)
            with pytest.raises(UserError) as caught:
                get(served.url)
            assert f"{message} A proxy is set, {proxy}: to reach 127.0.0.1 without it, export NO_PROXY=" in str(caught.value)
        monkeypatch.setenv("NO_PROXY", str(caught.value).partition("export NO_PROXY=")[2])
        assert get(served.url).read_bytes() == CONTENT


def test_a_silent_server_times_out(get, monkeypatch):
    monkeypatch.setattr(sources, "TIMEOUTS", (1.0, 0.1))
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UserError, match="timed out"):
        get(f"http://127.0.0.1:{silent.getsockname()[1]}/faces.tar")


def test_an_invalid_url_is_a_clear_error(get):
    with pytest.raises(UserError, match="cannot fetch http://:80x/faces.tar"):
        get("http://:80x/faces.tar")


# Checksums


def test_an_existing_file_is_recorded_instead_of_downloaded(served, get, raw, recorded):
    raw.mkdir()
    (raw / "faces.tar").write_bytes(b"mine")
    get(served.url)
    assert recorded() == {"faces.tar": {"bytes": 4, "sha256": hashlib.sha256(b"mine").hexdigest()}}
    assert served.ranges == []


def test_an_existing_file_with_the_recorded_checksum_is_kept(served, get):
    before = get(served.url).stat()
    after = get(served.url).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(served.ranges) == 1


@pytest.mark.parametrize(
    "content, difference",
    [(b"mine", "4 bytes instead of 1000000"), (CONTENT[::-1], "SHA-256 .* instead of " + SHA256[:12])],
    ids=["length", "content"],
)
def test_an_existing_file_with_another_checksum_is_reported_and_kept(served, get, raw, recorded, content, difference):
    get(served.url).write_bytes(content)
    with pytest.raises(
        UserError,
        match=rf'raw/faces\.tar is not the file of the entry "faces\.tar" of .*checksums\.json: {difference}.*\. If it is the right one, delete that entry',
    ):
        get(served.url)
    assert (raw / "faces.tar").read_bytes() == content
    assert recorded()["faces.tar"]["sha256"] == SHA256


def test_a_download_with_another_checksum_is_set_aside(served, get, raw, recorded):
    recorded(faces={"bytes": len(CONTENT), "sha256": SHA256})
    served.content = CONTENT[::-1]
    with pytest.raises(
        UserError,
        match=r'does not give the file of the entry "faces\.tar" of .*checksums\.json: SHA-256 .*kept as .*raw/faces\.tar\.rejected\. To accept it, delete that entry',
    ):
        get(served.url)
    assert visible_files(raw) == ["faces.tar.rejected"]
    assert recorded()["faces.tar"]["sha256"] == SHA256
    served.content = CONTENT
    assert get(served.url).read_bytes() == CONTENT


def test_a_file_set_aside_can_be_accepted_as_the_message_says(served, get, raw, recorded, tmp_path):
    recorded(faces={"bytes": len(CONTENT), "sha256": "aa"})
    with pytest.raises(UserError):
        get(served.url)
    (tmp_path / "checksums.json").write_text("{}")
    (raw / "faces.tar.rejected").rename(raw / "faces.tar")
    get(served.url)
    assert recorded()["faces.tar"]["sha256"] == SHA256


def test_an_unexpected_length_is_noticed_before_the_download(served, get, raw, recorded):
    recorded(faces={"bytes": 7, "sha256": SHA256})
    with pytest.raises(UserError, match=r'has 1000000 bytes, the entry "faces\.tar" of .*checksums\.json says 7; nothing was downloaded'):
        get(served.url)
    assert visible_files(raw) == hidden_files(raw) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"faces.tar": 3}', '{"faces.tar": {"bytes": 3}}', "\xff"])
def test_a_damaged_checksum_file_is_an_error_before_the_download(served, get, tmp_path, text):
    (tmp_path / "checksums.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"checksums\.json is not JSON of the form .*Fix it"):
        get(served.url)
    assert served.ranges == []


# The disk, and other processes


def test_lack_of_space_is_noticed_before_the_download(served, get, raw, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 5000))
    with pytest.raises(UserError, match=r"raw/faces\.tar needs 1\.0 MB more, 5\.0 kB are free there"):
        get(served.url)
    assert visible_files(raw) == []


def test_a_disk_that_fills_up_during_the_download_is_a_clear_error(served, get, raw, monkeypatch):
    path_open = Path.open

    def full(path, mode="r", *args, **kwargs):
        return path_open(Path("/dev/full") if mode == "ab" else path, mode, *args, **kwargs)

    with (
        monkeypatch.context() as patch,
        pytest.raises(UserError, match=r"no space left on the disk while writing .*raw/faces\.tar; nothing was replaced"),
    ):
        patch.setattr(Path, "open", full)
        get(served.url)
    assert visible_files(raw) == []
    assert get(served.url).read_bytes() == CONTENT


def test_a_folder_that_cannot_be_created_is_a_clear_error(served, tmp_path):
    (tmp_path / "data").write_text("mine")
    with pytest.raises(UserError, match="is a file, not a folder"):
        fetch(served.url, tmp_path / "data" / "raw", checksums=tmp_path / "checksums.json")


def test_two_processes_fetching_the_same_file_download_it_once(served, get, raw, capsys):
    served.released.clear()
    served.cuts = [HALF]
    threads = [threading.Thread(target=get, args=(served.url,)) for _ in range(2)]
    for thread in threads:
        thread.start()
        wait_for(lambda: served.ranges)
    wait_for(lambda: "is fetching faces.tar; waiting" in capsys.readouterr().err)
    served.released.set()
    for thread in threads:
        thread.join()
    assert (raw / "faces.tar").read_bytes() == CONTENT
    assert [requested for requested, _ in served.ranges] == [None, f"bytes={HALF}-"]


# From local files


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_path_is_copied_and_recorded(get, raw, tmp_path, recorded, form):
    source = tmp_path / "a b.tar"
    source.write_bytes(CONTENT)
    source.chmod(0o444)
    assert get(form.format(source)).read_bytes() == CONTENT
    assert (raw / "a b.tar").stat().st_ino != source.stat().st_ino
    assert recorded() == {"a b.tar": {"bytes": len(CONTENT), "sha256": SHA256}}


def test_an_interrupted_copy_resumes_where_it_stopped(get, raw, tmp_path, monkeypatch):
    source = tmp_path / "faces.tar"
    source.write_bytes(CONTENT)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(download, "progress", interrupted)
        get(source)
    with (raw / ".faces.tar.part").open("r+b") as part:
        assert len(part.read()) == sources.CHUNK
        part.seek(0)
        part.write(b"seen")  # to see that it is resumed
    assert get(source).read_bytes() == b"seen" + CONTENT[4:]


@contextmanager
def interrupted(total, label):
    """A regcls.progress.progress with a Ctrl-C at its first step."""

    def advance(amount, note=""):
        raise KeyboardInterrupt

    yield advance


def test_copying_a_changed_file_starts_over(get, tmp_path, monkeypatch):
    source = tmp_path / "faces.tar"
    source.write_bytes(CONTENT)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(download, "progress", interrupted)
        get(source)
    source.write_bytes(CONTENT[::-1])
    assert get(source).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("name", ["none.tar", "folder.tar"])
def test_a_nonexistent_path_is_a_clear_error(get, tmp_path, name):
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(UserError, match=rf"there is no file .*{name}"):
        get(tmp_path / name)


# From S3


@pytest.fixture
def s3(s3):
    """A client of S3, which holds s3://boot/raw/faces.tar."""
    s3.put_object(Bucket="boot", Key="raw/faces.tar", Body=CONTENT)
    return s3


S3_URL = "s3://boot/raw/faces.tar"


@pytest.fixture
def between(s3, s3_server, monkeypatch):
    """A proxy with one fault per connection: (bytes to let through, what then)."""
    faults = []
    with socket.create_server(("127.0.0.1", 0)) as front:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{front.getsockname()[1]}")
        port = int(s3_server.endpoint.rpartition(":")[2])
        thread = threading.Thread(target=relay, args=(front, port, faults))
        thread.start()
        yield faults
        front.shutdown(socket.SHUT_RDWR)
        thread.join()


def relay(front, port, faults):
    """Forward one request per connection to `port`, and the response up to a fault."""
    while True:
        try:
            client, _ = front.accept()
        except OSError:  # closed: the test is over
            return
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            server.sendall(client.recv(65536))
            server.settimeout(0.5)
            length, fault = faults.pop(0) if faults else (None, "")
            sent = 0
            with suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
                while (answer := server.recv(65536)) and (length is None or sent < length or fault == "spoil"):
                    if fault == "spoil" and sent <= length < sent + len(answer):
                        answer = answer[: length - sent] + bytes([answer[length - sent] ^ 1]) + answer[length - sent + 1 :]
                    client.sendall(answer)
                    sent += len(answer)


def test_an_s3_object_is_downloaded_and_its_checksum_recorded(s3, get, recorded):
    assert get(S3_URL).read_bytes() == CONTENT
    assert recorded() == {"faces.tar": {"bytes": len(CONTENT), "sha256": SHA256}}


def test_the_endpoint_of_mlflow_is_used_if_aws_sets_none(s3, s3_server, get, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3_server.endpoint)
    assert get(S3_URL).read_bytes() == CONTENT


def test_a_broken_s3_download_resumes_where_it_stopped(between, get, capsys):
    between.append((HALF, "cut"))
    assert get(S3_URL).read_bytes() == CONTENT
    output = capsys.readouterr().err
    assert re.search(r"\d\d\d kB of 1\.0 MB of faces\.tar are there; another attempt", output)
    assert re.search(r"faces\.tar from \d\d\d kB on: 100 %", output)


def test_old_and_new_content_of_an_s3_object_are_not_mixed(s3, between, get):
    between += [(HALF, "cut"), (0, "cut"), (0, "cut"), (0, "cut")]
    with pytest.raises(UserError, match="the same command resumes from there"):
        get(S3_URL)
    s3.put_object(Bucket="boot", Key="raw/faces.tar", Body=CONTENT[::-1])
    assert get(S3_URL).read_bytes() == CONTENT[::-1]


def test_an_s3_object_corrupted_in_transit_is_refused(between, get, capsys):
    between.append((HALF, "spoil"))
    assert get(S3_URL).read_bytes() == CONTENT
    assert "checksum" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url, environment, message",
    [
        ("s3://nobucket/faces.tar", {}, r"s3://nobucket/faces\.tar: there is no such bucket \(at http://127"),
        ("s3://boot/none.tar", {}, r"s3://boot/none\.tar: there is no such key in the bucket \(at http://127"),
        ("s3://a b/faces.tar", {}, "cannot fetch s3://a b/faces.tar: a b cannot be the name of a bucket"),
        (S3_URL, {"AWS_ACCESS_KEY_ID": "other"}, "the access key is unknown"),
        (S3_URL, {"AWS_SECRET_ACCESS_KEY": "other"}, "the secret key does not belong to the access key"),
        (S3_URL, {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "Unable to locate credentials. Check AWS_ACCESS_KEY_ID"),
        (S3_URL, {"AWS_SECRET_ACCESS_KEY": None}, "Partial credentials .*Check AWS_ACCESS_KEY_ID"),
        (S3_URL, {"AWS_PROFILE": "other"}, r"profile \(other\) could not be found"),
        (S3_URL, {"AWS_ENDPOINT_URL": "nonsense"}, "Invalid endpoint: nonsense"),
        (
            S3_URL,
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            r'faces\.tar: Could not connect to the endpoint URL: "http://127\.0\.0\.1:1/.*"; try again later',
        ),
    ],
)
def test_a_refusal_by_s3_is_a_clear_error(s3, get, monkeypatch, url, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    with pytest.raises(UserError, match=message):
        get(url)
