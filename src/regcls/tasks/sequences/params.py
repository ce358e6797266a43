"""Sections of sequences in params.yaml: progress of a video from features of its frames (paper, section 3.3)."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from regcls.choices import Activation, Rounding
from regcls.errors import UserError
from regcls.methods import canonical, has_class_loss, in_words, searched_as
from regcls.params.single import SEARCH, growing
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

ACTIVITIES = ("coffee", "cereals", "tea", "milk", "juice", "sandwich", "scrambledegg", "friedegg", "salat", "pancake")  # as in Table 5
FEATURES = 64  # per frame
Unit = Literal["percent", "frames"]
SequenceSplit = Literal["s1", "s2", "s3", "s4"]
# random is an untrained network, kukleva one with sigmoids.
SequenceMethod = Annotated[str, AfterValidator(partial(canonical, also=("random", "kukleva")))]


@dataclass(frozen=True, kw_only=True)
class SequenceStandIn:
    """Generated walks in the layout of the original archive, for use without it."""

    persons: Annotated[int, Field(ge=4, le=10**6)]  # spread over the test persons of the four splits
    frames: Annotated[int, Field(ge=40, le=10**4)]  # mean length of a video
    seed: Seed
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class SequenceData:
    """What `prepare` reads, and how it splits the videos."""

    source: Literal["raw", "stand-in"]
    archives: tuple[Annotated[str, Field(min_length=1)], ...]
    test_persons: Annotated[dict[SequenceSplit, tuple[Natural, Natural]], Field(min_length=1)]  # (first, last)
    validation_share: Annotated[float, Field(gt=0, lt=1)]
    split_seed: Seed
    expected_videos: Count | None
    stand_in: SequenceStandIn
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class ByUnit:
    """A number for each unit of the target."""

    percent: Positive
    frames: Positive
    __pydantic_config__ = STRICT

    def __getitem__(self, unit: Unit) -> float:
        return float(getattr(self, unit))


@dataclass(frozen=True, kw_only=True)
class SequenceTraining:
    """How each network is trained."""

    hidden: Annotated[tuple[Units, ...], Field(min_length=2, max_length=2)]
    activation: Activation
    lam: Annotated[ByUnit, Field(alias="lambda")]
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
class SequenceRun:
    """The run that `regcls run` trains by default."""

    method: SequenceMethod
    classes: Classes
    unit: Unit
    split: SequenceSplit
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class SequenceGrid:
    """A grid of runs, one per combination. Not all methods have classes and λ. `seeds: 0` disables the grid."""

    methods: OneOrMore[SequenceMethod]
    classes: OneOrMore[Classes]
    units: OneOrMore[Unit]
    splits: OneOrMore[SequenceSplit]
    lambdas: Literal["default", "searched"] | OneOrMore[Positive]
    seeds: Natural
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Sequences(Section):
    """A data set of videos, frame by frame."""

    published: Literal["breakfast"] | None
    data: SequenceData
    training: SequenceTraining
    run: SequenceRun
    deviation: Literal["n - 1", "n"]  # denominator of standard deviations over activities
    grids: Annotated[dict[str, SequenceGrid], Field(min_length=1)]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class SequenceOptions:
    """Command-line options of a single run; None: as in params.yaml."""

    method: SequenceMethod | None = None
    classes: Classes | None = None
    lam: Annotated[Positive | None, Field(alias="lambda")] = None
    activation: Activation | None = None
    rounding: Rounding | None = None
    unit: Unit | None = None
    split: SequenceSplit | None = None
    seed: Seed | None = None
    hidden: Annotated[tuple[Units, Units] | None, BeforeValidator(layer_widths)] = None
    epochs: Epochs | None = None
    batch_size: BatchSize | None = None
    optimizer: Optimizer | None = None
    learning_rate: Positive | None = None
    weight_decay: NotNegative | None = None
    precision: Precision | None = None
    __pydantic_config__ = FROM_TEXT


def check(path: Path, name: str, sequences: Sequences) -> None:
    """Raise a UserError if valid values contradict each other."""
    grids, splits = sequences.grids, sequences.data.test_persons
    for split, (first, last) in splits.items():
        if first > last:
            raise UserError(f"{path}: {name}.data.test_persons.{split} = [{first}, {last}] ends before it begins")
    if sequences.run.split not in splits:
        raise UserError(f"{path}: {name}.run.split = {sequences.run.split}, but {name}.data.test_persons has only {', '.join(splits)}")
    if not any(grid.seeds for grid in grids.values()):
        raise UserError(f"{path}: {name}.grids: every grid has seeds: 0, so there is nothing to train")
    for key, grid in grids.items():
        where = f"{path}: {name}.grids.{key}"
        if grid.seeds > len(sequences.training.seeds):
            raise UserError(f"{where}.seeds = {grid.seeds}, but {name}.training.seeds has only {len(sequences.training.seeds)}")
        if missing := [split for split in grid.splits if split not in splits]:
            raise UserError(f"{where}.splits asks for {', '.join(missing)}, but {name}.data.test_persons has only {', '.join(splits)}")
        if grid.lambdas == "searched" and grid.seeds:
            _check_searched(where, name, grid, grids.get(SEARCH))
    if SEARCH in grids and not isinstance(search := grids[SEARCH].lambdas, tuple):
        raise UserError(f"{path}: {name}.grids.{SEARCH}.lambdas = {search!r}: list the values of λ to try")


def _check_searched(where: str, name: str, grid: SequenceGrid, search: SequenceGrid | None) -> None:
    if search is None or not search.seeds:
        raise UserError(f"{where}.lambdas = 'searched' needs the grid {name}.grids.{SEARCH} with at least one seed")
    # A method with balanced classes uses the λ of uniform ones if the search does not include it.
    methods = [method for method in grid.methods if has_class_loss(method) and not {method, searched_as(method)} & set(search.methods)]
    classes = [count for count in grid.classes if count not in search.classes]
    # Each split needs its own search: its held-out videos are test videos of other splits.
    units_and_splits = [value for value in (*grid.units, *grid.splits) if value not in (*search.units, *search.splits)]
    if methods or classes or units_and_splits:
        missing = ", ".join(map(str, [*methods, *(f"{count} classes" for count in classes), *units_and_splits]))
        raise UserError(f"{where}.lambdas = 'searched', but {name}.grids.{SEARCH} does not search λ for {missing}")


def _defaults(sequences: Sequences) -> dict[str, str]:
    training = sequences.training
    return plain(training) | plain(sequences.run) | {
        "lambda": f"{training.lam.percent:g} (percent), {training.lam.frames:g} (frames)",
        "seed": str(training.seeds[0]),
        "hidden": "x".join(map(str, training.hidden)),
        "precision": f"{training.precision} (float32 or float64)",
    }  # fmt: skip


PARAMS = TaskParams(
    section=Sequences,
    options=SequenceOptions,
    check=check,
    defaults=_defaults,
    purposes={
        "method": f"random, kukleva (sigmoids), {in_words()}",
        "unit": "of the target: percent of the video, or frames",
        "split": "which persons are for testing: s1, s2, s3 or s4",
        "hidden": "units of the two hidden layers, as in 40x20",
        "activation": "relu or sigmoid",
        "seed": "of initial weights and order",
    },
    example="--unit frames --split s2 --method reg+cls --classes 100",
)
