"""Stand-in rooms: the original layout, near depths frequent and far ones rare, and images that reveal their depth."""

import io
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from regcls.tasks.depth.params import RoomStandIn
from regcls.tasks.depth.raycast import PLAIN, STRIPES, Camera, Room, render
from regcls.tasks.depth.stand_in import make_room, place_camera, write_archive

STAND_IN = RoomStandIn(scenes=10, images=150, test_images=30, seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms")
    write_archive(folder, STAND_IN, short_side=24, processes=1)
    return folder


@pytest.fixture(scope="module")
def files(folder):
    """The archive's files by name."""
    with zipfile.ZipFile(folder / "data.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def listed(files, split):
    return [line.split(",") for line in files[f"data/nyu2_{split}.csv"].decode().splitlines()]


def opened(files, name):
    return Image.open(io.BytesIO(files[name]))


def whole(files, split):
    """The pairs that are not damaged."""
    return [
        (image, depth)
        for image, depth in listed(files, split)
        if depth in files and np.asarray(opened(files, depth)).any() and (split == "test" or files[image].endswith(b"\xff\xd9"))
    ]


def test_names_follow_the_original(files):
    train, test = listed(files, "train"), listed(files, "test")
    assert len(train) == 150 and len(test) == 30
    for image, depth in train:
        assert re.fullmatch(r"data/nyu2_train/[a-z_]+_\d{4}_out/\d+\.jpg", image) and depth == image.replace(".jpg", ".png")
    for image, depth in test:
        assert re.fullmatch(r"data/nyu2_test/\d{5}_colors\.png", image) and depth == image.replace("colors", "depth")
    assert len({image.split("/")[2] for image, _ in train}) == 10
    assert set(files) - {"data/nyu2_train.csv", "data/nyu2_test.csv"} <= {name for pair in train + test for name in pair}


def test_images_are_4_to_3_with_the_bit_depth_of_the_original(files):
    for split, mode, kind in (("train", "L", "JPEG"), ("test", "I;16", "PNG")):
        for image, depth in whole(files, split):
            assert opened(files, image).size == opened(files, depth).size == (64, 48)
            assert (opened(files, image).format, opened(files, image).mode, opened(files, depth).mode) == (kind, "RGB", mode)


def test_three_training_pairs_are_damaged_in_different_ways(files):
    assert len(whole(files, "train")) == 147 and len(whole(files, "test")) == 30
    assert sum(depth not in files for _, depth in listed(files, "train")) == 1
    assert sum(not content.endswith(b"\xff\xd9") for name, content in files.items() if name.endswith(".jpg")) == 1


def test_depth_is_zero_or_from_0_7_to_10_metres(files):
    for split, unit in (("train", 25.5), ("test", 1000.0)):
        depth = np.concatenate([np.asarray(opened(files, name)).ravel() for _, name in whole(files, split)]) / unit
        assert 0 < (depth == 0).mean() < 0.06
        assert depth[depth > 0].min() >= 0.69 and 9.8 < depth.max() <= 10


@pytest.mark.parametrize(("split", "unit"), [("train", 255), ("test", 10_000)])
def test_near_depths_are_frequent_and_far_ones_rare(files, split, unit):
    values = np.concatenate([np.asarray(opened(files, name), dtype=np.int64).ravel() for _, name in whole(files, split)])
    pixels = np.bincount(np.minimum(values[values > 0] * 100 // unit, 99), minlength=100)
    near, middle, far = pixels[9:46].mean(), pixels[50:57].mean(), pixels[64:].mean()
    assert near > 3 * middle > 6 * far > 0
    assert (pixels[7:100].reshape(-1, 3).sum(1) > 0).all()


def test_bytes_depend_on_the_seed_but_not_on_the_number_of_processes(folder, tmp_path):
    write_archive(tmp_path, STAND_IN, short_side=24, processes=2)
    assert (tmp_path / "data.zip").read_bytes() == (folder / "data.zip").read_bytes()
    write_archive(tmp_path, RoomStandIn(scenes=10, images=150, test_images=30, seed=1), short_side=24, processes=1)
    assert (tmp_path / "data.zip").read_bytes() != (folder / "data.zip").read_bytes()


def empty_room(**changes):
    """An empty room, 4 m wide, 6 m long and 2.5 m high."""
    surfaces = 6 + len(changes.get("low", ()))
    fields = {
        "size": np.array([4, 6, 2.5], dtype=np.float32),
        "low": np.zeros((0, 3), dtype=np.float32),
        "high": np.zeros((0, 3), dtype=np.float32),
        "colours": np.full((surfaces, 2, 3), 0.5, dtype=np.float32),
        "textures": np.full(surfaces, PLAIN),
        "periods": np.ones(surfaces, dtype=np.float32),
        "lamp": np.array([2, 3, 2.4], dtype=np.float32),
        "ambient": 0.5,
    }
    return Room(**fields | changes)


def level(yaw=0.0, **changes):
    return Camera(**{"at": np.array([1, 1, 1.5], dtype=np.float32), "yaw": yaw, "pitch": 0.0, "roll": 0.0} | changes)


def test_depth_follows_the_wall_ahead_and_the_floor_below():
    depth = render(empty_room(), level(), width=161, height=121)[1]
    assert depth[60, 80] == pytest.approx(5)
    below = (np.arange(61, 121) - 60) / (0.81 * 161)  # the descent of a ray per metre
    assert depth[61:, 80] == pytest.approx(np.minimum(1.5 / below, 5), rel=1e-5)
    aside = (np.arange(81, 161) - 80) / (0.81 * 161)
    assert depth[60, 81:] == pytest.approx(np.minimum(3 / aside, 5), rel=1e-5)


@pytest.mark.parametrize(("yaw", "distance"), [(np.pi / 2, 1), (np.pi, 1), (-np.pi / 2, 3)])
def test_yaw_turns_to_the_left(yaw, distance):
    assert render(empty_room(), level(yaw), width=5, height=5)[1][2, 2] == pytest.approx(distance)


def test_pitch_looks_up_and_roll_lowers_the_left():
    up = render(empty_room(), level(pitch=0.5), width=41, height=31)[1]
    assert up[15, 20] == pytest.approx(1 / np.sin(0.5))  # to the ceiling, along the axis
    middle = level(at=np.array([2, 1, 1.25], dtype=np.float32), roll=0.3)
    below = render(empty_room(), middle, width=41, height=31)[1][-1]
    assert below[10] < below[20] < below[30]


def ray_marched(room, camera, width, height, step=0.01):
    """Depth by ray marching: walk along every ray until it enters something."""
    rays = camera.rays(width, height)
    depth = np.full(rays.shape[1], np.nan)
    for t in np.arange(step, 20, step):
        at = (camera.at[:, None] + t * rays).T
        hit = ((at < 0) | (at > room.size)).any(1)
        for low, high in zip(room.low, room.high, strict=True):
            hit |= ((at > low) & (at < high)).all(1)
        depth = np.where(np.isnan(depth) & hit, t, depth)
        if not np.isnan(depth).any():
            break
    return depth.reshape(height, width)


@pytest.mark.parametrize("seed", range(4))
def test_rendered_depth_agrees_with_ray_marching(seed):
    room = make_room(np.random.default_rng(seed), [3.0, 4.5, 7.0, 12.0][seed])
    camera = place_camera(np.random.default_rng(seed), room)
    depth, walked = render(room, camera, width=32, height=24)[1], ray_marched(room, camera, 32, 24)
    off = np.abs(depth - walked) > 0.0101
    assert off.mean() < 0.01  # if a ray cuts a corner between two steps


def test_lamps_light_near_surfaces_and_not_those_facing_away():
    low, high = np.array([[1, 4, 0]], dtype=np.float32), np.array([[3, 5, 2]], dtype=np.float32)
    room = empty_room(low=low, high=high, lamp=np.array([2, 5.9, 2.4], dtype=np.float32))  # behind the box
    light, depth = render(room, level(at=np.array([2, 1, 1], dtype=np.float32)), width=41, height=31)
    face = np.isclose(depth, 3)
    assert face.any() and light[face].max() < 0.5 * 0.5 * 1.2
    floor = light[-4:].mean((1, 2))
    assert (np.diff(floor) < 0).all()  # away from the lamp, towards the camera


def test_textures_shrink_with_distance():
    textures, periods = np.full(6, STRIPES), np.full(6, 0.5, dtype=np.float32)
    colours = np.stack([np.full((6, 3), 0.9), np.full((6, 3), 0.1)], axis=1).astype(np.float32)
    room = empty_room(size=np.array([4, 12, 2.5], dtype=np.float32), textures=textures, colours=colours, periods=periods, ambient=1.0)
    light, depth = render(room, level(at=np.array([2, 1, 1.5], dtype=np.float32)), width=801, height=601)
    columns, changes = np.arange(300, 501), []
    for row in (590, 430):  # on the floor, 3.4 and 7.5 m away
        dark = light[row, columns].mean(1) < 0.4
        x = 2 + (columns - 400) / (0.81 * 801) * depth[row, columns]
        sure = np.abs((x / 0.25) % 1 - 0.5) < 0.45
        assert (dark == ((x / 0.5) % 1 < 0.5))[sure].all()
        changes.append((np.diff(dark.astype(int)) != 0).sum())
    assert changes[1] > 1.5 * changes[0] > 0


def test_cameras_are_inside_the_room_and_outside_the_furniture():
    for seed in range(60):
        room = make_room(np.random.default_rng(seed), 2.7 + seed / 6)
        at = place_camera(np.random.default_rng(seed), room).at
        assert (at > 0).all() and (at < room.size).all()
        assert not ((at[:2] > room.low[:, :2]) & (at[:2] < room.high[:, :2])).all(1).any()


def views(scenes, seed):
    """Features of eight views per room: brightness and contrast of 8 × 8 pixels, and the logarithm of their mean depth."""
    inputs, depths = [], []
    for scene in range(scenes):
        room = make_room(np.random.default_rng([seed, scene]), 2.7 + 10 * (scene + 0.5) / scenes)
        for k in range(8):
            light, depth = render(room, place_camera(np.random.default_rng([seed, scene, k]), room), width=64, height=48)
            grey = light.mean(2) / light.mean()
            edges = [np.abs(np.diff(grey, axis=axis, append=grey.take([-1], axis))) for axis in (0, 1)]
            inputs.append(np.concatenate([cells(grey), *(np.sqrt(cells(edge)) for edge in edges)]))
            depths.append(np.log(cells(depth)))
    return np.stack(inputs), np.stack(depths)


def cells(picture):
    return picture.reshape(6, 8, 8, 8).mean((1, 3)).ravel()


def test_a_linear_model_predicts_depth_in_new_rooms_only_in_part():
    (x, y), (x_test, y_test) = views(40, 0), views(20, 1)
    mean, scale = x.mean(0), x.std(0)
    x, x_test = (x - mean) / scale, (x_test - mean) / scale
    weights = np.linalg.solve(x.T @ x + 100 * np.eye(x.shape[1]), x.T @ (y - y.mean(0)))
    error = x_test @ weights + y.mean(0) - y_test
    assert 0.25 < 1 - (error**2).mean() / ((y_test - y.mean(0)) ** 2).mean() < 0.75
