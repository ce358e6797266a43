"""A user's own pairs from a csv: what is stored, how sparse maps are scaled, the range of buckets and classes, and every mistake."""

import shutil
import textwrap
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from regcls.errors import UserError
from regcls.params import load_params
from regcls.tasks.depth.augment import for_depth
from regcls.tasks.depth.data import DepthSet, buckets_of
from regcls.tasks.depth.depth_files import DepthFiles, scaled_measured
from regcls.tasks.depth.params import BUCKETS, DepthOptions, by_bucket
from regcls.tasks.depth.prepare import counts, prepare
from regcls.tasks.depth.runs import single_depth_spec
from regcls.tasks.depth.task import TASK
from regcls.tasks.depth.train import class_ranges_of
from tasks.depth import made_up_pairs
from tasks.depth.made_up_pairs import SIZES, write_pairs

SECTION = load_params(ROOT / "params.yaml").datasets["rooms"]
DENSITY = replace(SECTION.shots, by="density")


def data_of(kind, **changes):
    own = made_up_pairs.DATA[kind]
    fields = {**own, "crop": tuple(own["crop"]), "source": "raw", "layout": "csv", "deepest": "data", "archives": ()}
    return replace(SECTION.data, **(fields | changes))


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "data" / "own" / "raw"


def run(raw, data, processes=1):
    prepare(data, raw.parent / "prepared", raw=raw, dataset="own", processes=processes)
    return DepthSet(raw.parent / "prepared", verify=True, made_from=data)


# What is stored


@pytest.mark.parametrize("kind", SIZES)
def test_maps_of_any_range_and_shape_keep_their_depths(raw, kind):
    write_pairs(raw, kind)
    data = data_of(kind)
    opened = run(raw, data)
    scale = data.short_side / min(SIZES[kind])
    whole = tuple(round(side * data.short_side / min(data.crop)) for side in data.crop)
    assert opened.train_images.shape[1:] == (*whole, 3) and opened.train_depth.shape[1:] == whole and scale < 1
    assert opened.test_images.shape[1:] == (*data.crop, 3) and opened.test_depth.shape[1:] == data.crop
    assert opened.train_depth.dtype == opened.test_depth.dtype == np.uint16
    greatest = 80 if kind == "lidar" else 9
    stored = opened.test_targets(opened.test_mask)
    assert 0.5 - data.depth_scale <= stored.min() and stored.max() <= greatest
    assert stored.max() > (60 if kind == "lidar" else 3) and np.array_equal(opened.test_mask, opened.test_depth > 0)
    assert opened.tests_all and not opened.has_drawn_mask


def test_images_and_maps_are_scaled_and_cut_alike(raw):
    write_pairs(raw, "png", scenes=3, each=1, columns=("image", "depth", "set"))
    for name in ("images/000.png", "depth/000.png"):  # a bright, far corner: rows 0 to 31, columns 0 to 23
        file = raw / name
        with Image.open(file) as opened:
            array = np.zeros_like(np.asarray(opened))
        array[:32, :24] = 200
        array[32:, 24:] = 100
        Image.fromarray(array).save(file)
    opened = run(raw, data_of("png", crop=(40, 40), short_side=40))
    (row,) = (row for path, row in zip(opened.paths("train"), opened.rows("train"), strict=True) if path == "images/000.png")
    depth, image = opened.train_depth[row], opened.train_images[row][..., 0]
    assert (image[depth == 200] > 100).mean() > 0.9 and (image[depth == 0] < 100).mean() > 0.9


