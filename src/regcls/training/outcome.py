"""The outcome of the train stage."""

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
    """Outcome of one call of the train stage."""

    trained: int
    kept: int  # finished before
    failed: Sequence[tuple[str, str]]  # name and reason
    index: Sequence[Mapping[str, str]]  # fingerprint, run_id, status and name of every requested run

    def __add__(self, other: "Outcome") -> "Outcome":
        """The outcome of both calls."""
        return Outcome(
            trained=self.trained + other.trained,
            kept=self.kept + other.kept,
            failed=[*self.failed, *other.failed],
            index=[*self.index, *other.index],
        )


def index_of(wanted: Mapping[Spec, str], finished: Mapping[str, str], ended: Mapping[str, tuple[str, str]]) -> list[dict[str, str]]:
    """`Outcome.index` of the runs `wanted` (spec -> fingerprint).

    `finished`: fingerprint -> run id, of runs finished before. `ended`: fingerprint -> (run id, status), of runs trained now.
    """
    states = {key: (run_id, "FINISHED") for key, run_id in finished.items()} | dict(ended)
    return [{"fingerprint": key, "run_id": states[key][0], "status": states[key][1], "name": spec.name} for spec, key in wanted.items()]


def known_scores(runs: pd.DataFrame, score: str) -> dict[str, float]:
    """Fingerprint -> metric `score` of the finished runs in a table (Tracker.collect); infinite for diverged ones.

    A λ whose run diverged is never the best; a run that failed for another reason says nothing about its λ.
    """
    scores: dict[str, float] = {}
    if "diverged" in runs.columns:
        scores |= dict.fromkeys(runs.loc[runs["diverged"] == 1, "fingerprint"].tolist(), math.inf)
    if score in runs.columns:
        finished = runs[runs["status"] == "FINISHED"].drop_duplicates("fingerprint")
        scores |= dict(zip(finished["fingerprint"].tolist(), map(float, finished[score].tolist()), strict=True))
    return scores


def repeating(run_id: str | None) -> dict[str, str]:
    """The tag of a run that repeats another."""
    return {RERUN_TAG: run_id} if run_id else {}


def why_stopped(error: BaseException) -> str:
    """Value of the tag `stopped` of runs that `error` has stopped."""
    return "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit | StoppedError) else f"{type(error).__name__}: {error}"
