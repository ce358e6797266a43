"""A tracked run and new images -> predictions: one number or depth map per image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from regcls.errors import UserError
from regcls.files import temporary_folder
from regcls.params import Params
from regcls.pipeline.recorded import task_of
from regcls.progress import say
from regcls.tasks.task import PredictRequest
from regcls.tracking.run_table import typed
from regcls.tracking.tracker import Tracker
from regcls.training.device import device_for
from regcls.training.single import BEST, LAST


def predict(
    params: Params, root: Path, run: str, images: Sequence[Path], *, checkpoint: Literal["best", "last"], folder: Path | None = None
) -> None:
    """Print, as CSV, the prediction of a run for each image; unreadable images are reported and skipped.

    `folder`: for the files of a run on depth, see tasks/depth/predict.py.

    Raises:
        UserError: no such run, or not a run on images; no image is readable; or some are not (after the other predictions are printed).
    """
    tracker = Tracker(root, experiment=params.tracking.experiment)
    row = tracker.find(run)
    task = task_of(row)
    with temporary_folder() as aside:
        request = PredictRequest(
            run_id=row.run_id,
            spec=typed(row.params, task.spec_type),
            checkpoint=lambda: tracker.files.fetch(row.run_id, {"best": BEST, "last": LAST}[checkpoint], aside),
            device=device_for(params.compute.device),
            images=images,
            folder=folder,
        )
        problems = task.predict(request)
    for line in problems:
        say(line)
    if problems:
        raise UserError(f"{len(problems)} of {len(images)} images could not be read; they are named above")
