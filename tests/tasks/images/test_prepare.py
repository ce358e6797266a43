"""Filter, ages and split compared with plain reimplementations of the protocol; archives and csv files, intact and broken."""

import io
import json
import random
import shutil
import tarfile
import unicodedata
import zipfile
from dataclasses import replace
from datetime import date, datetime
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from regcls.errors import UserError
from regcls.params.shots import DensityShots, IntegerShots
from regcls.tasks.images import prepare as faces
from regcls.tasks.images.data import ImageSet
from regcls.tasks.images.prepare import ages, balanced_split, prepare, read_mat
from regcls.tasks.images.stand_in import write_archives
from tasks.images.made_up_images import DATA

STAND_IN = DATA.stand_in


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    write_archives(folder, STAND_IN, size=32, processes=1)
    return folder


@pytest.fixture
def raw(tmp_path, archives):
    """data/imdb_wiki/raw with both archives."""
    raw = tmp_path / "data" / "imdb_wiki" / "raw"
    raw.mkdir(parents=True)
    for name in ("imdb_crop.tar", "wiki_crop.tar"):
        (raw / name).symlink_to(archives / name)
    return raw


def run(raw, data=DATA, dataset="imdb_wiki"):
    return prepare(data, raw.parent / "prepared", raw=raw, dataset=dataset, processes=1)


def unpack(raw, part):
    with tarfile.open(raw / f"{part}_crop.tar") as tar:
        tar.extractall(raw, filter="data")
    (raw / f"{part}_crop.tar").unlink()


def written(raw):
    """Content of the prepared files."""
    return {file.name: file.read_bytes() for file in (raw.parent / "prepared").iterdir()}


def plain_listing(archives):
    """Path and age of the rows kept by the protocol, one row at a time."""
    kept = []
    for part in ("imdb", "wiki"):
        with tarfile.open(archives / f"{part}_crop.tar") as tar:
            struct = loadmat(io.BytesIO(tar.extractfile(f"{part}_crop/{part}.mat").read()))[part][0, 0]
        rows = (struct[name][0] for name in ("dob", "photo_taken", "full_path", "face_score", "second_face_score"))
        for dob, taken, path, score, second in zip(*rows, strict=True):
            birth = datetime.fromordinal(max(int(dob) - 366, 1))
            age = int(taken) - birth.year - (0 if birth.month < 7 else 1)
            if score >= 1 and not second > 0 and 0 <= age <= 200:
                kept.append((f"{part}_crop/{path[0]}", age))
    return kept


