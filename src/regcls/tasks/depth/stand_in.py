"""Stand-in rooms in the layout of NYUD2-DIR: data.zip with nyu2_train.csv, nyu2_test.csv, images and depth maps.

The rooms are rendered (see raycast.py). Most are small, so near depths are frequent and far ones rare. Some pairs are damaged.
"""

import io
import zipfile
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image

from regcls.processes import worker_pool
from regcls.progress import tracked
from regcls.tasks.depth.params import RoomStandIn
from regcls.tasks.depth.raycast import BOARDS, CHECKS, PLAIN, STRIPES, TILES, Camera, Floats, Room, render

NEAREST, FARTHEST = 0.7, 10.0  # metres: range of the sensor; outside it, depth is 0
SHORTEST, LONGEST = 2.7, 13.0  # metres: length of a room
# (greatest length in metres, kind of room)
KINDS = ((3.2, "bathroom"), (4.0, "kitchen"), (5.0, "bedroom"), (6.2, "office"), (7.5, "living_room"), (LONGEST, "classroom"))
TEST_SCENES = 2  # training scenes per test scene; at least 5 test scenes
CLEARANCE = 0.45  # metres: minimum distance of the camera to furniture
AHEAD = 1.3  # metres: minimum distance to the wall ahead of the camera
TRIES = 64
CHUNK = 16  # images rendered by a process at a time
DAMAGES = ("no depth", "zero depth", "cut image")  # of one training pair each
# Metres: depth, width, lower and upper edge of a piece of furniture.
FURNITURE = (
    (0.60, 0.90, 0.0, 2.00),  # wardrobe
    (0.35, 0.90, 0.0, 1.70),  # shelf
    (0.70, 1.40, 0.0, 0.75),  # desk
    (2.00, 1.50, 0.0, 0.50),  # bed
    (0.90, 1.80, 0.0, 0.45),  # sofa
    (0.60, 0.60, 0.0, 0.90),  # cooker
    (0.45, 0.45, 0.0, 0.85),  # chair
    (0.40, 0.40, 0.0, 0.45),  # stool
    (0.30, 1.10, 1.4, 2.00),  # wall unit
)
ON_WALLS = ((0.04, 0.90, 0.0, 2.05), (0.04, 1.30, 0.9, 2.10), (0.03, 0.60, 1.2, 1.70))  # door, window, picture


class View(NamedTuple):
    """A pair of the archive: its scene, files and damage."""

    split: str  # "train" or "test"
    number: int  # index within the split
    image: str
    depth: str
    scene: int
    length: float  # metres, of the room
    damage: str = ""


def write_archive(folder: Path, stand_in: RoomStandIn, *, short_side: int, processes: int) -> None:
    """Write data.zip with 4:3 images, twice as high as `short_side`, to which `prepare` will scale them.

    The bytes depend on `stand_in` and `short_side` only, not on the number of processes.
    """
    height = 2 * short_side
    train, test = _train_views(stand_in), _test_views(stand_in)
    views = [*train, *test]
    chunks = [views[start : start + CHUNK] for start in range(0, len(views), CHUNK)]
    with worker_pool(processes) if processes > 1 else nullcontext() as pool, zipfile.ZipFile(folder / "data.zip", "w") as archive:
        rendered = (pool.map if pool else map)(partial(_render_chunk, stand_in.seed, height), chunks)
        for files in tracked(rendered, len(chunks), "rendering rooms"):
            for name, content in files:
                _add(archive, name, content)
        for name, listed in (("train", train), ("test", test)):
            order = default_rng([stand_in.seed, 3]).permutation(len(listed)) if name == "train" else range(len(listed))
            lines = "".join(f"{listed[row].image},{listed[row].depth}\n" for row in order)
            _add(archive, f"data/nyu2_{name}.csv", lines.encode())


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name), content)  # with a fixed date


