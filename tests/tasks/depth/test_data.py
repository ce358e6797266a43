"""Prepared depth compared with plain reimplementations of the protocol; archives, masks and csv files, intact and broken."""

import io
import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import ROOT
from regcls.data.archives import Place
from regcls.data.drawn_splits import held_out
from regcls.errors import UserError
from regcls.params import load_params
from regcls.tasks.depth import prepare as depth_prepare
from regcls.tasks.depth.data import DEEPEST, LEVELS_PER_METRE, DepthSet, level_buckets
from regcls.tasks.depth.pairs import Pair, Shape, read_pair
from regcls.tasks.depth.params import RoomStandIn
from regcls.tasks.depth.prepare import counts, draw_mask, prepare
from regcls.tasks.depth.stand_in import write_archive

NYUD2 = load_params(ROOT / "params.yaml").datasets["rooms"]
STAND_IN = RoomStandIn(scenes=10, images=60, test_images=12, seed=0)
DATA = replace(NYUD2.data, source="raw", short_side=48, crop=(44, 60), stand_in=STAND_IN)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    write_archive(folder, STAND_IN, short_side=48, processes=1)
    return folder / "data.zip"


@pytest.fixture
def raw(tmp_path, archive):
    """data/nyud2/raw with the archive."""
    raw = tmp_path / "data" / "nyud2" / "raw"
    raw.mkdir(parents=True)
    (raw / "data.zip").symlink_to(archive)
    return raw


@pytest.fixture
def unpacked(raw):
    """data/nyud2/raw with the unpacked folder."""
    with zipfile.ZipFile(raw / "data.zip") as opened:
        opened.extractall(raw)
    (raw / "data.zip").unlink()
    return raw


def run(raw, data=DATA, processes=1):
    prepare(data, raw.parent / "prepared", raw=raw, dataset="nyud2", processes=processes)
    return DepthSet(raw.parent / "prepared", made_from=data)


def written(raw):
    """Content of the prepared files."""
    return {file.name: file.read_bytes() for file in (raw.parent / "prepared").iterdir()}


def rejected(raw):
    table = pd.read_csv(raw.parent / "prepared" / "rejected.csv")
    return dict(zip(table["path"], table["reason"], strict=True))


def csv_of(archive, split):
    with zipfile.ZipFile(archive) as opened:
        return [line.split(",") for line in opened.read(f"data/nyu2_{split}.csv").decode().splitlines()]


def image_of(archive, name):
    with zipfile.ZipFile(archive) as opened:
        return Image.open(io.BytesIO(opened.read(name)))


# Arrays


def test_pairs_are_scaled_into_their_rows_and_test_pairs_cropped(raw, archive):
    opened = run(raw)
    assert opened.train_images.shape == (60, 48, 64, 3) and opened.train_depth.shape == (60, 48, 64)
    assert opened.test_images.shape == (12, 44, 60, 3) and opened.crop == (44, 60)
    assert (opened.train_depth.dtype, opened.test_depth.dtype, opened.test_mask.dtype) == (np.uint8, np.uint16, np.bool_)
    for split, images, depths, part in (
        ("train", opened.train_images, opened.train_depth, np.s_[:]),
        ("test", opened.test_images, opened.test_depth, np.s_[2:46, 2:62]),
    ):
        names = dict(csv_of(archive, split))
        for path, row in list(zip(opened.paths(split), opened.rows(split), strict=True))[::5]:
            image = image_of(archive, path).resize((64, 48), Image.Resampling.BILINEAR)
            depth = np.asarray(image_of(archive, names[path]))[1::2, 1::2]  # the nearest to the middle of four
            assert np.array_equal(images[row], np.asarray(image)[part]) and np.array_equal(depths[row], depth[part])


def test_the_table_follows_the_csv_and_the_scene_is_the_folder(raw, archive):
    opened = run(raw)
    table = opened.prepared.table
    assert list(table.columns) == ["path", "depth_path", "scene", "row", "split"]
    for split, kinds in (("train", ("train", "val")), ("test", ("test",))):
        kept = [(number, *line) for number, line in enumerate(csv_of(archive, split)) if line[0] not in rejected(raw)]
        part = table[table["split"].isin(kinds)]
        assert [tuple(row) for row in part[["row", "path", "depth_path"]].to_numpy()] == kept
    assert all(path.split("/")[2] == scene for path, scene in zip(opened.paths("val"), opened.scenes("val"), strict=True))
    assert set(opened.scenes("test")) == {""}


