"""What the report on one data set consists of, whatever its task: files, warnings, a few metrics and the answer in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import pandas as pd

from regcls.reports.tables import Table, latex, markdown
from regcls.tracking.views import View


class Links(Protocol):
    """Where MLflow shows runs."""

    def run_url(self, run_id: str) -> str:
        """A run's own page."""

    def runs_url(self, tag: str, value: str) -> str:
        """The list of the runs whose `tag` is `value`."""

    def compare_url(self, run_ids: Sequence[str]) -> str:
        """Runs side by side."""

    def view_urls(self, view: View) -> tuple[str, str]:
        """The list of runs with the columns of a view, and their parallel coordinates."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A figure or a table of a page, or a figure with its table; `name` is that of its files. `more` tables stand folded below it."""

    name: str
    title: str
    caption: str
    svg: str = ""
    alt: str = ""
    table: Table | None = None
    more: Sequence[Table] = ()
    warning: str = ""
    holes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Compared:
    """reg beside another method, over one group of test samples: two means and gap = reg − other, above 0 the method helps.

    low and high: 95 % interval of the gap, NaN where nothing is tested; reg, other and gap are NaN where a side has no runs or the group
    no samples. `answer`: what the tests say, in a word or two.
    """

    reg: float
    other: float
    gap: float
    low: float
    high: float
    answer: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of a table of differences, which has columns of these names."""
        return cls(**{name: row[name] for name in ("reg", "other", "gap", "low", "high", "answer")})


@dataclass(frozen=True, kw_only=True)
class Line:
    """What the first screen says of a data set: reg against the best class count of reg+cls, chosen without a look at the test set."""

    measured: str  # error and unit: `MAE (years)`
    method: str  # `reg+cls · 100`
    overall: Compared
    few: Compared | None = None  # None: the data have no shot groups
    n: str  # repetitions, and what the interval is over: `3 seeds, over 480 test images`
    digits: int  # after the point


@dataclass(kw_only=True)
class Report:
    """What is about to be written into reports/<dataset>/."""

    dataset: str
    title: str
    wanted: int  # runs that params.yaml asks for
    finished: int  # of them, that count
    intro: str = ""  # what is trained, and how its errors are shown
    extent: Sequence[str] = ()  # sentences: how it differs from what the paper ran, and what each other loss is
    networks: str = ""  # how they are trained, for the end of the page
    other_data: Sequence[str] = ()  # where the data are not the paper's: `300 instead of 1712 videos`
    line: Line | None = None  # None: nothing to compare
    answers: list[str] = field(default_factory=list)  # the first one is the headline
    lead: Table | None = None  # a table before all others
    warnings: list[str] = field(default_factory=list)
    view: View | None = None  # of the runs, in `mlflow ui`
    metrics: dict[str, Any] = field(default_factory=dict)  # for `dvc exp show`: few, a hole is None
    sections: list[Section] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # name -> text

    def add(self, section: Section, *, numbers: pd.DataFrame | None = None) -> None:
        """A section of the page with its files; `numbers` is the CSV behind a figure, where that is not its table's."""
        self.sections.append(section)
        if section.svg:
            self.files[f"{section.name}.svg"] = section.svg
        if numbers is not None:
            self.files[f"{section.name}.csv"] = to_csv(numbers)
        for table in (*([section.table] if section.table else []), *section.more):
            self.add_table(table)

    def add_table(self, table: Table) -> None:
        """A table in its three forms."""
        self.files = files_of(table) | self.files

    def run_counts(self) -> dict[str, int]:
        """For `metrics`."""
        return {"wanted": self.wanted, "finished": self.finished, "missing": self.wanted - self.finished}


def files_of(table: Table) -> dict[str, str]:
    """A table in its three forms, by file name."""
    return {f"{table.name}.csv": to_csv(table.frame), f"{table.name}.md": markdown(table), f"{table.name}.tex": latex(table)}


def to_csv(frame: pd.DataFrame) -> str:
    """Eight significant digits: more than float32 has."""
    return str(frame.to_csv(index=False, float_format="%.8g", lineterminator="\n"))


def rounded(value: float) -> float | None:
    """For metrics.json: six significant digits, None for NaN."""
    return None if math.isnan(value) else float(f"{value:.6g}")
