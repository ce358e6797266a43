"""Images read from folders, .tar and .zip without unpacking, and errors for unreadable archives."""

import io
import os
import random
import tarfile
import tracemalloc
import unicodedata
import zipfile
from contextlib import suppress

import pytest

from regcls.data import archives
from regcls.data.archives import Holder, Place
from regcls.errors import UserError

FILES = {
    "faces/00/a.jpg": b"first" * 300,
    "faces/00/empty.jpg": b"",
    "faces/01/" + 150 * "long" + ".jpg": b"second",
    "faces/ü.jpg": b"third",
}


def write_folder(raw):
    for name, content in FILES.items():
        (raw / name[:200]).parent.mkdir(parents=True, exist_ok=True)
        (raw / name[:200]).write_bytes(content)


def write_tar(raw, *, prefix="", mode="w"):
    with tarfile.open(raw / "faces.tar", mode) as tar:
        folder = tarfile.TarInfo("faces")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in FILES.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def write_zip(raw, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(raw / "faces.zip", "w", compression) as opened:
        opened.mkdir("faces")
        for name, content in FILES.items():
            opened.writestr(name, content)


def holder(raw, top="faces"):
    return Holder(raw, top, remedy="Fetch it.")


@pytest.mark.parametrize(
    "write",
    [
        write_tar,
        lambda raw: write_tar(raw, prefix="./"),
        write_zip,
        lambda raw: write_zip(raw, zipfile.ZIP_STORED),
    ],
    ids=["tar", "tar with ./", "zip", "zip stored"],
)
def test_exactly_the_files_of_an_archive_can_be_read(tmp_path, write):
    write(tmp_path)
    faces = holder(tmp_path)
    assert {name: faces.place(name).read() for name in FILES} == FILES
    assert set(faces.names()) == set(FILES)
    assert faces.place("faces") is None and faces.place("faces/other.jpg") is None


def test_missing_files_of_a_folder_are_noticed_on_reading(tmp_path):
    write_folder(tmp_path)
    faces = holder(tmp_path)
    assert faces.place("faces/00/a.jpg").read() == FILES["faces/00/a.jpg"]
    assert set(faces.names()) == {name[:200] for name in FILES}
    with pytest.raises(ValueError, match="there is no such file"):
        faces.place("faces/other.jpg").read()
    with pytest.raises(ValueError, match="not a file, but a folder, a device or a pipe"):
        faces.place("faces/00").read()


def test_a_folder_takes_precedence_over_an_archive_with_a_message(tmp_path, capsys):
    write_tar(tmp_path)
    (tmp_path / "faces" / "00").mkdir(parents=True)
    (tmp_path / "faces" / "00" / "a.jpg").write_bytes(b"unpacked")
    assert holder(tmp_path).place("faces/00/a.jpg").read() == b"unpacked"
    assert f"reading the folder {tmp_path}/faces, not {tmp_path}/faces.tar" in capsys.readouterr().err


def test_without_a_name_the_folder_itself_is_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"here")
    assert holder(tmp_path, "").place("a.jpg").read() == b"here"


def test_a_missing_archive_is_reported_with_what_to_put_where(tmp_path):
    with pytest.raises(UserError, match=r"there is no faces\.tar, faces\.zip or folder faces in .*\. Fetch it\."):
        holder(tmp_path)


def test_a_tar_truncated_anywhere_is_refused(tmp_path):
    write_tar(tmp_path)
    file = tmp_path / "faces.tar"
    whole, end = file.read_bytes(), 0
    with tarfile.open(file) as tar:
        end = max(member.offset_data + member.size for member in tar)
    for kept in range(0, end, 256):
        file.write_bytes(whole[:kept])
        with pytest.raises(UserError, match=r"faces\.tar is not an intact \.tar archive: .*\. Remove it and get a new copy"):
            holder(tmp_path)


def test_a_tar_overwritten_in_the_middle_is_refused(tmp_path):
    write_tar(tmp_path)
    content = bytearray((tmp_path / "faces.tar").read_bytes())
    content[512:1024] = b"x" * 512
    (tmp_path / "faces.tar").write_bytes(content)
    with pytest.raises(UserError, match="cut short or overwritten at byte 512 of"):
        holder(tmp_path)


@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
def test_a_compressed_tar_is_refused(tmp_path, mode):
    write_tar(tmp_path, mode=mode)
    with pytest.raises(UserError, match=r"is not an intact \.tar archive"):
        holder(tmp_path)


