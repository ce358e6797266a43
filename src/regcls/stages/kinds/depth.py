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
from regcls.runs.images import MakeSpec
from regcls.stages.kinds.images import ImageKind
from regcls.tracking.store import project_root
from regcls.training.depth import DepthJob, model_of, train_run
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
    "training.depth_evaluation",
    "training.depth_pixels",
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

    @cache
    def loads(weights: str, model: str, width: int) -> None:
        load_pretrained(build_depth(model, width=width, classes=0, align_corners=True).encoder, weights_file(weights, folder))

    def ready(spec: DepthSpec) -> None:
        if spec.weights != "random":
            loads(spec.weights, spec.model, spec.width)

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


class DepthKind(ImageKind):
    """See `kind.Kind`."""

    spec_type: type[RunSpec] = DepthSpec
    error = ("test RMSE", "test_rmse_all")
    data_type = DepthSet

    def section(self, params: Params, dataset: str) -> Depth:
        return params.nyud2

    def make_spec(self) -> MakeSpec[Depth, DepthSpec]:
        return make_spec

    def making(self, params: Params, root: Path) -> Making:
        return making(params.nyud2, root)

    def origin(self, spec: DepthSpec) -> str:
        return origin(spec)

    def misfit(self, spec: DepthSpec, data: DepthSet) -> str:
        return "" if tuple(data.crop) == spec.crop else f"are cut to {data.crop} pixels, the run's to {spec.crop}"

    def code(self) -> str:
        return result_code()

    def single_spec(self, params: Params, dataset: str, options: DepthOptions) -> DepthSpec:
        return single_depth_spec(params.nyud2, dataset, options)
