"""Tracked runs on depth maps -> the runs that count, their errors on the test images from sums per bucket, and the holes.

Legend: T test images with pixels that count, G shot groups (`metrics.SHOTS`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls.errors import MissingError
from regcls.metrics import SHOTS, Shot
from regcls.params.single import SEARCH
from regcls.progress import tracked
from regcls.reports.images_collect import wanted_table
from regcls.reports.picking import Picked, pick
from regcls.runs.grids import Found, expand
from regcls.tasks.depth.metrics import BUCKETS, COLUMNS, errors_of, sums_of
from regcls.tasks.depth.params import Depth, DepthShots, Selection
from regcls.tasks.depth.runs import DepthSpec, make_spec

NO_SUMS = "without sums"
NOT_FINITE = "without a finite error"
ErrorName = Literal["rmse", "mae", "abs_rel", "log10", "delta1", "delta2", "delta3"]
ERRORS: tuple[ErrorName, ...] = get_args(ErrorName)
SELECTIONS: tuple[Selection, ...] = get_args(Selection)

Sums = Callable[[str], pd.DataFrame]  # run id -> selection, image (row), bucket, and depth_metrics.COLUMNS


@dataclass(frozen=True, kw_only=True)
class DepthRuns:
    """What the tables work on: errors on test images, of the weights selected on validation (`val`) and of those selected on test.

    `wanted`: a row a wanted run, indexed by its place in the list of specs: CELL, seed, fingerprint, state (`finished` or why not), run_id
    ("" for a hole). `metrics`: the metrics of the counted runs, by run id. `errors`: by run id, as in `rmse_val_few`; a run of the search
    for λ alone has none. `images`: the rows (T) of the test images. `by_image`: run id -> (T, G, 2) pixels and summed squared errors of
    `val`. `by_bucket`: run id -> (100, 8) sums of `val` over all images.
    """

    wanted: pd.DataFrame
    metrics: pd.DataFrame
    errors: pd.DataFrame
    images: NDArray[np.int64]
    by_image: Mapping[str, NDArray[np.float64]]
    by_bucket: Mapping[str, NDArray[np.float64]]

    def of(self, specs: Iterable[DepthSpec], place: Mapping[DepthSpec, int]) -> "DepthRuns":
        """The part that belongs to a grid."""
        return replace(self, wanted=self.wanted.loc[[place[spec] for spec in specs]])


def collect(
    runs: pd.DataFrame, fingerprints: Mapping[DepthSpec, str], *, depth: Depth, dataset: str, found: Found, sums: Sums
) -> tuple[DepthRuns, Picked]:
    """The runs that count (`picking.pick`); a run counts if its errors are finite and its sums are there.

    The errors are those of `depth.shots`, whatever the shot groups were when the run was made.

    Raises:
        UserError: no tracked run counts.
    """
    # The search is judged on validation images: of its runs, no sums are needed.
    specs = {spec for name, grid in depth.grids.items() if name != SEARCH for spec in expand(make_spec, depth, dataset, grid, found)}
    summed = {fingerprints[spec] for spec in specs}
    tables: dict[str, dict[Selection, pd.DataFrame]] = {}
    errors: dict[str, dict[str, float]] = {}

    def unusable(chosen: pd.DataFrame) -> dict[str, str]:
        finite = np.isfinite(chosen.reindex(columns=["val_rmse_all"]).to_numpy(dtype=float)).all(axis=1)
        reasons = dict.fromkeys(chosen.loc[~finite, "run_id"], NOT_FINITE)
        wanted = chosen.loc[finite & chosen["fingerprint"].isin(summed), "run_id"].tolist()
        for run_id in tracked(wanted, len(wanted), "reading sums of errors") if wanted else ():
            try:
                table = sums(run_id)
            except MissingError:
                reasons[run_id] = NO_SUMS
                continue
            parts = {selection: table[table["selection"] == selection] for selection in SELECTIONS}
            # Each number, not their sums: pandas leaves what is not a number out of a sum.
            if any(part.empty for part in parts.values()) or not np.isfinite(table[list(COLUMNS)].to_numpy(float)).all():
                reasons[run_id] = NOT_FINITE
                continue
            tables[run_id] = parts
            errors[run_id] = {name: value for each in SELECTIONS for name, value in _errors(parts[each], each, depth.shots)}
        return reasons

    picked = pick(runs, fingerprints, dataset=dataset, unusable=unusable)
    images = np.unique(np.concatenate([np.empty(0, np.int64), *(parts["val"]["image"] for parts in tables.values())])).astype(np.int64)
    collected = DepthRuns(
        wanted=wanted_table(fingerprints, picked.wanted),
        metrics=picked.chosen.set_index("run_id"),
        errors=pd.DataFrame(errors.values(), index=list(errors), columns=error_columns()),
        images=images,
        by_image={run_id: _by_image(parts["val"], images, depth.shots) for run_id, parts in tables.items()},
        by_bucket={run_id: sums_of(parts["val"]) for run_id, parts in tables.items()},
    )
    return collected, picked


def error_columns(errors: Iterable[ErrorName] = ERRORS, selections: Iterable[Selection] = SELECTIONS) -> list[str]:
    """Names as in `rmse_val_few`."""
    return [f"{error}_{selection}_{shot}" for selection in selections for error in errors for shot in SHOTS]


def _errors(table: pd.DataFrame, selection: Selection, shots: DepthShots) -> Iterable[tuple[str, float]]:
    for name, value in errors_of(sums_of(table), {"many": shots.buckets("many"), "medium": shots.buckets("medium")}):
        error, _, shot = name.rpartition("_")
        yield f"{error}_{selection}_{shot}", value


def shot_of_buckets(shots: DepthShots) -> list[Shot]:
    """The group of each of the 100 buckets."""
    many, medium = shots.buckets("many"), shots.buckets("medium")
    return ["many" if bucket in many else "medium" if bucket in medium else "few" for bucket in range(BUCKETS)]


def _by_image(table: pd.DataFrame, images: NDArray[np.int64], shots: DepthShots) -> NDArray[np.float64]:
    groups = np.array([SHOTS.index(shot) for shot in shot_of_buckets(shots)])[table["bucket"]]
    place = np.searchsorted(images, table["image"]) * len(SHOTS) + groups
    columns = [np.bincount(place, table[name], len(images) * len(SHOTS)) for name in COLUMNS[:2]]  # n, squared
    found = np.stack(columns, axis=1).reshape(len(images), len(SHOTS), 2).astype(np.float64)
    found[:, 0] = found[:, 1:].sum(axis=1)  # all
    return found