def _train_views(stand_in: RoomStandIn) -> list[View]:
    rng = default_rng([stand_in.seed, 1])
    lengths = _lengths(rng, stand_in.scenes)
    damaged = dict(zip(rng.choice(stand_in.images, len(DAMAGES), replace=False).tolist(), DAMAGES, strict=True))
    views, numbers = [], [0] * stand_in.scenes
    for index in range(stand_in.images):
        scene = index * stand_in.scenes // stand_in.images
        numbers[scene] += 1
        kind = next(name for up_to, name in KINDS if lengths[scene] <= up_to)
        file = f"data/nyu2_train/{kind}_{scene + 1:04d}_out/{numbers[scene]}"
        views.append(View("train", index, f"{file}.jpg", f"{file}.png", scene, lengths[scene], damaged.get(index, "")))
    return views


def _test_views(stand_in: RoomStandIn) -> list[View]:
    scenes = max(5, stand_in.scenes // TEST_SCENES)
    lengths = _lengths(default_rng([stand_in.seed, 2]), scenes)
    views = []
    for index in range(stand_in.test_images):
        scene, file = index % scenes, f"data/nyu2_test/{index:05d}"
        views.append(View("test", index, f"{file}_colors.png", f"{file}_depth.png", stand_in.scenes + scene, lengths[scene]))
    return views


def _lengths(rng: Generator, scenes: int) -> list[float]:
    """Room lengths in metres: shuffled, evenly spaced quantiles of a long-tailed distribution, so that even few scenes have long rooms."""
    share = (rng.permutation(scenes) + 0.5) / scenes
    return [float(length) for length in SHORTEST + (LONGEST - SHORTEST) * share**2.6]


def _render_chunk(seed: int, height: int, views: Sequence[View]) -> list[tuple[str, bytes]]:
    """Names and contents of the files of the pairs."""
    files = []
    for view in views:
        room = make_room(default_rng([seed, 4, view.scene]), view.length)
        rng = default_rng([seed, 5 if view.split == "train" else 6, view.number])
        light, depth = render(room, place_camera(rng, room), width=round(height * 4 / 3), height=height)
        picture = Image.fromarray(_photograph(rng, light))
        depth = np.where((depth < NEAREST) | (depth > FARTHEST) | (view.damage == "zero depth"), 0, depth)
        if view.split == "train":
            image, levels = _encoded(picture, "JPEG", quality=92), np.rint(depth * 25.5).astype(np.uint8)
        else:
            image, levels = _encoded(picture, "PNG"), np.rint(depth * 1000).astype(np.uint16)
        files.append((view.image, image[: len(image) // 2] if view.damage == "cut image" else image))
        if view.damage != "no depth":
            files.append((view.depth, _encoded(Image.fromarray(levels), "PNG")))
    return files


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def _photograph(rng: Generator, light: Floats) -> NDArray[np.uint8]:
    """A photograph of the light: with exposure, a tint and noise."""
    light = light * rng.normal(1, 0.04, 3).astype(np.float32) * np.float32(112 * rng.uniform(0.85, 1.15) / light.mean())
    light += rng.standard_normal((*light.shape[:2], 1), dtype=np.float32) * np.float32(rng.uniform(1, 4))
    return np.asarray(np.clip(light, 0, 255), dtype=np.uint8)


def make_room(rng: Generator, length: float) -> Room:
    """A random furnished room, `length` metres long."""
    size = np.array([rng.uniform(0.55, 0.95) * min(length, 6.0) + 0.4, length, rng.uniform(2.4, 2.9)], dtype=np.float32)
    pieces = [_against_wall(rng, size, FURNITURE[rng.integers(len(FURNITURE))]) for _ in range(4 + round(1.2 * length))]
    pieces += [_against_wall(rng, size, ON_WALLS[rng.integers(len(ON_WALLS))]) for _ in range(5)]
    low, high = (np.array(corners, dtype=np.float32) for corners in zip(*pieces, strict=True))
    surfaces = 6 + len(pieces)
    ground = rng.uniform(0.15, 0.85, (surfaces, 1)) + rng.normal(0, 0.10, (surfaces, 3))
    ground[:4] = rng.uniform(0.45, 0.85) + rng.normal(0, 0.08, 3)  # the walls alike, the ceiling brighter, the floor in between
    ground[4], ground[5] = rng.uniform(0.3, 0.6) + rng.normal(0, 0.06, 3), rng.uniform(0.8, 0.95)
    pattern = ground * rng.uniform(0.5, 0.85, (surfaces, 1))
    textures = rng.choice([PLAIN, PLAIN, STRIPES, TILES, CHECKS], surfaces)
    textures[:4], textures[4], textures[5] = rng.choice([PLAIN, STRIPES, TILES]), rng.choice([TILES, CHECKS, BOARDS]), PLAIN
    periods = rng.uniform(0.15, 0.35, surfaces)
    lamp = size * np.array([rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7), 0.93], dtype=np.float32)
    return Room(
        size=size,
        low=low,
        high=high,
        colours=np.clip(np.stack([ground, pattern], axis=1), 0.04, 1).astype(np.float32),
        textures=textures,
        periods=periods.astype(np.float32),
        lamp=lamp,
        ambient=float(rng.uniform(0.3, 0.5)),
    )


def _against_wall(rng: Generator, size: Floats, piece: tuple[float, float, float, float]) -> tuple[Floats, Floats]:
    """Low and high corners (3,) of a box at a random wall, no wider than the wall."""
    out, width, bottom, top = piece
    wall = int(rng.choice(4, p=[0.36, 0.36, 0.14, 0.14]))  # the long ones first
    across, along = (0, 1) if wall < 2 else (1, 0)
    out, width = min(out, float(size[across]) / 3), min(width * rng.uniform(0.8, 1.2), float(size[along]) - 0.2)
    start = rng.uniform(0, size[along] - width)
    low, high = np.zeros(3, dtype=np.float32), np.zeros(3, dtype=np.float32)
    low[across], high[across] = (0, out) if wall % 2 == 0 else (size[across] - out, size[across])
    low[along], high[along] = start, start + width
    low[2], high[2] = bottom, top if bottom else top * rng.uniform(0.9, 1.1)
    return low, high


def place_camera(rng: Generator, room: Room) -> Camera:
    """A random camera with enough space around and ahead; of TRIES cameras the one with the most space, if none has enough."""
    best_space, best = -np.inf, None
    for _ in range(TRIES):
        at = np.append(rng.uniform(0.25, room.size[:2] - 0.25), rng.uniform(1.1, 1.6)).astype(np.float32)
        yaw = rng.uniform(-np.pi, np.pi)
        if rng.random() * LONGEST < room.size[1]:  # the longer the room, the more often the camera looks along it
            backwards = rng.random() < 0.5
            at[1] = abs(backwards * room.size[1] - rng.uniform(0.25, min(1.5, room.size[1] / 4)))
            yaw = backwards * np.pi + rng.normal(0, 0.3)
        camera = Camera(
            at=at,
            yaw=float(yaw),
            pitch=float(rng.normal(-0.14, 0.10)),
            roll=float(rng.normal(0, 0.02)),
        )
        space = min(_clearance(room, camera.at) / CLEARANCE, _ahead(room, camera) / AHEAD)
        if space > best_space:
            best_space, best = space, camera
        if space >= 1:
            break
    assert best is not None
    return best


def _clearance(room: Room, at: Floats) -> float:
    """Metres to the nearest box, seen from above."""
    outside = np.maximum(np.maximum(room.low - at, at - room.high)[:, :2], 0)
    return float(np.sqrt((outside**2).sum(1)).min())


def _ahead(room: Room, camera: Camera) -> float:
    """Metres to the wall straight ahead."""
    direction = np.array([-np.sin(camera.yaw), np.cos(camera.yaw)])
    return float((np.where(direction > 0, room.size[:2] - camera.at[:2], camera.at[:2]) / np.abs(direction).clip(1e-6)).min())