def plain_split(listed, seed, most):
    random.seed(seed)
    parts = {}
    for value in range(121):
        paths = [path for path, age in listed if age == value]
        random.shuffle(paths)
        size = min(len(paths) // 3, most)
        parts |= dict.fromkeys(paths[:size], "val") | dict.fromkeys(paths[size : 2 * size], "test")
    return [parts.get(path, "train") for path, _ in listed]


def test_prepared_images_follow_the_protocol(raw, archives):
    table, listed = run(raw), plain_listing(archives)
    expected = pd.DataFrame({"path": [p for p, _ in listed], "target": [a for _, a in listed], "split": plain_split(listed, 666, 12)})
    rejected = pd.read_csv(raw.parent / "prepared" / "rejected.csv")
    expected = expected[~expected["path"].isin(rejected["path"])]
    assert table["path"].tolist() == expected["path"].tolist()
    assert table["target"].tolist() == expected["target"].tolist()
    assert table["split"].tolist() == expected["split"].tolist()
    assert sorted(rejected["reason"].str.partition(":")[0]) == ["cut short or damaged", "empty file"]


def test_array_rows_hold_the_images_named_in_the_table(raw):
    run(raw)
    opened = ImageSet(raw.parent / "prepared", verify=True, made_from=DATA)
    for path, row in list(zip(opened.paths("test"), opened.rows("test"), strict=True))[::7]:
        with tarfile.open(raw / f"{path.partition('/')[0]}.tar") as tar:
            image = Image.open(tar.extractfile(path)).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
        assert np.array_equal(opened.images[row], np.asarray(image))


def test_unpacked_folders_and_a_zip_give_the_same_bytes_as_the_archives(raw, capsys):
    run(raw)
    from_tar = written(raw)
    unpack(raw, "imdb")
    with tarfile.open(raw / "wiki_crop.tar") as tar, zipfile.ZipFile(raw / "wiki_crop.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for member in tar:
            packed.writestr(member.name, tar.extractfile(member).read())
    (raw / "wiki_crop.tar").unlink()
    run(raw)
    assert written(raw) == from_tar


def test_the_mat_file_may_lie_next_to_the_archive(raw):
    run(raw)
    from_tar = written(raw)
    unpack(raw, "imdb")
    (raw / "imdb_crop" / "imdb.mat").rename(raw / "imdb.mat")
    run(raw)
    assert written(raw) == from_tar
    (raw / "imdb.mat").unlink()
    with pytest.raises(UserError, match=r"imdb\.mat is neither in .*imdb_crop nor next to it\. Fetch it with: regcls data fetch imdb_wiki"):
        run(raw)


def test_stand_in_data_equal_their_archives_and_leave_nothing_behind(raw, monkeypatch, tmp_path):
    run(raw)
    from_raw = written(raw)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    shutil.rmtree(raw)
    run(raw, replace(DATA, source="stand-in", expected_images=1))
    assert {name: content for name, content in written(raw).items() if name != "meta.json"} == {
        name: content for name, content in from_raw.items() if name != "meta.json"
    }
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_official_csv_determines_rows_and_split(raw):
    path = run(raw)["path"]
    given = pd.DataFrame({"age": range(9), "path": path[:9], "split": ["test", "train", "val"] * 3})
    given.to_csv(raw / "imdb_wiki.csv")  # with an unnamed index column
    table = run(raw)
    assert table["path"].tolist() == given["path"].tolist()
    assert table["split"].tolist() == given["split"].tolist()
    assert table["target"].tolist() == list(range(9))


def test_ages_agree_with_a_loop_over_dates():
    rng = np.random.default_rng(0)
    dob = np.concatenate([rng.integers(600_000, 740_000, 500), [0, 47, 366, 367, 3_000_000, 730_000]])
    taken = rng.integers(1900, 2020, len(dob)).astype(np.uint16)
    births = [datetime.fromordinal(max(int(day) - 366, 1)) for day in dob]
    expected = [int(year) - birth.year - (birth.month >= 7) for year, birth in zip(taken, births, strict=True)]
    assert ages(dob, taken).tolist() == expected
    assert ages(dob.astype(np.float64), taken.astype(np.float64)).tolist() == expected


@pytest.mark.parametrize(("born", "age"), [(date(1980, 6, 30), 20), (date(1980, 7, 1), 19)])
def test_people_born_from_july_on_count_as_a_year_younger(born, age):
    assert ages(np.array([born.toordinal() + 366]), np.array([2000])).tolist() == [age]


def test_the_split_follows_the_benchmark_and_trains_on_the_oldest():
    rng = np.random.default_rng(1)
    listed = [(f"{k}.jpg", int(age)) for k, age in enumerate(rng.normal(40, 30, 3000).clip(0, 130))]
    paths, years = zip(*listed, strict=True)
    split = balanced_split(paths, years, seed=666, most=10)
    assert split == plain_split(listed, 666, 10)
    assert {part for part, age in zip(split, years, strict=True) if age > 120} == {"train"}
    assert split != balanced_split(paths, years, seed=667, most=10)


def mat(part="imdb", **changes):
    """A struct of three rows of age 20, with fields replaced by `changes` (None: removed)."""
    fields = {
        "dob": np.full((1, 3), date(1980, 1, 1).toordinal() + 366),
        "photo_taken": np.full((1, 3), 2000, dtype=np.uint16),
        "full_path": np.array([["00/a.jpg", "00/b.jpg", "00/ü.jpg"]], dtype=object),
        "face_score": np.array([[2.0, 1.0, 3.0]]),
        "second_face_score": np.full((1, 3), np.nan),
    } | changes
    content = io.BytesIO()
    savemat(content, {part: {name: value for name, value in fields.items() if value is not None}})
    return content.getvalue()


@pytest.mark.parametrize(
    ("changes", "kept", "left_out"),
    [
        ({}, ["a", "b", "ü"], [0, 0, 0]),
        ({"face_score": np.array([[-np.inf, 0.999, 1.0]])}, ["ü"], [2, 0, 0]),
        ({"face_score": np.array([[np.nan, 1.0, 1.0]])}, ["a", "b", "ü"], [0, 0, 0]),
        ({"second_face_score": np.array([[0.0, -1.0, 0.001]])}, ["a", "b"], [0, 1, 0]),
        ({"photo_taken": np.array([[1979, 2180, 2181]], dtype=np.uint16)}, ["b"], [0, 0, 2]),
        ({"face_score": np.array([[0.0, 2.0, 2.0]]), "second_face_score": np.array([[5.0, 5.0, np.nan]])}, ["ü"], [1, 1, 0]),
    ],
    ids=["all", "score", "score not a number", "second face", "age", "two doubts count once"],
)
def test_the_filter_follows_the_protocol(changes, kept, left_out):
    table, counted = read_mat(mat(**changes), "imdb.mat", "imdb", min_face_score=1.0)
    assert table["path"].tolist() == [f"00/{name}.jpg" for name in kept]
    assert list(counted.values()) == left_out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"imdb\.mat is not a MATLAB v5 file"),
        (b"<html>" * 100, r"imdb\.mat is not a MATLAB v5 file"),
        (mat()[:200], r"imdb\.mat is not a MATLAB v5 file"),
        (mat("wiki"), r"imdb\.mat has no field dob, photo_taken, full_path, .* in a struct imdb"),
        (mat(face_score=None, dob=None), r"imdb\.mat has no field dob, face_score in a struct imdb"),
    ],
    ids=["empty", "html", "cut", "another struct", "fields missing"],
)
def test_a_wrong_mat_file_is_a_clear_error(content, message):
    with pytest.raises(UserError, match=message):
        read_mat(content, "imdb.mat", "imdb", min_face_score=1.0)


