"""Tracked runs -> the runs that count, the networks in them, and the holes: what params.yaml asks for and no finished run gives."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

import numpy as np
import pandas as pd

from regcls.errors import UserError
from regcls.params import Method, Sampling, Setting
from regcls.runs import RunSpec

PANEL = ["setting", "noise", "sampling"]  # one data set: a panel of a figure
CELL = [*PANEL, "method", "classes", "lam"]  # what is repeated: one mean
SPLITS = ("train", "val", "test")

# Why a wanted run is a hole, by the status of the newest attempt at it.
REASONS = {"FAILED": "failed", "KILLED": "killed", "RUNNING": "not finished", "SCHEDULED": "not finished"}

# DVC takes training for done once runs/synthetic.json is there, whatever has become of the store.
REMEDY = "Train them with: regcls train synthetic (or: dvc repro -f train@synthetic)"

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

    def of(self, specs: Iterable[RunSpec], place: Mapping[RunSpec, int]) -> "Collected":
        """The part that belongs to a grid."""
        here = [place[spec] for spec in specs]
        networks = self.networks[self.networks["spec"].isin(here)]
        return Collected(wanted=self.wanted.loc[here], networks=networks, duplicates=self.duplicates, stale=self.stale)


def collect(runs: pd.DataFrame, fingerprints: Mapping[RunSpec, str], *, functions: int) -> Collected:
    """Pick the runs that count: FINISHED, of a wanted fingerprint, with a finite MSE for each function; the earliest of several.

    `runs` is a row a tracked run; `functions` is the number of networks in a run.

    Raises:
        UserError: no tracked run counts.
    """
    missing = {"run_id", "status", "fingerprint", "started"} - set(runs.columns)
    if runs.empty or missing:
        raise UserError(f"no run is tracked in this MLflow store, so there is nothing to compare.\n{REMEDY}")
    runs = runs.sort_values(["started", "run_id"], kind="stable", ignore_index=True)
    finished = runs[runs["status"] == "FINISHED"]
    wanted_prints = set(fingerprints.values())
    matching = finished[finished["fingerprint"].isin(wanted_prints)]
    chosen = matching.drop_duplicates("fingerprint", keep="first")
    values = {split: _by_function(chosen, split, functions) for split in SPLITS}
    usable = np.isfinite(values["val"]).all(axis=1) & np.isfinite(values["test"]).all(axis=1)
    chosen_id = dict(zip(chosen["fingerprint"], chosen["run_id"], strict=True))
    diverged = set(chosen.loc[~usable, "fingerprint"])
    stale = _stale(finished, fingerprints)
    newest = dict(zip(runs["fingerprint"], runs["status"], strict=True))

    rows: list[dict[str, Any]] = []
    for spec, wanted in fingerprints.items():
        if wanted in diverged:
            state = "without a finite MSE"
        elif wanted in chosen_id:
            state = "finished"
        elif wanted in newest:
            state = REASONS.get(newest[wanted], str(newest[wanted]).lower())
        else:
            state = "made with other code or data" if spec in stale else "missing"
        rows.append(_row(spec) | {"fingerprint": wanted, "state": state, "run_id": chosen_id[wanted] if state == "finished" else ""})
    table = pd.DataFrame(rows)
    if not (table["state"] == "finished").any():
        raise UserError(
            f"none of the {len(runs)} tracked runs is finished and one that params.yaml asks for, with this code and data.\n{REMEDY}"
        )
    networks = _networks(table, chosen.loc[usable], {split: array[usable] for split, array in values.items()}, functions)
    return Collected(
        wanted=table,
        networks=networks,
        duplicates=tuple(matching["run_id"][matching.duplicated("fingerprint", keep="first")]),
        stale=tuple(run for found in stale.values() for run in found),
    )


def _by_function(runs: pd.DataFrame, split: str, functions: int) -> np.ndarray:
    """(runs, functions); NaN where a metric was not tracked."""
    columns = [f"functions/{split}_mse_{function}" for function in range(functions)]
    return runs.reindex(columns=columns).to_numpy(dtype=float)


def _row(spec: RunSpec) -> dict[str, Any]:
    row = {key: getattr(spec, key) for key in [*CELL, "repetition", "seed"]}
    return row | {"lam": np.nan if spec.lam is None else spec.lam}


def _stale(finished: pd.DataFrame, fingerprints: Mapping[RunSpec, str]) -> dict[RunSpec, list[str]]:
    """Finished runs of a wanted spec under another fingerprint."""
    names = [field.name for field in fields(RunSpec) if field.name in finished.columns]
    by_key = {tuple(getattr(spec, name) for name in names): spec for spec in fingerprints}
    found: dict[RunSpec, list[str]] = {}
    others = finished[~finished["fingerprint"].isin(set(fingerprints.values()))]
    for run_id, *values in others[["run_id", *names]].itertuples(index=False, name=None):
        spec = by_key.get(tuple(_plain(value) for value in values))
        if spec is not None:
            found.setdefault(spec, []).append(run_id)
    return found


def _plain(value: Any) -> Any:
    if value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    return tuple(value) if isinstance(value, list | tuple | np.ndarray) else value


def _networks(wanted: pd.DataFrame, chosen: pd.DataFrame, values: Mapping[str, np.ndarray], functions: int) -> pd.DataFrame:
    counted = wanted[wanted["state"] == "finished"]
    place = {run_id: position for position, run_id in enumerate(chosen["run_id"])}
    order = [place[run_id] for run_id in counted["run_id"]]
    long = counted[[*CELL, "repetition", "seed", "run_id"]].loc[counted.index.repeat(functions)]
    long = long.rename_axis("spec").reset_index()
    long["function"] = np.tile(np.arange(functions), len(counted))
    for split in SPLITS:
        long[f"{split}_mse"] = values[split][order].ravel()
    return long


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Sorted by CELL and repetition as far as they are there, settings and samplings in the paper's order."""
    keys = [key for key in [*CELL, "repetition", "function"] if key in frame.columns]

    def rank(column: "pd.Series[Any]") -> "pd.Series[Any]":
        return column.map({value: position for position, value in enumerate(ORDER[str(column.name)])}) if column.name in ORDER else column

    return frame.sort_values(keys, key=rank, kind="stable", na_position="first", ignore_index=True)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts by column name."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def data_name(setting: str, noise: float) -> str:
    """For a reader: `clean`, `noisy σ 0.1`, `ood`."""
    return f"{setting} σ {noise:g}" if setting == "noisy" else setting


def cell_name(row: Mapping[str, Any]) -> str:
    """For a reader: `noisy σ 0.1, severe · reg+cls · 64 · λ 1000`."""
    panel = f"{data_name(row['setting'], row['noise'])}, {row['sampling']} · {row['method']}"
    return panel if row["method"] == "reg" else f"{panel} · {row['classes']} · λ {row['lam']:g}"


def _seeds(seeds: list[int]) -> str:
    return ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(map(str, seeds))


def hole_lines(wanted: pd.DataFrame) -> list[str]:
    """A line a cell with holes: `clean, severe · reg: 3 of 5 repetitions (missing: seeds 421, 849)`."""
    lines: list[str] = []
    if (wanted["state"] == "finished").all():
        return lines
    for _, cell in in_order(wanted).groupby(CELL, dropna=False, sort=False):
        holes = cell[cell["state"] != "finished"]
        if holes.empty:
            continue
        why = "; ".join(f"{state}: {_seeds(group['seed'].tolist())}" for state, group in holes.groupby("state", sort=True))
        lines.append(f"{cell_name(records(cell)[0])}: {len(cell) - len(holes)} of {len(cell)} repetitions ({why})")
    return lines
