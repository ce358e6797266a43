"""Picks the tracked runs that count, and finds the holes: runs that params.yaml requests but no usable finished run provides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from regcls.errors import UserError
from regcls.runs import RunSpec
from regcls.tracking.run_table import MACHINE, ORIGIN, RERUN_TAG, deletion
from regcls.words import counted

# Status of the newest attempt at a run -> why the run is a hole.
REASONS = {"FAILED": "failed", "KILLED": "killed", "RUNNING": "not finished", "SCHEDULED": "not finished"}

Row = Mapping[str, Any]  # a row of a frame, by column
Spec = TypeVar("Spec", bound=RunSpec)
# Candidate runs -> run id: reason, for those that are unusable.
Unusable = Callable[[pd.DataFrame], Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Picked:
    """The requested runs and their states.

    `wanted`: a row per requested run, indexed by its position in the list of specs: fingerprint, state (`finished` or why not), run_id
    ("" for a hole), found (also the id of an unusable finished run). `chosen`: the tracked runs that count, in that order.
    """

    wanted: pd.DataFrame
    chosen: pd.DataFrame
    duplicates: tuple[str, ...]  # ids of unused finished runs: an earlier one has the same fingerprint, and they are not reruns of it
    stale: tuple[str, ...]  # ids of finished runs of a requested spec with other code or data


def pick(runs: pd.DataFrame, fingerprints: Mapping[Spec, str], *, dataset: str, unusable: Unusable) -> Picked:
    """Pick the runs that count: FINISHED, with a requested fingerprint, and usable; of several, the earliest.

    `runs`: a row per tracked run (run_table.py).

    Raises:
        UserError: no tracked run counts.
    """
    # DVC considers training done once runs/<dataset>.json exists, whatever has happened to the store.
    remedy = f"Train them with: regcls train {dataset} (or: dvc repro -fs train@{dataset})"
    if runs.empty or {"run_id", "status", "fingerprint", "started"} - set(runs.columns):
        raise UserError(f"no run is tracked in this MLflow store, so there is nothing to compare.\n{remedy}")
    runs = runs.sort_values(["started", "run_id"], kind="stable", ignore_index=True)
    finished = runs[runs["status"] == "FINISHED"]
    matching = finished[finished["fingerprint"].isin(set(fingerprints.values()))]
    first = matching.drop_duplicates("fingerprint", keep="first")
    reasons = unusable(first)
    chosen_id = dict(zip(first["fingerprint"], first["run_id"], strict=True))
    newest = dict(zip(runs["fingerprint"], runs["status"], strict=True))
    stale = _stale(finished, fingerprints)
    again = matching.duplicated("fingerprint", keep="first")
    if RERUN_TAG in matching.columns:
        again &= matching[RERUN_TAG].isna()

    rows = []
    for spec, wanted in fingerprints.items():
        if wanted in chosen_id:
            state = reasons.get(chosen_id[wanted], "finished")
        elif wanted in newest:
            state = REASONS.get(newest[wanted], str(newest[wanted]).lower())
        else:
            state = "made with other code or data" if spec in stale else "missing"
        found = chosen_id.get(wanted, "")
        rows.append({"fingerprint": wanted, "state": state, "run_id": found if state == "finished" else "", "found": found})
    table = pd.DataFrame(rows, columns=["fingerprint", "state", "run_id", "found"])
    counted = table.loc[table["state"] == "finished", "run_id"]
    if counted.empty:
        which = "" if first.empty else f" ({', '.join(sorted(set(reasons.values())))})"
        if reasons:
            remedy = f"Training keeps these runs, since they are FINISHED. Delete them first: {deletion(list(reasons))}\n{remedy}"
        raise UserError(
            f"none of the {len(runs)} tracked runs is a finished run that params.yaml asks for, with this code and data{which}.\n{remedy}"
        )
    return Picked(
        wanted=table,
        chosen=first.set_index("run_id", drop=False).loc[counted].reset_index(drop=True),
        duplicates=tuple(matching["run_id"][again]),
        stale=tuple(run_id for run_ids in stale.values() for run_id in run_ids),
    )


def _stale(finished: pd.DataFrame, fingerprints: Mapping[Spec, str]) -> dict[Spec, list[str]]:
    """Ids of finished runs of a requested spec that have another fingerprint."""
    kind = type(next(iter(fingerprints), None))
    names = [field.name for field in fields(kind) if field.name in finished.columns] if issubclass(kind, RunSpec) else []
    by_key = {tuple(getattr(spec, name) for name in names): spec for spec in fingerprints}
    stale: dict[Spec, list[str]] = {}
    others = finished[~finished["fingerprint"].isin(set(fingerprints.values()))]
    for run_id, *values in others[["run_id", *names]].itertuples(index=False, name=None):
        spec = by_key.get(tuple(_plain(value) for value in values))
        if spec is not None:
            stale.setdefault(spec, []).append(run_id)
    return stale


def _plain(value: Any) -> Any:
    if value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    return tuple(value) if isinstance(value, list | tuple | np.ndarray) else value


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts, by column name."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def holes_of(wanted: pd.DataFrame, cell: Sequence[str], name: Callable[[Mapping[str, Any]], str], *, what: str) -> list[str]:
    """A line for each cell with holes: `clean, severe · reg: 3 of 5 repetitions (missing: seeds 421, 849)`.

    `cell`: the columns of `wanted` that identify a cell; `name`: makes its name from its first row; `what`: noun for the repetitions.
    """
    lines: list[str] = []
    if (wanted["state"] == "finished").all():
        return lines
    for _, runs in wanted.groupby(list(cell), dropna=False, sort=False):
        holes = runs[runs["state"] != "finished"]
        if holes.empty:
            continue
        why = "; ".join(f"{state}: {_seeds(group['seed'].tolist())}" for state, group in holes.groupby("state", sort=True))
        lines.append(f"{name(records(runs)[0])}: {len(runs) - len(holes)} of {len(runs)} {what} ({why})")
    return lines


def _seeds(seeds: list[int]) -> str:
    return ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(map(str, seeds))


def warnings_of(grids: Mapping[str, pd.DataFrame], *, duplicates: Sequence[str], stale: Sequence[str]) -> list[str]:
    """Warnings about the holes of each grid (name -> its rows of `wanted`), duplicates and stale runs."""
    lines = []
    for name, wanted in grids.items():
        holes = wanted.loc[wanted["state"] != "finished", "state"].value_counts(sort=False)
        if len(holes):
            why = ", ".join(f"{count} {state}" for state, count in sorted(holes.items(), key=str))
            lines.append(f"{name}: {int(holes.sum())} of {len(wanted)} runs are holes ({why}); see the report")
    if duplicates:
        shown = ", ".join(duplicates[:3]) + (" …" if len(duplicates) > 3 else "")
        lines.append(
            f"duplicates: {counted(len(duplicates), 'finished run')} equal to earlier ones; the earliest counts, not used: {shown}"
        )
    if stale:
        lines.append(f"stale: {counted(len(stale), 'finished run')} with other code or data, not used")
    return lines


def machines(runs: pd.DataFrame) -> list[str]:
    """The kinds of machine that trained the runs, from the run table's columns: `120 runs: cpus 2, gpu none`."""
    columns = [name for name in MACHINE if name in runs.columns]
    if not columns:
        return []
    kinds = runs[columns].fillna("unknown").astype(str).groupby(columns, sort=True).size().reset_index(name="runs")
    return [f"{counted(kind['runs'], 'run')}: {', '.join(f'{name} {kind[name]}' for name in columns)}" for kind in records(kinds)]


def origins(runs: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """The versions of `data` and `code` that the runs come from, each with its number of `runs`; empty if the run table lacks them.

    A version of data has the `tag` and `value` of its runs; a version of code its `commit` and the number of `dirty` runs.
    """
    if set(ORIGIN) - set(runs.columns):
        return {"data": [], "code": []}
    table = runs[list(ORIGIN)].assign(is_md5=runs["data_md5"].fillna("unknown") != "unknown")
    table["tag"] = np.where(table["is_md5"], "data_md5", "data_digest")
    table["value"] = table["data_md5"].where(table["is_md5"], table["data_digest"])
    data = table.groupby(["tag", "value"], sort=True).size().reset_index(name="runs")
    commits = table.assign(commit=table["git_commit"].fillna("unknown"), dirty=table["git_dirty"] == "true")
    code = commits.groupby("commit", sort=True)["dirty"].agg(runs="size", dirty="sum").reset_index()
    return {name: records(part.sort_values("runs", ascending=False, kind="stable")) for name, part in (("data", data), ("code", code))}