@pytest.fixture
def own_images(tmp_path):
    """A user's own images with a csv, in place of AgeDB."""
    raw = tmp_path / "data" / "agedb" / "raw"
    (raw / "scans").mkdir(parents=True)
    for k in range(9):
        Image.new("RGB", (20, 30), (k, k, k)).save(raw / "scans" / f"{k}.png")
    rows = [f"{k + 0.25},scans/{k}.png,{('train', 'val', 'test')[k % 3]}" for k in range(9)]
    (raw / "agedb.csv").write_text("\n".join(["age,path,split", *rows]) + "\n")
    return raw


OWN = replace(DATA, layout="csv", archives=())


def test_own_images_with_any_target_are_prepared_the_same_way(own_images):
    table = run(own_images, OWN, "agedb")
    assert table["target"].tolist() == [k + 0.25 for k in range(9)] and table["target"].dtype == np.float32
    opened = ImageSet(own_images.parent / "prepared")
    assert opened.images[opened.rows("val"), 0, 0, 0].tolist() == [1, 4, 7]
    assert opened.targets("train").tolist() == [0.25, 3.25, 6.25] and opened.targets("test").tolist() == [2.25, 5.25, 8.25]


def test_the_csv_column_is_named_after_the_target(own_images):
    prices = replace(OWN, target="price", unit="$")
    with pytest.raises(UserError, match=r"agedb\.csv has no column price; it needs price, path in"):
        run(own_images, prices, "agedb")
    content = (own_images / "agedb.csv").read_text().replace("age,", "price,")
    (own_images / "agedb.csv").write_text(content.replace("8.25,", "5858000,"))
    assert run(own_images, prices, "agedb")["target"].max() == 5_858_000


