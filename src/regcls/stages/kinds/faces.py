"""Faces, and images with a number each at large."""

from functools import cache
from pathlib import Path

from regcls.datasets.images import ImageSet
from regcls.params import Params
from regcls.params.faces import FaceOptions, Faces
from regcls.provenance import code_digest
from regcls.runs import RunSpec
from regcls.runs.faces import FaceSpec, make_spec
from regcls.runs.images import MakeSpec, single_spec
from regcls.stages.kinds.images import ImageKind
from regcls.training.faces import FaceJob, model_of, train_run
from regcls.training.single import Making

PREDICTIONS = "predictions.parquet"  # a file of every run
# What decides a result next to the spec and the data, with the heads and the ResNet below them.
MODULES = (
    "classes",
    "datasets.images",
    "datasets.splits",
    "losses",
    "metrics",
    "models.predictor",
    "training.augment",
    "training.faces",
    "training.feed",
    "training.loop",
)


@cache
def result_code() -> str:
    """Digest of the code that decides a result."""
    return code_digest("regcls.models.heads", alone=[f"regcls.{name}" for name in MODULES])


def making() -> Making:
    """How runs on faces are made."""
    return Making(spec=FaceSpec, code=result_code(), job=FaceJob, train=train_run, model=model_of, score="val_mse_all", unlogged="val_n_")


class FaceKind(ImageKind):
    """See `kind.Kind`."""

    spec_type: type[RunSpec] = FaceSpec
    error = ("test MAE", "test_mae_all")
    data_type = ImageSet

    def section(self, params: Params, dataset: str) -> Faces:
        return params.faces(dataset)

    def make_spec(self) -> MakeSpec[Faces, FaceSpec]:
        return make_spec

    def making(self, params: Params, root: Path) -> Making:
        return making()

    def misfit(self, spec: FaceSpec, data: ImageSet) -> str:
        return "" if data.size == spec.size else f"are images of {data.size} pixels, the run's of {spec.size}"

    def code(self) -> str:
        return result_code()

    def single_spec(self, params: Params, dataset: str, options: FaceOptions) -> FaceSpec:
        return single_spec(make_spec, params.faces(dataset), dataset, options)
