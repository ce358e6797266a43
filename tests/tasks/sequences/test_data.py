"""Features compared with numpy.loadtxt, splits with a plain reimplementation of the protocol; archives, folders and files, intact and broken."""

import os
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import ROOT
from regcls.data.store import deciding_parameters
from regcls.errors import UserError
from regcls.params import load_params
from regcls.tasks.sequences import prepare as video_prepare
from regcls.tasks.sequences.data import SequenceSet
from regcls.tasks.sequences.params import ACTIVITIES, SequenceData, SequenceStandIn
from regcls.tasks.sequences.prepare import counts, parse, prepare
from regcls.tasks.sequences.stand_in import write_archive

DATA = SequenceData(
    source="raw",
    archives=(),
    test_persons={"s1": (3, 15), "s2": (16, 28), "s3": (29, 41), "s4": (42, 54)},
    validation_share=1 / 3,
    split_seed=0,
    expected_videos=None,
    stand_in=SequenceStandIn(persons=4, frames=40, seed=0),
)
PERSONS = (3, 20, 37, 54)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    write_archive(folder, DATA.stand_in)
    return folder / "features.tar"


@pytest.fixture
def raw(tmp_path):
    raw = tmp_path / "data" / "breakfast" / "raw"
    raw.mkdir(parents=True)
    return raw


def name(person, activity="tea", camera="cam01"):
    return f"P{person:02d}_{camera}_P{person:02d}_{activity}.txt"


def numbers(lines, seed=0):
    return np.random.default_rng(seed).normal(size=(lines, 64))


