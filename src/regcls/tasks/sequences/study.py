"""The train stage of video progress: the search for λ, if a grid needs it, then the runs that depend on its result."""

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
from regcls.tasks.sequences.runs import BestLambdas, SequenceSpec, all_specs, needs_search, search_specs, searched_for
from regcls.training.ensemble_study import fingerprints, train_runs
from regcls.training.outcome import Outcome, known_scores

if TYPE_CHECKING:
    from regcls.tracking.tracker import Tracker

SCORE = "val/rmse/all"  # the search for λ minimises it


def found_lambdas(
    video: Sequences, networks: SequenceNetworks, runs: pd.DataFrame, new_scores: Mapping[str, float] | None = None
) -> BestLambdas:
    """The best λ of each search whose runs are all finished.

    `runs`: table of the data set's runs (Tracker.collect). `new_scores`: fingerprint -> validation RMSE of runs that the table may not
    have yet.
    """
    if not needs_search(video):
        return {}
    wanted = fingerprints(networks, search_specs(video, networks.dataset))
    scores = known_scores(runs, SCORE) | dict(new_scores or {})
    errors = {spec: scores[key] for spec, key in wanted.items() if key in scores}
    return whole_search(errors, wanted, searched_for)


def train_grids(
    video: Sequences,
    networks: SequenceNetworks,
    tracker: "Tracker",
    compute: Compute,
    tags: Mapping[str, str],
    *,
    lineage: Mapping[str, Any] | None = None,
) -> Outcome:
    """Train every run of the grids that is not FINISHED, those of the search for λ first. Raises as `ensemble_study.train_runs` does."""
    new_scores: dict[str, float] = {}

    def record(key: str, result: RunResult | None) -> None:
        new_scores[key] = math.inf if result is None else result.metrics.get(SCORE, math.nan)

    def train(specs: list[SequenceSpec]) -> Outcome:
        return train_runs(networks, fingerprints(networks, specs), tracker, compute, tags, lineage=lineage, on_end=record)

    runs = tracker.collect(networks.dataset, SequenceSpec) if needs_search(video) else pd.DataFrame()
    first = all_specs(video, networks.dataset, found_lambdas(video, networks, runs))
    outcome = train(first)
    best_lambdas = found_lambdas(video, networks, runs, new_scores)
    new = [spec for spec in all_specs(video, networks.dataset, best_lambdas) if spec not in set(first)]
    if not new:
        return outcome
    for (method, classes, unit, split), lam in best_lambdas.items():
        say(f"λ found: {lam:g} for {method} with {classes} classes on {unit} {split}")
    return outcome + train(new)
