"""From tracked runs to the runs that count, their measurements, and the holes (missing runs). For all tasks.

A cell is a configuration that is repeated with different seeds: one mean. Its key is ROW, preceded by the axes of the task.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd

from regcls.errors import DamagedError, MissingError
from regcls.progress import tracked
from regcls.reports.picking import Picked, holes_of, pick, records
from regcls.reports.tables import RunGroup
from regcls.runs import RunSpec
from regcls.tracking.run_table import deletion
from regcls.words import counted

TOLERANCE = 1e-5  # relative difference of a metric that is computed again
ROW = ["method", "classes", "weight"]  # key of a table's row; weight is λ as text, empty with only one loss
EDGE = "‡"  # marks a chosen value for which `at_edge` holds
METHODS = ("random", "kukleva", "reg", "reg+cls", "reg+cls-bal")  # in the paper's order; others follow by name

SpecT = TypeVar("SpecT", bound=RunSpec)
# Candidate runs -> their measurements, a row per run id, and the reasons why some are unusable, by run id.
Measure = Callable[[pd.DataFrame], tuple[pd.DataFrame, Mapping[str, str]]]


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The data of tables, figures and answers.

    `wanted`: a row per requested run, indexed by its position in the list of specs: the axes, ROW, lam (NaN with only one loss), seed,
    fingerprint, state (`finished` or why not), run_id ("" for a hole). `values`: measurements of the counted runs, a row per run id, a
    column per measurement, such as `test/mae/few`.
    """

    wanted: pd.DataFrame
    values: pd.DataFrame
    axes: tuple[str, ...] = ()
    order: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # axis -> its levels in display order
    place: Mapping[Any, int] = field(default_factory=dict)  # spec -> index in `wanted`

    @property
    def cell(self) -> list[str]:
        """The columns that identify a cell."""
        return [*self.axes, *ROW]

    def of(self, specs: Iterable[RunSpec]) -> "Runs":
        """The runs with these specs."""
        return replace(self, wanted=self.wanted.loc[[self.place[spec] for spec in specs]])

    def where(self, **levels: Any) -> "Runs":
        """The runs with these levels of axes."""
        return replace(self, wanted=rows_like(self.wanted, levels))

    def in_order(self, frame: pd.DataFrame) -> pd.DataFrame:
        """`frame`, sorted by those of the cell's columns that it has."""
        names = [name for name in self.cell if name in frame]

        def key(column: pd.Series) -> Any:
            if column.name == "weight":
                return column.map(lambda text: float(text.partition("/")[0] or -1))
            levels = METHODS if column.name == "method" else self.order.get(str(column.name))
            return column if levels is None else column.map(ranked(levels))

        return frame.sort_values(names, key=key, kind="stable", ignore_index=True)

    def hole_lines(self, name: Callable[[Mapping[str, Any]], str], *, what: str = "seeds") -> list[str]:
        """A line for each cell with holes: `reg+cls · 100 · λ 0.1: 2 of 3 seeds (failed: seed 1)`."""
        return holes_of(self.in_order(self.wanted), self.cell, name, what=what)


def ranked(levels: Sequence[Any]) -> Callable[[Any], Any]:
    """A sort key: values in `levels` in that order, then the rest."""
    return lambda value: (levels.index(value) if value in levels else len(levels), value)


def collect(
    runs: pd.DataFrame,
    fingerprints: Mapping[SpecT, str],
    measure: Measure,
    *,
    dataset: str,
    axes: Sequence[str] = (),
    more: Sequence[str] = (),
    order: Mapping[str, Sequence[Any]] | None = None,
) -> tuple[Runs, Picked]:
    """The runs that count (`picking.pick`) and their measurements; `more`: further fields of a spec to add to `wanted`.

    Raises:
        UserError: no tracked run counts.
    """
    measurements: list[pd.DataFrame] = []

    def unusable(chosen: pd.DataFrame) -> Mapping[str, str]:
        values, reasons = measure(chosen)
        measurements.append(values)
        return reasons

    picked = pick(runs, fingerprints, dataset=dataset, unusable=unusable)
    names = ("method", "classes", "seed", *axes, *more)
    rows = [{name: getattr(spec, name) for name in names} | _weight(spec.lam) for spec in fingerprints]
    place = {spec: position for position, spec in enumerate(fingerprints)}
    wanted = pd.DataFrame(rows).join(picked.wanted)
    return Runs(wanted=wanted, values=measurements[0], axes=tuple(axes), order=order or {}, place=place), picked