def test_a_truncated_zip_is_refused(tmp_path):
    write_zip(tmp_path)
    content = (tmp_path / "faces.zip").read_bytes()
    (tmp_path / "faces.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"faces\.zip is not an intact \.zip archive: File is not a zip file"):
        holder(tmp_path)


def test_the_error_for_an_encrypted_zip_says_how_to_unpack_it(tmp_path):
    write_zip(tmp_path)
    content = bytearray((tmp_path / "faces.zip").read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory
    (tmp_path / "faces.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"is encrypted: unpack it there with its password \(7z x faces\.zip\)"):
        holder(tmp_path)


def test_the_error_for_an_unsupported_compression_says_to_unpack(tmp_path):
    write_zip(tmp_path, zipfile.ZIP_LZMA)
    with pytest.raises(UserError, match=r"is not compressed the usual way \(deflate\): unpack it there"):
        holder(tmp_path)


def test_damage_within_a_zip_is_reported_for_the_affected_file_only(tmp_path):
    write_zip(tmp_path)
    place = holder(tmp_path).place("faces/00/a.jpg")
    content = bytearray((tmp_path / "faces.zip").read_bytes())
    content[place.offset] = 0xFF
    (tmp_path / "faces.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged within the \.zip: "):
        place.read()


def test_a_member_that_unpacks_to_more_than_the_limit_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST", 10**6)
    with zipfile.ZipFile(tmp_path / "faces.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("faces/zeros.jpg", bytes(10**8))
        opened.writestr("faces/largest.jpg", bytes(10**6))
    assert len(holder(tmp_path).place("faces/largest.jpg").read()) == 10**6
    tracemalloc.start()
    with pytest.raises(ValueError, match="^larger than 512 MiB$"):
        holder(tmp_path).place("faces/zeros.jpg").read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**7


def test_a_member_of_a_tar_that_is_larger_than_the_limit_is_not_read(tmp_path, monkeypatch):
    write_tar(tmp_path)
    monkeypatch.setattr(archives, "LARGEST", 100)
    with pytest.raises(ValueError, match="^larger than 512 MiB$"):
        holder(tmp_path).place("faces/00/a.jpg").read()
    assert holder(tmp_path).place("faces/ü.jpg").read() == b"third"


@pytest.mark.parametrize("name", ["x" * 300, "x\0y", f"faces/{'x' * 300}"])
def test_names_that_no_file_can_have_are_not_found(tmp_path, name):
    with pytest.raises(UserError, match="there is no"):
        holder(tmp_path, name)
    with pytest.raises(ValueError):
        Place(str(tmp_path / name)).read()


def test_an_archive_of_random_bytes_in_its_headers_is_refused_or_read(tmp_path):
    """Headers with any numbers, names and encodings: never another error."""
    rng = random.Random(0)
    for write, name in ((write_tar, "faces.tar"), (write_zip, "faces.zip")):
        write(tmp_path)
        whole = (tmp_path / name).read_bytes()
        for _ in range(300):
            content = bytearray(whole)
            for _ in range(rng.randint(1, 20)):
                content[rng.randrange(len(content))] = rng.randrange(256)
            (tmp_path / name).write_bytes(content)
            with suppress(UserError, ValueError):
                found = holder(tmp_path)
                for path in found.names():
                    found.place(path).read()
        (tmp_path / name).unlink()


def test_reading_beyond_the_end_gives_no_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert Place(str(tmp_path / "a"), 2, 10).read() == b"c"
    assert Place(str(tmp_path / "a"), 5, 10).read() == b""


# macOS writes é as e and an accent (NFD), most other systems as one character (NFC).
NFC, NFD = (unicodedata.normalize(form, "büro/café.jpg") for form in ("NFC", "NFD"))


def write_accents(raw, kind, *names):
    """A folder or an archive, named as macOS spells it, of files that contain their names."""
    for name in names:
        if kind == "folder":
            (raw / name).parent.mkdir(exist_ok=True)
            (raw / name).write_bytes(name.encode())
        elif kind == "tar":
            with tarfile.open(raw / f"{name.partition('/')[0]}.tar", "a") as tar:
                member = tarfile.TarInfo(name)
                member.size = len(name.encode())
                tar.addfile(member, io.BytesIO(name.encode()))
        else:
            with zipfile.ZipFile(raw / f"{name.partition('/')[0]}.zip", "a") as opened:
                opened.writestr(name, name)


def unmark(archive):
    """Remove the mark of UTF-8 from the names in a .zip, which macOS does not set."""
    content = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.index(signature) + flags
        content[at : at + 2] = b"\0\0"
    archive.write_bytes(content)


@pytest.mark.parametrize("kind", ["folder", "tar", "zip", "zip of macOS"])
@pytest.mark.parametrize(("there", "wanted"), [(NFD, NFC), (NFC, NFD)], ids=["NFD files", "NFC files"])
def test_accented_names_are_found_in_both_spellings(tmp_path, kind, there, wanted):
    write_accents(tmp_path, kind, there)
    if kind == "zip of macOS":
        unmark(tmp_path / f"{there.partition('/')[0]}.zip")
    assert holder(tmp_path, wanted.partition("/")[0]).place(wanted).read() == there.encode()


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_names_that_differ_in_their_spelling_only_stay_different_files(tmp_path, kind):
    names = [f"faces/{unicodedata.normalize(form, 'é')}.jpg" for form in ("NFC", "NFD")]
    write_accents(tmp_path, kind, *names)
    faces = holder(tmp_path)
    assert [faces.place(name).read() for name in names] == [name.encode() for name in names]


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_third_spelling_of_two_files_is_no_guess(tmp_path, kind):
    write_accents(tmp_path, kind, "faces/\u1e69.jpg", "faces/s\u0323\u0307.jpg")
    place = holder(tmp_path).place("faces/\u1e61\u0323.jpg")
    assert place is None or not os.path.exists(place.file)
