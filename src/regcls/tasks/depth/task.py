"""The task of depth from one image: a number for each pixel."""

import math
from functools import cache, partial
from pathlib import Path

from regcls.models.pretrained import load_pretrained
from regcls.reports.report import Report
from regcls.runs.grids import MakeSpec
from regcls.tasks.depth import own, predict, report
from regcls.tasks.depth.class_head import CHUNK
from regcls.tasks.depth.code import result_code
from regcls.tasks.depth.data import DepthSet
from regcls.tasks.depth.model import build_depth
from regcls.tasks.depth.params import Depth, DepthOptions
from regcls.tasks.depth.prepare import counts, prepare
from regcls.tasks.depth.runs import DepthSpec, make_spec, single_depth_spec
from regcls.tasks.depth.stand_in import write_archive
from regcls.tasks.depth.train import SELECTIONS, DepthJob, model_of, train_run
from regcls.tasks.single import SingleTask
from regcls.tasks.task import Draft, NewFile, PredictRequest, Sources
from regcls.tracking.store import project_root
from regcls.training.device import Device, Place, check_device_memory, training_bytes
from regcls.training.single import Trainer
from regcls.training.weights import weights_digest, weights_file


class DepthTask(SingleTask[Depth, DepthSpec, DepthSet]):
    """See `task.Task`."""

    spec_type = DepthSpec
    data_type = DepthSet
    error = ("test RMSE", "test/rmse/all")

    def draft(self, new: NewFile) -> Draft:
        return own.draft(new)

    def prepare(self, section: Depth, folder: Path, *, raw: Path, dataset: str, processes: int) -> list[str]:
        prepare(section.data, folder, raw=raw, dataset=dataset, processes=processes)
        return counts(folder, section.shots)

    def write_stand_in(self, section: Depth, folder: Path, *, processes: int) -> str:
        stand_in = section.data.stand_in
        folder.mkdir(parents=True, exist_ok=True)
        write_archive(folder, stand_in, short_side=section.data.short_side, processes=processes)
        return f"{stand_in.images} views of {stand_in.scenes} rooms, and {stand_in.test_images} for the test"

    def make_spec(self) -> MakeSpec[DepthSpec]:
        return make_spec

    def trainer(self, section: Depth, root: Path) -> Trainer:
        """The trainer of depth runs; ImageNet weights are stored in the project's .regcls/weights."""
        folder = project_root(root) / ".regcls" / "weights"

        @cache
        def check_weights(weights: str, model: str, width: int) -> None:
            load_pretrained(build_depth(model, width=width, classes=0, align_corners=True).encoder, weights_file(weights, folder))

        def ready(spec: DepthSpec, place: Place) -> None:
            needed = training_bytes(lambda: build_depth(spec.model, width=spec.width, classes=spec.classes, align_corners=True))
            check_device_memory(needed + head_bytes(spec.classes, place.device), f"training {spec.name}", place)
            if spec.weights != "random":
                check_weights(spec.weights, spec.model, spec.width)

        return Trainer(
            spec=DepthSpec,
            code=self.code(),
            job=partial(DepthJob, weights_folder=folder, shots=section.shots, unit=section.data.unit),
            train=train_run,
            model=model_of,
            score=SELECTIONS["val"],
            origin=self.origin,
            ready=ready,
            unlogged="val/n/",
        )

    def origin(self, spec: DepthSpec) -> str:
        """Digest of the encoder's initial weights, as far as the spec does not determine them."""
        return weights_digest(spec.weights)

    def misfit(self, spec: DepthSpec, data: DepthSet) -> str | None:
        if tuple(data.crop) != spec.crop:
            return f"the images here are cropped to {data.crop} pixels, the run's to {spec.crop}"
        low, high = spec.class_range or (-math.inf, math.inf)
        pixels, depths = data.levels("train")[1:], data.depths[1:]
        outside, measured = int(pixels[(depths < low) | (depths > high)].sum()), int(pixels.sum())
        if low < high and outside > measured / 2:  # else the run has no classes
            return (
                f"{outside:,} of {measured:,} training pixels are outside of its class range, {low:g} to {high:g}: set "
                "training.class_range to data, or to the range of the depths, in params.yaml"
            )
        return None

    def code(self) -> str:
        return result_code()

    def single_spec(self, section: Depth, dataset: str, options: DepthOptions) -> DepthSpec:
        return single_depth_spec(section, dataset, options)

    def report(self, sources: Sources) -> Report:
        best_lambdas, fingerprints = self.wanted(sources)
        return report.report(sources, fingerprints=fingerprints, best_lambdas=best_lambdas)

    def predict(self, request: PredictRequest) -> list[str]:
        return predict.predict(request)


def head_bytes(classes: int, device: Device) -> int:
    """Memory for the logits of a chunk: four pixels of each position, in float32, four times, gradients included."""
    return 4 * 4 * 4 * CHUNK[device] * classes


TASK = DepthTask()