def _weight(lam: float | None) -> dict[str, Any]:
    return {"lam": np.nan, "weight": ""} if lam is None else {"lam": lam, "weight": f"{lam:g}"}


def finite(chosen: pd.DataFrame, metrics: Sequence[str]) -> dict[str, str]:
    """Run id -> reason, for runs without finite values of these metrics."""
    values = chosen.reindex(columns=list(metrics)).to_numpy(dtype=float)
    return dict.fromkeys(chosen.loc[~np.isfinite(values).all(axis=1), "run_id"], "without a finite error")


def read_tables(
    run_ids: Sequence[str], read: Callable[[str], pd.DataFrame], *, what: str
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Read a table of each run, by run id; the second mapping has the reason for each run whose table is gone or damaged."""
    tables, reasons = {}, {}
    for run_id in tracked(run_ids, len(run_ids), f"reading {what}") if run_ids else ():
        try:
            tables[run_id] = read(run_id)
        except DamagedError:
            reasons[run_id] = f"with damaged {what}"
        except MissingError:
            reasons[run_id] = f"without {what}"
    return tables, reasons


def contradictions(chosen: pd.DataFrame, recomputed: pd.DataFrame, *, what: str) -> dict[str, str]:
    """Run id -> reason, for runs whose tracked metrics differ from `recomputed`: a row per run id, a column per metric, from `what`."""
    tracked = chosen.set_index("run_id").reindex(index=recomputed.index, columns=recomputed.columns)
    values = tracked.to_numpy(dtype=float)
    differ = ~np.isclose(values, recomputed.to_numpy(dtype=float), rtol=TOLERANCE, atol=1e-12)
    reasons = {}
    for run_id, row, own in zip(recomputed.index, differ, values, strict=True):
        if row.any():
            name = recomputed.columns[row.argmax()]
            reasons[str(run_id)] = (
                f"with {what} but without {name}" if np.isnan(own[row.argmax()]) else f"with {what} that contradict {name}"
            )
    return reasons


def checked_tables(
    chosen: pd.DataFrame,
    run_ids: Sequence[str],
    read: Callable[[str], pd.DataFrame],
    *,
    what: str,
    fault: Callable[[pd.DataFrame], str],
    errors: Callable[[pd.DataFrame], Mapping[str, float]],
    checked: Mapping[str, str],
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame, dict[str, str]]:
    """Read the table of each run: the usable tables by run id, the errors from them (a row per run id), and why the others are unusable.

    `fault` says what is wrong with a table ("": nothing). `checked`: errors -> the tracked metrics in `chosen` that they must equal.
    """
    tables, reasons = read_tables(run_ids, read, what=what)
    reasons |= {run_id: reason for run_id, table in tables.items() if (reason := fault(table))}
    found = pd.DataFrame({run_id: errors(table) for run_id, table in tables.items() if run_id not in reasons}).T
    reasons |= contradictions(chosen, found.reindex(columns=list(checked)).rename(columns=dict(checked)), what=what)
    return {run_id: table for run_id, table in tables.items() if run_id not in reasons}, found, reasons


def unusable_lines(wanted: pd.DataFrame, what: str, artifact: str) -> list[str]:
    """A warning for each reason why runs are holes only because of `what`, in their `artifact`."""
    return [
        f"{counted(len(holes), 'finished run')} left out, {state} ({artifact}). "
        f"To train them again, first: {deletion(holes['found'].tolist())}"
        for state, holes in wanted[wanted["state"].str.contains(f" {what}")].groupby("state", sort=False)
    ]


def rows_like(frame: pd.DataFrame, row: Mapping[str, Any], names: Iterable[str] = ()) -> pd.DataFrame:
    """The rows of `frame` that agree with `row`, in all its values or only in `names`."""
    values = {name: row[name] for name in names} if names else row
    return frame[np.logical_and.reduce([frame[name] == value for name, value in values.items()])] if values else frame


def by_seed(cell: pd.DataFrame) -> dict[int, str]:
    """Seed -> run id of the counted runs in a cell (rows of `wanted`)."""
    finished = cell[cell["state"] == "finished"]
    return dict(zip(finished["seed"].tolist(), finished["run_id"].tolist(), strict=True))


def groups_of(wanted: pd.DataFrame, label: Callable[[Mapping[str, Any]], str]) -> tuple[RunGroup, ...]:
    """The counted runs among rows of `wanted`, in their order, grouped by `label`."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for row in records(wanted[wanted["state"] == "finished"]):
        groups.setdefault(label(row), []).append((str(row["seed"]), row["run_id"]))
    return tuple(RunGroup(label=name, runs=tuple(seeds)) for name, seeds in groups.items())


def means(
    runs: Runs, measured: Mapping[str, Sequence[str]], *, over: Literal["runs", "parts", "both"] = "runs", ddof: int = 1
) -> pd.DataFrame:
    """Means by cell, a row per requested cell, including empty ones: the cell's key, seeds and seeds_wanted (counts), then per name of
    `measured` its mean, and its standard deviation as `<name>_std`.

    `measured`: name -> columns of `values`, one per part of a run (activity, function). The mean is over parts and seeds; NaN without
    seeds. The standard deviation has n − `ddof` in the denominator (NaN if that is 0) and is over the runs of a cell (each its mean over
    parts), over the parts (each its mean over runs), or over all numbers (`both`).
    """
    rows = []
    numbers = runs.values.reindex(columns=list(dict.fromkeys(column for columns in measured.values() for column in columns))).astype(float)
    key: Any  # pandas-stubs know it as a tuple of Hashable
    for key, cell in runs.wanted.groupby(runs.cell, sort=False):
        run_ids = cell.loc[cell["state"] == "finished", "run_id"]
        row = dict(zip(runs.cell, key, strict=True)) | {"seeds": len(run_ids), "seeds_wanted": len(cell)}
        for name, columns in measured.items():
            values = numbers.reindex(index=run_ids, columns=list(columns))
            units = values.stack() if over == "both" else values.mean(axis=0 if over == "parts" else 1)
            row |= {name: units.mean(), f"{name}_std": units.std(ddof=ddof)}
        rows.append(row)
    columns = [*runs.cell, "seeds", "seeds_wanted", *(column for name in measured for column in (name, f"{name}_std"))]
    return runs.in_order(pd.DataFrame(rows, columns=columns))


def full(table: pd.DataFrame) -> pd.DataFrame:
    """The cells with the most seeds; means over fewer are not compared with them."""
    fullest: pd.DataFrame = table[(table["seeds"] > 0) & (table["seeds"] == table["seeds"].max())]
    return fullest


def best_by(runs: Runs, cells: pd.DataFrame, error: str) -> pd.DataFrame:
    """For each method, the cell with the lowest mean `error`; `cells`: from `means`."""
    parts = [full(method).sort_values(error, kind="stable").head(1) for _, method in cells.groupby("method", sort=True)]
    return runs.in_order(pd.concat(parts))[runs.cell]


def at_edge(chosen: float, tried: Iterable[float], *, least: float = 0.0) -> bool:
    """Whether a value chosen by validation error is the smallest or largest of several, so that a better one may lie outside.

    `least`: no value can be smaller.
    """
    values = set(tried)
    return len(values) > 1 and (chosen == max(values) or least < chosen == min(values))


def edge_note(what: str, key: str) -> list[str]:
    """The note that explains EDGE; `key`: what to extend in params.yaml."""
    return [f"{EDGE} The smallest or largest {what} of its grid: a better one may lie outside, so extend {key} by a factor of ten."]


def row_name(row: Mapping[str, Any]) -> str:
    """A row's name for readers: `reg+cls · 10 · λ 0.1`."""
    return short_name(row) + (f" · λ {row['weight']}" if row["weight"] else "")


def method_name(row: Mapping[str, Any]) -> str:
    """A row's name in a sentence: `reg+cls with 100 classes`."""
    return f"{row['method']} with {row['classes']} classes" if row["classes"] else str(row["method"])


def short_name(row: Mapping[str, Any]) -> str:
    """A row's short name: `reg+cls · 100`."""
    return f"{row['method']} · {row['classes']}" if row["classes"] else str(row["method"])


def key_of(row: Mapping[str, Any], *, several_weights: bool) -> str:
    """A row's key in metrics.json: `reg+cls-100`, or `reg+cls-100-0.1` if the grid has several λ."""
    if not row["classes"]:
        return str(row["method"])
    key = f"{row['method']}-{row['classes']}"
    return f"{key}-{row['weight']}" if several_weights and row["weight"] else key
