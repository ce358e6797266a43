"""Tracked runs on faces -> the runs that count, their errors on every test image, and the holes.

Legend: N test images, R counted runs.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from regcls.errors import MissingError
from regcls.params.single import SEARCH
from regcls.progress import tracked
from regcls.reports.images_collect import wanted_table
from regcls.reports.picking import Picked, pick
from regcls.runs.grids import Found, expand
from regcls.tasks.images.params import Images
from regcls.tasks.images.runs import ImageSpec, make_spec

NO_PREDICTIONS = "without predictions"

Predictions = Callable[[str], pd.DataFrame]  # run id -> the test set: row, path, target, prediction, shot


@dataclass(frozen=True, kw_only=True)
class ImageRuns:
    """What the tables work on.

    `wanted`: a row a wanted run, indexed by its place in the list of specs: CELL, seed, fingerprint, state (`finished` or why not), run_id
    ("" for a hole). `metrics`: the metrics of the counted runs, by run id. `images`: target, age (integer, rounded down) and shot of the
    test images (N). `errors`: prediction − target (N, R), a column a run id; a run of the search for λ alone has none.
    """

    wanted: pd.DataFrame
    metrics: pd.DataFrame
    images: pd.DataFrame
    errors: pd.DataFrame

    def of(self, specs: Iterable[ImageSpec], place: Mapping[ImageSpec, int]) -> "ImageRuns":
        """The part that belongs to a grid."""
        return replace(self, wanted=self.wanted.loc[[place[spec] for spec in specs]])


def collect(
    runs: pd.DataFrame, fingerprints: Mapping[ImageSpec, str], *, faces: Images, dataset: str, found: Found, predictions: Predictions
) -> tuple[ImageRuns, Picked]:
    """The runs that count (`picking.pick`); a run counts if its errors are finite and its predictions are there.

    Raises:
        UserError: no tracked run counts.
    """
    # The search is judged on validation images: of its runs, no predictions are needed.
    specs = {spec for name, grid in faces.grids.items() if name != SEARCH for spec in expand(make_spec, faces, dataset, grid, found)}
    predicted = {fingerprints[spec] for spec in specs}
    tables: dict[str, pd.DataFrame] = {}

    def unusable(chosen: pd.DataFrame) -> dict[str, str]:
        values = chosen.reindex(columns=[f"{split}_{metric}_all" for split in ("val", "test") for metric in ("mae", "mse")])
        finite = np.isfinite(values.to_numpy(dtype=float)).all(axis=1)
        reasons = dict.fromkeys(chosen.loc[~finite, "run_id"], "without a finite error")
        wanted = chosen.loc[finite & chosen["fingerprint"].isin(predicted), "run_id"].tolist()
        for run_id in tracked(wanted, len(wanted), "reading predictions") if wanted else ():
            try:
                tables[run_id] = predictions(run_id)
            except MissingError:
                reasons[run_id] = NO_PREDICTIONS
        return reasons

    picked = pick(runs, fingerprints, dataset=dataset, unusable=unusable)
    table = wanted_table(fingerprints, picked.wanted)
    images, errors = _errors(tables)
    return ImageRuns(wanted=table, metrics=picked.chosen.set_index("run_id"), images=images, errors=errors), picked


def _errors(tables: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The test images and the errors on them, by row. Wanted fingerprints are of one data set, so all tables name the same images."""
    first = next(iter(tables.values()), pd.DataFrame(columns=["row", "target", "shot"])).set_index("row").sort_index()
    images = pd.DataFrame({"target": first["target"].astype(float), "shot": first["shot"].astype(str)})
    images["age"] = np.floor(images["target"]).astype(int)
    found = {run_id: table.set_index("row")["prediction"].astype(float) - images["target"] for run_id, table in tables.items()}
    return images, pd.DataFrame(found, index=images.index)