def put(file, lines, seed=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(file, numbers(lines, seed))


@pytest.fixture
def few(raw):
    """Four short videos of tea of 2 to 5 frames, one per split."""
    for k, person in enumerate(PERSONS):
        put(raw / "features" / "tea" / name(person), 2 + k, seed=person)
    return raw


def run(raw, data=DATA, processes=1):
    prepare(data, raw.parent / "prepared", raw=raw, dataset="breakfast", processes=processes)
    return SequenceSet(raw.parent / "prepared", verify=True, made_from=data)


def rejected(raw):
    return dict(pd.read_csv(raw.parent / "prepared" / "rejected.csv").itertuples(index=False))


def written(raw):
    return {file.name: file.read_bytes() for file in (raw.parent / "prepared").iterdir()}


def test_frames_are_in_the_rows_given_by_the_table(raw, archive):
    (raw / "features.tar").symlink_to(archive)
    videos = run(raw)
    with tarfile.open(archive) as tar:
        files = {Path(member.name).stem: np.loadtxt(tar.extractfile(member), ndmin=2) for member in tar if "webcam02" not in member.name}
    assert sorted(videos.table["video"]) == sorted(files)
    for row in videos.table.itertuples():
        assert np.array_equal(videos.features[row.start : row.start + row.frames], files[row.video].astype(np.float32))
        assert row.video == f"P{row.person:02d}_{row.camera}_P{row.person:02d}_{row.activity}"
    assert videos.features.shape == (sum(map(len, files.values())), 64) and videos.features.dtype == np.float32


def test_videos_are_ordered_by_activity_person_and_camera(raw, archive):
    (raw / "features.tar").symlink_to(archive)
    videos = run(raw)
    table = videos.table
    rows = list(zip(table["activity"], table["person"], table["camera"], strict=True))
    assert rows == sorted(rows)
    assert table["start"].tolist() == [0, *table["frames"].cumsum()[:-1]]
    assert videos.activities == ACTIVITIES


def test_folders_zips_and_loose_files_give_the_same_bytes_as_a_tar(raw, archive):
    (raw / "features.tar").symlink_to(archive)
    run(raw)
    from_tar = {file: content for file, content in written(raw).items() if file != "rejected.csv"}
    (raw / "features.tar").unlink()
    with tarfile.open(archive) as tar:
        tar.extractall(raw, filter="data")
    (raw / "features").rename(raw / "tar.of.somebody")
    run(raw)
    assert {file: content for file, content in written(raw).items() if file != "rejected.csv"} == from_tar
    with zipfile.ZipFile(raw / "packed.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted((raw / "tar.of.somebody" / "coffee").iterdir()):
            packed.writestr(f"inner/folder/{file.name}", file.read_bytes())
    shutil.rmtree(raw / "tar.of.somebody" / "coffee")
    for file in (raw / "tar.of.somebody" / "milk").iterdir():
        file.rename(raw / file.name)
    run(raw)
    assert {file: content for file, content in written(raw).items() if file != "rejected.csv"} == from_tar


def test_worker_processes_give_the_same_bytes(raw, archive, monkeypatch):
    (raw / "features.tar").symlink_to(archive)
    run(raw)
    alone = written(raw)
    monkeypatch.setattr(video_prepare, "FEW", 0)
    run(raw, processes=2)
    assert written(raw) == alone


def test_stand_in_data_equal_their_archives_and_leave_nothing_behind(raw, archive, tmp_path, monkeypatch):
    (raw / "features.tar").symlink_to(archive)
    run(raw)
    from_raw = written(raw)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    run(raw, replace(DATA, source="stand-in", expected_videos=1))
    assert {file: content for file, content in written(raw).items() if file != "meta.json"} == {
        file: content for file, content in from_raw.items() if file != "meta.json"
    }
    assert not list((tmp_path / "temporary").iterdir())


def test_skipped_files_are_listed_with_a_reason_and_counted(raw, archive):
    (raw / "features.tar").symlink_to(archive)
    run(raw)
    assert rejected(raw) == {
        "features.tar/features/tea/P03_webcam02_P03_tea.txt": "number of columns is not 64: 63 in line 13",
        "features.tar/features/tea/P20_webcam02_P20_tea.txt": "not finite: nan in line 13",
        "features.tar/features/toast/P37_webcam02_P37_toast.txt": "unknown activity: toast",
    }
    lines = counts(raw.parent / "prepared")
    table = SequenceSet(raw.parent / "prepared").table
    assert lines[0] == f"{len(table)} videos of 4 persons, {table['frames'].sum()} frames"
    tea = table[table["activity"] == "tea"]["frames"]
    assert f"tea          {len(tea):5d} videos {tea.sum():8d} frames, {tea.min()} to {tea.max()} a video" in lines
    tested = table[table["person"] == 20]["frames"]
    assert f"s2: tests on {len(tested)} videos with {tested.sum()} frames, trains on {len(table) - len(tested)}" in lines
    assert "rejected:     1 not finite (rejected.csv)" in lines and len(lines) == 1 + 10 + 4 + 3


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("readme.txt", "unknown name: not P<person>_<camera>_P<person>_<activity>.txt"),
        ("P03_cam01_tea.txt", "unknown name: not P<person>_<camera>_P<person>_<activity>.txt"),
        ("P03_cam01_P04_tea.txt", "two persons: P03 and P04"),
        ("P03_cam01_P03_Tea.txt", "unknown activity: Tea"),
        ("P99999999999_cam01_P99999999999_tea.txt", "unknown name: not P<person>_<camera>_P<person>_<activity>.txt"),
        ("P٣_cam01_P٣_tea.txt", "unknown name: not P<person>_<camera>_P<person>_<activity>.txt"),
    ],
)
def test_a_file_with_another_name_is_skipped(few, file, reason):
    put(few / file, 2)
    assert len(run(few).table) == 4
    assert rejected(few) == {file: reason}


def test_a_name_that_is_not_utf8_can_be_listed(few):
    put(few / os.fsdecode(b"caf\xe9.txt"), 2)
    assert len(run(few).table) == 4
    assert list(rejected(few)) == [r"caf\xe9.txt"]


def test_hidden_files_and_other_file_types_are_ignored(few):
    for other in (".P03_cam01_P03_tea.txt", "features/._P03_cam02_P03_tea.txt", "features/labels.csv", ".hidden/P03_cam02_P03_tea.txt"):
        put(few / other, 2)
    assert len(run(few).table) == 4 and not rejected(few)


