"""What is reported on where each run is one network whose errors are shown by shot group: a task describes it so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from regcls.metrics import SHOTS, Shot
from regcls.params.single import SingleGrid
from regcls.reports.measured import ROW, Runs, best_by, means
from regcls.reports.shot_differences import Compare

SHORT: Mapping[Shot, str] = {"all": "All", "many": "Many", "medium": "Med.", "few": "Few"}
BASELINES = ("focal-r", "lds+fds", "bmse-gai")  # of other papers, as Tables 2 and 3 quote them


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Four columns of a table: an error by shot group."""

    name: str  # of its columns, as in `mae_few`
    measured: str  # of its measurements without the group: `test/mae`
    title: str
    higher_is_better: bool = False

    @property
    def columns(self) -> list[str]:
        """Of the four groups."""
        return [f"{self.name}_{shot}" for shot in SHOTS]


@dataclass(frozen=True, kw_only=True)
class ShotTable:
    """A table of errors by shot group."""

    suffix: str  # behind the grid's name
    metrics: Sequence[Metric]
    caption: str
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Published:
    """Printed values: method, classes (0: none), metric, shot, value, std, uncertain; `why` they are not of what was trained, or empty."""

    values: pd.DataFrame
    where: str  # what they are of, for a note
    why: str
    digits: int
    balanced_data: bool


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is reported on, and how its errors are called."""

    runs: Runs  # of all grids
    grids: Mapping[str, SingleGrid]
    titles: Mapping[str, str]  # the grids that have a table -> its title
    main: ShotTable  # its caption goes on with `, trained on …`
    more: Sequence[ShotTable]
    samples: Mapping[bool, str]  # whether the data are balanced -> what is trained on
    published: Callable[[str], Published | None]  # by grid
    sizes: Mapping[Shot, tuple[str, ...]]  # shot group -> lines under its heading
    groups: str  # which targets are in which group, with their sizes: a note
    test_images: int
    compare: Compare
    tested: Mapping[str, str]  # errors that are compared, as in Metric.name -> their titles; the first one is spoken of
    meaning: str  # of Δ: a note
    over_images: str  # how it is tested over images: a note
    judged: tuple[str, str]  # the validation error that class counts are chosen by: its measurement, and in words
    searched: Mapping[str, str]  # validation errors of the search: measurement -> heading
    error: str  # in words: MAE
    unit: str
    few: Callable[[int], str]  # so many images of Few, in words: `3 images`
    nothing_in_few: str  # a sentence
    intervals: str  # how they are made: a sentence
    digits: Callable[[float], int]  # of an error so large


def cells(subject: Subject, runs: Runs, metrics: Sequence[Metric]) -> pd.DataFrame:
    """`measured.means` over seeds of errors by shot group, as in `mae_few`; NaN where a group has no samples."""
    named = {column: f"{metric.measured}/{shot}" for metric in metrics for shot, column in zip(SHOTS, metric.columns, strict=True)}
    return means(runs, {column: [measured] for column, measured in named.items()})


def best_by_validation(subject: Subject, runs: Runs) -> pd.DataFrame:
    """The cell of the class count and λ with the lowest mean validation error, a row a method."""
    judged = subject.judged[0]
    return best_by(runs, means(runs, {judged: [judged]}), judged)


def reg_and_best(subject: Subject, runs: Runs) -> pd.DataFrame:
    """The cell of reg, and whatever other one has the lowest mean validation error; one row or none where they are not trained."""
    judged = subject.judged[0]
    ranked = best_by_validation(subject, runs).merge(means(runs, {judged: [judged]}), on=ROW).sort_values(judged, kind="stable")
    reg = ranked["method"] == "reg"
    return pd.concat([ranked[reg], ranked[~reg].head(1)])[ROW]
