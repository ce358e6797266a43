"""Sections of tables in params.yaml: a number for each row, from its other columns."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from regcls.choices import Activation, Rounding
from regcls.errors import UserError
from regcls.methods import canonical, in_words
from regcls.params.shots import DensityShots
from regcls.params.single import growing
from regcls.params.types import (
    FROM_TEXT,
    STRICT,
    BatchSize,
    Classes,
    Count,
    Epochs,
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

FORMATS = (".csv", ".tsv", ".txt", ".csv.gz", ".parquet", ".feather", ".npy", ".npz")  # of the raw file
HGB = "hgb"  # gradient-boosted trees beside the networks, for reference
TableMethod = Annotated[str, AfterValidator(partial(canonical, also=(HGB,)))]
Name = Annotated[str, Field(min_length=1)]  # of a column


def _known_format(name: str) -> str:
    if not name.lower().endswith(FORMATS) or Path(name).name != name:
        raise ValueError(f"write the name of a file that ends in {', '.join(FORMATS)}")
    return name


@dataclass(frozen=True, kw_only=True)
class TableData:
    """What `prepare` reads, and how it splits the rows."""

    source: Literal["raw", "diabetes"]
    archives: tuple[Name, ...]
    file: Annotated[str, AfterValidator(_known_format)]
    target: Name  # a column; its name in reports
    unit: str  # of the target, in reports; may be empty
    nominal: tuple[Name, ...]
    ignore: tuple[Name, ...]
    split: Name | None  # a column
    group: Name | None  # a column
    folds: Literal["auto"] | Annotated[int, Field(ge=1, le=100)]
    repeats: Annotated[int, Field(ge=1, le=100)]
    split_seed: Seed
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class TableTraining:
    """How each network is trained, on standardised targets."""

    hidden: Annotated[tuple[Units, ...], Field(min_length=2, max_length=2)]
    activation: Activation
    lam: Annotated[Positive, Field(alias="lambda")]
    rounding: Rounding
    optimizer: Optimizer
    learning_rate: Positive
    weight_decay: NotNegative
    epochs: Epochs
    milestones: Annotated[tuple[Count, ...], AfterValidator(growing)]
    decay: Annotated[float, Field(gt=0, le=1)]
    batch_size: BatchSize
    precision: Precision
    seeds: OneOrMore[Seed]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class TableRun:
    """The run that `regcls run` trains by default."""

    method: TableMethod
    classes: Classes
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class TableGrid:
    """A grid of runs, one per combination. Not all methods have classes and λ. `seeds: 0` disables the grid."""

    methods: OneOrMore[TableMethod]
    classes: OneOrMore[Classes]
    lambdas: Literal["default"] | OneOrMore[Positive]
    seeds: Natural
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Tables(Section):
    """A table whose rows have one target each."""

    published: None
    data: TableData
    training: TableTraining
    shots: DensityShots
    negligible: Positive  # percent of reg's error: a difference within it counts as none
    run: TableRun
    grids: Annotated[dict[str, TableGrid], Field(min_length=1)]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Command-line options of a single run; None: as in params.yaml."""

    method: TableMethod | None = None
    classes: Classes | None = None
    lam: Annotated[Positive | None, Field(alias="lambda")] = None
    activation: Activation | None = None
    rounding: Rounding | None = None
    seed: Seed | None = None
    hidden: Annotated[tuple[Units, Units] | None, BeforeValidator(layer_widths)] = None
    epochs: Epochs | None = None
    batch_size: BatchSize | None = None
    optimizer: Optimizer | None = None
    learning_rate: Positive | None = None
    weight_decay: NotNegative | None = None
    precision: Precision | None = None
    __pydantic_config__ = FROM_TEXT


def check(path: Path, name: str, table: Tables) -> None:
    """Raise a UserError if valid values contradict each other."""
    data, seeds = table.data, len(table.training.seeds)
    if data.folds == 2:
        raise UserError(f"{path}: {name}.data.folds = 2: each part needs rows for training, validation and test; write 1, or 3 or more")
    if data.split and (data.folds != "auto" or data.repeats > 1):
        raise UserError(f"{path}: {name}.data.split names a column, so that folds: auto and repeats: 1 are the only choice")
    if data.folds == 1 and data.repeats > 1:
        raise UserError(f"{path}: {name}.data.repeats = {data.repeats} needs folds: auto, or 3 or more")
    for key in ("split", "group"):
        if getattr(data, key) == data.target:
            raise UserError(f"{path}: {name}.data.{key} = {data.target} is the target")
    table.shots.check(path, name)
    if not any(grid.seeds for grid in table.grids.values()):
        raise UserError(f"{path}: {name}.grids: every grid has seeds: 0, so there is nothing to train")
    for key, grid in table.grids.items():
        if grid.seeds > seeds:
            raise UserError(f"{path}: {name}.grids.{key}.seeds = {grid.seeds}, but {name}.training.seeds has only {seeds}")


def _defaults(table: Tables) -> dict[str, str]:
    training = table.training
    return plain(training) | plain(table.run) | {
        "lambda": f"{training.lam:g}",
        "seed": str(training.seeds[0]),
        "hidden": "x".join(map(str, training.hidden)),
        "precision": f"{training.precision} (float32 or float64)",
    }  # fmt: skip


PARAMS = TaskParams(
    section=Tables,
    options=TableOptions,
    check=check,
    defaults=_defaults,
    purposes={
        "method": f"{HGB} (gradient-boosted trees), {in_words()}",
        "hidden": "units of the two hidden layers, as in 64x32",
        "activation": "relu or sigmoid",
        "seed": "of initial weights and order",
    },
    example="--method reg+cls --classes 50 --lambda 10.0",
    own="a table with a target in each row: .csv, .tsv, .txt, .parquet, .feather, .npz, .npy",
)
