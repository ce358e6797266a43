"""Predict a number for each of some new images with a tracked run."""

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from regcls.data.archives import Place
from regcls.data.images import decode
from regcls.errors import UserError
from regcls.progress import Advance, progress
from regcls.tasks.task import PredictRequest
from regcls.training.checkpoint import load_predictor

BATCH = 64  # images


def predict(request: PredictRequest) -> list[str]:
    """Print a prediction for each image; return the images that could not be read, with reasons.

    Raises:
        UserError: an output folder is given, but nothing is written to files.
    """
    if request.folder is not None:
        raise UserError(
            f"run {request.run_id} is on images: its predictions are printed, not written to files. Leave out --folder {request.folder}."
        )
    spec = request.spec  # a run of an earlier version has neither `targets` nor `bits`: they were raw and 16
    standardised = spec["targets"] == "standardised"
    predictor = load_predictor(request.checkpoint(), model=spec["model"], width=spec["width"], standardised=standardised).to(request.device)
    out, unreadable = csv.writer(sys.stdout, lineterminator="\n"), list[str]()
    out.writerow(["image", "prediction"])
    with progress(len(request.images), "predicting") as advance:
        decoded = partial(decode, size=spec["size"], exif=bool(spec["exif"]), bits=spec["bits"] or 16)
        for names, pixels in _read(request.images, decoded, unreadable, advance):
            with torch.inference_mode():
                predictions = predictor(torch.from_numpy(pixels).to(request.device)).cpu().tolist()
            out.writerows([name, float(f"{value:.7g}")] for name, value in zip(names, predictions, strict=True))
    return unreadable


def _read(
    files: Sequence[Path], decoded: Callable[[bytes], NDArray[np.uint8]], unreadable: list[str], advance: Advance
) -> Iterator[tuple[list[str], NDArray[np.uint8]]]:
    """Yield file names and pixels (B, S, S, 3) in batches; append files that cannot be read to `unreadable`."""
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        names, pixels = list[str](), list[NDArray[np.uint8]]()
        for file in batch:
            try:
                pixels.append(decoded(Place(str(file)).read()))
                names.append(str(file))
            except ValueError as error:
                unreadable.append(f"{file}: {error}")
        if names:
            yield names, np.stack(pixels)
        advance(len(batch))
