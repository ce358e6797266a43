"""Deletes tracked runs, so that they are trained again."""

from collections.abc import Sequence
from pathlib import Path

from regcls.errors import UserError
from regcls.params import Params
from regcls.progress import say
from regcls.tracking.store import without_password
from regcls.tracking.tracker import Tracker
from regcls.words import counted


def delete(params: Params, root: Path, runs: Sequence[str], *, lost: bool) -> None:
    """Delete runs in MLflow, which can restore them.

    `runs`: ids, or the beginnings of ids. Prints the ids of deleted runs. `lost`: all finished runs whose files are gone.

    Raises:
        UserError: neither or both are given, or a run is not found or RUNNING; nothing is deleted.
    """
    if bool(runs) == lost:
        raise UserError("give regcls delete either runs or --lost. `mlflow ui` shows the ids of runs.")
    tracker = Tracker(root, experiment=params.tracking.experiment)
    found = {}
    for text in tracker.without_files() if lost else runs:
        run = tracker.find(text)
        if not run.run_id.startswith(text.strip().lower()) and run.run_id not in text:
            raise UserError(f"{text} is a fingerprint, of run {run.run_id}. Give the id of the run.")
        if run.status == "RUNNING":
            raise UserError(f"run {run.run_id} is RUNNING. Stop its process first; regcls train then marks it KILLED and resumes it.")
        found[run.run_id] = run.name
    for run_id, name in found.items():
        tracker.delete(run_id)
        print(run_id, name, flush=True)
    say(f"{counted(len(found), 'run')} deleted in {without_password(tracker.uri)}")
    if found:
        say("the command that made a run trains it again; `mlflow runs restore --run-id ID` brings one back, until `mlflow gc`")
