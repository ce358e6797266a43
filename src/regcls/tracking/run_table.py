"""Tracked runs -> a table with typed columns. Does not use MLflow, but knows its limits."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import pandas as pd

from regcls.runs import RunSpec

LARGEST = 1.7976931348623157e308  # MLflow's SQL stores save infinity as this
TEXTS = ["run_id", "run_name", "status", "fingerprint", "parent"]
MACHINE = ("cpus", "threads", "gpu", "python", "torch", "numpy")  # tags: hardware and software of a run
LISTED = 20  # run ids in a command
LOST_REMEDY = "mount their disk or put them back there; or, to train these runs again, first: regcls delete --lost"
RERUN_TAG = "rerun_of"  # id of the run that this one repeats
ORIGIN = ("data_md5", "data_digest", "git_commit", "git_dirty", RERUN_TAG)  # tags: provenance of a run


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """One tracked run, as logged."""

    run_id: str
    name: str
    status: str
    started: int  # Unix milliseconds
    ended: int | None
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]  # the last value of each


def deletion(run_ids: Sequence[str]) -> str:
    """The command that deletes finished runs of no use, so that they are trained again; of many, only the first."""
    return f"regcls delete {' '.join(run_id[:8] for run_id in run_ids[:LISTED])}"


def run_table(rows: list[TrackedRun], kind: type[RunSpec]) -> pd.DataFrame:
    """One row per run, in the order of `rows`.

    Columns: run_id, run_name, status, fingerprint, parent (a run id), the tags of MACHINE and ORIGIN, started (UTC), seconds, the
    fields of `kind` with their types (`lam` NaN without λ), then the metrics by name, NaN where a run lacks one.
    """
    types = _types(kind)
    metrics = sorted({key for row in rows for key in row.metrics}, key=_natural)
    records = [
        (
            *(row.run_id, row.name, row.status, row.tags.get("fingerprint"), row.tags.get("mlflow.parentRunId")),
            *(row.tags.get(name) for name in (*MACHINE, *ORIGIN)),
            *(row.started, math.nan if row.ended is None else (row.ended - row.started) / 1000),
            *_typed(row.params, types).values(),
            *(row.metrics.get(key, math.nan) for key in metrics),
        )
        for row in rows
    ]
    frame = pd.DataFrame(records, columns=[*TEXTS, *MACHINE, *ORIGIN, "started", "seconds", *types, *metrics])
    kinds = {field: _column_type(field_type, missing=bool(frame[field].isna().any())) for field, field_type in types.items()}
    frame = frame.astype(dict.fromkeys([*TEXTS, *MACHINE, *ORIGIN], "str") | dict.fromkeys(["seconds", *metrics], "float64") | kinds)
    frame["started"] = pd.to_datetime(frame["started"], unit="ms", utc=True)
    frame[metrics] = frame[metrics].mask(frame[metrics] >= LARGEST, math.inf).mask(frame[metrics] <= -LARGEST, -math.inf)
    return frame


def typed(params: Mapping[str, str], kind: type[RunSpec]) -> dict[str, Any]:
    """The fields of `kind` from the params of a run, with their types; None for a missing or invalid one."""
    return _typed(params, _types(kind))


def _types(kind: type[RunSpec]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _typed(params: Mapping[str, str], types: Mapping[str, Any]) -> dict[str, Any]:
    return {field: _parsed(field_type, params.get("lambda" if field == "lam" else field)) for field, field_type in types.items()}


def _natural(key: str) -> list[str]:
    """Sort key that puts test/mse/function_2 before test/mse/function_10."""
    return [part.zfill(9) if part.isdigit() else part for part in re.split(r"(\d+)", key)]


def _is_float(field_type: Any) -> bool:
    return field_type is float or float in get_args(field_type)


def _column_type(field_type: Any, *, missing: bool) -> str:
    if field_type is int:
        return "Int64" if missing else "int64"
    if field_type is bool:
        return "boolean" if missing else "bool"
    if get_origin(field_type) is tuple:
        return "object"
    return "float64" if _is_float(field_type) else "str"


@cache
def _parsed(field_type: Any, text: str | None) -> Any:
    """A parameter, as we wrote it ("100.0") or the user typed it ("1e2"), with the type of its field; None if missing or invalid."""
    try:
        if text is None:
            return None
        if get_origin(field_type) is tuple:
            element = get_args(field_type)[0]
            return tuple(element(part) for part in re.split(r"[x, ]+", text.strip("()[] ")) if part and part != "none")
        if field_type is bool:
            return {"true": True, "false": False}.get(text.lower())
        if field_type is int:
            return int(text) if re.fullmatch(r"[+-]?\d+", text) else int(float(text))
        return float(text) if _is_float(field_type) else text
    except (ValueError, OverflowError):
        return None
