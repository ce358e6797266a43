"""Parameters shared by images and depth: runs that train one network each, and grids of such runs (paper, section 3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from regcls.choices import RegressionLoss, Rounding
from regcls.errors import UserError
from regcls.methods import has_class_loss, searched_as
from regcls.params.types import (
    FROM_TEXT,
    STRICT,
    Classes,
    Count,
    Epochs,
    Finite,
    Method,
    Natural,
    NotNegative,
    OneOrMore,
    Optimizer,
    Positive,
    Section,
    Seed,
    Share,
    Width,
)

ImageBatch = Annotated[int, Field(ge=2, le=2**16)]  # batch norm cannot take a single image
Backbone = Literal["resnet18", "resnet34", "resnet50"]
Scaling = Literal["eq4", "released"]
MixedPrecision = Literal["float32", "bf16"]

SEARCH = "lambda_search"  # the grid that determines λ for grids with `lambdas: searched`


def growing(values: tuple[float, ...]) -> tuple[float, ...]:
    """Check that `values` increase strictly, and return them.

    Raises:
        ValueError: they do not.
    """
    if list(values) != sorted(set(values)):
        raise ValueError("write the values in increasing order, each once")
    return values


@dataclass(frozen=True, kw_only=True)
class SingleTraining:
    """Training parameters shared by images and depth."""

    model: Backbone
    width: Width
    class_range: Literal["data"] | Annotated[tuple[Finite, Finite], AfterValidator(growing)]  # data: range of the training targets
    loss: RegressionLoss
    huber_delta: Positive
    loss_scaling: Scaling
    rounding: Rounding
    lam: Annotated[dict[Classes, Positive], Field(alias="lambda", min_length=1)]
    optimizer: Optimizer
    learning_rate: Positive
    weight_decay: NotNegative
    epochs: Epochs
    milestones: Annotated[tuple[Count, ...], AfterValidator(growing)]
    decay: Annotated[float, Field(gt=0, le=1)]
    batch_size: ImageBatch
    accumulate: Count
    precision: MixedPrecision
    flip: Share
    balanced_bins: Classes
    seeds: OneOrMore[Seed]
    __pydantic_config__ = STRICT

    def lam_for(self, classes: int) -> float:
        """λ of C classes, or of the listed class count nearest in ratio (the smaller one in a tie)."""
        return self.lam[min(sorted(self.lam), key=lambda listed: max(listed, classes) / min(listed, classes))]


@dataclass(frozen=True, kw_only=True)
class SingleRun:
    """The run that `regcls run <dataset>` trains by default."""

    method: Method
    classes: Classes
    balanced_data: bool
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class SingleOptions:
    """Command-line options of a single run; None: as in params.yaml."""

    method: Method | None = None
    classes: Classes | None = None
    lam: Annotated[Positive | None, Field(alias="lambda")] = None
    rounding: Rounding | None = None
    balanced_data: bool | None = None
    seed: Seed | None = None
    model: Backbone | None = None
    width: Width | None = None
    loss: RegressionLoss | None = None
    huber_delta: Positive | None = None
    loss_scaling: Scaling | None = None
    epochs: Epochs | None = None
    batch_size: ImageBatch | None = None
    accumulate: Count | None = None
    optimizer: Optimizer | None = None
    learning_rate: Positive | None = None
    weight_decay: NotNegative | None = None
    precision: MixedPrecision | None = None
    __pydantic_config__ = FROM_TEXT


@dataclass(frozen=True, kw_only=True)
class SingleGrid:
    """A grid of runs, one per combination. `reg` has neither classes nor λ and runs once per seed. `seeds: 0` disables the grid."""

    methods: OneOrMore[Method]
    classes: OneOrMore[Classes]
    balanced_data: bool
    lambdas: Literal["default", "searched"] | OneOrMore[Positive]
    seeds: Natural
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class SingleSection(Section):
    """A data set whose runs train one network each; tasks add data parameters and shot groups."""

    training: SingleTraining
    negligible: Positive  # percent of reg's error: a difference within it counts as none
    run: SingleRun
    grids: Annotated[dict[str, SingleGrid], Field(min_length=1)]
    __pydantic_config__ = STRICT


def check_grids(path: Path, name: str, grids: Mapping[str, SingleGrid], *, seeds: int) -> None:
    """Raise a UserError if a grid asks for more seeds than there are, or for a λ that is not searched for."""
    if not any(grid.seeds for grid in grids.values()):
        raise UserError(f"{path}: {name}.grids: every grid has seeds: 0, so there is nothing to train")
    for key, grid in grids.items():
        where = f"{path}: {name}.grids.{key}"
        if grid.seeds > seeds:
            raise UserError(f"{where}.seeds = {grid.seeds}, but {name}.training.seeds has only {seeds}")
        if grid.lambdas == "searched" and grid.seeds:
            _check_searched(where, name, grid, grids.get(SEARCH))
    if not isinstance(search := grids[SEARCH].lambdas if SEARCH in grids else (), tuple):
        raise UserError(f"{path}: {name}.grids.{SEARCH}.lambdas = {search!r}: list the values of λ to try")


def _check_searched(where: str, name: str, grid: SingleGrid, search: SingleGrid | None) -> None:
    if search is None or not search.seeds:
        raise UserError(f"{where}.lambdas = 'searched' needs the grid {name}.grids.{SEARCH} with at least one seed")
    # A method with balanced classes uses the λ of uniform ones if the search does not include it.
    methods = [method for method in grid.methods if has_class_loss(method) and not {method, searched_as(method)} & set(search.methods)]
    classes = [count for count in grid.classes if count not in search.classes]
    if (methods or classes) and any(map(has_class_loss, grid.methods)):
        missing = ", ".join(map(str, [*methods, *(f"{count} classes" for count in classes)]))
        raise UserError(f"{where}.lambdas = 'searched', but {name}.grids.{SEARCH} does not search λ for {missing}")


def lambdas_text(training: SingleTraining) -> str:
    """λ by class count, for help texts."""
    by_classes = ", ".join(f"{lam:g} ({classes})" for classes, lam in training.lam.items())
    return f"by classes: {by_classes}; others use that of the nearest count"


PURPOSES = {
    "balanced_data": "true: frequent targets enter both losses less often (Table 4)",
    "seed": "of initial weights, order and augmentation",
    "model": "resnet18, resnet34 or resnet50",
    "width": "channels of the first stage of the network",
    "loss": "regression loss: mae, mse or huber",
    "huber_delta": "where the Huber loss turns from quadratic to linear",
    "loss_scaling": "released (reg + cls/λ for λ <= 1) or eq4 (λ·reg + cls)",
    "accumulate": "batches per optimizer step",
}
