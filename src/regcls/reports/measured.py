"""Tracked runs -> the runs that count, what they measured, and the holes. For every task.

A cell is what is repeated with other seeds: one mean. Its name is ROW, and what the task puts before it: axes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd

from regcls.errors import MissingError
from regcls.progress import tracked
from regcls.reports.picking import Picked, holes_of, pick, records
from regcls.reports.tables import RunGroup
from regcls.runs import RunSpec

ROW = ["method", "classes", "weight"]  # of a table; weight is λ as text, empty without a class loss
METHODS = ("random", "kukleva", "reg", "reg+cls", "reg+cls-bal")  # in the paper's order; others follow, by name

SpecT = TypeVar("SpecT", bound=RunSpec)
# The runs that would count -> what they measured, a row a run id, and why some cannot count after all, by run id.
Measure = Callable[[pd.DataFrame], tuple[pd.DataFrame, Mapping[str, str]]]


@dataclass(frozen=True, kw_only=True)
class Runs:
    """What tables, figures and words are made from.

    `wanted`: a row a wanted run, indexed by its place in the list of specs: the axes, ROW, lam (NaN without a class loss), seed,
    fingerprint, state (`finished` or why not), run_id ("" for a hole). `values`: what the counted runs measured, a row a run id, a column a
    measurement, as in `test/mae/few`.
    """

    wanted: pd.DataFrame
    values: pd.DataFrame
    axes: tuple[str, ...] = ()
    order: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # axis -> its levels as readers expect them
    place: Mapping[Any, int] = field(default_factory=dict)  # spec -> row of `wanted`

    @property
    def cell(self) -> list[str]:
        """What tells one cell from another."""
        return [*self.axes, *ROW]

    def of(self, specs: Iterable[RunSpec]) -> "Runs":
        """The part that belongs to a grid."""
        return replace(self, wanted=self.wanted.loc[[self.place[spec] for spec in specs]])

    def where(self, **levels: Any) -> "Runs":
        """The part with these levels of axes."""
        return replace(self, wanted=rows_like(self.wanted, levels))

    def in_order(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Sorted by those of the cell's names that it has."""
        names = [name for name in self.cell if name in frame]

        def key(column: pd.Series) -> Any:
            if column.name == "weight":
                return column.map(lambda text: float(text.partition("/")[0] or -1))
            levels = METHODS if column.name == "method" else self.order.get(str(column.name))
            return column if levels is None else column.map(ranked(levels))

        return frame.sort_values(names, key=key, kind="stable", ignore_index=True)

    def hole_lines(self, name: Callable[[Mapping[str, Any]], str], *, what: str = "seeds") -> list[str]:
        """A line a cell with holes: `reg+cls · 100 · λ 0.1: 2 of 3 seeds (failed: seed 1)`."""
        return holes_of(self.in_order(self.wanted), self.cell, name, what=what)


def ranked(levels: Sequence[Any]) -> Callable[[Any], Any]:
    """A key to sort by: what stands in `levels` as it stands there, the rest behind it."""
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
    """The runs that count (`picking.pick`) and what they measured; `more`: other fields of a spec that `wanted` is to have.

    Raises:
        UserError: no tracked run counts.
    """
    found: list[pd.DataFrame] = []

    def unusable(chosen: pd.DataFrame) -> Mapping[str, str]:
        values, reasons = measure(chosen)
        found.append(values)
        return reasons

    picked = pick(runs, fingerprints, dataset=dataset, unusable=unusable)
    names = ("method", "classes", "seed", *axes, *more)
    rows = [{name: getattr(spec, name) for name in names} | _weight(spec.lam) for spec in fingerprints]
    place = {spec: position for position, spec in enumerate(fingerprints)}
    wanted = pd.DataFrame(rows).join(picked.wanted)
    return Runs(wanted=wanted, values=found[0], axes=tuple(axes), order=order or {}, place=place), picked


def _weight(lam: float | None) -> dict[str, Any]:
    return {"lam": np.nan, "weight": ""} if lam is None else {"lam": lam, "weight": f"{lam:g}"}


def finite(chosen: pd.DataFrame, metrics: Sequence[str]) -> dict[str, str]:
    """Why runs without these tracked metrics cannot count."""
    values = chosen.reindex(columns=list(metrics)).to_numpy(dtype=float)
    return dict.fromkeys(chosen.loc[~np.isfinite(values).all(axis=1), "run_id"], "without a finite error")


