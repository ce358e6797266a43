"""The prepared format: data are read back unchanged, and damaged data are never taken for intact."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from corruption import flip_bit
from regcls.data import store
from regcls.data.store import open_prepared, prepared_writer, write_prepared
from regcls.errors import UserError

ARRAYS = {"clean": np.arange(2000, dtype=np.float32).reshape(2, 1000), "noisy-0.1": np.ones((2, 10), dtype=np.float32)}
TABLE = pd.DataFrame({"data": ["clean", "noisy-0.1"], "start": [0, 0], "stop": [1000, 10]})


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data" / "functions" / "prepared"
    write(folder)
    return folder


def write(folder, arrays=ARRAYS):
    write_prepared(folder, arrays=arrays, table=TABLE, made_from={"samples": 1000, "seeds": (1, 2)})


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def change_meta(folder, **changes):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | changes))


def test_written_data_is_read_back_unchanged(folder):
    prepared = open_prepared(folder)
    prepared.verify()
    assert {name: array.tolist() for name, array in prepared.arrays.items()} == {name: array.tolist() for name, array in ARRAYS.items()}
    assert all(array.dtype == np.float32 for array in prepared.arrays.values())
    pd.testing.assert_frame_equal(prepared.table, TABLE)
    assert prepared.meta["made_from"] == {"samples": 1000, "seeds": [1, 2]}


def test_arrays_are_read_only_views_of_their_files(folder):
    array = open_prepared(folder).arrays["clean"]
    assert isinstance(array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


def test_a_non_contiguous_array_is_written_correctly(folder):
    write(folder, {"clean": np.arange(20.0).reshape(10, 2).T})
    assert open_prepared(folder).arrays["clean"].tolist() == np.arange(20.0).reshape(10, 2).T.tolist()


def test_writing_again_replaces_the_whole_folder(folder):
    write(folder, {"ood": np.zeros((2, 3))})
    assert sorted(files(folder.parent)) == ["prepared/meta.json", "prepared/ood.npy", "prepared/table.parquet"]


def test_the_same_data_gives_the_same_bytes(folder, tmp_path):
    write(tmp_path / "again")
    assert files(tmp_path / "again") == files(folder)


def test_the_error_for_missing_data_says_how_to_prepare_it(tmp_path):
    with pytest.raises(UserError, match=r"there is no prepared data in .*regcls prepare functions"):
        open_prepared(tmp_path / "data" / "functions" / "prepared")


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_is_refused(folder, version):
    change_meta(folder, format=version)
    with pytest.raises(
        UserError, match=rf"has prepared format {version}, this regcls reads format 1\. Prepare it with: regcls prepare functions"
    ):
        open_prepared(folder)


@pytest.mark.parametrize(
    "content", ["", "{", "\xff", "[]", "null", "{}", '{"format": 1}', '{"format": 1, "arrays": {"clean": 3}, "table": {}}']
)
def test_damaged_metadata_is_a_clear_error(folder, content):
    (folder / "meta.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"meta\.json is damaged: .*regcls prepare functions"):
        open_prepared(folder)


@pytest.mark.parametrize("name", ["clean.npy", "noisy-0.1.npy", "table.parquet"])
@pytest.mark.parametrize("kept", [None, 0, 10, -1], ids=["missing", "empty", "start", "all but a byte"])
def test_a_missing_or_truncated_file_is_reported(folder, name, kept):
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if kept is not None:
        (folder / name).write_bytes(content[:kept])
    with pytest.raises(UserError, match=rf"{name} is damaged: .*regcls prepare functions"):
        open_prepared(folder)


@pytest.mark.parametrize("position", [0, 20, *range(50, 75), 200, 4000, -1])
def test_verify_finds_a_flipped_bit_in_an_array(folder, position):
    flip_bit(folder / "clean.npy", position)
    with pytest.raises(UserError, match=r"clean\.npy is damaged: its content is not what prepare wrote"):
        open_prepared(folder).verify()


def test_a_flipped_bit_in_the_table_is_always_found(folder):
    whole = (folder / "table.parquet").read_bytes()
    for position in range(0, len(whole), 97):
        (folder / "table.parquet").write_bytes(whole)
        flip_bit(folder / "table.parquet", position)
        with pytest.raises(UserError, match=r"table\.parquet is damaged: its content is not what prepare wrote"):
            open_prepared(folder)


def test_a_full_disk_keeps_the_old_data(folder, full_disk):
    before = files(folder.parent)
    with pytest.raises(UserError, match=r"no space left on the disk while writing .*prepared; nothing was replaced"):
        write(folder, {"clean": np.zeros((2, 100_000))})
    assert files(folder.parent) == before
    assert [path.name for path in folder.parent.iterdir()] == ["prepared"]


def test_a_full_disk_creates_no_new_folder(tmp_path, full_disk):
    with pytest.raises(UserError, match="no space left"):
        write(tmp_path / "functions" / "prepared")
    assert list((tmp_path / "functions").iterdir()) == []


def test_a_read_only_disk_keeps_the_old_data(folder, monkeypatch):
    before = files(folder.parent)

    def refuse(path, *args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"cannot write .*prepared: Read-only file system"):
        write(folder)
    assert files(folder.parent) == before


def test_a_file_in_place_of_a_folder_is_reported(tmp_path):
    (tmp_path / "data").write_text("mine")
    with pytest.raises(UserError, match=rf"cannot write .*prepared: {tmp_path}/data is a file, not a folder"):
        write(tmp_path / "data" / "functions" / "prepared")
    assert (tmp_path / "data").read_text() == "mine"


def test_leftovers_of_a_killed_writer_are_not_taken_for_data(folder):
    aside = folder.with_name(".prepared.1.part")
    shutil.copytree(folder, aside)
    (aside / "meta.json").unlink()
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="there is no prepared data"):
        open_prepared(folder)
    write(folder)
    open_prepared(folder).verify()


def test_an_array_filled_in_place_is_read_back_unchanged(folder):
    with prepared_writer(folder, made_from={}) as writer:
        images = writer.empty("images", (5, 2, 3), np.uint8)
        with open(images.filename, "r+b") as handle:  # like another process
            handle.seek(images.offset + 6)
            handle.write(bytes(range(6)))
        images[4] = 9
        writer.save("edges", np.arange(3.0))
        writer.save_table(TABLE)
    prepared = open_prepared(folder)
    prepared.verify()
    expected = np.zeros((5, 2, 3), dtype=np.uint8)
    expected[1], expected[4] = np.arange(6).reshape(2, 3), 9
    assert np.array_equal(prepared.arrays["images"], expected)
    assert prepared.arrays["edges"].tolist() == [0, 1, 2]


def test_both_ways_of_writing_an_array_give_the_same_bytes(folder, tmp_path):
    with prepared_writer(tmp_path / "again", made_from={"samples": 1000, "seeds": (1, 2)}) as writer:
        for name, array in ARRAYS.items():
            writer.empty(name, array.shape, array.dtype)[:] = array
        writer.save_table(TABLE)
    assert files(tmp_path / "again") == files(folder)


def test_other_files_and_notes_are_stored_with_the_data(folder):
    with prepared_writer(folder, made_from={}) as writer:
        writer.save_table(TABLE)
        (writer.folder / "rejected.csv").write_text("path,reason\n")
        writer.notes = {"rejected": 0}
    assert (folder / "rejected.csv").read_text() == "path,reason\n"
    assert open_prepared(folder).meta["notes"] == {"rejected": 0}


def test_a_failed_write_keeps_the_old_data(folder):
    before = files(folder.parent)
    with pytest.raises(RuntimeError), prepared_writer(folder, made_from={}) as writer:
        writer.empty("images", (5, 2), np.uint8)
        raise RuntimeError
    assert files(folder.parent) == before


def test_an_array_too_large_for_the_disk_is_an_immediate_error(folder):
    before = files(folder.parent)
    free = shutil.disk_usage(folder).free
    with (
        pytest.raises(UserError, match=r"functions has [\d.]+ GB of free space, [\d.]+ GB are needed"),
        prepared_writer(folder, made_from={}) as writer,
    ):
        writer.empty("images", (2, free), np.uint8)
    assert files(folder.parent) == before


def test_a_long_checksum_shows_progress(folder, monkeypatch, capsys):
    monkeypatch.setattr(store, "LONG_BYTES", 5000)
    open_prepared(folder).verify()
    assert "checksum of clean.npy: 100 %" in capsys.readouterr().err
