"""The tracked runs of the 1D study that count, their networks, and constants to compare them with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import pandas as pd

from regcls.reports.measured import METHODS, Runs, collect, contradictions, finite, ranked, row_name
from regcls.reports.picking import Picked, records
from regcls.reports.stats import CONSTANTS
from regcls.tasks.functions.data import FunctionSets
from regcls.tasks.functions.params import Sampling, Setting
from regcls.tasks.functions.runs import FunctionSpec, data_key

PANEL = ["setting", "noise", "sampling"]  # a data set: one panel of a figure
CELL = [*PANEL, "method", "classes", "lam"]  # a configuration that is repeated: one mean; λ is a number, for the axes of figures
VARIED = ["hidden", "optimizer", "learning_rate", "weight_decay", "scale"]  # what a grid may vary
SPLITS = ("train", "val", "test")
ORDER = {"setting": get_args(Setting), "sampling": get_args(Sampling), "method": METHODS}


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The data of the report.

    `runs`: see measured.Runs. `networks`: a row per network of a counted run: spec (index in `wanted`), CELL, repetition, seed, run_id,
    function, train_mse, val_mse, test_mse. `constants`: the networks of reg, and again for each of CONSTANTS, with its name as the method
    and its error as test_mse.
    """

    runs: Runs
    networks: pd.DataFrame
    constants: pd.DataFrame

    @property
    def wanted(self) -> pd.DataFrame:
        """The requested runs, one per row; see measured.Runs."""
        return self.runs.wanted

    def of(self, specs: Iterable[FunctionSpec]) -> "Collected":
        """The runs with these specs, and their networks."""
        runs = self.runs.of(specs)
        networks, constants = (table[table["spec"].isin(runs.wanted.index)] for table in (self.networks, self.constants))
        return replace(self, runs=runs, networks=networks, constants=constants)


def collected(
    runs: pd.DataFrame, fingerprints: Mapping[FunctionSpec, str], *, dataset: str, sets: FunctionSets
) -> tuple[Collected, Picked]:
    """The runs on `sets` that count and their networks; a run counts if it has a finite MSE for each function, and their mean.

    Raises:
        UserError: no tracked run counts.
    """
    functions = sets.functions
    columns = {split: [f"{split}/mse/function_{function}" for function in range(functions)] for split in SPLITS}

    def measure(chosen: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
        values = chosen.set_index("run_id")
        means = {f"{split}/mse/all": values.reindex(columns=columns[split]).mean(axis=1) for split in ("val", "test")}
        return values, contradictions(chosen, pd.DataFrame(means), what="errors by function") | finite(
            chosen, [*columns["val"], *columns["test"]]
        )

    counted_runs, picked = collect(
        runs,
        fingerprints,
        measure,
        dataset=dataset,
        axes=PANEL,
        more=("repetition", *VARIED),
        order={"setting": ORDER["setting"], "sampling": ORDER["sampling"]},
    )
    counted = counted_runs.wanted[counted_runs.wanted["state"] == "finished"]
    long = counted[[*CELL, "repetition", "seed", "run_id"]].loc[counted.index.repeat(functions)].rename_axis("spec").reset_index()
    long["function"] = np.tile(np.arange(functions), len(counted))
    for split in SPLITS:
        values = counted_runs.values.reindex(index=counted["run_id"], columns=columns[split])
        long[f"{split}_mse"] = values.to_numpy(dtype=float).ravel()
    return Collected(runs=counted_runs, networks=long, constants=_constants(long[long["method"] == "reg"], sets)), picked


def _constants(reg: pd.DataFrame, sets: FunctionSets) -> pd.DataFrame:
    errors = pd.DataFrame([_constant_errors(row, sets) for row in records(reg)], index=reg.index, columns=list(CONSTANTS))
    return pd.concat([reg, *(reg.assign(method=name, test_mse=errors[name]) for name in CONSTANTS)], ignore_index=True)


def _constant_errors(network: Mapping[str, Any], sets: FunctionSets) -> list[float]:
    """The test MSE of predicting each of CONSTANTS for every x, in place of a network."""
    key, part = data_key(network["setting"], network["noise"]), (network["function"], network["repetition"])
    training, tested = sets.get(key, network["sampling"], *part, "train")[1], sets.get(key, "uniform", *part, "test")[1]
    return [float(np.mean((tested.astype(float) - constant(training.astype(float))) ** 2)) for constant in CONSTANTS.values()]


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame`, sorted by those of CELL, repetition and function that it has; settings, samplings and methods in the paper's order."""
    keys = [key for key in [*CELL, "repetition", "function"] if key in frame.columns]

    def rank(column: "pd.Series[Any]") -> "pd.Series[Any]":
        return column.map(ranked(ORDER[str(column.name)])) if column.name in ORDER else column

    return frame.sort_values(keys, key=rank, kind="stable", na_position="first", ignore_index=True)


def data_name(setting: str, noise: float) -> str:
    """The name of data for readers: `clean`, `noisy σ 0.1`, `ood`."""
    return f"{setting} σ {noise:g}" if setting == "noisy" else setting


def cell_name(row: Mapping[str, Any]) -> str:
    """The name of a cell for readers: `noisy σ 0.1, severe · reg+cls · 64 · λ 1000`."""
    return f"{data_name(row['setting'], row['noise'])}, {row['sampling']} · {row_name(row)}"


def hole_lines(runs: Runs) -> list[str]:
    """A line for each cell with holes: `clean, severe · reg: 3 of 5 repetitions (missing: seeds 421, 849)`."""
    return runs.hole_lines(cell_name, what="repetitions")
