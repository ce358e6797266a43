"""Predict depth maps of new images with a tracked run."""

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

from regcls.data.archives import Place
from regcls.data.images import as_rgb, load_image
from regcls.errors import UserError
from regcls.files import explain_os_errors, write_atomically
from regcls.options import PREDICTIONS
from regcls.progress import progress, say
from regcls.tasks.depth.examples import DEPTHS
from regcls.tasks.depth.train import load_predictor
from regcls.tasks.task import PredictRequest


def predict(request: PredictRequest) -> list[str]:
    """Write a depth map for each image, at its size, and print its path as CSV; return the images that could not be read, with reasons.

    Writes <name>_depth.png (16-bit, in steps of the run's depth_scale) and <name>_depth_colour.png to the request's folder, by default
    options.PREDICTIONS.

    Raises:
        UserError: two images would have the same output files, or the folder is not writable.
    """
    corners = request.spec["align_corners"]
    predictor = load_predictor(request.checkpoint(), model=request.spec["model"], width=request.spec["width"], align_corners=corners)
    predictor.to(request.device)
    names, folder = _names(request.images), request.folder or Path(PREDICTIONS)
    with explain_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # Runs of versions before depth_scale were in metres.
    scale, deepest = request.spec["depth_scale"] or 1e-3, 10.0 if request.spec["deepest"] is None else request.spec["deepest"]
    out, unreadable = csv.writer(sys.stdout, lineterminator="\n"), list[str]()
    out.writerow(["image", "depth", "nearest", "mean", "farthest"])
    with progress(len(request.images), "predicting") as advance:
        for file, name in zip(request.images, names, strict=True):
            try:
                image = as_rgb(load_image(Place(str(file)).read()))
            except ValueError as error:
                unreadable.append(f"{file}: {error}")
            else:
                depth = _depth_of(predictor, image, request)
                target = folder / f"{name}_depth.png"
                _write_depth(depth, target, scale=scale, deepest=deepest or float(depth.max()) or 1.0)
                out.writerow([str(file), str(target), *(f"{value:.3f}" for value in (depth.min(), depth.mean(), depth.max()))])
            advance(1)
    bright = f"{deepest:g} and more" if deepest else "the farthest pixel of the image"
    say(f"16-bit PNGs: depth is value × {scale:g}; in <name>_depth_colour.png dark is 0, bright {bright}")
    return unreadable


def _names(images: Sequence[Path]) -> list[str]:
    """Names of the output files, without suffixes.

    Raises:
        UserError: two images would have the same output files.
    """
    names: dict[str, Path] = {}
    for image in images:
        if (other := names.setdefault(image.stem, image)) != image:
            raise UserError(
                f"{other} and {image} have the same name, and so would their depth maps. Predict them with different --folder options."
            )
    return [image.stem for image in images]


def _depth_of(predictor: Callable[[torch.Tensor], torch.Tensor], image: Image.Image, request: PredictRequest) -> NDArray[np.float32]:
    """Depth (H, W) at the size of `image`. For the network, the image's shorter side is scaled as in training."""
    scale = request.spec["short_side"] / min(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    with torch.inference_mode():
        depth = predictor(torch.from_numpy(pixels[None].copy()).to(request.device))[:, None]
        full = torch.nn.functional.interpolate(depth, size=image.size[::-1], mode="bilinear", align_corners=True)
    return np.asarray(full[0, 0].cpu().clamp(min=0.0).numpy())


def _write_depth(depth: NDArray[np.float32], target: Path, *, scale: float, deepest: float) -> None:
    colours = matplotlib.colormaps[DEPTHS](np.clip(depth / deepest, 0, 1), bytes=True)[..., :3]
    pictures = {
        target: Image.fromarray(np.clip(np.rint(1 / scale * depth), 0, 65535).astype(np.uint16)),
        target.with_name(f"{target.stem}_colour.png"): Image.fromarray(colours),
    }
    for file, picture in pictures.items():
        content = BytesIO()
        picture.save(content, "PNG")
        whole = content.getvalue()
        write_atomically(file, lambda aside, whole=whole: aside.write_bytes(whole))  # type: ignore[misc]