def test_images_may_lie_next_to_the_csv(own_images):
    for file in (own_images / "scans").iterdir():
        file.rename(own_images / file.name)
    (own_images / "agedb.csv").write_text((own_images / "agedb.csv").read_text().replace("scans/", ""))
    assert len(run(own_images, OWN, "agedb")) == 9


def test_accented_names_of_a_csv_are_found_as_macos_spells_them(own_images):
    composed, decomposed = (unicodedata.normalize(form, "scans/ü.png") for form in ("NFC", "NFD"))
    (own_images / "scans/4.png").rename(own_images / decomposed)
    (own_images / "agedb.csv").write_text((own_images / "agedb.csv").read_text().replace("scans/4.png", composed))
    table = run(own_images, OWN, "agedb")
    assert len(table) == 9 and composed in set(table["path"])


def test_missing_images_are_listed_but_not_fatal(own_images):
    (own_images / "scans" / "4.png").unlink()
    (own_images / "scans" / "5.png").write_bytes(b"GIF89a")
    assert len(run(own_images, OWN, "agedb")) == 7
    rejected = pd.read_csv(own_images.parent / "prepared" / "rejected.csv")
    assert rejected["path"].tolist() == ["scans/4.png", "scans/5.png"]
    assert rejected["reason"][0] == "there is no such file"
    notes = json.loads((own_images.parent / "prepared" / "meta.json").read_text())["notes"]
    assert notes["images"] == {"train": 3, "val": 2, "test": 2} and sum(notes["rejected"].values()) == 2


def test_the_error_for_an_empty_split_names_an_image_and_what_exists(own_images):
    for file in list((own_images / "scans").iterdir()):
        file.rename(file.with_suffix(".PNG"))
    with pytest.raises(UserError, match=r"no image is left in train, val, test: .* 9 could not be read, such as scans/0\.png: there is no such file \(.*scans contains, for example, scans/\d\.PNG\)"):  # fmt: skip
        run(own_images, OWN, "agedb")
    assert not (own_images.parent / "prepared").exists()


def test_a_csv_without_one_of_the_splits_is_refused(own_images):
    (own_images / "agedb.csv").write_text((own_images / "agedb.csv").read_text().replace(",val", ",train"))
    with pytest.raises(UserError, match="no image is left in val: a run needs training, validation and test images"):
        run(own_images, OWN, "agedb")


def listed(raw, *rows):
    (raw / "agedb.csv").write_text("\n".join(["path,split,age", *rows]) + "\n")


def test_photographs_are_turned_upright_if_asked_for(own_images):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[:, :32] = 255  # bright on the left; upright, at the top
    for k in range(9):
        pixels[0, 0] = k
        Image.fromarray(pixels).save(own_images / "scans" / f"{k}.png", exif=exif)
    for upright in (False, True):
        data = replace(OWN, exif=upright)
        run(own_images, data, "agedb")
        opened = ImageSet(own_images.parent / "prepared", made_from=data)
        first = opened.images[opened.rows("train")[0]]
        assert (first[8, 24, 0], first[24, 8, 0]) == ((255, 0) if upright else (0, 255))


@pytest.mark.parametrize(("bits", "said"), [(None, True), (12, False), (16, False)])
def test_16_bit_images_that_hold_12_bits_are_noticed_and_read_as_asked(own_images, capsys, bits, said):
    for k in range(9):
        Image.fromarray(np.full((40, 40), 4000 + k, np.uint16)).save(own_images / "scans" / f"{k}.png")
    data = replace(OWN, bits=bits)
    run(own_images, data, "agedb")
    opened = ImageSet(own_images.parent / "prepared", made_from=data)
    assert set(opened.images[opened.rows("train")].ravel()) == {250 if bits == 12 else 15}
    words = (
        "the largest value of the 9 16-bit images is 4,008, so they become dark: if they hold 12 bits, set agedb.data.bits: 12 in params"
    )
    assert (words in capsys.readouterr().err) == said


