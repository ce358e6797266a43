"""Faces, and images with a number each at large."""

from functools import cache
from pathlib import Path

from regcls.datasets.images import ImageSet
from regcls.params import Params
from regcls.params.faces import FaceOptions
from regcls.provenance import code_digest
from regcls.runs import RunSpec
from regcls.runs.faces import FaceSpec, make_spec
from regcls.runs.images import single_spec
from regcls.stages.kinds.images import study_of
from regcls.stages.kinds.kind import Session
from regcls.training import single_study
from regcls.training.faces import FaceJob, model_of, train_run
from regcls.training.outcome import Outcome
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


class FaceKind:
    """See `kind.Kind`."""

    spec_type: type[RunSpec] = FaceSpec
    error = ("test MAE", "test_mae_all")

    def open(self, params: Params, dataset: str, folder: Path, *, verify: bool) -> ImageSet:
        return ImageSet(folder, verify=verify, made_from=params.faces(dataset).data)

    def open_as_it_is(self, folder: Path, *, verify: bool) -> ImageSet:
        return ImageSet(folder, verify=verify)

    def digest(self, spec: FaceSpec, data: ImageSet) -> str:
        return data.digest

    def misfit(self, spec: FaceSpec, data: ImageSet) -> str:
        return "" if data.size == spec.size else f"are images of {data.size} pixels, the run's of {spec.size}"

    def code(self) -> str:
        return result_code()

    def fingerprint(self, spec: FaceSpec, data: ImageSet) -> str:
        return single_study.fingerprints([spec], data, result_code())[spec]

    def single_spec(self, params: Params, dataset: str, options: FaceOptions) -> FaceSpec:
        return single_spec(make_spec, params.faces(dataset), dataset, options)

    def train_grids(self, data: ImageSet, session: Session) -> Outcome:
        study = self._study(data, session, adopt=False)
        return single_study.train_grids(make_spec, session.params.faces(session.dataset), study)

    def train_one(self, spec: FaceSpec, data: ImageSet, session: Session) -> Outcome:
        return single_study.train_runs([spec], self._study(data, session, adopt=True))

    def _study(self, data: ImageSet, session: Session, *, adopt: bool) -> single_study.Study:
        return study_of(making(), data, data.prepared.folder, len(data.rows("train")), session, adopt=adopt)
