"""Weights are fetched once and checked each time; if that fails, the error says what to do."""

import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from regcls.data import download
from regcls.errors import UserError
from regcls.training.weights import sha256, weights_digest, weights_file

CONTENT = b"weights of a network" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    monkeypatch.setattr(download, "PAUSES", ())
    monkeypatch.setenv("NO_PROXY", "*")


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def address(tmp_path):
    """The URL of a server of the files in the folder `served`."""
    (tmp_path / "served").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path / "served")) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def serve(tmp_path, name, content=CONTENT):
    (tmp_path / "served" / name).write_bytes(content)
    return name


def test_a_path_is_used_as_it_is(tmp_path):
    (tmp_path / "mine.pth").write_bytes(CONTENT)
    assert weights_file(str(tmp_path / "mine.pth"), tmp_path / "weights") == tmp_path / "mine.pth"
    assert not (tmp_path / "weights").exists()


def test_a_nonexistent_path_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"weights = .*none\.pth: there is no such file\. .*random, only if the encoder"):
        weights_file(str(tmp_path / "none.pth"), tmp_path / "weights")


def test_a_url_is_fetched_once_and_recorded(tmp_path, address, capsys):
    name = serve(tmp_path, f"resnet-{SHA256[:8]}.pth")
    file = weights_file(f"{address}/{name}", tmp_path / "weights")
    assert file.name == name and tmp_path / "weights" in file.parents and file.read_bytes() == CONTENT and sha256(file) == SHA256
    assert json.loads((file.parent / "checksums.json").read_text())[name]["sha256"] == SHA256
    (tmp_path / "served" / name).unlink()
    capsys.readouterr()
    assert weights_file(f"{address}/{name}", tmp_path / "weights") == file  # from the folder, without a message
    assert capsys.readouterr().err == ""


def test_a_file_not_matching_the_hash_in_its_name_is_refused(tmp_path, address):
    name = serve(tmp_path, "resnet-0123abcd.pth")
    for _ in range(2):
        with pytest.raises(UserError, match=f"is not the file that its name promises: its SHA-256 begins with {SHA256[:8]}"):
            weights_file(f"{address}/{name}", tmp_path / "weights")
    (records,) = (tmp_path / "weights").rglob("checksums.json")
    assert not (records.parent / name).exists() and json.loads(records.read_text()) == {}


def test_a_damaged_downloaded_file_is_a_clear_error(tmp_path, address):
    name = serve(tmp_path, "mine.pth")
    file = weights_file(f"{address}/{name}", tmp_path / "weights")
    file.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(UserError, match=r"mine\.pth is not what was fetched from .*Remove it and start again"):
        weights_file(f"{address}/{name}", tmp_path / "weights")
    file.unlink()
    assert weights_file(f"{address}/{name}", tmp_path / "weights").read_bytes() == CONTENT


@pytest.mark.parametrize("source", ["http://127.0.0.1:9/resnet.pth", "/none.pth"])
def test_the_error_for_a_failed_download_says_what_to_do(tmp_path, address, source):
    whole = source if source.startswith("http") else address + source
    with pytest.raises(UserError, match=r"cannot get the weights: .* set `weights` to its path; or set weights: random, only if"):
        weights_file(whole, tmp_path / "weights")


def test_a_damaged_record_is_a_clear_error(tmp_path, address):
    name = serve(tmp_path, "mine.pth")
    file = weights_file(f"{address}/{name}", tmp_path / "weights")
    (file.parent / "checksums.json").write_text("{")
    with pytest.raises(UserError, match=r"checksums\.json is damaged: it is not JSON"):
        weights_file(f"{address}/{name}", tmp_path / "weights")


def test_files_with_the_same_name_from_two_urls_are_kept_apart(tmp_path, address):
    for folder, content in (("imagenet", b"one"), ("places", b"other")):
        (tmp_path / "served" / folder).mkdir()
        (tmp_path / "served" / folder / "model.bin").write_bytes(content)
    files = [weights_file(f"{address}/{folder}/model.bin", tmp_path / "weights") for folder in ("imagenet", "places", "imagenet")]
    assert [file.read_bytes() for file in files] == [b"one", b"other", b"one"]


def test_local_files_are_identified_by_content_and_urls_by_themselves(tmp_path):
    (tmp_path / "mine.pth").write_bytes(CONTENT)
    assert weights_digest(str(tmp_path / "mine.pth")) == SHA256
    assert {weights_digest(source) for source in ("random", "https://example.com/mine.pth", str(tmp_path / "none.pth"))} == {""}