def test_one_file_under_two_names_in_two_splits_is_refused(own_images):
    run(own_images, OWN, "agedb")
    shutil.copy(own_images / "scans" / "0.png", own_images / "scans" / "5.png")
    with pytest.raises(UserError, match=r"agedb\.csv, lines 2 and 7: scans/0\.png in train and scans/5\.png in test are the same file, .* set agedb\.data\.duplicates: allow"):  # fmt: skip
        run(own_images, OWN, "agedb")
    assert len(run(own_images, replace(OWN, duplicates="allow"), "agedb")) == 9
    shutil.copy(own_images / "scans" / "2.png", own_images / "scans" / "5.png")  # both in test
    assert len(run(own_images, OWN, "agedb")) == 9


def test_the_archives_of_imdb_wiki_may_have_an_image_twice(raw):
    unpack(raw, "imdb")
    first, second, *_ = sorted((raw / "imdb_crop").rglob("*.jpg"))
    shutil.copy(first, second)
    path = run(raw)["path"]
    rows = [f"{path[0]},train,1", f"{path[0]},test,1", *(f"{path[k]},val,1" for k in range(1, 9))]
    (raw / "imdb_wiki.csv").write_text("\n".join(["path,split,age", *rows]) + "\n")
    assert len(run(raw)) == 10


def test_the_error_for_a_missing_folder_names_the_first_line_that_needs_it(own_images):
    listed(own_images, "scans/0.png,train,1", "nowhere/z/1.png,val,1", "nowhere/a/2.png,test,1")
    with pytest.raises(UserError, match=r"agedb\.csv, line 3: there is no nowhere\.tar, nowhere\.zip or folder nowhere in "):
        run(own_images, OWN, "agedb")


@pytest.mark.parametrize("link", ["scans", "deep/linked"])
def test_a_linked_folder_is_refused_since_dvc_does_not_follow_it(own_images, link):
    elsewhere = own_images.parent.parent / "elsewhere"
    (own_images / "scans").rename(elsewhere)
    (own_images / link).parent.mkdir(exist_ok=True)
    (own_images / link).symlink_to(elsewhere)
    listed(own_images, *(f"{link}/{k}.png,{split},1" for k, split in enumerate(("train", "val", "test"))))
    with pytest.raises(
        UserError, match=rf"agedb\.csv, line 2: .*raw/{link} is a link to a folder, in which DVC sees no changes: move or copy"
    ):
        run(own_images, OWN, "agedb")


def test_linked_files_and_a_linked_raw_folder_are_read_as_dvc_follows_them(own_images):
    elsewhere = own_images.parent.parent / "elsewhere"
    own_images.rename(elsewhere)
    own_images.symlink_to(elsewhere)
    (elsewhere / "scans" / "0.png").rename(elsewhere / "0.png")
    (elsewhere / "scans" / "0.png").symlink_to(elsewhere / "0.png")
    assert len(run(own_images, OWN, "agedb")) == 9


@pytest.mark.parametrize("packed", ["folder", "photos/{}", "photos\\{}"])
def test_paths_of_windows_find_their_images(own_images, packed):
    if packed == "folder":
        (own_images / "scans").rename(own_images / "photos")
    else:
        with zipfile.ZipFile(own_images / "photos.zip", "w") as archive:
            for file in (own_images / "scans").iterdir():
                archive.write(file, packed.format(file.name))
    listed(own_images, *(f"photos\\{k}.png ,{('train', 'val', 'test')[k % 3]},1" for k in range(9)))
    assert run(own_images, OWN, "agedb")["path"].tolist() == [f"photos/{k}.png" for k in range(9)]


