"""What the 1D study and video progress share: runs of many small networks."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from regcls.datasets.store import PreparedSet
from regcls.files import lock
from regcls.params import Params
from regcls.progress import say
from regcls.stages.kinds.kind import Kind, Session
from regcls.training import ensemble_kinds, ensemble_study
from regcls.training.outcome import Outcome


class EnsembleKind(Kind, ABC):
    """What such kinds have alike."""

    data_type: type[PreparedSet[Any]]

    @abstractmethod
    def section(self, params: Params) -> Any:
        """Of params.yaml."""

    @abstractmethod
    def networks(self, data: Any, dataset: str) -> ensemble_kinds.Kind[Any]:
        """What runs on the data train."""

    def open(self, params: Params, dataset: str, folder: Path, *, verify: bool) -> Any:
        return self.data_type(folder, verify=verify, made_from=self.section(params).data)

    def open_as_it_is(self, folder: Path, *, verify: bool) -> Any:
        return self.data_type(folder, verify=verify)

    def fingerprint(self, spec: Any, data: Any) -> str:
        return ensemble_study.fingerprints(self.networks(data, spec.dataset), [spec])[spec]

    def train_one(self, spec: Any, data: Any, session: Session) -> Outcome:
        networks, tracker = self.networks(data, session.dataset), session.tracker
        wanted = ensemble_study.fingerprints(networks, [spec])
        held = tracker.root / ".regcls" / f"run-{wanted[spec]}.lock"
        with lock(held, waiting=lambda holder: say(f"{holder} makes this very run; waiting for it to end")):
            tracker.inherit()
            return ensemble_study.train_runs(
                networks,
                wanted,
                tracker,
                session.params.compute,
                session.tags(self.code()),
                lineage=session.origin,
                adopt=session.repeats is None,
                repeats=session.repeats,
            )
