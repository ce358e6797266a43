"""A tracked run and new images -> a number for each."""

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from regcls.data.images import decode, reason_of
from regcls.errors import UserError
from regcls.progress import Advance, progress
from regcls.tasks.task import Asked
from regcls.training.checkpoint import load_predictor

TOGETHER = 64  # images


def predict(asked: Asked) -> list[str]:
    """Print a number for each image; returns which could not be read, and why.

    Raises:
        UserError: a folder is named, which is of no use.
    """
    if asked.folder is not None:
        raise UserError(
            f"run {asked.run_id} is on images: its predictions are printed, no file is written. Leave out --folder {asked.folder}."
        )
    predictor = load_predictor(asked.checkpoint(), model=asked.spec["model"], width=asked.spec["width"]).to(asked.device)
    out, wrong = csv.writer(sys.stdout, lineterminator="\n"), list[str]()
    out.writerow(["image", "prediction"])
    with progress(len(asked.images), "predicting") as advance:
        for names, pixels in _read(asked.images, asked.spec["size"], wrong, advance):
            with torch.inference_mode():
                predictions = predictor(torch.from_numpy(pixels).to(asked.device)).cpu().tolist()
            out.writerows([name, float(f"{value:.6g}")] for name, value in zip(names, predictions, strict=True))
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
                wrong.append(f"{file}: {reason_of(error)}")
        if names:
            yield names, np.stack(pixels)
        advance(len(some))
