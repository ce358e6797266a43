"""What became of the runs that were wanted."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from regcls.runs import RunSpec
from regcls.tracking.run_table import RERUN_TAG
from regcls.training.loop import StoppedError

Spec = TypeVar("Spec", bound=RunSpec)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one call of the train stage."""

    trained: int
    kept: int  # that were finished before
    failed: Mapping[str, str]  # name -> reason
    index: Sequence[Mapping[str, str]]  # fingerprint, run_id, status and name of every wanted run


def index_of(wanted: Mapping[Spec, str], finished: Mapping[str, str], ended: Mapping[str, tuple[str, str]]) -> list[dict[str, str]]:
    """`Outcome.index` of `wanted` (spec -> fingerprint): `finished` before (fingerprint -> run id), or `ended` now (with status)."""
    states = {key: (run_id, "FINISHED") for key, run_id in finished.items()} | dict(ended)
    return [{"fingerprint": key, "run_id": states[key][0], "status": states[key][1], "name": spec.name} for spec, key in wanted.items()]


def known_scores(runs: pd.DataFrame, score: str) -> dict[str, float]:
    """Fingerprint -> the metric `score` of the finished runs in a table (Tracker.collect); infinite for one that diverged.

    A λ that diverged is never the best; what failed for another reason says nothing of its λ.
    """
    known: dict[str, float] = {}
    if "diverged" in runs.columns:
        known |= dict.fromkeys(runs.loc[runs["diverged"] == 1, "fingerprint"].tolist(), math.inf)
    if score in runs.columns:
        finished = runs[runs["status"] == "FINISHED"].drop_duplicates("fingerprint")
        known |= dict(zip(finished["fingerprint"].tolist(), map(float, finished[score].tolist()), strict=True))
    return known


def repeating(run_id: str | None) -> dict[str, str]:
    """The tag of a run that repeats another."""
    return {RERUN_TAG: run_id} if run_id else {}


def why_stopped(error: BaseException) -> str:
    """What MLflow is told of the runs that an error leaves in the making."""
    return "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit | StoppedError) else f"{type(error).__name__}: {error}"
