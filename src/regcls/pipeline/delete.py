"""Deletes tracked runs, so that they are trained again."""

from collections.abc import Sequence
from pathlib import Path

from regcls.errors import UserError
from regcls.params import Params
from regcls.progress import say, tracked
from regcls.tracking.store import without_password
from regcls.tracking.tracker import Tracker
from regcls.words import counted


def delete(params: Params, root: Path, runs: Sequence[str], *, lost: bool) -> None:
    """Delete runs in MLflow, which can restore them.

    `runs`: ids, or the beginnings of ids. `lost`: all finished runs whose files are gone.

    Raises:
        UserError: neither or both are given, or a run is not found or RUNNING; nothing is deleted.
    """
    if bool(runs) == lost:
        raise UserError("give regcls delete either runs or --lost. `mlflow ui` shows the ids of runs.")
    tracker = Tracker(root, experiment=params.tracking.experiment)
    found = [tracker.find(run) for run in runs]
    if running := next((run for run in found if run.status == "RUNNING"), None):
        raise UserError(f"run {running.run_id} is RUNNING. Stop its process first; regcls train then marks it KILLED and resumes it.")
    run_ids = list(tracker.without_files()) if lost else list(dict.fromkeys(run.run_id for run in found))
    for run_id in tracked(run_ids, len(run_ids), "deleting"):
        tracker.delete(run_id)
    say(f"{counted(len(run_ids), 'run')} deleted in {without_password(tracker.uri)}")
    if run_ids:
        say(f"regcls train makes them again; `mlflow runs restore --run-id {run_ids[0]}` brings one back, until `mlflow gc`")
