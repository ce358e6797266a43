"""A tracked run and new images -> predictions: a number an image, or a depth map."""

import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from regcls.datasets.images import as_rgb, decode, opened
from regcls.errors import UserError
from regcls.files import explain_os_errors, write_atomically
from regcls.options import PREDICTIONS
from regcls.params import KINDS, Kind, Params
from regcls.progress import Advance, progress, say
from regcls.stages.kinds.registry import kind_of
from regcls.tracking.run_table import typed
from regcls.tracking.tracker import Tracker
from regcls.training.checkpoint import load_predictor
from regcls.training.depth import load_predictor as load_depth_predictor
from regcls.training.depth_examples import DEPTHS
from regcls.training.device import Device, device_for
from regcls.training.single import BEST, LAST

TOGETHER = 64  # images
DEEPEST = 10.0  # metres, the end of the colour scale


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to predict with, for which images, and where files go."""

    spec: Mapping[str, Any]  # the run's parameters, by their names in its spec
    checkpoint: Path
    device: Device
    images: Sequence[Path]
    folder: Path


def predict(
    params: Params, root: Path, run: str, images: Sequence[Path], *, checkpoint: Literal["best", "last"], folder: Path | None = None
) -> None:
    """Print, as csv, the prediction of a run for each image; what cannot be read is named and left out.

    A run on depth writes, for each image, two files into `folder` (None: options.PREDICTIONS): <name>_depth.png (16-bit, millimetres) and
    <name>_depth_colour.png.

    Raises:
        UserError: no such run or not one on images, no image that can be read, or some that cannot (after the others are printed).
    """
    tracker = Tracker(root, experiment=params.tracking.experiment)
    row = tracker.find(run)
    dataset = row.params.get("dataset", "")
    kind = KINDS.get(dataset)
    if kind is None or kind not in BY_KIND:
        known = " or ".join(name for name, its in KINDS.items() if its in BY_KIND)
        raise UserError(f"run {row.run_id} is on {dataset or 'no data set of ours'}: images can only be given to a run on {known}")
    if folder is not None and kind != "depth":
        raise UserError(f"run {row.run_id} is on {dataset}: its predictions are printed, no file is written. Leave out --folder {folder}.")
    with TemporaryDirectory() as aside:
        file = tracker.files.fetch(row.run_id, {"best": BEST, "last": LAST}[checkpoint], Path(aside))
        spec, device = typed(row.params, kind_of(dataset).spec_type), device_for(params.compute.device)
        wrong = BY_KIND[kind](Asked(spec=spec, checkpoint=file, device=device, images=images, folder=folder or Path(PREDICTIONS)))
    for line in wrong:
        say(line)
    if wrong:
        raise UserError(f"{len(wrong)} of {len(images)} images could not be read; they are named above")


def _numbers(asked: Asked) -> list[str]:
    """A number for each image; returns which could not be read, and why."""
    predictor = load_predictor(asked.checkpoint, model=asked.spec["model"], width=asked.spec["width"]).to(asked.device)
    out, wrong = csv.writer(sys.stdout, lineterminator="\n"), list[str]()
    out.writerow(["image", "prediction"])
    with progress(len(asked.images), "predicting") as advance:
        for names, pixels in _read(asked.images, asked.spec["size"], wrong, advance):
            with torch.inference_mode():
                predictions = predictor(torch.from_numpy(pixels).to(asked.device)).cpu().tolist()
            out.writerows([name, f"{value:.4g}"] for name, value in zip(names, predictions, strict=True))
    return wrong


def _read(files: Sequence[Path], size: int, wrong: list[str], advance: Advance) -> Iterator[tuple[list[str], NDArray[np.uint8]]]:
    """Names and pixels (B, S, S, 3), some at a time; what cannot be read goes to `wrong`."""
    for start in range(0, len(files), TOGETHER):
        some = files[start : start + TOGETHER]
        names, pixels = list[str](), list[NDArray[np.uint8]]()
        for file in some:
            try:
                pixels.append(decode(file.read_bytes(), size))
                names.append(str(file))
            except (OSError, ValueError) as error:
                wrong.append(_why(file, error))
        if names:
            yield names, np.stack(pixels)
        advance(len(some))


def _why(file: Path, error: OSError | ValueError) -> str:
    return f"{file}: {error.strerror if isinstance(error, OSError) else error}"


def _depth_maps(asked: Asked) -> list[str]:
    """A depth map for each image, at its size; returns which could not be read, and why."""
    corners = bool(asked.spec["align_corners"])  # None in runs from before it was a parameter: off then
    predictor = load_depth_predictor(asked.checkpoint, model=asked.spec["model"], width=asked.spec["width"], align_corners=corners).to(
        asked.device
    )
    names = _names(asked.images)
    with explain_os_errors(asked.folder):
        asked.folder.mkdir(parents=True, exist_ok=True)
    out, wrong = csv.writer(sys.stdout, lineterminator="\n"), list[str]()
    out.writerow(["image", "depth", "nearest", "mean", "farthest"])
    with progress(len(asked.images), "predicting") as advance:
        for file, name in zip(asked.images, names, strict=True):
            try:
                image = as_rgb(opened(file.read_bytes()))
            except (OSError, ValueError) as error:
                wrong.append(_why(file, error))
            else:
                metres = _depth_of(predictor, image, asked)
                target = asked.folder / f"{name}_depth.png"
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


BY_KIND: Mapping[Kind, Callable[[Asked], list[str]]] = {"faces": _numbers, "depth": _depth_maps}
