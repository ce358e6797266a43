"""The journal -> the tracking server."""

from pathlib import Path

from regcls.errors import UserError
from regcls.params import Params
from regcls.progress import say
from regcls.tracking.journal import backlogs
from regcls.tracking.store import project_root, store_uri, without_password
from regcls.tracking.tracker import Tracker


def sync(params: Params, root: Path) -> None:
    """Deliver the undelivered runs of ended processes to the server of MLFLOW_TRACKING_URI, and retry refused ones.

    Raises:
        UserError: the server does not answer or refuses a run, or runs wait for another server or experiment.
    """
    server = without_password(store_uri(project_root(root)))
    if any(backlog.uri == server for backlog in backlogs(project_root(root))):
        delivered = Tracker(root, experiment=params.tracking.experiment).inherit(refused=True)
        say(f"{delivered} run(s) delivered to {server}")
    if others := backlogs(project_root(root)):
        destinations = [f"{len(backlog.runs)} for {backlog.uri}, experiment {backlog.experiment}" for backlog in others]
        raise UserError(
            f"other runs wait: {'; '.join(destinations)}. Set MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME to these, and start again."
        )
    say("nothing else waits to be delivered")