def read_tables(
    run_ids: Sequence[str], read: Callable[[str], pd.DataFrame], *, what: str
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """A table of each run, by run id, and why those whose table is gone cannot count."""
    tables, reasons = {}, {}
    for run_id in tracked(run_ids, len(run_ids), f"reading {what}") if run_ids else ():
        try:
            tables[run_id] = read(run_id)
        except MissingError:
            reasons[run_id] = f"without {what}"
    return tables, reasons


def lost_lines(wanted: pd.DataFrame, what: str, artifact: str) -> list[str]:
    """A warning where runs are holes only because their `artifact` is gone."""
    lost = int((wanted["state"] == f"without {what}").sum())
    gone = f"{lost} finished runs are without {what}: their artifact {artifact} is gone. Delete these runs in MLflow, then train them again"
    return [gone] * bool(lost)


def rows_like(frame: pd.DataFrame, row: Mapping[str, Any], names: Iterable[str] = ()) -> pd.DataFrame:
    """The rows that have the values of `row`, or of its `names`."""
    wanted = {name: row[name] for name in names} if names else row
    return frame[np.logical_and.reduce([frame[name] == value for name, value in wanted.items()])] if wanted else frame


def by_seed(cell: pd.DataFrame) -> dict[int, str]:
    """Seed -> run id of the counted runs among rows of `wanted`."""
    counted = cell[cell["state"] == "finished"]
    return dict(zip(counted["seed"].tolist(), counted["run_id"].tolist(), strict=True))


def groups_of(wanted: pd.DataFrame, label: Callable[[Mapping[str, Any]], str]) -> tuple[RunGroup, ...]:
    """The counted runs among rows of `wanted`, in their order, by `label`."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for row in records(wanted[wanted["state"] == "finished"]):
        groups.setdefault(label(row), []).append((str(row["seed"]), row["run_id"]))
    return tuple(RunGroup(label=name, runs=tuple(found)) for name, found in groups.items())


def means(
    runs: Runs, measured: Mapping[str, Sequence[str]], *, over: Literal["runs", "parts", "both"] = "runs", ddof: int = 1
) -> pd.DataFrame:
    """A row a cell that was asked for, empty ones included: the cell's names, seeds and seeds_wanted (counts), and what is `measured`.

    `measured`: name -> columns of `values`, one a part of a run (an activity, a function), whose mean over parts and seeds it is; NaN
    without seeds. Under the name with `_std` the standard deviation (n − `ddof` below; NaN where that is 0): over the runs of a cell, each
    the mean over its parts; over the parts, each the mean over its runs; or over both, of all numbers.
    """
    rows = []
    key: Any  # pandas-stubs know it as a tuple of Hashable
    for key, cell in runs.wanted.groupby(runs.cell, sort=False):
        counted = cell.loc[cell["state"] == "finished", "run_id"]
        row = dict(zip(runs.cell, key, strict=True)) | {"seeds": len(counted), "seeds_wanted": len(cell)}
        for name, columns in measured.items():
            found = runs.values.reindex(index=counted, columns=list(columns)).astype(float)
            spread = found.stack() if over == "both" else found.mean(axis=0 if over == "parts" else 1)
            row |= {name: spread.mean(), f"{name}_std": spread.std(ddof=ddof)}
        rows.append(row)
    columns = [*runs.cell, "seeds", "seeds_wanted", *(each for name in measured for each in (name, f"{name}_std"))]
    return runs.in_order(pd.DataFrame(rows, columns=columns))


def full(table: pd.DataFrame) -> pd.DataFrame:
    """The cells with as many seeds as the fullest one: a mean over fewer does not compete with theirs."""
    fullest: pd.DataFrame = table[(table["seeds"] > 0) & (table["seeds"] == table["seeds"].max())]
    return fullest


def best_by(runs: Runs, cells: pd.DataFrame, error: str) -> pd.DataFrame:
    """The cell with the lowest mean `error`, a row a method; `cells` as from `means`."""
    parts = [full(method).sort_values(error, kind="stable").head(1) for _, method in cells.groupby("method", sort=True)]
    return runs.in_order(pd.concat(parts))[runs.cell]


def row_name(row: Mapping[str, Any]) -> str:
    """For a reader: `reg+cls · 10 · λ 0.1`."""
    return f"{row['method']} · {row['classes']} · λ {row['weight']}" if row["classes"] else str(row["method"])


def method_name(row: Mapping[str, Any]) -> str:
    """In a sentence: `reg+cls with 100 classes`."""
    return f"{row['method']} with {row['classes']} classes" if row["classes"] else str(row["method"])


def short_name(row: Mapping[str, Any]) -> str:
    """Where there is little room: `reg+cls · 100`."""
    return f"{row['method']} · {row['classes']}" if row["classes"] else str(row["method"])


def key_of(row: Mapping[str, Any], *, several_weights: bool) -> str:
    """For metrics.json: `reg+cls-100`, or `reg+cls-100-0.1` where the grid has several λ."""
    return "-".join(
        map(
            str, [row["method"], *([row["classes"]] if row["classes"] else []), *([row["weight"]] * several_weights * bool(row["classes"]))]
        )
    )
