"""A tracked run and new images -> predictions: a number an image, or a depth map."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from regcls.errors import UserError
from regcls.params import Params
from regcls.pipeline.recorded import task_of
from regcls.progress import say
from regcls.tasks.task import Asked
from regcls.tracking.run_table import typed
from regcls.tracking.tracker import Tracker
from regcls.training.device import device_for
from regcls.training.single import BEST, LAST


def predict(
    params: Params, root: Path, run: str, images: Sequence[Path], *, checkpoint: Literal["best", "last"], folder: Path | None = None
) -> None:
    """Print, as csv, the prediction of a run for each image; what cannot be read is named and left out.

    `folder`: for the files of a run on depth, see tasks/depth/predict.py.

    Raises:
        UserError: no such run or not one on images, no image that can be read, or some that cannot (after the others are printed).
    """
    tracker = Tracker(root, experiment=params.tracking.experiment)
    row = tracker.find(run)
    task = task_of(row)
    with TemporaryDirectory() as aside:
        asked = Asked(
            run_id=row.run_id,
            spec=typed(row.params, task.spec_type),
            checkpoint=lambda: tracker.files.fetch(row.run_id, {"best": BEST, "last": LAST}[checkpoint], Path(aside)),
            device=device_for(params.compute.device),
            images=images,
            folder=folder,
        )
        wrong = task.predict(asked)
    for line in wrong:
        say(line)
    if wrong:
        raise UserError(f"{len(wrong)} of {len(images)} images could not be read; they are named above")
