"""Tracked runs of the 1D study -> the networks in those that count."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import pandas as pd

from regcls.reports.measured import METHODS, Runs, collect, finite, ranked
from regcls.reports.picking import Picked
from regcls.tasks.functions.params import Sampling, Setting
from regcls.tasks.functions.runs import FunctionSpec

PANEL = ["setting", "noise", "sampling"]  # one data set: a panel of a figure
CELL = [*PANEL, "method", "classes", "lam"]  # what is repeated: one mean; with λ as a number, which figures have on an axis
SPLITS = ("train", "val", "test")
ORDER = {"setting": get_args(Setting), "sampling": get_args(Sampling), "method": METHODS}


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What the report works on.

    `runs`: see measured.Runs. `networks`: a row a network of a counted run: spec (index in `wanted`), CELL, repetition, seed, run_id,
    function, train_mse, val_mse, test_mse.
    """

    runs: Runs
    networks: pd.DataFrame

    @property
    def wanted(self) -> pd.DataFrame:
        """A row a wanted run."""
        return self.runs.wanted

    def of(self, specs: Iterable[FunctionSpec]) -> "Collected":
        """The part that belongs to a grid."""
        runs = self.runs.of(specs)
        return replace(self, runs=runs, networks=self.networks[self.networks["spec"].isin(runs.wanted.index)])


def collected(runs: pd.DataFrame, fingerprints: Mapping[FunctionSpec, str], *, dataset: str, functions: int) -> tuple[Collected, Picked]:
    """The runs that count and their networks; a run counts if it has a finite MSE for each of the `functions`.

    Raises:
        UserError: no tracked run counts.
    """
    columns = {split: [f"{split}/mse/function_{function}" for function in range(functions)] for split in SPLITS}

    def measure(chosen: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
        return chosen.set_index("run_id"), finite(chosen, [*columns["val"], *columns["test"]])

    found, picked = collect(
        runs,
        fingerprints,
        measure,
        dataset=dataset,
        axes=PANEL,
        more=("repetition",),
        order={"setting": ORDER["setting"], "sampling": ORDER["sampling"]},
    )
    counted = found.wanted[found.wanted["state"] == "finished"]
    long = counted[[*CELL, "repetition", "seed", "run_id"]].loc[counted.index.repeat(functions)].rename_axis("spec").reset_index()
    long["function"] = np.tile(np.arange(functions), len(counted))
    for split in SPLITS:
        values = found.values.reindex(index=counted["run_id"], columns=columns[split])
        long[f"{split}_mse"] = values.to_numpy(dtype=float).ravel()
    return Collected(runs=found, networks=long), picked


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Sorted by CELL and repetition as far as they are there, settings and samplings in the paper's order."""
    keys = [key for key in [*CELL, "repetition", "function"] if key in frame.columns]

    def rank(column: "pd.Series[Any]") -> "pd.Series[Any]":
        return column.map(ranked(ORDER[str(column.name)])) if column.name in ORDER else column

    return frame.sort_values(keys, key=rank, kind="stable", na_position="first", ignore_index=True)


def data_name(setting: str, noise: float) -> str:
    """For a reader: `clean`, `noisy σ 0.1`, `ood`."""
    return f"{setting} σ {noise:g}" if setting == "noisy" else setting


def cell_name(row: Mapping[str, Any]) -> str:
    """For a reader: `noisy σ 0.1, severe · reg+cls · 64 · λ 1000`."""
    panel = f"{data_name(row['setting'], row['noise'])}, {row['sampling']} · {row['method']}"
    return f"{panel} · {row['classes']} · λ {row['weight']}" if row["classes"] else panel


def hole_lines(runs: Runs) -> list[str]:
    """A line a cell with holes: `clean, severe · reg: 3 of 5 repetitions (missing: seeds 421, 849)`."""
    return runs.hole_lines(cell_name, what="repetitions")
