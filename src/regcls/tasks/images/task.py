"""Images, each with one number to predict."""

from pathlib import Path

from regcls.reports import faces
from regcls.reports.report import Report
from regcls.runs.grids import MakeSpec, single_spec
from regcls.tasks.images import predict
from regcls.tasks.images.code import result_code
from regcls.tasks.images.data import ImageSet
from regcls.tasks.images.params import ImageOptions, Images
from regcls.tasks.images.prepare import counts, prepare
from regcls.tasks.images.runs import ImageSpec, make_spec
from regcls.tasks.images.stand_in import write_archives
from regcls.tasks.images.train import ImageJob, model_of, train_run
from regcls.tasks.single import SingleTask
from regcls.tasks.task import Asked, Sources
from regcls.training.single import Making

PREDICTIONS = "predictions.parquet"  # a file of every run


class ImagesTask(SingleTask[Images, ImageSpec, ImageSet]):
    """See `task.Task`."""

    spec_type = ImageSpec
    data_type = ImageSet
    error = ("test MAE", "test_mae_all")

    def prepare(self, section: Images, folder: Path, *, raw: Path, dataset: str, processes: int) -> list[str]:
        prepare(section.data, folder, raw=raw, dataset=dataset, processes=processes)
        return counts(folder, many_above=section.shots.many_above, few_below=section.shots.few_below)

    def write_stand_in(self, section: Images, folder: Path, *, processes: int) -> str:
        write_archives(folder, section.data.stand_in, size=section.data.size, processes=processes)
        return f"{section.data.stand_in.images} portraits"

    def make_spec(self) -> MakeSpec[Images, ImageSpec]:
        return make_spec

    def making(self, section: Images, root: Path) -> Making:
        return Making(
            spec=ImageSpec, code=self.code(), job=ImageJob, train=train_run, model=model_of, score="val_mse_all", unlogged="val_n_"
        )

    def misfit(self, spec: ImageSpec, data: ImageSet) -> str | None:
        if data.size == spec.size:
            return None
        return f"the images here are of {data.size} pixels, the run's of {spec.size}"

    def code(self) -> str:
        return result_code()

    def single_spec(self, section: Images, dataset: str, options: ImageOptions) -> ImageSpec:
        return single_spec(make_spec, section, dataset, options)

    def report(self, sources: Sources) -> Report:
        found, fingerprints = self.wanted(sources)
        return faces.report(
            params=sources.params,
            dataset=sources.dataset,
            runs=sources.runs,
            links=sources.tracker,
            provenance=sources.provenance,
            fingerprints=fingerprints,
            found=found,
            predictions=sources.table(PREDICTIONS),
            training_counts=sources.data.training_counts(),
            counts={"images": len(sources.data.prepared.table)},
        )

    def predict(self, asked: Asked) -> list[str]:
        return predict.predict(asked)


TASK = ImagesTask()
