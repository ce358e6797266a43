"""Depth from one image."""

from functools import cache, partial
from pathlib import Path

from regcls.datasets.depth import DepthSet
from regcls.models.depth import build_depth
from regcls.models.pretrained import load_pretrained
from regcls.params import Params
from regcls.params.depth import Depth, DepthOptions
from regcls.provenance import code_digest
from regcls.runs import RunSpec
from regcls.runs.depth import DepthSpec, make_spec, single_depth_spec
from regcls.stages.kinds.images import study_of
from regcls.stages.kinds.kind import Session
from regcls.tracking.store import project_root
from regcls.training import single_study
from regcls.training.depth import DepthJob, model_of, train_run
from regcls.training.outcome import Outcome
from regcls.training.single import Making
from regcls.training.weights import weights_digest, weights_file

SUMS, EXAMPLES = "sums.parquet", "examples.npz"  # files of every run
SCORE = "val_rmse_all"
# What decides a result next to the spec and the data, with the network.
MODULES = (
    "classes",
    "datasets.depth",
    "datasets.splits",
    "depth_metrics",
    "losses",
    "models.pretrained",
    "training.augment",
    "training.depth",
    "training.depth_augment",
    "training.feed",
    "training.loop",
)


@cache
def result_code() -> str:
    """Digest of the code that decides a result."""
    return code_digest("regcls.models.depth", alone=[f"regcls.{name}" for name in MODULES])


def origin(spec: DepthSpec) -> str:
    """Digest of the weights that the encoder begins with, as far as the spec does not say it."""
    return weights_digest(spec.weights)


def making(depth: Depth, root: Path) -> Making:
    """How runs on depth are made; what they begin with is kept in the project's .regcls."""
    folder = project_root(root) / ".regcls" / "weights"

    def ready(spec: DepthSpec) -> None:
        if spec.weights != "random":
            load_pretrained(build_depth(spec.model, width=spec.width, classes=0).encoder, weights_file(spec.weights, folder))

    job = partial(DepthJob, weights_folder=folder, shots=depth.shots)
    return Making(
        spec=DepthSpec,
        code=result_code(),
        job=job,
        train=train_run,
        model=model_of,
        score=SCORE,
        origin=origin,
        ready=ready,
        unlogged="val_n_",
    )


class DepthKind:
    """See `kind.Kind`."""

    spec_type: type[RunSpec] = DepthSpec
    error = ("test RMSE", "test_rmse_all")

    def open(self, params: Params, dataset: str, folder: Path, *, verify: bool) -> DepthSet:
        return DepthSet(folder, verify=verify, made_from=params.nyud2.data)

    def open_as_it_is(self, folder: Path, *, verify: bool) -> DepthSet:
        return DepthSet(folder, verify=verify)

    def digest(self, spec: DepthSpec, data: DepthSet) -> str:
        return data.digest

    def misfit(self, spec: DepthSpec, data: DepthSet) -> str:
        return "" if tuple(data.crop) == spec.crop else f"are cut to {data.crop} pixels, the run's to {spec.crop}"

    def code(self) -> str:
        return result_code()

    def fingerprint(self, spec: DepthSpec, data: DepthSet) -> str:
        return single_study.fingerprints([spec], data, result_code(), origin)[spec]

    def single_spec(self, params: Params, dataset: str, options: DepthOptions) -> DepthSpec:
        return single_depth_spec(params.nyud2, dataset, options)

    def train_grids(self, data: DepthSet, session: Session) -> Outcome:
        return single_study.train_grids(make_spec, session.params.nyud2, self._study(data, session, adopt=False))

    def train_one(self, spec: DepthSpec, data: DepthSet, session: Session) -> Outcome:
        return single_study.train_runs([spec], self._study(data, session, adopt=True))

    def _study(self, data: DepthSet, session: Session, *, adopt: bool) -> single_study.Study:
        how = making(session.params.nyud2, session.root)
        return study_of(how, data, data.prepared.folder, len(data.rows("train")), session, adopt=adopt)
