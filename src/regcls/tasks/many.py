"""Base class of tasks whose runs train many small networks each, in parallel."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from regcls.files import lock
from regcls.progress import say
from regcls.tasks.task import DataT, SectionT, Session, SpecT, Task
from regcls.training import ensemble_study
from regcls.training.ensemble_networks import Networks
from regcls.training.outcome import Outcome


class ManyTask(Task[SectionT, SpecT, DataT]):
    """A task whose runs train many small networks each."""

    @abstractmethod
    def networks(self, data: DataT, dataset: str) -> Networks[SpecT]:
        """The networks that runs on these data train."""

    def train_runs(
        self, networks: Networks[SpecT], wanted: Mapping[SpecT, str], session: Session, *, adopt: bool = False, repeats: str | None = None
    ) -> Outcome:
        """Train and track every run of `wanted` (spec -> fingerprint) that is not FINISHED; see `ensemble_study.train_runs`."""
        options: dict[str, Any] = {"lineage": session.origin, "adopt": adopt, "repeats": repeats}
        return ensemble_study.train_runs(networks, wanted, session.tracker, session.params.compute, session.tags(self.code()), **options)

    def fingerprint(self, spec: SpecT, data: DataT) -> str:
        return ensemble_study.fingerprints(self.networks(data, spec.dataset), [spec])[spec]

    def train_one(self, spec: SpecT, data: DataT, session: Session) -> Outcome:
        networks, tracker = self.networks(data, session.dataset), session.tracker
        wanted = ensemble_study.fingerprints(networks, [spec])
        lock_file = tracker.locks / f"run-{wanted[spec]}.lock"
        with lock(lock_file, on_wait=lambda holder: say(f"{holder} is training this run; waiting for it to finish")):
            tracker.inherit()
            return self.train_runs(networks, wanted, session, adopt=session.repeats is None, repeats=session.repeats)
