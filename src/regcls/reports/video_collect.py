"""Tracked runs on videos -> the runs that count, their errors on every activity, and the holes.

Legend: A activities, R counted runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from regcls.params.types import SequenceMethod
from regcls.reports.picking import Picked, holes_of, pick
from regcls.tasks.sequences.params import Unit
from regcls.tasks.sequences.runs import SequenceSpec

ROW = ["method", "classes", "weight"]  # a row of a table: its runs on all splits
CELL = ["unit", "split", *ROW]  # what is repeated, with other seeds: one mean over seeds
SHOWN: Mapping[Unit, float] = {"percent": 100.0, "frames": 1.0}  # a target as trained -> as shown: % of the video, or frames
SIGN: Mapping[Unit, str] = {"percent": "%", "frames": "frames"}

ErrorName = Literal["rmse", "rmse_batch40"]
ERRORS: tuple[ErrorName, ...] = get_args(ErrorName)


@dataclass(frozen=True, kw_only=True)
class SequenceRuns:
    """What the tables work on.

    `wanted`: a row a wanted run, indexed by its place in the list of specs: CELL, lam, seed, held_out, fingerprint, state (`finished` or
    why not), run_id ("" for a hole). `weight` is λ as text, and empty without a class loss. `errors`: the test errors (R, A) by name, a
    row a run id, a column an activity, and as `val_rmse` those on held-out training videos; in % of the video or in frames.
    """

    wanted: pd.DataFrame
    errors: Mapping[str, pd.DataFrame]

    @property
    def activities(self) -> list[str]:
        """A, in the order given."""
        return list(map(str, self.errors["rmse"].columns))

    def of(self, specs: Iterable[SequenceSpec], place: Mapping[SequenceSpec, int], *, by_split: bool = False) -> "SequenceRuns":
        """The part that belongs to a grid, in order; `by_split`: λ may be another one on each split, and still a cell is of one row."""
        wanted = self.wanted.loc[[place[spec] for spec in specs]]
        return replace(self, wanted=in_order(_one_weight(wanted) if by_split else wanted))

    def on(self, unit: Unit) -> "SequenceRuns":
        """The part with this unit of the target."""
        return replace(self, wanted=self.wanted[self.wanted["unit"] == unit])

    def run_ids(self, cell: pd.DataFrame) -> dict[int, str]:
        """Seed -> run id of the counted runs among rows of `wanted`."""
        counted = cell[cell["state"] == "finished"]
        return dict(zip(counted["seed"].tolist(), counted["run_id"].tolist(), strict=True))


def collect(
    runs: pd.DataFrame, fingerprints: Mapping[SequenceSpec, str], *, dataset: str, activities: Sequence[str]
) -> tuple[SequenceRuns, Picked]:
    """The runs that count (`picking.pick`); a run counts if every activity has finite test errors, and finite validation errors too where
    videos are held out.

    Raises:
        UserError: no tracked run counts.
    """
    held_out = {fingerprint for spec, fingerprint in fingerprints.items() if spec.held_out}

    def unusable(chosen: pd.DataFrame) -> dict[str, str]:
        tested = np.logical_and.reduce([np.isfinite(_by_activity(chosen, f"test_{name}", activities)).all(axis=1) for name in ERRORS])
        validated = np.isfinite(_by_activity(chosen, "val_rmse", activities)).all(axis=1)
        usable = tested & (validated | ~chosen["fingerprint"].isin(held_out).to_numpy(dtype=bool))
        return dict.fromkeys(chosen.loc[~usable, "run_id"], "without a finite error")

    picked = pick(runs, fingerprints, dataset=dataset, unusable=unusable)
    table = pd.DataFrame([_row(spec) for spec in fingerprints]).join(picked.wanted)
    scale = picked.chosen["fingerprint"].map({fingerprint: SHOWN[spec.unit] for spec, fingerprint in fingerprints.items()})
    errors = {
        name: pd.DataFrame(_by_activity(picked.chosen, column, activities), index=picked.chosen["run_id"], columns=list(activities))
        for name, column in (*((name, f"test_{name}") for name in ERRORS), ("val_rmse", "val_rmse"))
    }
    return SequenceRuns(
        wanted=table, errors={name: frame.mul(scale.to_numpy(dtype=float), axis=0) for name, frame in errors.items()}
    ), picked


def _by_activity(runs: pd.DataFrame, metric: str, activities: Sequence[str]) -> np.ndarray:
    """(R, A); NaN where a metric was not tracked."""
    return runs.reindex(columns=[f"activities/{metric}_{activity}" for activity in activities]).to_numpy(dtype=float)


def _row(spec: SequenceSpec) -> dict[str, Any]:
    row = {key: getattr(spec, key) for key in ("unit", "split", "method", "classes", "seed", "held_out")}
    return row | {"lam": np.nan if spec.lam is None else spec.lam, "weight": "" if spec.lam is None else f"{spec.lam:g}"}


def _one_weight(wanted: pd.DataFrame) -> pd.DataFrame:
    """One `weight` for the runs of a (unit, method, class count), with the λ of each split in turn where they differ: `10/100/10/10`."""
    weights = wanted.groupby(["unit", "method", "classes"], sort=False)
    named = {key: list(dict.fromkeys(zip(part["split"], part["weight"], strict=True))) for key, part in weights}
    texts = {key: [weight for _, weight in sorted(pairs)] for key, pairs in named.items()}
    joined = {key: found[0] if len(set(found)) == 1 else "/".join(found) for key, found in texts.items()}
    keys: Any = wanted[["unit", "method", "classes"]].itertuples(index=False, name=None)
    return wanted.assign(weight=[joined[key] for key in keys])


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Sorted by those of CELL that it has; methods and units as the paper has them, λ by size."""
    order = {"method": get_args(SequenceMethod), "unit": get_args(Unit)}
    first = [name for name in CELL if name in frame.columns]

    def key(column: pd.Series) -> Any:
        if column.name == "weight":
            return column.map(lambda text: float(text.partition("/")[0] or 0))
        names = order.get(str(column.name))
        return column if names is None else column.map(names.index)

    return frame.sort_values(first, key=key, kind="stable", ignore_index=True)


def activity_of(video: str) -> str:
    """`P03_cam01_P03_coffee` -> `coffee`."""
    return video.rpartition("_")[2]


def method_name(row: Mapping[str, Any]) -> str:
    """In a sentence: `reg+cls with 100 classes`."""
    return f"{row['method']} with {row['classes']} classes" if row["classes"] else str(row["method"])


def row_name(row: Mapping[str, Any]) -> str:
    """For a reader: `reg+cls · 100 · λ 10`."""
    return f"{row['method']} · {row['classes']} · λ {row['weight']}" if row["classes"] else str(row["method"])


def hole_lines(wanted: pd.DataFrame) -> list[str]:
    """A line a cell with holes, of `SequenceRuns.of`: `percent s1 · reg: 2 of 3 seeds (failed: seed 1)`."""
    return holes_of(wanted, CELL, lambda row: f"{row['unit']} {row['split']} · {row_name(row)}", what="seeds")