LINE = b" ".join([b"0.5"] * 64)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "^no frames$"),
        (b"\n  \n", "^no frames$"),
        (LINE + b"\n" + LINE + b" 1\n", "^number of columns is not 64: 65 in line 2$"),
        (LINE + b"\n\n" + LINE[4:], "^number of columns is not 64: 63 in line 3$"),
        (LINE + b" 1\n" + LINE + b" 1\n", "^number of columns is not 64: 65 in line 1$"),
        (b"1\n", "^number of columns is not 64: 1 in line 1$"),
        (LINE.replace(b"0.5", b"SIL", 1), "^not a number: SIL in line 1$"),
        (LINE.replace(b"0.5", b"NA", 1), "^not a number: NA in line 1$"),
        (LINE.replace(b"0.5", b'"0.5"', 1), '^not a number: "0.5" in line 1$'),
        (LINE.replace(b"0.5", b"0,5"), "^not a number: 0,5 in line 1$"),
        (LINE.replace(b"0.5", b"1_0", 1), "^not a number$"),
        (LINE + b"\n" + LINE.replace(b"0.5", b"NaN", 1), "^not finite: NaN in line 2$"),
        (LINE.replace(b"0.5", b"-inf", 1), "^not finite: -inf in line 1$"),
        (LINE.replace(b"0.5", b"1e39", 1), "^not finite: 1e39 in line 1$"),
        (LINE.replace(b"0.5", b"1e999", 1), "^not finite: 1e999 in line 1$"),
        (LINE.replace(b"0.5", b"\xff\x00", 1), r"^not a number: \\xff\\x00 in line 1$".replace("\\\\x00", "\x00")),
    ],
)
def test_invalid_feature_files_are_rejected_with_a_reason(content, reason):
    with pytest.raises(ValueError, match=reason):
        parse(content)


@pytest.mark.parametrize(
    "content",
    [
        LINE + b"\n" + LINE,
        LINE + b"\r\n" + LINE + b"\r\n",
        LINE.replace(b" ", b"\t") + b"\n" + LINE + b"\n",
        b"  " + LINE.replace(b" ", b"   ") + b"  \n\n" + LINE + b"\n\n",
        LINE.replace(b"0.5", b"+5.0e-1") + b"\n" + LINE.replace(b"0.5", b".5"),
    ],
    ids=["no end", "Windows", "tabs", "blanks", "notation"],
)
def test_the_layout_of_the_numbers_does_not_matter(content):
    assert np.array_equal(parse(content), np.full((2, 64), 0.5, dtype=np.float32))


def test_numbers_are_parsed_as_by_numpy(tmp_path):
    values = np.concatenate([numbers(20) * 10.0**exponent for exponent in (-40, -6, 0, 3, 30)])
    np.savetxt(tmp_path / "values.txt", values)
    assert np.array_equal(parse((tmp_path / "values.txt").read_bytes()), np.loadtxt(tmp_path / "values.txt").astype(np.float32))


def test_a_damaged_file_gives_either_features_or_a_reason():
    rng = np.random.default_rng(0)
    for _ in range(200):
        content = bytearray(b"\n".join([LINE] * 4))
        for position in rng.integers(0, len(content), 3):
            content[position] = rng.integers(256)
        try:
            assert np.isfinite(parse(bytes(content))).all()
        except ValueError as error:
            assert str(error).partition(":")[0] in ("number of columns is not 64", "not a number", "not finite")


def test_a_damaged_file_leaves_no_gap_in_the_frames(few):
    (few / "features" / "tea" / name(3, camera="stereo01")).write_bytes(LINE[:-4])
    (few / "features" / "tea" / name(37, camera="cam02")).write_bytes(b"")
    videos = run(few)
    assert videos.table["frames"].tolist() == [2, 3, 4, 5] and videos.table["start"].tolist() == [0, 2, 5, 9]
    assert np.array_equal(videos.features, np.concatenate([numbers(2 + k, person) for k, person in enumerate(PERSONS)]).astype(np.float32))


