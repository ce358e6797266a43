"""What the 1D study and video progress share: runs of many small networks."""

from typing import Any

from regcls.files import lock
from regcls.progress import say
from regcls.stages.kinds.kind import Session
from regcls.training import ensemble_kinds, ensemble_study
from regcls.training.outcome import Outcome


def train_one(spec: Any, networks: ensemble_kinds.Kind[Any], session: Session) -> Outcome:
    """Make one run; while another process makes the very same, wait for its end. Raises as `ensemble_study.train_runs` does."""
    tracker, wanted = session.tracker, ensemble_study.fingerprints(networks, [spec])
    held = tracker.root / ".regcls" / f"run-{wanted[spec]}.lock"
    with lock(held, waiting=lambda holder: say(f"{holder} makes this very run; waiting for it to end")):
        tracker.inherit()
        return ensemble_study.train_runs(
            networks,
            wanted,
            tracker,
            session.params.compute,
            session.tags(networks.result_code()),
            lineage=session.origin,
            adopt=session.repeats is None,
            repeats=session.repeats,
        )
