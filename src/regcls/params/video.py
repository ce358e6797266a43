"""The section `breakfast` of params.yaml: progress of a video from features of its frames (paper, section 3.3)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from regcls.errors import UserError
from regcls.params.images import SEARCH, growing
from regcls.params.synthetic import Precision, layer_widths
from regcls.params.types import FROM_TEXT, STRICT, Classes, Count, NotNegative, OneOrMore, Optimizer, Positive, Rounding, Seed, VideoMethod

WITH_CLASSES = ("reg+cls", "reg+cls-bal")
Unit = Literal["percent", "frames"]
VideoSplit = Literal["s1", "s2", "s3", "s4"]
Activation = Literal["relu", "sigmoid"]
Person = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class VideoStandIn:
    """Generated walks in the archive's own layout, for where the archive is not."""

    persons: Annotated[int, Field(ge=4)]  # spread over the test persons of the four splits
    frames: Annotated[int, Field(ge=40)]  # mean length of a video
    seed: Seed
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class VideoData:
    """What `prepare` reads, and how it splits it."""

    source: Literal["raw", "stand-in"]
    archives: tuple[Annotated[str, Field(min_length=1)], ...]
    test_persons: Annotated[dict[VideoSplit, tuple[Person, Person]], Field(min_length=1)]  # from the first to the last
    validation_share: Annotated[float, Field(gt=0, lt=1)]
    split_seed: Seed
    expected_videos: Count | None
    stand_in: VideoStandIn
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
class VideoTraining:
    """How each network is trained."""

    hidden: Annotated[tuple[Count, ...], Field(min_length=2, max_length=2)]
    activation: Activation
    lam: Annotated[ByUnit, Field(alias="lambda")]
    rounding: Rounding
    optimizer: Optimizer
    learning_rate: Positive
    weight_decay: NotNegative
    epochs: Count
    milestones: Annotated[tuple[Count, ...], AfterValidator(growing)]
    decay: Annotated[float, Field(gt=0, le=1)]
    batch_size: Count
    precision: Precision
    seeds: OneOrMore[Seed]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class VideoRun:
    """The run that `regcls run breakfast` trains where no option says otherwise."""

    method: VideoMethod
    classes: Classes
    unit: Unit
    split: VideoSplit
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class VideoGrid:
    """Every combination is one run. Only reg+cls and reg+cls-bal have classes and λ. Without seeds a grid is left out."""

    methods: OneOrMore[VideoMethod]
    classes: OneOrMore[Classes]
    units: OneOrMore[Unit]
    splits: OneOrMore[VideoSplit]
    lambdas: Literal["default", "searched"] | OneOrMore[Positive]
    seeds: Annotated[int, Field(ge=0)]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Video:
    """A data set of videos, frame by frame."""

    data: VideoData
    training: VideoTraining
    run: VideoRun
    deviation: Literal["n - 1", "n"]  # what is below in standard deviations over activities
    grids: Annotated[dict[str, VideoGrid], Field(min_length=1)]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """What may be said of a single run on the command line; None leaves it to params.yaml."""

    method: VideoMethod | None = None
    classes: Classes | None = None
    lam: Annotated[Positive | None, Field(alias="lambda")] = None
    activation: Activation | None = None
    rounding: Rounding | None = None
    unit: Unit | None = None
    split: VideoSplit | None = None
    seed: Seed | None = None
    hidden: Annotated[tuple[Count, Count] | None, BeforeValidator(layer_widths)] = None
    epochs: Count | None = None
    batch_size: Count | None = None
    optimizer: Optimizer | None = None
    learning_rate: Positive | None = None
    weight_decay: NotNegative | None = None
    precision: Precision | None = None
    __pydantic_config__ = FROM_TEXT


def check_video(path: Path, name: str, video: Video) -> None:
    """Raise a UserError where values that are right one by one do not fit each other."""
    grids, splits = video.grids, video.data.test_persons
    for split, (first, last) in splits.items():
        if first > last:
            raise UserError(f"{path}: {name}.data.test_persons.{split} = [{first}, {last}] ends before it begins")
    if video.run.split not in splits:
        raise UserError(f"{path}: {name}.run.split = {video.run.split}, but {name}.data.test_persons has only {', '.join(splits)}")
    if not any(grid.seeds for grid in grids.values()):
        raise UserError(f"{path}: {name}.grids: every grid has seeds: 0, so there is nothing to train")
    for key, grid in grids.items():
        where = f"{path}: {name}.grids.{key}"
        if grid.seeds > len(video.training.seeds):
            raise UserError(f"{where}.seeds = {grid.seeds}, but {name}.training.seeds has only {len(video.training.seeds)}")
        if missing := [split for split in grid.splits if split not in splits]:
            raise UserError(f"{where}.splits asks for {', '.join(missing)}, but {name}.data.test_persons has only {', '.join(splits)}")
        if grid.lambdas == "searched" and grid.seeds:
            _check_searched(where, name, grid, grids.get(SEARCH))
    if SEARCH in grids and not isinstance(search := grids[SEARCH].lambdas, tuple):
        raise UserError(f"{path}: {name}.grids.{SEARCH}.lambdas = {search!r}: list the values of λ to try")


def _check_searched(where: str, name: str, grid: VideoGrid, search: VideoGrid | None) -> None:
    if search is None or not search.seeds:
        raise UserError(f"{where}.lambdas = 'searched' needs the grid {name}.grids.{SEARCH} with at least one seed")
    # reg+cls-bal takes the λ of reg+cls where it is not searched for itself.
    methods = [method for method in grid.methods if method in WITH_CLASSES and not {method, "reg+cls"} & set(search.methods)]
    classes = [count for count in grid.classes if count not in search.classes]
    # Each split for itself: the videos that one split searches on are test videos of the others.
    others = [value for value in (*grid.units, *grid.splits) if value not in (*search.units, *search.splits)]
    if methods or classes or others:
        missing = ", ".join(map(str, [*methods, *(f"{count} classes" for count in classes), *others]))
        raise UserError(f"{where}.lambdas = 'searched', but {name}.grids.{SEARCH} does not search λ for {missing}")