@pytest.mark.parametrize("again", ["other/P03_cam01_P03_tea.txt", "P03_cam01_P03_tea.txt", "features/P003_cam01_P003_tea.txt"])
def test_the_error_for_a_duplicate_video_names_both_files(few, again):
    put(few / again, 2)
    with pytest.raises(UserError, match=r"has P0*3_cam01_P0*3_tea twice: .*P0.*txt and .*P0.*txt. Keep one of them there"):
        run(few)


def test_two_archives_with_the_same_name_are_an_error(raw, archive):
    shutil.copy(archive, raw / "features.tar")
    zipfile.ZipFile(raw / "features.zip", "w").close()
    with pytest.raises(UserError, match=r"raw has features.tar and features.zip: keep one"):
        run(raw)


@pytest.mark.parametrize("packed", ["features.tar.gz", "features.7z"])
def test_archives_unreadable_in_place_must_be_unpacked(raw, packed):
    (raw / packed).write_bytes(b"1f8b")
    with pytest.raises(
        UserError, match=rf"no feature files .* in .*raw; {packed} is not a .tar or .zip: unpack it there .*docs/own-data.md says"
    ):
        run(raw)


def test_without_files_the_error_says_where_to_get_them(raw):
    with pytest.raises(
        UserError, match=r"no feature files \(P03_cam01_P03_coffee.txt and the like\) in .*raw\. docs/own-data.md says what"
    ):
        run(raw)
    with pytest.raises(UserError, match=r"in .*raw\. Fetch it with: regcls data fetch breakfast"):
        run(raw, replace(DATA, archives=("https://example.org/features.tar",)))
    raw.rmdir()
    with pytest.raises(UserError, match="no feature files"):
        run(raw)


def test_unusable_files_are_an_error_with_an_example(raw):
    put(raw / "labels.txt", 2)
    with pytest.raises(UserError, match=r"none of 1 text files is a feature file. For example, labels.txt: unknown name"):
        run(raw)
    (raw / name(3)).write_bytes(LINE[:-4])
    with pytest.raises(
        UserError, match=r"no video is left: 1 feature file cannot be read, such as P03_cam01_P03_tea.txt: number of columns is not 64"
    ):
        run(raw)
    assert [file.name for file in raw.parent.iterdir()] == ["raw"]


def test_an_unexpected_number_of_videos_is_an_error(few):
    put(few / "labels.txt", 2)
    run(few, replace(DATA, expected_videos=4))
    with pytest.raises(
        UserError, match=r"breakfast: 4 videos found, 5 expected \(within 1%\); left out: 1 unknown name\. .*expected_videos to"
    ):
        run(few, replace(DATA, expected_videos=5))
    (few / name(3, camera="cam02")).write_bytes(b"")
    with pytest.raises(UserError, match=r"4 videos found, 5 expected \(within 1%\); left out: 1 unknown name; 1 no frames"):
        run(few, replace(DATA, expected_videos=5))


@pytest.mark.parametrize(("persons", "found"), [((20, 37, 54), "0 test and 3"), ((3, 20), "1 test and 1"), ((3,), "1 test and 0")])
def test_too_few_videos_of_an_activity_in_a_split_are_an_error(few, persons, found):
    for person in persons:
        put(few / name(person, "milk"), 2)
    with pytest.raises(
        UserError, match=rf"in split s1 \(test persons 3 to 15\) milk has {found} training videos; at least 1 and 2 .*test_persons"
    ):
        run(few)


def test_a_full_disk_replaces_nothing(few, full_disk):
    with pytest.raises(UserError, match="no space left on the disk while writing .*prepared; nothing was replaced"):
        run(few)
    assert [file.name for file in few.parent.iterdir()] == ["raw"]


def test_splits_follow_the_protocol(raw, archive):
    (raw / "features.tar").symlink_to(archive)
    videos = run(raw)
    for split, person in zip(("s1", "s2", "s3", "s4"), PERSONS, strict=True):
        for activity in ACTIVITIES:
            test, train = (videos.videos(activity, split, part, held_out=False) for part in ("test", "train"))
            assert set(test["person"]) == {person} and set(train["person"]) == set(PERSONS) - {person}
            assert len(test) + len(train) == (videos.table["activity"] == activity).sum()
            assert not len(videos.videos(activity, split, "val", held_out=False))
            assert videos.samples(activity, split, "train", held_out=False) == train["frames"].sum()


