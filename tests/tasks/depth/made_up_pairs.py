"""A user's own pairs, made up: roads to 80 m as sparse LiDAR maps, and rooms as dense maps, with a csv."""

import numpy as np
from PIL import Image

SIZES = {"lidar": (48, 128), "png": (64, 48), "npy": (56, 56)}  # height, width: wide, portrait, square
DATA = {  # of params.yaml
    "lidar": {"crop": [36, 100], "short_side": 40, "depth_scale": 1 / 256},
    "png": {"crop": [48, 36], "short_side": 40, "depth_scale": 0.001},
    "npy": {"crop": [32, 32], "short_side": 36, "depth_scale": 0.002},
}


def made_depth(kind, rng):
    """Depths (h, w) that fall from top to bottom; lidar: on every third line, every other pixel."""
    height, width = SIZES[kind]
    farthest = 80.0 if kind == "lidar" else rng.uniform(4, 9)
    down = np.linspace(1, 0.02, height)[:, None] ** 2
    depth = np.broadcast_to(np.maximum(farthest * down * rng.uniform(0.9, 1.0, (1, width)), 0.5), (height, width)).copy()
    if kind == "lidar":
        seen = np.zeros((height, width), dtype=bool)
        seen[1::3, ::2] = True
        depth[~seen] = 0
    return depth


def write_pair(raw, name, kind, rng):
    """Write an image and its depth map; return both paths."""
    depth = made_depth(kind, rng)
    grey = np.where(depth > 0, 255 * np.exp(-depth / 20), 40) + rng.uniform(0, 8, depth.shape)
    image, map_ = f"images/{name}.png", f"depth/{name}.{'npy' if kind == 'npy' else 'png'}"
    for file in (image, map_):
        (raw / file).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)).save(raw / image)
    if kind == "npy":
        np.save(raw / map_, np.where(rng.random(depth.shape) < 0.1, np.nan, depth).astype(np.float32))
    else:
        Image.fromarray(np.rint(depth / DATA[kind]["depth_scale"]).astype(np.uint16)).save(raw / map_)
    return image, map_


def write_pairs(raw, kind, *, dataset="own", scenes=6, each=4, columns=("image", "depth", "scene")):
    """Write raw/<dataset>.csv and its pairs: `each` for every scene; every third pair is in train, val or test, if `columns` has splits."""
    raw.mkdir(parents=True, exist_ok=True)
    rng, lines = np.random.default_rng(0), [";".join(columns)]
    for number in range(scenes * each):
        image, map_ = write_pair(raw, f"{number:03d}", kind, rng)
        values = {"image": image, "depth": map_, "scene": f"s{number // each}", "set": ("Train", "dev", "TEST")[number % 3]}
        lines.append(";".join(values[column.strip().lower()] for column in columns))
    (raw / f"{dataset}.csv").write_text("\n".join(lines) + "\n")
