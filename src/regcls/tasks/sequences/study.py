"""The train stage of video progress: the search for λ, where a grid asks for it, and then the runs that need its answer."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from regcls.params import Compute
from regcls.progress import say
from regcls.runs import RunResult
from regcls.runs.search import whole_search
from regcls.tasks.sequences.networks import SequenceNetworks
from regcls.tasks.sequences.params import Sequences
from regcls.tasks.sequences.runs import Found, SequenceSpec, all_specs, needs_search, search_specs, searched_for
from regcls.training.ensemble_study import fingerprints, train_runs
from regcls.training.outcome import Outcome, known_scores

if TYPE_CHECKING:
    from regcls.tracking.tracker import Tracker

SCORE = "val/rmse/all"  # decides λ


def found_lambdas(video: Sequences, kind: SequenceNetworks, runs: pd.DataFrame, made: Mapping[str, float] | None = None) -> Found:
    """λ of the search, as far as its runs are finished.

    `runs`: the table of the data set's runs (Tracker.collect). `made`: fingerprint -> validation RMSE of runs that may not be in it yet.
    """
    if not needs_search(video):
        return {}
    wanted = fingerprints(kind, search_specs(video, kind.dataset))
    known = known_scores(runs, SCORE) | dict(made or {})
    errors = {spec: known[key] for spec, key in wanted.items() if key in known}
    return whole_search(errors, wanted, searched_for)


def train_grids(
    video: Sequences,
    kind: SequenceNetworks,
    tracker: "Tracker",
    compute: Compute,
    tags: Mapping[str, str],
    *,
    lineage: Mapping[str, Any] | None = None,
) -> Outcome:
    """Make every run of the grids that is not FINISHED, those of the search for λ first. Raises as `ensemble_study.train_runs` does."""
    made: dict[str, float] = {}

    def note(key: str, result: RunResult | None) -> None:
        made[key] = math.inf if result is None else result.metrics.get(SCORE, math.nan)

    def train(specs: list[SequenceSpec]) -> Outcome:
        return train_runs(kind, fingerprints(kind, specs), tracker, compute, tags, lineage=lineage, on_end=note)

    searched = needs_search(video)
    runs = tracker.collect(kind.dataset, SequenceSpec) if searched else pd.DataFrame()
    first = all_specs(video, kind.dataset, found_lambdas(video, kind, runs))
    outcome = train(first)
    found = found_lambdas(video, kind, runs, made)
    new = [spec for spec in all_specs(video, kind.dataset, found) if spec not in set(first)]
    if not new:
        return outcome
    for (method, classes, unit, split), lam in found.items():
        say(f"λ found: {lam:g} for {method} with {classes} classes on {unit} {split}")
    return _both(outcome, train(new))


def _both(one: Outcome, other: Outcome) -> Outcome:
    return Outcome(
        trained=one.trained + other.trained,
        kept=one.kept + other.kept,
        failed={**one.failed, **other.failed},
        index=[*one.index, *other.index],
    )
