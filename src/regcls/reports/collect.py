"""Tracked runs of the 1D study -> the runs that count, the networks in them, and the holes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd

from regcls.params.types import Method
from regcls.reports.picking import holes_of, pick
from regcls.tasks.functions.params import Sampling, Setting
from regcls.tasks.functions.runs import FunctionSpec

PANEL = ["setting", "noise", "sampling"]  # one data set: a panel of a figure
CELL = [*PANEL, "method", "classes", "lam"]  # what is repeated: one mean
SPLITS = ("train", "val", "test")

ORDER = {"setting": get_args(Setting), "sampling": get_args(Sampling), "method": get_args(Method)}


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What `compare` works on.

    `wanted`: a row a wanted run, indexed by its place in the list of specs: CELL, repetition, seed, fingerprint, state (`finished` or why
    not), run_id ("" for a hole). `networks`: a row a network of a counted run: spec (index in `wanted`), CELL, repetition, seed, run_id,
    function, train_mse, val_mse, test_mse.
    """

    wanted: pd.DataFrame
    networks: pd.DataFrame
    duplicates: tuple[str, ...]  # run ids left out because an earlier finished run has the same fingerprint
    stale: tuple[str, ...]  # ids of finished runs of a wanted spec, made with other code or data

    def of(self, specs: Iterable[FunctionSpec], place: Mapping[FunctionSpec, int]) -> "Collected":
        """The part that belongs to a grid."""
        here = [place[spec] for spec in specs]
        networks = self.networks[self.networks["spec"].isin(here)]
        return Collected(wanted=self.wanted.loc[here], networks=networks, duplicates=self.duplicates, stale=self.stale)


def collect(runs: pd.DataFrame, fingerprints: Mapping[FunctionSpec, str], *, dataset: str, functions: int) -> Collected:
    """The runs that count (`picking.pick`) and their networks; a run counts if it has a finite MSE for each function.

    `runs` is a row a tracked run; `functions` is the number of networks in a run.

    Raises:
        UserError: no tracked run counts.
    """

    def unusable(chosen: pd.DataFrame) -> dict[str, str]:
        finite = [np.isfinite(_by_function(chosen, split, functions)).all(axis=1) for split in ("val", "test")]
        return dict.fromkeys(chosen.loc[~(finite[0] & finite[1]), "run_id"], "without a finite MSE")

    picked = pick(runs, fingerprints, dataset=dataset, unusable=unusable)
    table = pd.DataFrame([_row(spec) for spec in fingerprints]).join(picked.wanted)
    return Collected(
        wanted=table,
        networks=_networks(table, picked.chosen, functions),
        duplicates=picked.duplicates,
        stale=picked.stale,
    )


def _by_function(runs: pd.DataFrame, split: str, functions: int) -> np.ndarray:
    """(runs, functions); NaN where a metric was not tracked."""
    columns = [f"functions/{split}_mse_{function}" for function in range(functions)]
    return runs.reindex(columns=columns).to_numpy(dtype=float)


def _row(spec: FunctionSpec) -> dict[str, Any]:
    row = {key: getattr(spec, key) for key in [*CELL, "repetition", "seed"]}
    return row | {"lam": np.nan if spec.lam is None else spec.lam}


def _networks(wanted: pd.DataFrame, chosen: pd.DataFrame, functions: int) -> pd.DataFrame:
    """`chosen` are the counted runs, in the order of `wanted`."""
    counted = wanted[wanted["state"] == "finished"]
    long = counted[[*CELL, "repetition", "seed", "run_id"]].loc[counted.index.repeat(functions)]
    long = long.rename_axis("spec").reset_index()
    long["function"] = np.tile(np.arange(functions), len(counted))
    for split in SPLITS:
        long[f"{split}_mse"] = _by_function(chosen, split, functions).ravel()
    return long


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Sorted by CELL and repetition as far as they are there, settings and samplings in the paper's order."""
    keys = [key for key in [*CELL, "repetition", "function"] if key in frame.columns]

    def rank(column: "pd.Series[Any]") -> "pd.Series[Any]":
        return column.map({value: position for position, value in enumerate(ORDER[str(column.name)])}) if column.name in ORDER else column

    return frame.sort_values(keys, key=rank, kind="stable", na_position="first", ignore_index=True)


def data_name(setting: str, noise: float) -> str:
    """For a reader: `clean`, `noisy σ 0.1`, `ood`."""
    return f"{setting} σ {noise:g}" if setting == "noisy" else setting


def cell_name(row: Mapping[str, Any]) -> str:
    """For a reader: `noisy σ 0.1, severe · reg+cls · 64 · λ 1000`."""
    panel = f"{data_name(row['setting'], row['noise'])}, {row['sampling']} · {row['method']}"
    return panel if row["method"] == "reg" else f"{panel} · {row['classes']} · λ {row['lam']:g}"


def hole_lines(wanted: pd.DataFrame) -> list[str]:
    """A line a cell with holes: `clean, severe · reg: 3 of 5 repetitions (missing: seeds 421, 849)`."""
    return holes_of(in_order(wanted), CELL, cell_name, what="repetitions")
