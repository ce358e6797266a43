"""Shared parts of made-up stores: small parameters, and a replacement for MLflow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from conftest import SHIPPED
from regcls.params import Params, load_params
from regcls.reports.report import Report
from regcls.tasks.task import Sources
from regcls.tracking.views import View

PARAMS = Path(__file__).parents[2] / "params.yaml"
SMALL = {"functions": "functions_small", "imdb_wiki": "portraits", "nyud2": "rooms", "breakfast": "walks"}
PROVENANCE = {"git commit": "abc<1>"}

Kept = Mapping[str, Callable[[str], Any]]  # path -> run id -> the table or arrays that the run stores there


def small_params() -> Params:
    """params.yaml with a small data set in place of each of the paper's, and the paper's values as published ones."""
    params = load_params(PARAMS)
    small = {name: replace(params.datasets[other], title=params.datasets[name].title, published=name) for name, other in SMALL.items()}
    return replace(params, chosen=tuple(small), datasets={**{name: params.datasets[name] for name in SHIPPED}, **small})


def with_section(params: Params, dataset: str, **values: Any) -> Params:
    """`params` with changed values in the section of a data set."""
    return replace(params, datasets={**params.datasets, dataset: replace(params.datasets[dataset], **values)})


class MadeUpLinks:
    """Links like those of `mlflow ui`, abbreviated."""

    def run_url(self, run_id: str) -> str:
        return f"http://127.0.0.1:5000/#/experiments/1/runs/{run_id}"

    def runs_url(self, tag: str, value: str) -> str:
        return f"http://127.0.0.1:5000/#/experiments/1/runs?searchFilter={tag}%20%3D%20{value}"

    def compare_url(self, run_ids: Sequence[str]) -> str:
        return f"http://127.0.0.1:5000/#/compare-runs?runs={','.join(run_ids)}"

    def view_urls(self, view: View) -> tuple[str, str]:
        page = f"http://127.0.0.1:5000/#/experiments/1?viewStateShareKey={view.key}"
        return page, f"{page}&compareRunsMode=CHART"


class MadeUpTracker(MadeUpLinks):
    """Replaces MLflow: links to runs, and their files."""

    def __init__(self, kept: Kept) -> None:
        self.kept, self.files = kept, self

    def table(self, run_id: str, path: str) -> pd.DataFrame:
        found: pd.DataFrame = self.kept[path](run_id)
        return found

    def arrays(self, run_id: str, path: str) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = self.kept[path](run_id)
        return found


def sources(params: Params, dataset: str, *, data: Any, runs: pd.DataFrame, kept: Kept | None = None, **changed: Any) -> Sources:
    """The inputs of a task's report."""
    tracker: Any = MadeUpTracker(kept or {})
    defaults: dict[str, Any] = {"params": params, "dataset": dataset, "data": data, "runs": runs, "tracker": tracker}
    return Sources(**({"root": Path(), "provenance": PROVENANCE} | defaults | changed))


def csv(report: Report, name: str) -> pd.DataFrame:
    """A table of a report."""
    return pd.read_csv(StringIO(report.files[f"{name}.csv"]))


def row_of(table: pd.DataFrame, **where: Any) -> pd.Series:
    """The one row with these values."""
    found = table[np.logical_and.reduce([table[key] == value for key, value in where.items()])]
    assert len(found) == 1
    return found.iloc[0]