@pytest.mark.parametrize("missing", ["imdb", "wiki"])
def test_the_error_for_a_missing_archive_says_how_to_fetch_it(raw, missing):
    (raw / f"{missing}_crop.tar").unlink()
    with pytest.raises(UserError, match=rf"there is no {missing}_crop\.tar, .* in .*raw\. Fetch it with: regcls data fetch imdb_wiki; or put your copy there"):  # fmt: skip
        run(raw)


def test_without_a_csv_the_error_for_agedb_says_what_is_needed(own_images):
    (own_images / "agedb.csv").unlink()
    with pytest.raises(UserError, match=r"there is no agedb\.csv in .*agedb/raw\. docs/own-data\.md says what belongs there"):
        run(own_images, OWN, "agedb")


def test_a_wrong_number_of_images_is_refused_before_decoding(raw, monkeypatch):
    monkeypatch.setattr(faces, "write_images", None)
    with pytest.raises(UserError, match=r"imdb_wiki: \d+ images found, 1000 expected \(within 1%\); left out: \d+ face score below 1; .* set imdb_wiki\.data\.expected_images to null"):  # fmt: skip
        run(raw, replace(DATA, expected_images=1000))


def test_unreadable_images_do_not_count_towards_the_expected_number(own_images):
    (own_images / "scans" / "4.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"agedb: 8 images found, 9 expected \(within 1%\); left out: 1 empty file"):
        run(own_images, replace(OWN, expected_images=9), "agedb")


def test_a_hundredth_more_or_less_than_expected_is_accepted(raw):
    found = len(run(raw, replace(DATA, expected_images=None)))
    assert len(run(raw, replace(DATA, expected_images=found + 1))) == found


def test_errors_keep_the_previous_data(raw):
    run(raw)
    before = written(raw)
    (raw / "imdb_crop.tar").unlink()
    with pytest.raises(UserError):
        run(raw)
    assert written(raw) == before


def test_the_counts_match_the_table(raw):
    table = run(raw)
    lines = faces.counts(raw.parent / "prepared", IntegerShots(by="integer", many_above=4, few_below=2))
    train = table[table["split"] == "train"]["target"].value_counts()
    assert [int(line.split()[1]) for line in lines[:3]] == [int((table["split"] == split).sum()) for split in ("train", "val", "test")]
    groups = [(train > 4).sum(), ((train >= 2) & (train <= 4)).sum(), (train < 2).sum()]
    assert lines[3] == "targets with more than 4 training images: {}; with 2 to 4: {}; with fewer than 2: {}".format(*groups)
    assert [line.split(":")[0] for line in lines[4:]] == ["left out"] * 3 + ["rejected"] * 2
    assert all(int(line.split()[2 if "out" in line else 1]) > 0 for line in lines[4:])


def test_by_density_counts_are_of_bins_over_the_training_range(raw):
    targets = run(raw).query("split == 'train'")["target"].to_numpy()
    lines = faces.counts(raw.parent / "prepared", DensityShots(by="density", bins=50, many_above=1.0, few_below=0.5))
    in_bins, mean = np.histogram(targets, bins=50)[0], len(targets) / 50
    groups = [(in_bins > mean).sum(), ((in_bins >= mean / 2) & (in_bins <= mean)).sum(), (in_bins < mean / 2).sum()]
    many, few = f"{mean:g}", f"{mean / 2:g}"
    expected = "bins of targets with more than {} training images: {}; with {} to {}: {}; with fewer than {}: {}"
    assert lines[3] == expected.format(many, groups[0], few, many, groups[1], few, groups[2]) and min(groups) > 0 == min(in_bins)


def test_progress_is_shown_at_every_long_step(raw, capsys):
    run(raw)
    output = capsys.readouterr().err
    steps = ["indexing imdb_crop.tar", "indexing wiki_crop.tar", "reading imdb.mat", "reading wiki.mat", "decoding images"]
    assert all(output.index(first) < output.index(second) for first, second in pairwise(steps))
