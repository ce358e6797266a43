"""How a task with one network per run describes its report by shot group."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from regcls.metrics import SHOTS, Shot
from regcls.params.single import SingleGrid
from regcls.reports.measured import ROW, Runs, best_by, means
from regcls.reports.shot_differences import Compare

SHORT: Mapping[Shot, str] = {"all": "All", "many": "Many", "medium": "Med.", "few": "Few"}
BASELINES = ("focal-r", "lds+fds", "bmse-gai")  # other papers' methods, as quoted in Tables 2 and 3


@dataclass(frozen=True, kw_only=True)
class Metric:
    """An error by shot group: four columns of a table."""

    name: str  # prefix of its columns, as in `mae_few`
    measured: str  # prefix of its measurements: `test/mae`
    title: str
    higher_is_better: bool = False

    @property
    def by_column(self) -> dict[str, str]:
        """The columns of the four groups -> their measurements: `mae_few` -> `test/mae/few`."""
        return {f"{self.name}_{shot}": f"{self.measured}/{shot}" for shot in SHOTS}


@dataclass(frozen=True, kw_only=True)
class ShotTable:
    """A table of errors by shot group."""

    suffix: str  # of the grid's name, in file names
    metrics: Sequence[Metric]
    caption: str
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Published:
    """Printed values: method, classes (0: none), metric, shot, value, std, uncertain."""

    values: pd.DataFrame
    where: str  # the paper's data set, for a note
    why: str  # reasons why they are not comparable with ours; may be empty
    digits: int
    balanced_data: bool


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The subject of a report: runs, errors, and texts about them."""

    runs: Runs  # of all grids
    grids: Mapping[str, SingleGrid]
    titles: Mapping[str, str]  # grid -> title, of grids that have a table
    main: ShotTable  # its caption has the placeholder {data}
    more: Sequence[ShotTable]
    samples: Mapping[bool, str]  # whether the data are balanced -> name of the training samples
    published: Callable[[str], Published | None]  # by grid
    sizes: Mapping[Shot, tuple[str, ...]]  # shot group -> lines under its heading
    groups: str  # note: definition and sizes of the groups
    test_images: int
    compare: Compare
    constants: Mapping[str, Mapping[str, float]]  # constant prediction, for readers -> measurement -> its value
    negligible: float  # percent of reg's error: a difference within it counts as none
    tested: Mapping[str, str]  # errors to compare: Metric.name -> title; answers and metrics use the first one
    meaning: str  # note: definition of Δ
    independence: str  # note: how far the test images are independent samples
    judged: tuple[str, str]  # validation error that selects class counts: its measurement, and its name for readers
    searched: Mapping[str, str]  # validation errors of the search: measurement -> heading
    error: str  # name for readers: MAE
    unit: str
    few: Callable[[int], str]  # number of images in Few -> text: `3 images`
    nothing_in_few: str  # sentence
    digits: Callable[[float], int]  # error -> decimal places


def cells(subject: Subject, runs: Runs, metrics: Sequence[Metric]) -> pd.DataFrame:
    """`measured.means` over seeds of errors by shot group, in columns like `mae_few`; NaN if a group has no samples."""
    return means(runs, {column: [measured] for metric in metrics for column, measured in metric.by_column.items()})


def best_by_validation(subject: Subject, runs: Runs) -> pd.DataFrame:
    """For each method, the cell (class count and λ) with the lowest mean validation error."""
    judged = subject.judged[0]
    return best_by(runs, means(runs, {judged: [judged]}), judged)


def ranked_by_validation(subject: Subject, runs: Runs) -> pd.DataFrame:
    """`best_by_validation`, sorted by the mean validation error."""
    judged = subject.judged[0]
    return best_by_validation(subject, runs).merge(means(runs, {judged: [judged]}), on=ROW).sort_values(judged, kind="stable")


def reg_and_best(subject: Subject, runs: Runs) -> pd.DataFrame:
    """The cell of reg and the other cell with the lowest mean validation error, as far as they are trained."""
    ranked = ranked_by_validation(subject, runs)
    reg = ranked["method"] == "reg"
    return pd.concat([ranked[reg], ranked[~reg].head(1)])[ROW]


def constant_error(subject: Subject, error: str) -> float:
    """The error over all test samples of the best constant; infinite if there is none."""
    metric = next(metric for metric in subject.main.metrics if metric.name == error)
    return min((values[f"{metric.measured}/all"] for values in subject.constants.values()), default=math.inf)


def no_better_than_constant(subject: Subject, table: pd.DataFrame) -> dict[str, float]:
    """Of a table of differences: the errors of which reg's mean over all samples is not below the best constant's -> reg's mean."""
    reg = table[table["shot"] == "all"].groupby("error")["reg"].min()
    return {str(error): value for error, value in reg.items() if value >= constant_error(subject, str(error))}
