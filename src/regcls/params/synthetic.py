"""The section `synthetic` of params.yaml: the controlled 1D study (paper, section 2.1)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from regcls.errors import UserError
from regcls.params.types import FROM_TEXT, STRICT, Classes, Count, Method, NotNegative, OneOrMore, Optimizer, Positive, Rounding, Seed

Setting = Literal["clean", "noisy", "ood"]
Sampling = Literal["uniform", "mild", "moderate", "severe"]
Precision = Literal["float32", "float64"]


def layer_widths(text: str) -> tuple[int, int]:
    first, _, second = text.replace(",", "x").partition("x")
    if not (first.isdecimal() and second.isdecimal()):
        raise ValueError("write the units of two layers, as in 6x15")
    return int(first), int(second)


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
class SyntheticData:
    """What `prepare` draws (protocol, section 2.1)."""

    functions: OneOrMore[tuple[Annotated[float, Field(allow_inf_nan=False)], Count]]
    data_seeds: OneOrMore[Seed]
    repetitions: Count
    samples: Annotated[int, Field(ge=18432)]  # two from each of 1024 bins of y, in three regions of three splits
    settings: OneOrMore[Setting]
    samplings: OneOrMore[Sampling]
    peak_width: PeakWidth
    peak_share: Literal["released"] | Annotated[float, Field(gt=0, lt=1)]
    noise: OneOrMore[Positive]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class SyntheticTraining:
    """How each network is trained (protocol, section 2.1)."""

    hidden: Annotated[tuple[Count, ...], Field(min_length=2, max_length=2)]
    epochs: Count
    batch_size: Count
    optimizer: Optimizer
    weight_decay: NotNegative
    learning_rate: BySetting
    lam: Annotated[BySetting, Field(alias="lambda")]
    rounding: Rounding
    precision: Precision
    seeds: OneOrMore[Seed]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class SyntheticRun:
    """The run that `regcls run synthetic` trains where no option says otherwise."""

    setting: Setting
    sampling: Sampling
    noise: Positive
    method: Method
    classes: Classes
    repetition: Annotated[int, Field(ge=0)]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class SyntheticOptions:
    """What may be said of a single run on the command line; None leaves it to params.yaml."""

    setting: Setting | None = None
    sampling: Sampling | None = None
    noise: Positive | None = None
    method: Method | None = None
    classes: Classes | None = None
    lam: Annotated[Positive | None, Field(alias="lambda")] = None
    rounding: Rounding | None = None
    repetition: Annotated[int, Field(ge=0)] | None = None
    seed: Seed | None = None
    hidden: Annotated[tuple[Count, Count] | None, BeforeValidator(layer_widths)] = None
    epochs: Count | None = None
    batch_size: Count | None = None
    optimizer: Optimizer | None = None
    learning_rate: Positive | None = None
    weight_decay: NotNegative | None = None
    precision: Precision | None = None
    __pydantic_config__ = FROM_TEXT


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every combination is one run. `reg` has neither classes nor λ: once for each data set."""

    settings: OneOrMore[Setting]
    samplings: OneOrMore[Sampling]
    noise: OneOrMore[Positive]
    methods: OneOrMore[Method]
    classes: OneOrMore[Classes]
    lambdas: Literal["default"] | OneOrMore[Positive]
    repetitions: Count
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """The controlled 1D study."""

    data: SyntheticData
    training: SyntheticTraining
    run: SyntheticRun
    grids: Annotated[dict[str, Grid], Field(min_length=1)]
    __pydantic_config__ = STRICT


def check_synthetic(path: Path, synthetic: Synthetic) -> None:
    """Raise a UserError where values that are right one by one do not fit each other."""
    data, training = synthetic.data, synthetic.training
    for key, seeds in (("data.data_seeds", data.data_seeds), ("training.seeds", training.seeds)):
        if data.repetitions > len(seeds):
            raise UserError(
                f"{path}: synthetic.data.repetitions = {data.repetitions}, but synthetic.{key} has {len(seeds)} seeds: one is needed each"
            )
    if "uniform" not in data.samplings:
        raise UserError(f"{path}: synthetic.data.samplings must hold 'uniform': every network is validated and tested on the uniform sets")
    if synthetic.run.repetition >= data.repetitions:
        raise UserError(f"{path}: synthetic.run.repetition = {synthetic.run.repetition}, but only 0 to {data.repetitions - 1} are prepared")
    for name, grid in synthetic.grids.items():
        where = f"{path}: synthetic.grids.{name}"
        if grid.repetitions > data.repetitions:
            raise UserError(f"{where}.repetitions = {grid.repetitions}, but synthetic.data.repetitions prepares {data.repetitions}")
        for key, asked, prepared in (
            ("settings", grid.settings, data.settings),
            ("samplings", grid.samplings, data.samplings),
            ("noise", grid.noise if "noisy" in grid.settings else (), data.noise),
        ):
            if missing := [value for value in asked if value not in prepared]:
                raise UserError(f"{where}.{key} asks for {missing}, but synthetic.data.{key} prepares only {list(prepared)}")