def test_damaged_pairs_are_listed_with_a_reason_and_leave_black_rows(raw, archive):
    opened = run(raw)
    reasons = rejected(raw)
    assert sorted(reason.partition(":")[0] for reason in reasons.values()) == ["all-zero depth", "depth missing", "image unreadable"]
    for row, (path, _) in enumerate(csv_of(archive, "train")):
        assert opened.train_images[row].any() == (path not in reasons)


def test_levels_are_counted_within_the_centre_crop(raw):
    opened = run(raw)
    for split in ("train", "val"):
        pixels = np.concatenate([opened.train_depth[row, 2:46, 2:62].ravel() for row in opened.rows(split)])
        assert opened.levels(split).tolist() == np.bincount(pixels, minlength=256).tolist()
    assert opened.prepared.arrays["train_levels"].dtype == np.uint32


@pytest.mark.parametrize("crop", [(48, 64), (46, 60), (32, 34)])
def test_any_fitting_crop_is_taken_from_the_middle(raw, crop):
    opened = run(raw, replace(DATA, crop=crop))
    whole = run(raw, replace(DATA, crop=(48, 64)))
    top, left = (48 - crop[0]) // 2, (64 - crop[1]) // 2
    part = np.s_[:, top : top + crop[0], left : left + crop[1]]
    assert np.array_equal(opened.test_images, whole.test_images[part]) and np.array_equal(opened.test_depth, whole.test_depth[part])


def test_a_crop_wider_than_the_images_is_refused(raw):
    with pytest.raises(UserError, match=r"nyud2\.data\.crop = \[48, 66\]: with short_side = 48 images are only 64 pixels wide"):
        run(raw, replace(DATA, crop=(48, 66)))


