"""Unpacking of archives, and archives that would write where they must not."""

import errno
import io
import random
import re
import stat
import tarfile
import zipfile
from contextlib import suppress

import pytest

from regcls.data.unpacking import extract
from regcls.errors import UserError

GOOD = {"faces/00/1.jpg": b"one", "faces/01/2.jpg": b"two"}


def tar_of(file, members, *extra, mode="w"):
    """A tar with the files of `members` and the TarInfo of `extra`."""
    with tarfile.open(file, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info)
    return file


def zip_of(file, members):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return file


def files(folder):
    """Content of all files in a folder except locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"
    }


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("name, mode", [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar.xz", "w:xz")])
def test_a_tar_is_unpacked(tmp_path, name, mode):
    assert extract(tar_of(tmp_path / name, GOOD, mode=mode), tmp_path / "raw") == 2
    assert files(tmp_path / "raw") == GOOD


def test_a_zip_is_unpacked(tmp_path):
    assert extract(zip_of(tmp_path / "a.zip", {"faces/": b""} | GOOD), tmp_path / "raw") == 2
    assert files(tmp_path / "raw") == GOOD


def test_an_archive_is_unpacked_next_to_itself(tmp_path):
    archive = tar_of(tmp_path / "a.tar", GOOD)
    (tmp_path / "mine").write_bytes(b"mine")
    extract(archive, tmp_path)
    assert files(tmp_path) == GOOD | {"a.tar": archive.read_bytes(), "mine": b"mine"}


@pytest.mark.parametrize("pack, suffix", [(tar_of, "tar"), (zip_of, "zip")])
@pytest.mark.parametrize("name", ["../out", "/tmp/out", "faces/../../out", "..", "faces/.."])
def test_a_member_outside_the_folder_is_refused(tmp_path, pack, suffix, name):
    archive = pack(tmp_path / f"a.{suffix}", GOOD | {name: b"bad"})
    with pytest.raises(
        UserError, match=rf"a\.{suffix}: the member {re.escape(name)} would be written outside .*raw\. Nothing was unpacked"
    ):
        extract(archive, tmp_path / "raw")
    assert files(tmp_path) == {archive.name: archive.read_bytes()}


@pytest.mark.parametrize(
    "member",
    [
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("link", tarfile.SYMTYPE, "../../out"),
        special("link", tarfile.SYMTYPE, "faces"),
        special("link", tarfile.LNKTYPE, "../../out"),
        special("link", tarfile.CHRTYPE),
        special("link", tarfile.FIFOTYPE),
    ],
    ids=["absolute", "outside", "inside", "hard", "device", "pipe"],
)
def test_a_link_or_a_device_in_a_tar_is_refused(tmp_path, member):
    archive = tar_of(tmp_path / "a.tar", GOOD, member)
    with pytest.raises(UserError, match=r"a\.tar: the member link is a link or a device, .*Nothing was unpacked"):
        extract(archive, tmp_path / "raw")
    assert files(tmp_path / "raw") == {}


def test_a_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = zip_of(tmp_path / "a.zip", GOOD)
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match=r"a\.zip: the member link is a link or a device"):
        extract(archive, tmp_path / "raw")
    assert files(tmp_path / "raw") == {}


@pytest.mark.parametrize("pack, suffix", [(tar_of, "tar"), (zip_of, "zip")])
@pytest.mark.parametrize(
    "members, reason",
    [
        ({"faces": b"one", "faces/1.jpg": b"two"}, "Not a directory|File exists"),
        ({"faces/1.jpg/2.jpg": b"one", "faces/1.jpg": b"two"}, "Is a directory"),
        ({f"faces/{'x' * 300}.jpg": b"one"}, "File name too long"),
    ],
    ids=["a file, then a folder", "a folder, then a file", "a long name"],
)
def test_members_that_no_folder_can_have_leave_nothing(tmp_path, pack, suffix, members, reason):
    archive = pack(tmp_path / f"a.{suffix}", members)
    with pytest.raises(UserError, match=rf"cannot unpack .*a\.{suffix}: faces.*: ({reason})\. Nothing was unpacked") as error:
        extract(archive, tmp_path / "raw")
    assert "\n" not in str(error.value) and files(tmp_path / "raw") == {}


@pytest.mark.parametrize("headers", [{"path": "faces/\0.jpg"}, {"mtime": "1e300"}, {"size": "-5"}, {"path": "faces/\udcff.jpg"}])
def test_odd_headers_of_a_tar_are_never_a_traceback(tmp_path, headers):
    odd = tarfile.TarInfo("faces/odd.jpg")
    odd.pax_headers = headers
    with suppress(UserError):
        extract(tar_of(tmp_path / "a.tar", GOOD, odd), tmp_path / "raw")
    assert not [file for file in (tmp_path / "raw").iterdir() if file.name.endswith(".part")]


def test_existing_files_are_not_replaced(tmp_path):
    (tmp_path / "raw" / "faces").mkdir(parents=True)
    (tmp_path / "raw" / "faces" / "mine").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"raw/faces is there already\. Move it away to unpack a\.tar"):
        extract(tar_of(tmp_path / "a.tar", GOOD), tmp_path / "raw")
    assert files(tmp_path / "raw") == {"faces/mine": b"mine"}


@pytest.mark.parametrize(
    "name, mode, kept", [("a.tar", "w", 1800), ("a.tar", "w", 100), ("a.tar", "w", 0), ("a.tar.gz", "w:gz", 150), ("a.tar.xz", "w:xz", 150)]
)
def test_a_truncated_tar_leaves_nothing(tmp_path, name, mode, kept):
    archive = tar_of(
        tmp_path / name, {"faces/1.jpg": random.Random(0).randbytes(600), "faces/2.jpg": random.Random(1).randbytes(600)}, mode=mode
    )
    archive.write_bytes(archive.read_bytes()[:kept])
    with pytest.raises(UserError, match=rf"cannot unpack .*{name}: .*Fetch it again"):
        extract(archive, tmp_path / "raw")
    assert files(tmp_path / "raw") == {}


@pytest.mark.parametrize("position", [45, -1])
def test_a_damaged_zip_leaves_nothing(tmp_path, position):
    archive = zip_of(tmp_path / "a.zip", GOOD)
    content = bytearray(archive.read_bytes())
    content[position] ^= 1
    archive.write_bytes(content[:position] if position < 0 else content)
    with pytest.raises(UserError, match=r"cannot unpack .*a\.zip"):
        extract(archive, tmp_path / "raw")
    assert files(tmp_path / "raw") == {}


def test_a_gz_with_a_wrong_checksum_leaves_nothing(tmp_path):
    archive = tar_of(tmp_path / "a.tar.gz", GOOD, mode="w:gz")
    content = bytearray(archive.read_bytes())
    content[-6] ^= 1  # of the CRC
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot unpack .*a\.tar\.gz: CRC check failed"):
        extract(archive, tmp_path / "raw")
    assert files(tmp_path / "raw") == {}


def test_a_file_that_is_not_an_archive_is_a_clear_error(tmp_path):
    (tmp_path / "a.tar").write_bytes(random.Random(0).randbytes(10_000))
    with pytest.raises(UserError, match=r"cannot unpack .*a\.tar: "):
        extract(tmp_path / "a.tar", tmp_path / "raw")


def test_a_missing_archive_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"there is no archive .*a\.tar"):
        extract(tmp_path / "a.tar", tmp_path / "raw")


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / "raw" / ".a.tar.unpacked.part").mkdir(parents=True)
    (tmp_path / "raw" / ".a.tar.unpacked.part" / "half").write_bytes(b"half")
    extract(tar_of(tmp_path / "a.tar", GOOD), tmp_path / "raw")
    assert files(tmp_path / "raw") == GOOD


def test_a_disk_that_fills_up_while_unpacking_leaves_nothing(tmp_path, monkeypatch):
    archive = tar_of(tmp_path / "a.tar", GOOD)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tarfile, "copyfileobj", full)
    with pytest.raises(UserError, match=r"no space left on the disk while writing .*raw; nothing was replaced"):
        extract(archive, tmp_path / "raw")
    assert files(tmp_path / "raw") == {}
