"""Sections of 1D functions in params.yaml: the controlled study (paper, section 2.1)."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from regcls.choices import Rounding
from regcls.errors import UserError
from regcls.params.types import (
    FROM_TEXT,
    STRICT,
    BatchSize,
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
    Precision,
    Section,
    Seed,
    TaskParams,
    Units,
    layer_widths,
    plain,
)

Hidden = Annotated[tuple[Units, ...], Field(min_length=2, max_length=2)]
Scale = Annotated[float, Field(ge=1e-12, le=1e12)]  # beyond, Adam's averages over- or underflow in float32
Setting = Literal["clean", "noisy", "ood"]
PAPERS = ("figure3", "figure4", "figure5")  # grids with figures and tables of their own
Sampling = Literal["uniform", "mild", "moderate", "severe"]


@dataclass(frozen=True, kw_only=True)
class BySetting:
    """A number for each setting of the 1D study."""

    clean: Positive
    noisy: Positive
    ood: Positive
    __pydantic_config__ = STRICT

    def __getitem__(self, setting: Setting) -> float:
        return float(getattr(self, setting))


@dataclass(frozen=True, kw_only=True)
class PeakWidth:
    """Half the width of the peak region, as a share of the range of y."""

    mild: Annotated[float, Field(gt=0, le=1)]
    moderate: Annotated[float, Field(gt=0, le=1)]
    severe: Annotated[float, Field(gt=0, le=1)]
    __pydantic_config__ = STRICT

    def __getitem__(self, sampling: Sampling) -> float:
        return float(getattr(self, sampling))


@dataclass(frozen=True, kw_only=True)
class FunctionData:
    """What `prepare` draws (protocol, section 2.1)."""

    functions: OneOrMore[tuple[Finite, Count]]
    data_seeds: OneOrMore[Seed]
    repetitions: Count
    samples: Annotated[int, Field(ge=18432, le=10**9)]  # at least two from each of 1024 bins of y, in three regions of three splits
    settings: OneOrMore[Setting]
    samplings: OneOrMore[Sampling]
    peak_width: PeakWidth
    peak_share: Literal["released"] | Annotated[float, Field(gt=0, lt=1)]
    noise: OneOrMore[Positive]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class FunctionTraining:
    """How each network is trained (protocol, section 2.1)."""

    hidden: Hidden
    epochs: Epochs
    batch_size: BatchSize
    optimizer: Optimizer
    weight_decay: NotNegative
    scale: Scale
    learning_rate: BySetting
    lam: Annotated[BySetting, Field(alias="lambda")]
    rounding: Rounding
    precision: Precision
    seeds: OneOrMore[Seed]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class FunctionRun:
    """The run that `regcls run` trains by default."""

    setting: Setting
    sampling: Sampling
    noise: Positive
    method: Method
    classes: Classes
    repetition: Natural
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class FunctionOptions:
    """Command-line options of a single run; None: as in params.yaml."""

    setting: Setting | None = None
    sampling: Sampling | None = None
    noise: Positive | None = None
    method: Method | None = None
    classes: Classes | None = None
    lam: Annotated[Positive | None, Field(alias="lambda")] = None
    rounding: Rounding | None = None
    repetition: Natural | None = None
    seed: Seed | None = None
    hidden: Annotated[tuple[Units, Units] | None, BeforeValidator(layer_widths)] = None
    epochs: Epochs | None = None
    batch_size: BatchSize | None = None
    optimizer: Optimizer | None = None
    learning_rate: Positive | None = None
    weight_decay: NotNegative | None = None
    precision: Precision | None = None
    scale: Scale | None = None
    extra_loss: bool | None = None
    __pydantic_config__ = FROM_TEXT


@dataclass(frozen=True, kw_only=True)
class Varied:
    """Training values that a grid varies, each combined with all others; None: as in `training`."""

    hidden: OneOrMore[Hidden] | None = None
    optimizer: OneOrMore[Optimizer] | None = None
    learning_rate: OneOrMore[Positive] | None = None
    weight_decay: OneOrMore[NotNegative] | None = None
    scale: OneOrMore[Scale] | None = None
    __pydantic_config__ = STRICT

    def combinations(self) -> list[dict[str, Any]]:
        """Values by name, a dict for each combination."""
        lists = {name: values for name, values in vars(self).items() if values is not None}
        return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


@dataclass(frozen=True, kw_only=True)
class FunctionGrid:
    """A grid of runs, one per combination. `reg` has neither classes nor λ and runs once per data set."""

    settings: OneOrMore[Setting]
    samplings: OneOrMore[Sampling]
    noise: OneOrMore[Positive]
    methods: OneOrMore[Method]
    classes: OneOrMore[Classes]
    lambdas: Literal["default"] | OneOrMore[Positive]
    repetitions: Count
    vary: Varied = Varied()
    extra_loss: bool = False  # measure likelihoods while training

    @property
    def varies(self) -> bool:
        """Whether it varies training values."""
        return self.vary != Varied()

    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Functions(Section):
    """The controlled 1D study."""

    published: Literal["functions"] | None
    data: FunctionData
    training: FunctionTraining
    run: FunctionRun
    grids: Annotated[dict[str, FunctionGrid], Field(min_length=1)]
    __pydantic_config__ = STRICT


def check(path: Path, name: str, functions: Functions) -> None:
    """Raise a UserError if valid values contradict each other."""
    data, training = functions.data, functions.training
    for key, seeds in (("data.data_seeds", data.data_seeds), ("training.seeds", training.seeds)):
        if data.repetitions > len(seeds):
            raise UserError(
                f"{path}: {name}.data.repetitions = {data.repetitions}, but {name}.{key} has {len(seeds)} seeds: each needs its own"
            )
    if "uniform" not in data.samplings:
        raise UserError(f"{path}: {name}.data.samplings must include 'uniform': all networks are validated and tested on the uniform sets")
    run = functions.run
    for axis, wanted, available in (("setting", run.setting, data.settings), ("sampling", run.sampling, data.samplings)):
        if wanted not in map(str, available):
            raise UserError(f"{path}: {name}.run.{axis} = {wanted!r}, but {name}.data.{axis}s prepares only {list(available)}")
    if functions.run.repetition >= data.repetitions:
        raise UserError(f"{path}: {name}.run.repetition = {functions.run.repetition}, but only 0 to {data.repetitions - 1} are prepared")
    for key, grid in functions.grids.items():
        where = f"{path}: {name}.grids.{key}"
        if key in PAPERS and grid.varies:
            raise UserError(f"{where}.vary: the paper's figures have one value of each; give the grid another name")
        if grid.extra_loss:
            _check_extra(where, grid)
        if grid.repetitions > data.repetitions:
            raise UserError(f"{where}.repetitions = {grid.repetitions}, but {name}.data.repetitions prepares {data.repetitions}")
        for axis, requested, prepared in (
            ("settings", grid.settings, data.settings),
            ("samplings", grid.samplings, data.samplings),
            ("noise", grid.noise if "noisy" in grid.settings else (), data.noise),
        ):
            if missing := [value for value in requested if value not in prepared]:
                raise UserError(f"{where}.{axis} asks for {missing}, but {name}.data.{axis} prepares only {list(prepared)}")


def _check_extra(where: str, grid: FunctionGrid) -> None:
    """Raise a UserError if the report cannot say what L_extra of this grid means: it is defined for uniform classes, beside reg."""
    if set(grid.methods) != {"reg", "reg+cls"}:
        raise UserError(f"{where}.extra_loss compares reg+cls with reg: set methods to [reg, reg+cls]")
    if grid.lambdas != "default" and len(grid.lambdas) > 1:
        raise UserError(f"{where}.extra_loss takes one λ: set lambdas to default, or to a list of one")
    if grid.varies:
        raise UserError(f"{where}.extra_loss and vary exclude each other: make two grids of it")


def _defaults(functions: Functions) -> dict[str, str]:
    run, training, data = functions.run, functions.training, functions.data
    by_setting = "{0.clean:g} (clean), {0.noisy:g} (noisy), {0.ood:g} (ood)"
    seeds = ", ".join(map(str, training.seeds[: data.repetitions]))
    return plain(training) | plain(run) | {
        "noise": f"{run.noise:g} (prepared: {', '.join(map(str, data.noise))})",
        "lambda": by_setting.format(training.lam),
        "repetition": f"{run.repetition} (prepared: 0 to {data.repetitions - 1})",
        "seed": f"that of the repetition ({seeds})",
        "hidden": "x".join(map(str, training.hidden)),
        "learning_rate": by_setting.format(training.learning_rate),
        "precision": f"{training.precision} (float32 or float64)",
        "scale": f"{training.scale:g}",
        "extra_loss": "false",
    }  # fmt: skip


PARAMS = TaskParams(
    section=Functions,
    options=FunctionOptions,
    check=check,
    defaults=_defaults,
    purposes={
        "setting": "clean, noisy or ood (training, validation and test from different ranges of x)",
        "sampling": "how imbalanced the training targets are: uniform, mild, moderate or severe",
        "noise": "σ of the noise on the targets, if the setting is noisy",
        "repetition": "index of the draw of the data, with its seeds",
        "hidden": "units of the two hidden layers, as in 6x15",
        "seed": "of initial weights and order",
        "scale": "factor of both losses",
        "extra_loss": "true: measure L_extra (Eq. 9) and likelihoods after each epoch",
    },
    example="--setting noisy --sampling severe --method reg+cls --classes 100",
)
