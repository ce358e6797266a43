"""The task of images with one target each."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from regcls.errors import UserError
from regcls.models.predictor import build
from regcls.reports.report import Report
from regcls.runs.grids import MakeSpec, single_spec
from regcls.tasks.images import own, predict, report
from regcls.tasks.images.code import result_code
from regcls.tasks.images.data import ImageSet
from regcls.tasks.images.params import ImageOptions, Images
from regcls.tasks.images.prepare import counts, prepare
from regcls.tasks.images.runs import ImageSpec, make_spec
from regcls.tasks.images.stand_in import write_archives
from regcls.tasks.images.train import SCORE, ImageJob, model_of, train_run
from regcls.tasks.single import SingleTask
from regcls.tasks.task import Draft, NewFile, PredictRequest, Sources, too_many_classes
from regcls.training.device import Place, check_device_memory, training_bytes
from regcls.training.single import Trainer
from regcls.words import counted


class ImagesTask(SingleTask[Images, ImageSpec, ImageSet]):
    """See `task.Task`."""

    spec_type = ImageSpec
    data_type = ImageSet
    error = ("test MAE", "test/mae/all")

    def draft(self, new: NewFile) -> Draft:
        return own.draft(new)

    def prepare(self, section: Images, folder: Path, *, raw: Path, dataset: str, processes: int) -> list[str]:
        prepare(section.data, folder, raw=raw, dataset=dataset, processes=processes)
        return counts(folder, section.shots)

    def write_stand_in(self, section: Images, folder: Path, *, processes: int) -> str:
        if section.data.layout != "imdb-wiki":
            raise UserError(f"there is no generated stand-in for layout {section.data.layout}; docs/own-data.md shows its files")
        folder.mkdir(parents=True, exist_ok=True)
        write_archives(folder, section.data.stand_in, size=section.data.size, processes=processes)
        return f"{section.data.stand_in.images} portraits"

    def make_spec(self) -> MakeSpec[ImageSpec]:
        return make_spec

    def trainer(self, section: Images, root: Path) -> Trainer:
        return Trainer(
            spec=ImageSpec,
            code=self.code(),
            job=partial(ImageJob, shots=section.shots),
            train=train_run,
            model=model_of,
            score=SCORE,
            ready=_check_memory,
            unlogged="val/n/",
        )

    def sizes(self, section: Images) -> list[tuple[Any, int]]:
        """The section, and with images of half and a quarter of their sides."""
        full, pad = section.data.size, section.training.pad
        sides = [full, *(side for side in (full // 2, full // 4) if side >= own.SMALLEST_SIDE)]
        data, training = section.data, section.training
        return [
            (replace(section, data=replace(data, size=side), training=replace(training, pad=pad * side // full)), side) for side in sides
        ]

    def misfit(self, spec: ImageSpec, data: ImageSet) -> str | None:
        if data.size != spec.size:
            return f"the images here are {data.size} pixels wide, the run's {spec.size}"
        targets = data.targets("train")
        if targets.min() == targets.max():  # also of a single image, on which batch norm fails
            return f"there is nothing to learn, since all training targets are {targets[0]:g} ({counted(len(targets), 'image')})"
        low, high = spec.class_range or (-math.inf, math.inf)
        outside = int(((targets < low) | (targets > high)).sum())
        if low < high and outside > len(targets) / 2:  # else the run has no classes
            return (
                f"{outside:,} of {len(targets):,} training targets are outside of its class range, {low:g} to {high:g}: set "
                "training.class_range to data, or to the range of the targets, in params.yaml"
            )
        return too_many_classes(spec, len(targets), "training images")

    def code(self) -> str:
        return result_code()

    def single_spec(self, section: Images, dataset: str, options: ImageOptions) -> ImageSpec:
        return single_spec(make_spec, section, dataset, options)

    def report(self, sources: Sources) -> Report:
        best_lambdas, fingerprints = self.wanted(sources)
        return report.report(sources, fingerprints=fingerprints, best_lambdas=best_lambdas)

    def predict(self, request: PredictRequest) -> list[str]:
        return predict.predict(request)


def _check_memory(spec: ImageSpec, place: Place) -> None:
    needed = training_bytes(lambda: build(spec.model, width=spec.width, classes=spec.classes))
    check_device_memory(needed, f"training {spec.name}", place)


TASK = ImagesTask()
