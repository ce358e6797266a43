"""The report on one data set, whatever its task: files, warnings, a few metrics and the answer in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import pandas as pd

from regcls.reports.tables import Table, latex, markdown
from regcls.tracking.views import View
from regcls.words import counted


class Links(Protocol):
    """URLs of runs in MLflow."""

    def run_url(self, run_id: str) -> str:
        """The page of a run."""

    def runs_url(self, tag: str, value: str) -> str:
        """The list of runs whose `tag` is `value`."""

    def compare_url(self, run_ids: Sequence[str]) -> str:
        """The comparison of runs."""

    def view_urls(self, view: View) -> tuple[str, str]:
        """The list of runs with the columns of `view`, and their parallel coordinates plot."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a page: a figure, a table, or both. `name` is the stem of its files; `more` tables are folded below it."""

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
    """reg and another method on one group of test samples: two mean errors and gap = reg − other; if it is above 0, the method helps.

    low and high: 95 % interval of the gap, NaN without a test; reg, other and gap are NaN if a side has no runs or the group no samples.
    `answer`: the outcome of the tests, in a word or two.
    """

    reg: float
    other: float
    gap: float
    low: float
    high: float
    answer: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of a table of differences, with columns of these names."""
        return cls(**{name: row[name] for name in ("reg", "other", "gap", "low", "high", "answer")})


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row on the start page: reg against reg+cls on a data set, or on a part of it; the class count is chosen without the test set."""

    part: str = ""  # of the data set
    measured: str  # error and unit: `MAE (years)`
    method: str  # `reg+cls · 100`
    overall: Compared
    few: Compared | None = None  # None: the data have no shot groups
    n: str  # trained replicates, other units of the test, and the number of tests corrected for: `3 seeds × 480 test images; 32 tests`
    digits: int  # decimal places


def after_tests(tests: int) -> str:
    """The end of `Line.n`: `; 32 tests`, or nothing."""
    return f"; {counted(tests, 'test')}" if tests else ""


@dataclass(kw_only=True)
class Report:
    """The content of reports/<dataset>/."""

    dataset: str
    title: str
    wanted: int  # runs that params.yaml asks for
    finished: int  # usable ones among them
    intro: str = ""  # what is trained, and how errors are shown
    extent: Sequence[str] = ()  # sentences: differences to the paper's experiments, and explanations of further losses
    networks: str = ""  # architecture and training, for the end of the page
    other_data: Sequence[str] = ()  # differences to the paper's data: `300 instead of 1712 videos`
    lines: Sequence[Line] = ()  # empty: nothing to compare
    ranking: Sequence[Line] = ()  # all methods but reg, by part and by error (ranking.py)
    answers: list[str] = field(default_factory=list)  # the first one is the headline
    use: Sequence[str] = ()  # lines of the data set's section in params.yaml that follow from the answers
    lead: Table | None = None  # shown before all other tables
    warnings: list[str] = field(default_factory=list)
    view: View | None = None  # of the runs, in `mlflow ui`
    metrics: dict[str, Any] = field(default_factory=dict)  # for `dvc exp show`; None for missing values
    sections: list[Section] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # name -> text

    def add(self, section: Section, *, numbers: pd.DataFrame | None = None) -> None:
        """Add a section and its files; `numbers`: the data of a figure as CSV, if its table does not have them."""
        self.sections.append(section)
        if section.svg:
            self.files[f"{section.name}.svg"] = section.svg
        if numbers is not None:
            self.files[f"{section.name}.csv"] = to_csv(numbers)
        for table in (*([section.table] if section.table else []), *section.more):
            self.add_table(table)

    def add_table(self, table: Table) -> None:
        """Add the three files of a table."""
        self.files = files_of(table) | self.files

    def run_counts(self) -> dict[str, int]:
        """Run counts for `metrics`."""
        return {"wanted": self.wanted, "finished": self.finished, "missing": self.wanted - self.finished}


def files_of(table: Table) -> dict[str, str]:
    """File name -> text of a table's three formats."""
    return {f"{table.name}.csv": to_csv(table.frame), f"{table.name}.md": markdown(table), f"{table.name}.tex": latex(table)}


def to_csv(frame: pd.DataFrame) -> str:
    """A frame as CSV with eight significant digits, more than float32 has."""
    return str(frame.to_csv(index=False, float_format="%.8g", lineterminator="\n"))


def rounded(value: float) -> float | None:
    """A value for metrics.json: six significant digits, None for NaN."""
    return None if math.isnan(value) else float(f"{value:.6g}")
