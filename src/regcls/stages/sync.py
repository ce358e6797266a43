"""The journal -> the tracking server."""

from pathlib import Path

from regcls.errors import UserError
from regcls.params import Params
from regcls.progress import say
from regcls.tracking.journal import left_behind
from regcls.tracking.store import project_root, store_uri, without_password
from regcls.tracking.tracker import Tracker


def sync(params: Params, root: Path) -> None:
    """Deliver what processes that have ended have left in the journal for the server of MLFLOW_TRACKING_URI.

    Raises:
        UserError: the server does not answer or refuses some of it; or what there is waits for another server.
    """
    waiting = left_behind(project_root(root))
    here = without_password(store_uri(project_root(root)))
    for uri, runs in waiting.items():
        if uri != here:
            say(f"{len(runs)} runs wait for {uri}: set MLFLOW_TRACKING_URI to it")
    if here not in waiting:
        if waiting:
            raise UserError(f"nothing waits for {here}")
        say("nothing waits to be delivered")
        return
    delivered = Tracker(root, experiment=params.tracking.experiment).inherit()
    say(f"{delivered} runs delivered to {here}")
    for run in left_behind(project_root(root)).get(here, []):
        say(f"{run.start['name']} stays in {run.folder}: {run.refused or 'of another experiment: set MLFLOW_EXPERIMENT_NAME to it'}")