def test_a_third_of_the_training_videos_is_held_out_as_a_whole(raw, archive):
    (raw / "features.tar").symlink_to(archive)
    videos = run(raw)
    for activity in ACTIVITIES:
        parts = {part: set(videos.videos(activity, "s2", part, held_out=True)["video"]) for part in ("train", "val", "test")}
        whole = set(videos.videos(activity, "s2", "train", held_out=False)["video"])
        assert parts["train"] | parts["val"] == whole and not parts["train"] & parts["val"]
        assert len(parts["val"]) == round(len(whole) / 3)
        assert parts["test"] == set(videos.videos(activity, "s2", "test", held_out=False)["video"])


@pytest.mark.parametrize(("share", "size"), [(0.01, 1), (0.5, 2), (0.99, 2)])
def test_at_least_one_video_is_held_out_and_one_left_for_training(few, share, size):
    videos = run(few, replace(DATA, validation_share=share))
    assert len(videos.videos("tea", "s1", "val", held_out=True)) == size
    assert len(videos.videos("tea", "s1", "train", held_out=True)) == 3 - size


def test_held_out_videos_are_the_same_on_every_machine(raw):
    for person in (3, *range(16, 24)):
        put(raw / name(person), 2)
    held_out = run(raw, replace(DATA, test_persons={"s1": (3, 15)})).videos("tea", "s1", "val", held_out=True)
    assert held_out["person"].tolist() == [18, 21, 22]


def test_held_out_videos_depend_on_seed_split_and_activity(raw):
    for person in (3, 29, *range(50, 70)):
        put(raw / name(person), 2)
        put(raw / name(person, "milk"), 2)
    data = replace(DATA, test_persons={"s1": (3, 15), "s3": (29, 41)})

    def held_out_videos(videos, activity="tea", split="s1"):
        return set(videos.videos(activity, split, "val", held_out=True)["person"]) - {3, 29}

    first = run(raw, data)
    assert held_out_videos(first) == held_out_videos(run(raw, data))
    others = [held_out_videos(first, "milk"), held_out_videos(first, split="s3"), held_out_videos(run(raw, replace(data, split_seed=1)))]
    assert held_out_videos(first) not in others


def test_the_digest_covers_all_that_a_run_sees(few):
    digest = run(few).digest
    assert run(few, replace(DATA, expected_videos=4)).digest == digest
    assert run(few, replace(DATA, split_seed=1)).digest != digest
    put(few / "features" / "tea" / name(3), 2, seed=99)
    assert run(few).digest != digest


def test_data_from_other_parameters_are_refused_if_they_matter(few):
    run(few)
    opened = few.parent / "prepared"
    SequenceSet(opened, made_from=replace(DATA, archives=("x",), expected_videos=7, stand_in=SequenceStandIn(persons=9, frames=40, seed=0)))
    with pytest.raises(UserError, match=r"other values of test_persons, split_seed than .*regcls prepare breakfast"):
        SequenceSet(opened, made_from=replace(DATA, split_seed=1, test_persons={"s1": (3, 15)}))


def test_opening_a_set_does_not_read_its_features(few):
    assert isinstance(run(few).features, np.memmap)


def test_the_shipped_stand_in_has_test_and_training_videos_everywhere(raw):
    data = load_params(ROOT / "params.yaml").datasets["walks"].data
    videos = run(raw, replace(data, stand_in=replace(data.stand_in, frames=40)))
    assert videos.splits == ("s1", "s2", "s3", "s4") and videos.activities == ACTIVITIES
    assert all(len(videos.videos(a, s, "val", held_out=True)) > 1 for a in ACTIVITIES for s in videos.splits)


def test_prepare_leaves_no_other_files(few):
    run(few)
    assert sorted(written(few)) == ["features.npy", "meta.json", "rejected.csv", "table.parquet"]
    assert deciding_parameters(DATA).keys() == {"source", "test_persons", "validation_share", "split_seed"}
