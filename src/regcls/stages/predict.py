"""A tracked run and new images -> predictions."""

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from regcls.datasets.images import decode
from regcls.errors import UserError
from regcls.params import FACES, Params
from regcls.progress import Advance, progress, say
from regcls.runs.faces import FaceSpec
from regcls.tracking.run_table import typed
from regcls.tracking.tracker import Tracker
from regcls.training.checkpoint import load_predictor
from regcls.training.device import device_for
from regcls.training.faces_study import BEST, LAST

TOGETHER = 64  # images


def predict(params: Params, root: Path, run: str, images: Sequence[Path], *, checkpoint: Literal["best", "last"]) -> None:
    """Print, as csv, the prediction of a run for each image; what cannot be read is named and left out.

    Raises:
        UserError: no such run or not one on faces, no image that can be read, or some that cannot (after the others are printed).
    """
    tracker = Tracker(root, experiment=params.tracking.experiment)
    row = tracker.find(run)
    run_id = row.run_id
    if (what := row.params.get("dataset", "no data set of ours")) not in FACES:
        raise UserError(f"run {run_id} is on {what}: images can only be given to a run on {' or '.join(FACES)}")
    spec = typed(row.params, FaceSpec)
    device = device_for(params.compute.device)
    with TemporaryDirectory() as folder:
        file = tracker.files.fetch(run_id, {"best": BEST, "last": LAST}[checkpoint], Path(folder))
        predictor = load_predictor(file, model=spec["model"], width=spec["width"]).to(device)
    out, wrong = csv.writer(sys.stdout, lineterminator="\n"), list[str]()
    out.writerow(["image", "prediction"])
    with progress(len(images), "predicting") as advance:
        for names, pixels in _read(images, spec["size"], wrong, advance):
            with torch.inference_mode():
                predictions = predictor(torch.from_numpy(pixels).to(device)).cpu().tolist()
            out.writerows([name, f"{value:.4g}"] for name, value in zip(names, predictions, strict=True))
    for line in wrong:
        say(line)
    if wrong:
        raise UserError(f"{len(wrong)} of {len(images)} images could not be read; they are named above")


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
                wrong.append(f"{file}: {error.strerror if isinstance(error, OSError) else error}")
        if names:
            yield names, np.stack(pixels)
        advance(len(some))
