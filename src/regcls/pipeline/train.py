"""Prepared data -> tracked runs: all grids of a data set, or one run."""

from pathlib import Path
from typing import Any

from regcls.data.store import prepared_folder
from regcls.errors import UserError
from regcls.files import lock, write_json
from regcls.methods import missing_need
from regcls.params import Params
from regcls.pipeline.prepare import prepare
from regcls.progress import say
from regcls.tasks import task_named, task_params
from regcls.tasks.task import Session, open_data
from regcls.tracking.run_table import LOST_REMEDY
from regcls.tracking.store import without_password
from regcls.tracking.tracker import Tracker
from regcls.training.outcome import Outcome
from regcls.training.places import claim_for
from regcls.words import counted

SHOWN = 20  # failed runs


def train(params: Params, root: Path, dataset: str) -> None:
    """Train every run of the grids that is not FINISHED, and write the list of all runs to runs/<dataset>.json.

    A run that diverges is tracked as FAILED and reported; the others continue.

    Raises:
        UserError: no prepared data, no store, or no GPU though one is required.
    """
    data = open_data(params, root, dataset, verify=True)
    tracker = Tracker(root, experiment=params.tracking.experiment)
    outcome = train_grids(data, Session(params=params, root=root, dataset=dataset, tracker=tracker))
    write_json(root / "runs" / f"{dataset}.json", outcome.index)
    if note := params.left_out(dataset):
        say(note)


def train_grids(data: Any, session: Session) -> Outcome:
    """Train every run of the session's grids that is not FINISHED, and say how many there were.

    One process at a time does this for a data set and a store: of this machine, or of a cluster.
    """
    dataset, tracker = session.dataset, session.tracker
    lock_path, compute, what = (
        tracker.locks / f"train-{dataset}.lock",
        session.params.compute,
        f"{dataset} in {without_password(tracker.uri)}",
    )

    def wait_for(holder: str) -> None:
        say(f"{holder} is training {dataset}; waiting for it to finish")

    with lock(lock_path, on_wait=wait_for), claim_for(compute, tracker.root, what, on_wait=wait_for):
        tracker.inherit()
        if stale := tracker.reconcile(dataset):
            say(f"marked {len(stale)} runs of a dead process as KILLED; they are trained again, from their last checkpoint if any")
        outcome = task_named(session.params.task(dataset)).train_grids(data, session)
    counts = f"{outcome.trained} runs trained, {outcome.kept} were there already, {len(outcome.failed)} failed"
    say(f"{counts}, in {without_password(tracker.uri)}")
    _say_lost(outcome, tracker)
    for name, reason in outcome.failed[:SHOWN]:
        say(f"FAILED {name}: {reason}")
    if (more := len(outcome.failed) - SHOWN) > 0:
        say(f"and {counted(more, 'other failed run')}; mlflow ui lists them")
    return outcome


def run(params: Params, root: Path, dataset: str, options: Any) -> None:
    """Train one run with params.yaml's values, overridden by `options`, unless an equal run is finished.

    Raises:
        UserError: an option does not fit the prepared data, or the run diverged.
    """
    task = task_named(params.task(dataset))
    spec = task.single_spec(params.datasets[dataset], dataset, options)
    if missing := missing_need(spec.method, task_params(spec.task).provides):  # before data are prepared, which may take hours
        raise UserError(f"{spec.name} cannot be trained: {missing}")
    if not prepared_folder(root, dataset).exists():
        say(f"{dataset} is not prepared yet; preparing it first, once")
        prepare(params, root, dataset)
    data = open_data(params, root, dataset, verify=True)
    task.check_fit([spec], data)
    tracker = Tracker(root, experiment=params.tracking.experiment)
    tracker.inherit()
    tracker.reconcile(dataset)
    outcome = task.train_one(spec, data, Session(params=params, root=root, dataset=dataset, tracker=tracker))
    for name, reason in outcome.failed:
        raise UserError(f"run {name} {reason}. Try a smaller --learning-rate.")
    run_id = outcome.index[0]["run_id"]
    error, metric = task.error
    say(f"{spec.name}: {'trained' if outcome.trained else 'was there already'}, {error} {tracker.metrics(run_id)[metric]:.4f}")
    say(f"run {run_id} in {without_password(tracker.uri)}")
    _say_lost(outcome, tracker)
    if note := params.left_out(dataset):
        say(note)


def _say_lost(outcome: Outcome, tracker: Tracker) -> None:
    """Say which of the runs that were there already have lost their files, and what to do."""
    gone = tracker.without_files() if outcome.kept else {}
    if lost := [entry["run_id"] for entry in outcome.index if entry["run_id"] in gone]:
        say(f"{counted(len(lost), 'finished run has', 'finished runs have')} no files in {gone[lost[0]].parents[1]}: {LOST_REMEDY}")
