"""A tracked run and new images -> a depth map for each."""

import csv
import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from regcls.data.images import as_rgb, opened, reason_of
from regcls.errors import UserError
from regcls.files import explain_os_errors, write_atomically
from regcls.options import PREDICTIONS
from regcls.progress import progress, say
from regcls.tasks.depth.examples import DEPTHS
from regcls.tasks.depth.train import load_predictor
from regcls.tasks.task import Asked

DEEPEST = 10.0  # metres, the end of the colour scale


def predict(asked: Asked) -> list[str]:
    """Write a depth map for each image, at its size, and print where; returns which could not be read, and why.

    Two files each go into the folder (options.PREDICTIONS where none is named): <name>_depth.png (16-bit, millimetres) and
    <name>_depth_colour.png.

    Raises:
        UserError: two images would be written to the same files, or the folder cannot be written.
    """
    corners = asked.spec["align_corners"]
    predictor = load_predictor(asked.checkpoint(), model=asked.spec["model"], width=asked.spec["width"], align_corners=corners)
    predictor.to(asked.device)
    names, folder = _names(asked.images), asked.folder or Path(PREDICTIONS)
    with explain_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    out, wrong = csv.writer(sys.stdout, lineterminator="\n"), list[str]()
    out.writerow(["image", "depth", "nearest", "mean", "farthest"])
    with progress(len(asked.images), "predicting") as advance:
        for file, name in zip(asked.images, names, strict=True):
            try:
                image = as_rgb(opened(file.read_bytes()))
            except (OSError, ValueError) as error:
                wrong.append(f"{file}: {reason_of(error)}")
            else:
                metres = _depth_of(predictor, image, asked)
                target = folder / f"{name}_depth.png"
                _write_depth(metres, target)
                out.writerow([str(file), str(target), *(f"{value:.3f}" for value in (metres.min(), metres.mean(), metres.max()))])
            advance(1)
    say(f"16-bit PNGs hold millimetres; in <name>_depth_colour.png dark is 0 m, bright {DEEPEST:g} m and more")
    return wrong


def _names(images: Sequence[Path]) -> list[str]:
    """Names of the files to be written, without suffixes.

    Raises:
        UserError: two images would be written to the same files.
    """
    names: dict[str, Path] = {}
    for image in images:
        if (other := names.setdefault(image.stem, image)) != image:
            raise UserError(
                f"{other} and {image} have one name: their depth maps would be the same files. Give each a --folder of its own."
            )
    return [image.stem for image in images]


def _depth_of(predictor: Callable[[torch.Tensor], torch.Tensor], image: Image.Image, asked: Asked) -> NDArray[np.float32]:
    """Metres (H, W) at the size of `image`, which the network sees scaled as in training: by its shorter side."""
    scale = asked.spec["short_side"] / min(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    with torch.inference_mode():
        depth = predictor(torch.from_numpy(pixels[None].copy()).to(asked.device))[:, None]
        full = torch.nn.functional.interpolate(depth, size=image.size[::-1], mode="bilinear", align_corners=True)
    return np.asarray(full[0, 0].cpu().clamp(min=0.0).numpy())


def _write_depth(metres: NDArray[np.float32], target: Path) -> None:
    colours = matplotlib.colormaps[DEPTHS](np.clip(metres / DEEPEST, 0, 1), bytes=True)[..., :3]
    pictures = {
        target: Image.fromarray(np.clip(np.rint(1000 * metres), 0, 65535).astype(np.uint16)),
        target.with_name(f"{target.stem}_colour.png"): Image.fromarray(colours),
    }
    for file, picture in pictures.items():
        content = BytesIO()
        picture.save(content, "PNG")
        whole = content.getvalue()
        write_atomically(file, lambda aside, whole=whole: aside.write_bytes(whole))  # type: ignore[misc]
