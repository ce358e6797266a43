"""The journal -> the tracking server."""

from pathlib import Path

from regcls.errors import UserError
from regcls.params import Params
from regcls.progress import say
from regcls.tracking.journal import left_behind
from regcls.tracking.store import project_root, store_uri, without_password
from regcls.tracking.tracker import Tracker


def sync(params: Params, root: Path) -> None:
    """Deliver what processes that have ended have left in the journal for the server of MLFLOW_TRACKING_URI, refused runs once more.

    Raises:
        UserError: the server does not answer or refuses some of it, or some of it waits for another server or experiment.
    """
    here = without_password(store_uri(project_root(root)))
    if any(left.uri == here for left in left_behind(project_root(root))):
        delivered = Tracker(root, experiment=params.tracking.experiment).inherit(refused=True)
        say(f"{delivered} run(s) delivered to {here}")
    if elsewhere := left_behind(project_root(root)):
        where = [f"{len(left.runs)} for {left.uri}, experiment {left.experiment}" for left in elsewhere]
        raise UserError(
            f"other runs wait: {'; '.join(where)}. Set MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME to these, and start again."
        )
    say("nothing else waits to be delivered")