def test_folders_zips_and_more_processes_give_the_same_bytes(raw, archive, unpacked):
    run(unpacked)
    first = written(unpacked)
    shutil.rmtree(unpacked / "data")
    with zipfile.ZipFile(archive) as plain, zipfile.ZipFile(raw / "data.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in reversed(plain.namelist()):
            packed.writestr(name, plain.read(name))
    run(raw, processes=2)
    assert written(raw) == first


def test_stand_in_data_equal_their_archives_and_leave_nothing_behind(raw, monkeypatch, tmp_path):
    run(raw)
    from_raw = written(raw)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    shutil.rmtree(raw)
    run(raw, replace(DATA, source="stand-in", expected_train=1, expected_test=1))
    now = written(raw)
    assert {name: now[name] for name in now if name != "meta.json"} == {name: from_raw[name] for name in from_raw if name != "meta.json"}
    assert list((tmp_path / "temporary").iterdir()) == []


# Splits


@pytest.mark.parametrize(("scenes", "share", "training"), [(n, 0.2, 4 * n // 5) for n in (2, 4, 5, 9, 10, 283, 464)] + [(10, 0.55, 4), (2, 0.9, 1), (10, 0.1, 9)])  # fmt: skip
def test_scenes_are_split_by_numpys_shuffle_of_their_sorted_names(scenes, share, training):
    names = [f"scene_{k}" for k in range(scenes)]
    shuffled = np.array(sorted(names))
    np.random.seed(3)
    np.random.shuffle(shuffled)
    assert held_out([*reversed(names), *names], share=share, seed=3) == set(shuffled[training:])


def test_four_fifths_of_the_scenes_train_whatever_their_number():
    for n in range(2, 700):
        assert len(held_out([str(k) for k in range(n)], share=0.2, seed=0)) == n - 4 * n // 5


def test_training_and_validation_share_no_scene(raw):
    opened = run(raw)
    val, train = set(opened.scenes("val")), set(opened.scenes("train"))
    assert len(val) == 2 and len(train) == 8 and not val & train
    assert val != set(run(raw, replace(DATA, split_seed=1)).scenes("val"))


def test_images_of_a_single_scene_cannot_be_split(unpacked):
    file = unpacked / "data" / "nyu2_train.csv"
    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if "_0001_out" in line))
    with pytest.raises(UserError, match=r"training images are from 1 scene, .*: put each scene's images into its own folder, data/nyu2_train/<scene>/"):  # fmt: skip
        run(unpacked)


# Mask


def test_a_drawn_mask_is_balanced_over_buckets_from_0_7_metres_on():
    rng = np.random.default_rng(0)
    depth = rng.choice([0, 100, 650, 700, 799, 4000, 9999, 10_000, 65_000], (3, 40, 40)).astype(np.uint16)
    depth[0, 0, :5] = 5555
    mask = draw_mask(depth, seed=0)
    picked = depth[mask]
    assert {bucket: int((np.minimum(picked // 100, 99) == bucket).sum()) for bucket in (7, 40, 55, 99)} == {7: 5, 40: 5, 55: 5, 99: 5}
    assert len(picked) == 20 and mask.shape == depth.shape
    assert not np.array_equal(mask, draw_mask(depth, seed=1)) and np.array_equal(mask, draw_mask(depth, seed=0))


def test_all_pixels_of_a_bucket_are_equally_likely_to_be_drawn():
    depth = np.full((1, 10, 10), 1000, dtype=np.uint16)
    depth[0, 0] = 2000
    drawn = sum(draw_mask(depth, seed=seed)[0].astype(int) for seed in range(900))
    assert (drawn[0] == 900).all() and np.abs(drawn[1:] - 100).max() < 45  # 10 of 90 pixels; standard deviation 9.4


def official(shape=(12, 44, 60), dtype=bool):
    content, mask = io.BytesIO(), np.random.default_rng(0).random(shape) < 0.3
    np.save(content, mask.astype(dtype))
    return content.getvalue(), mask


@pytest.mark.parametrize("dtype", [bool, np.uint8])
@pytest.mark.parametrize("where", ["data/", ""])
def test_the_official_mask_is_read_from_or_next_to_the_archive(unpacked, where, dtype):
    content, mask = official(dtype=dtype)
    (unpacked / f"{where}test_balanced_mask.npy").write_bytes(content)
    opened = run(unpacked)
    assert np.array_equal(opened.test_mask, mask & (opened.test_depth > 0))
    assert opened.prepared.meta["notes"]["mask"] == "test_balanced_mask.npy"


def test_a_mask_inside_the_zip_is_found(raw, archive):
    (raw / "data.zip").unlink()
    shutil.copy(archive, raw / "data.zip")
    with zipfile.ZipFile(raw / "data.zip", "a") as opened:
        opened.writestr("data/test_balanced_mask.npy", official()[0])
    assert run(raw).prepared.meta["notes"]["mask"] == "test_balanced_mask.npy"


@pytest.mark.parametrize("given", [True, False])
def test_rejecting_a_test_image_removes_only_its_own_mask(unpacked, given):
    content, mask = official()
    if given:
        (unpacked / "test_balanced_mask.npy").write_bytes(content)
    (unpacked / "data" / "nyu2_test" / "00004_depth.png").unlink()
    opened = run(unpacked)
    assert opened.rows("test").tolist() == [0, 1, 2, 3, *range(5, 12)]
    assert not opened.test_mask[4].any() and opened.test_mask[5].any()
    if given:
        assert np.array_equal(opened.test_mask[5], mask[5] & (opened.test_depth[5] > 0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a NumPy array"),
        (official()[0][:1000], "is not a NumPy array"),
        (official((11, 44, 60))[0], r"has shape \(11, 44, 60\); 12 test images of 44 × 60 pixels need \(12, 44, 60\)\. Remove it"),
        (official((12, 60, 44))[0], r"has shape \(12, 60, 44\)"),
        (official(dtype=np.float32)[0], "has other values than 0 and 1"),
    ],
    ids=["empty", "cut", "too few", "turned", "float"],
)
def test_a_mask_that_does_not_fit_is_a_clear_error(raw, content, message):
    (raw / "test_balanced_mask.npy").write_bytes(content)
    with pytest.raises(UserError, match=rf"raw/test_balanced_mask\.npy {message}"):
        run(raw)
    assert not (raw.parent / "prepared").exists()


def test_a_mask_with_invalid_values_or_no_measured_pixel_is_refused(raw):
    for values, message in ((255, "has other values than 0 and 1"), (0, "test_balanced_mask.npy selects no measured pixel")):
        np.save(raw / "test_balanced_mask.npy", np.full((12, 44, 60), values, dtype=np.uint8))
        with pytest.raises(UserError, match=message):
            run(raw)


# Counts


LEVELS = (np.arange(256) / LEVELS_PER_METRE, DEEPEST)


def test_a_level_of_training_depth_belongs_to_the_bucket_of_its_metres():
    for level in range(1, 256):
        bucket = min(int(np.floor(10 * (level / LEVELS_PER_METRE))), 99)
        assert level_buckets(np.eye(256, dtype=np.int64)[level] * 3, *LEVELS).tolist() == [3 * (k == bucket) for k in range(100)]
    assert not level_buckets(np.eye(256, dtype=np.int64)[0], *LEVELS).any()  # not measured


def test_notes_count_pixels_by_bucket(raw):
    opened = run(raw)
    buckets = opened.prepared.meta["notes"]["buckets"]
    metres = {"train": [], "val": []}
    for split in metres:
        depth = np.concatenate([opened.train_depth[row, 2:46, 2:62].ravel() for row in opened.rows(split)])
        metres[split] = depth[depth > 0] / 25.5
    tested = opened.test_depth[opened.rows("test")]
    metres |= {"test": tested[tested > 0] / 1000, "mask": opened.test_depth[opened.test_mask] / 1000}
    for name, depth in metres.items():
        plain = np.bincount(np.minimum((10 * depth + 1e-9).astype(int), 99), minlength=100)
        assert buckets[name] == plain.tolist()


def test_the_counts_describe_what_prepare_wrote(raw):
    opened = run(raw)
    lines = counts(raw.parent / "prepared", NYUD2.shots)
    images = {split: len(opened.rows(split)) for split in ("train", "val", "test")}
    assert lines[:3] == [
        f"train {images['train']:7d} images of 8 scenes",
        f"val   {images['val']:7d} images of 2 scenes",
        "test       12 images",
    ]
    assert lines[3].startswith("train and val pixels with depth: many ")
    shares = [float(part.partition("(")[2].rstrip("%)")) for part in lines[3].split(": ")[1].split("; ")]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert "test pixels in the mask (drawn): many " in lines[5]
    reasons = ("image unreadable", "depth missing", "all-zero depth")
    assert set(lines[6:]) == {f"rejected:       1 {reason} (rejected.csv)" for reason in reasons}


def test_a_wrong_number_of_pairs_is_refused_before_decoding(raw, monkeypatch):
    monkeypatch.setattr(depth_prepare, "write_pairs", None)
    with pytest.raises(UserError, match=r"nyud2: 60 train pairs found, 50688 expected \(within 1%\)\. Complete data/nyud2/raw, or .* set nyud2\.data\.expected_train to null"):  # fmt: skip
        run(raw, replace(DATA, expected_train=50688))
    with pytest.raises(UserError, match=r"nyud2: 12 test pairs found, 654 expected"):
        run(raw, replace(DATA, expected_test=654))


def test_too_many_rejected_pairs_are_refused_with_the_reasons(raw):
    with pytest.raises(UserError, match=r"57 train pairs found, 60 expected \(within 1%\); left out: .*1 depth missing"):
        run(raw, replace(DATA, expected_train=60))
    assert not (raw.parent / "prepared").exists()


def test_the_error_for_an_empty_split_names_a_pair(unpacked):
    for file in (unpacked / "data" / "nyu2_test").glob("*_depth.png"):
        file.unlink()
    with pytest.raises(UserError, match=r"no pair is left in test: .* 15 were rejected, such as data/nyu2_.*: "):
        run(unpacked)


# Pairs


def encoded(image, kind="PNG"):
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


def grey(size=(64, 48), dtype=np.uint8, value=100):
    return Image.fromarray(np.full(size[::-1], value, dtype=dtype))


COLOURS = Image.new("RGB", (64, 48), (51, 102, 153))
TRAIN, TEST = (Shape(split=split, short_side=24, crop=(22, 30)) for split in ("train", "test"))


def pair(tmp_path, image, depth):
    """Write a pair with these contents; None: the file is missing."""
    places = []
    for name, content in (("image", image), ("depth", depth)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        places.append(Place(str(tmp_path / name)))
    return Pair(*places)


@pytest.mark.parametrize(
    ("image", "depth", "shape", "reason"),
    [
        (None, encoded(grey()), TRAIN, "^image missing$"),
        (encoded(COLOURS), None, TRAIN, "^depth missing$"),
        (b"", encoded(grey()), TRAIN, "^image unreadable: empty file$"),
        (b"<html>", encoded(grey()), TRAIN, "^image unreadable: not an image of a known format$"),
        (encoded(COLOURS), encoded(grey())[:60], TRAIN, "^depth unreadable: "),
        (encoded(COLOURS), encoded(grey((32, 24))), TRAIN, "^image and depth differ in size: 64 × 48 and 32 × 24$"),
        (encoded(COLOURS.resize((66, 48))), encoded(grey((66, 48))), TRAIN, "^not 4:3: 66 × 48$"),
        (encoded(COLOURS.resize((48, 64))), encoded(grey((48, 64))), TRAIN, "^not 4:3: 48 × 64$"),
        (encoded(COLOURS.resize((28, 21))), encoded(grey((28, 21))), TRAIN, "^smaller than the crop: 28 × 21$"),
        (encoded(COLOURS), encoded(grey(dtype=np.uint16)), TRAIN, "^depth is not 8-bit grey: I;16$"),
        (encoded(COLOURS), encoded(COLOURS), TRAIN, "^depth is not 8-bit grey: RGB$"),
        (encoded(COLOURS), encoded(grey()), TEST, "^depth is not 16-bit grey: L$"),
        (encoded(grey(dtype=np.float32), "TIFF"), encoded(grey()), TRAIN, "^pixels of kind F have no known range$"),
        (encoded(COLOURS), encoded(grey(value=0)), TRAIN, "^all-zero depth$"),
        (encoded(COLOURS), encoded(grey(dtype=np.uint16, value=0)), TEST, "^all-zero depth$"),
    ],
    ids=[
        "no image",
        "no depth",
        "empty",
        "text",
        "cut",
        "sizes",
        "wide",
        "upright",
        "small",
        "16 for 8",
        "colours for 8",
        "8 for 16",
        "float image",
        "zero 8",
        "zero 16",
    ],
)
def test_invalid_pairs_are_rejected_with_a_reason(tmp_path, image, depth, shape, reason):
    with pytest.raises(ValueError, match=reason):
        read_pair(pair(tmp_path, image, depth), shape)


def test_depth_measured_only_outside_the_crop_counts_as_none(tmp_path):
    depth = np.zeros((48, 64), dtype=np.uint8)
    depth[:2] = 9
    with pytest.raises(ValueError, match="all-zero depth"):
        read_pair(pair(tmp_path, encoded(COLOURS), encoded(Image.fromarray(depth))), TRAIN)


@pytest.mark.parametrize("size", [(64, 48), (65, 48), (63, 48), (640, 480), (32, 24), (30, 23)])
def test_near_4_to_3_images_are_scaled_without_inventing_depths(tmp_path, size):
    depth = np.random.default_rng(0).choice([0, 7, 1234, 65_535], size[::-1]).astype(np.uint16)
    image, scaled = read_pair(pair(tmp_path, encoded(COLOURS.resize(size)), encoded(Image.fromarray(depth))), TEST)
    assert image.shape == (22, 30, 3) and scaled.shape == (22, 30) and scaled.dtype == np.uint16
    assert set(np.unique(scaled)) <= {0, 7, 1234, 65_535} and (image == [51, 102, 153]).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_other_image_formats_become_rgb(tmp_path, mode):
    image = COLOURS.convert(mode)
    pixels, _ = read_pair(pair(tmp_path, encoded(image, "TIFF" if mode == "CMYK" else "PNG"), encoded(grey())), TRAIN)
    assert (pixels == np.asarray(image.convert("RGB"))[0, 0]).all()


def test_a_damaged_file_gives_either_pixels_or_a_reason(tmp_path):
    rng = np.random.default_rng(0)
    whole = [encoded(COLOURS, "JPEG"), encoded(grey())]
    for number in range(120):
        contents = [bytearray(content) for content in whole]
        damaged = contents[number % 2]
        for position in rng.integers(0, len(damaged), 4):
            damaged[position] = rng.integers(256)
        try:
            assert read_pair(pair(tmp_path, *map(bytes, contents)), TRAIN)[0].shape == (24, 32, 3)
        except ValueError as error:
            assert str(error)


# Archive and csv


def test_the_error_for_a_missing_archive_says_how_to_fetch_it(raw):
    (raw / "data.zip").unlink()
    with pytest.raises(UserError, match=r"there is no data\.tar, data\.zip or folder data in .*raw\. Fetch it with: regcls data fetch nyud2; or put your copy there, docs/own-data\.md says"):  # fmt: skip
        run(raw)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_csv_may_lie_next_to_the_folder_but_must_exist(unpacked, split):
    run(unpacked)
    first = written(unpacked)
    file = unpacked / "data" / f"nyu2_{split}.csv"
    file.rename(unpacked / file.name)
    run(unpacked)
    assert written(unpacked) == first
    (unpacked / file.name).unlink()
    with pytest.raises(UserError, match=rf"nyu2_{split}\.csv is neither in .*raw/data nor next to it\. Fetch it with"):
        run(unpacked)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "image,depth\n",
            r"nyu2_train\.csv in .*data, line 1: 'image,depth': write the image's path and its depth map's, both beginning with data/",
        ),
        ("data/a/1.jpg,data/a/1.png\n\ndata/a/2.jpg\n", "line 3: 'data/a/2.jpg': write"),
        ("data/a/1.jpg,data/a/1.png,x\n", "line 1: "),
        ("data/a/1.jpg;data/a/1.png\n", "line 1: "),
        ("data/a/é.jpg,data/a/1.png\n", "is not a CSV file in UTF-8"),
        ("", "training images are from 0 scenes"),
    ],
    ids=["heading", "short line", "three columns", "semicolon", "latin-1", "empty"],
)
def test_the_error_for_an_invalid_csv_names_the_line(unpacked, content, message):
    (unpacked / "data" / "nyu2_train.csv").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        run(unpacked)
    assert not (unpacked.parent / "prepared").exists()


# Opened sets


def test_the_digest_covers_pixels_mask_and_splits(raw):
    first = run(raw).digest
    assert run(raw, replace(DATA, archives=(), expected_test=12)).digest == first
    assert run(raw, replace(DATA, mask_seed=1)).digest != first
    assert run(raw, replace(DATA, split_seed=1)).digest != first


def test_data_from_other_parameters_are_refused_if_they_matter(raw):
    run(raw)
    folder = raw.parent / "prepared"
    DepthSet(folder, verify=True, made_from=replace(DATA, archives=(), expected_test=7, stand_in=replace(STAND_IN, seed=9)))
    with pytest.raises(UserError, match=r"other values of crop, mask_seed than .*regcls prepare nyud2"):
        DepthSet(folder, made_from=replace(DATA, crop=(44, 58), mask_seed=5))


def test_arrays_are_memory_mapped_and_split_arrays_are_accessible(raw):
    opened = run(raw)
    assert isinstance(opened.train_images, np.memmap) and opened.images("val") is opened.images("train") is opened.train_images
    assert opened.images("test") is opened.test_images
    assert json.loads((raw.parent / "prepared" / "meta.json").read_text())["notes"]["images"]["test"] == 12


def test_a_full_disk_is_noticed_before_any_pair_is_decoded(raw, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(UserError, match="no space left on the disk while writing .*prepared; nothing was replaced"):
        run(raw)
    assert [file.name for file in raw.parent.iterdir()] == ["raw"]