@pytest.mark.parametrize("columns", [("Image", " DEPTH", "set"), ("image", "depth", "scene"), ("image", "depth")])
def test_splits_are_read_or_drawn_by_groups_or_by_images(raw, columns):
    write_pairs(raw, "png", columns=columns)
    opened = run(raw, data_of("png"))
    numbers = {split: [int(path[-7:-4]) for path in opened.paths(split)] for split in ("train", "val", "test")}
    assert sorted(number for found in numbers.values() for number in found) == list(range(24)) and all(numbers.values())
    if len(columns) == 2:
        assert {split: len(found) for split, found in numbers.items()} == {"train": 15, "val": 4, "test": 5}  # ⌊0.8 · 24⌋, ⌊0.8 · 19⌋
    elif columns[-1] == "scene":
        groups = [{number // 4 for number in found} for found in numbers.values()]
        assert [len(found) for found in groups] == [3, 1, 2] and len(set.union(*groups)) == 6
    else:
        assert all(number % 3 == place for place, found in enumerate(numbers.values()) for number in found)


def test_more_processes_and_a_zip_give_the_same_data(raw):
    write_pairs(raw, "lidar", scenes=3, each=2)
    first = run(raw, data_of("lidar")).digest
    shutil.make_archive(str(raw / "depth"), "zip", raw, "depth")
    shutil.rmtree(raw / "depth")
    assert run(raw, data_of("lidar"), processes=2).digest == first
    assert run(raw, data_of("lidar", deepest=90.0)).digest != first


def test_the_values_of_a_file_become_levels():
    files = DepthFiles(scale=0.5, invalid=(-1.0, 7.0))
    depths = np.array([[0, np.nan, np.inf, -1, 7], [0.1, 0.5, 0.74, 0.76, 32767.5]])
    assert files.levels(depths, True).tolist() == [[0, 0, 0, 0, 0], [1, 1, 1, 2, 65535]]
    assert files.levels(np.array([[0, 7, 8, 65535]], dtype=np.uint16), False).tolist() == [[0, 0, 8, 65535]]


# Sparse maps


def by_hand(levels, height, width):
    """scaled_measured with loops."""
    h, w = levels.shape
    out = np.zeros((height, width), dtype=levels.dtype)
    for row in range(height):
        for column in range(width):
            y, x = (row + 0.5) * h / height, (column + 0.5) * w / width
            out[row, column] = levels[int(y), int(x)]
            covered = [
                ((i + 0.5 - y) ** 2 + (j + 0.5 - x) ** 2, levels[i, j])
                for i in range(h)
                for j in range(w)
                if levels[i, j] and (2 * i + 1) * height // (2 * h) == row and (2 * j + 1) * width // (2 * w) == column
            ]
            if not out[row, column] and covered:
                nearest = min(distance for distance, _ in covered)
                assert any(np.isclose(distance, nearest) for distance, _ in covered)
                out[row, column] = max(level for distance, level in covered if distance == nearest)
    return out


@pytest.mark.parametrize("size", [(9, 11), (20, 30), (7, 30), (25, 40)])
def test_a_scaled_sparse_map_has_the_measured_pixel_nearest_to_each_centre(size):
    rng = np.random.default_rng(0)
    levels = np.where(rng.random((20, 30)) < 0.1, rng.integers(1, 65536, (20, 30)), 0).astype(np.uint16)
    found, expected = scaled_measured(levels, *size), by_hand(levels, *size)
    assert np.array_equal(found > 0, expected > 0) and set(np.unique(found)) <= set(np.unique(levels))
    assert (found == expected).mean() > 0.97  # pixels at the same distance: either is right


def test_no_row_of_a_sparse_map_is_lost_and_a_dense_one_is_scaled_as_by_pillow():
    levels = np.zeros((64, 200), dtype=np.uint16)
    levels[::8, ::5] = 9
    assert np.array(Image.fromarray(levels).resize((50, 16), Image.Resampling.NEAREST)).any() == 0
    assert (scaled_measured(levels, 16, 50) > 0).any(axis=1).sum() == 8
    dense = np.random.default_rng(0).integers(1, 65536, (37, 53)).astype(np.uint16)
    assert np.array_equal(scaled_measured(dense, 20, 31), np.asarray(Image.fromarray(dense).resize((31, 20), Image.Resampling.NEAREST)))


def test_halving_for_the_network_keeps_measured_pixels():
    settings = {"crop": (16, 20), "flip": 0.0, "rotate": 0.0, "lighting": 0.0, "jitter": 0.0, "clip_colours": True, "seed": 0}
    image, mask = np.zeros((20, 24, 3), dtype=np.uint8), np.zeros((20, 24), dtype=np.uint16)
    mask[2:18:4, 2:22:2] = 60_000  # even rows and columns of the crop
    seen = {
        how: for_depth(**settings, depth_resampling=how)(epoch=0, sample=0, image=image, mask=mask)["mask"]
        for how in ("nearest", "measured")
    }
    assert not seen["nearest"].any()
    assert (seen["measured"][::2] == 60_000).all() and not seen["measured"][1::2].any()


# Buckets, classes and groups


def test_buckets_follow_the_training_depths(raw, capsys):
    write_pairs(raw, "lidar")
    opened = run(raw, data_of("lidar"))
    depths = np.concatenate([opened.depths[opened.train_depth[row]].ravel() for row in opened.rows("train")])
    top, left = (opened.train_depth.shape[1] - 36) // 2, (opened.train_depth.shape[2] - 100) // 2
    crops = [opened.train_depth[row, top : top + 36, left : left + 100] for row in opened.rows("train")]
    measured = np.concatenate([opened.depths[crop[crop > 0]] for crop in crops])
    assert opened.deepest == measured.max() and 40 < measured.max() <= depths.max()
    plain = np.bincount(np.minimum(np.floor(measured * 100 / opened.deepest + 1e-6).astype(int), 99), minlength=BUCKETS)
    assert np.abs(opened.training_pixels() - plain).sum() <= 0.01 * plain.sum()  # float32 at the edges
    shot = by_bucket(DENSITY.groups(opened.training_pixels()))
    for bucket, pixels in enumerate(opened.training_pixels()):
        assert shot[bucket] == ("many" if pixels > plain.mean() else "few" if pixels < plain.mean() / 4 else "medium")
    lines = counts(raw.parent / "prepared", DENSITY)
    assert lines[0].endswith(" scenes") and any(line.startswith("test pixels with depth: many ") for line in lines)


def test_buckets_of_the_benchmark_are_those_of_10_cm():
    millimetres = np.arange(65536)
    assert np.array_equal(buckets_of(millimetres / 1000, 10.0), np.minimum(millimetres // 100, 99))


def test_a_fixed_range_is_reported_where_it_is_exceeded_and_refused_where_most_is_beyond(raw, capsys):
    write_pairs(raw, "lidar")
    assert run(raw, data_of("lidar", deepest=40.0)).deepest == 40
    assert "training pixels are deeper than 40 (data.deepest): they share the last bucket" in capsys.readouterr().err
    with pytest.raises(
        UserError, match=r"training pixels are deeper than own\.data\.deepest = 5, up to \d+.*: set it to data, or to the range"
    ):
        run(raw, data_of("lidar", deepest=5.0))


def test_classes_cover_the_training_depths_and_a_range_without_most_of_them_is_refused(raw):
    write_pairs(raw, "lidar")
    opened = run(raw, data_of("lidar"))
    levels = np.flatnonzero(opened.levels("train")[1:]) + 1
    for method in ("reg+cls", "reg+cls-bal"):
        spec = single_depth_spec(SECTION, "own", DepthOptions(method=method))
        ranges = class_ranges_of(replace(spec, class_range=()), opened.depths, opened.levels("train"))
        assert (ranges.edges[0], ranges.edges[-1]) == (levels[0] / 256, levels[-1] / 256)
    fitting = replace(spec, crop=opened.crop)
    assert (
        TASK.misfit(replace(fitting, class_range=()), opened) is None
        and TASK.misfit(replace(fitting, class_range=(0.0, 80.0)), opened) is None
    )
    misfit = TASK.misfit(replace(fitting, class_range=(0.0, 2.0)), opened)
    assert "training pixels are outside of its class range, 0 to 2: set training.class_range to data" in misfit


# Mistakes


def again(raw, name, content):
    if isinstance(content, bytes):
        (raw / name).write_bytes(content)
    elif name.endswith(".npy"):
        np.save(raw / name, content)
    else:
        Image.fromarray(content).save(raw / name)


def image(height=64, width=48, dtype=np.uint16, value=900, channels=0):
    return np.full((height, width, channels) if channels else (height, width), value, dtype=dtype)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("images/001.png", None, "image missing"),
        ("depth/001.png", None, "depth missing"),
        ("images/001.png", b"", "image unreadable: empty file"),
        ("depth/001.png", b"<html>", "depth unreadable: not an image of a known format"),
        ("depth/001.png", image(32, 24), "image and depth differ in size: 48 × 64 and 24 × 32"),
        ("depth/001.png", image(channels=3, dtype=np.uint8, value=90), r"depth unreadable: 3 channels of kind RGB: save it as 8-bit or 16-bit grey, or as"),
        ("depth/001.png", image(value=0), "no pixel of the depth map is measured: all are 0, NaN, infinite or in data.invalid"),
        ("depth/001.png", b"\x93NUMPY\x01\x00", "depth unreadable: not an intact .npy file"),
    ],
)  # fmt: skip
def test_the_error_for_an_unusable_pair_names_its_line(raw, name, content, message):
    write_pairs(raw, "png", scenes=3, each=2)
    (raw / name).unlink() if content is None else again(raw, name, content)
    where = r"own\.csv, line 3: images/001\.png and depth/001\.png: "
    with pytest.raises(UserError, match=f"{where}{message}.*Mend the files or remove the line$"):
        run(raw, data_of("png"))
    assert not (raw.parent / "prepared").exists()


@pytest.mark.parametrize(
    "content, message",
    [
        (np.full((56, 56), -1.0), "depth -1 is negative: add it to data.invalid"),
        (np.full((56, 56), 131.2), r"131\.2 is above 65535 steps of data\.depth_scale = 0\.002: set data\.depth_scale to at least 0\.0021"),
        (np.full((56, 56, 1), 2.0), r"an array of float64 and shape \(56, 56, 1\): save numbers of shape \(height, width\)"),
        (np.full((56, 56), "a"), r"an array of <U1"),
        (np.full((56, 56), np.nan), "no pixel of the depth map is measured"),
        (np.pad(np.full((2, 56), 2.0), ((0, 54), (0, 0))), r"no pixel of the depth map is measured within data\.crop"),
    ],
)
def test_the_error_for_an_unusable_array_says_what_to_do(raw, content, message):
    write_pairs(raw, "npy", scenes=3, each=2)
    again(raw, "depth/001.npy", content)
    with pytest.raises(UserError, match=rf"own\.csv, line 3: .*{message}"):
        run(raw, data_of("npy"))


def test_several_wrong_lines_are_counted(raw):
    write_pairs(raw, "png")
    for number in (3, 7, 9):
        (raw / f"images/{number:03d}.png").unlink()
    with pytest.raises(UserError, match=r"image missing\. Mend the files or remove the line(| \(\d more lines? (is|are) wrong\))$"):
        run(raw, data_of("png"))


@pytest.mark.parametrize(
    "lines, message",
    [
        (["image,depth,split"], "lists no pairs: write a line for each"),
        (["image,split", "a.png,train"], r"has no column depth; it needs image, depth in its first line"),
        (["image,depth,split,set"], "lists no pairs"),
        (["image,depth,split", "a.png,,train"], "line 2: there is no depth"),
        (["image,depth,split", "a.png,b.png,tarin"], r"line 2: split = 'tarin': write train, val or test"),
        (["image,depth", "a.png,b.png", "c.png,d.png"], r"has no column split, and 2 groups cannot be split in three"),
        (["image,depth,scene", "a.png,b.png,x", "c.png,d.png,"], "line 3: there is no group"),
        (["image,depth,split", "a.png,b.png,train"], "no pair is in val, test: a run needs training, validation and test images"),
        (["image,depth,split", "images/a.png,b.png,train", "c.png,d.png,val", "e.png,../f.png,test"], r"line 4: \.\./f\.png is not a relative path in"),
        (["image,depth,split", "x/a.png,b.png,train", "c.png,d.png,val", "e.png,f.png,test"], "line 2: there is no x.tar, x.zip or folder x in"),
        (["image,depth,split", "a.png,b.png,train", "c.png,d.png,val", "a.png,b.png,test"], r"lines 2 and 4: a\.png is in train and in test"),
        (["image,depth,split", "a.png,b.png,train", "c.png,d.png,val", "a.png,e.png,train"], r"lines 2 and 4: a\.png has two targets, b\.png and e\.png"),
    ],
)  # fmt: skip
def test_the_error_for_a_wrong_csv_names_the_line(raw, lines, message):
    raw.mkdir(parents=True)
    if "two targets" in message:
        lines = [*lines, "g.png,h.png,test"]
    (raw / "own.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=rf"own\.csv.*{message}"):
        run(raw, data_of("png"))


def test_a_missing_csv_and_an_image_copied_to_another_split_are_refused(raw):
    raw.mkdir(parents=True)
    with pytest.raises(UserError, match=r"there is no own\.csv in .*raw\. docs/own-data\.md says what belongs there"):
        run(raw, data_of("png"))
    write_pairs(raw, "png", columns=("image", "depth", "set"))
    (raw / "images/002.png").write_bytes((raw / "images/000.png").read_bytes())
    with pytest.raises(UserError, match=r"lines 2 and 4: images/000\.png in train and images/002\.png in test are the same file"):
        run(raw, data_of("png"))
    run(raw, data_of("png", duplicates="allow"))


def test_accented_names_of_a_csv_are_found_as_macos_spells_them(raw):
    write_pairs(raw, "png")
    for folder in ("images", "depth"):
        (raw / folder / "000.png").rename(raw / folder / unicodedata.normalize("NFD", "ü.png"))
    (raw / "own.csv").write_text((raw / "own.csv").read_text().replace("/000.png", f"/{unicodedata.normalize('NFC', 'ü.png')}"))
    assert len(run(raw, data_of("png")).prepared.table) == 24


def test_dark_16_bit_images_are_pointed_out(raw, capsys):
    write_pairs(raw, "png")
    for file in (raw / "images").iterdir():
        with Image.open(file) as opened:
            grey = np.asarray(opened)[..., 0].astype(np.uint16)
        Image.fromarray(grey * 16).save(file)
    run(raw, data_of("png"))
    assert (
        "16-bit images is 4,0" in (said := capsys.readouterr().err)
        and "so they become dark: if they hold 12 bits, multiply their values by 16" in said
    )


def test_the_value_65535_is_pointed_out_unless_it_is_invalid(raw, capsys):
    write_pairs(raw, "png", scenes=3, each=1)
    depth = image()
    depth[30:32, 20:28] = 65535
    again(raw, "depth/001.png", depth)
    run(raw, data_of("png"))
    assert "have the value 65535, which often means not measured: if so, set data.invalid: [65535]" in capsys.readouterr().err
    opened = run(raw, data_of("png", invalid=(65535.0,)))
    assert "65535" not in capsys.readouterr().err and opened.deepest < 10


def test_the_section_of_the_guide_is_valid(tmp_path):
    guide = (ROOT / "docs" / "own-data.md").read_text()
    section = guide[guide.index("    roads:\n") :].partition("\n\n")[0]
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text() + "\n" + textwrap.dedent(section) + "\n")
    roads = load_params(tmp_path / "params.yaml").datasets["roads"]
    assert (roads.data.layout, roads.data.crop, roads.data.depth_scale, roads.shots.by) == ("csv", (120, 400), 1 / 256, "density")
