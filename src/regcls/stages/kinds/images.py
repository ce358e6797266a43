"""What faces and depth share: runs of one network each, on sets of images."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from regcls.datasets.splits import SplitSet
from regcls.params import Params
from regcls.runs.images import MakeSpec
from regcls.stages.kinds.kind import Kind, Session
from regcls.training import single_study
from regcls.training.outcome import Outcome
from regcls.training.single import Making


class ImageKind(Kind, ABC):
    """What such kinds have alike."""

    data_type: type[SplitSet[Any]]

    @abstractmethod
    def section(self, params: Params, dataset: str) -> Any:
        """Of params.yaml."""

    @abstractmethod
    def make_spec(self) -> MakeSpec[Any, Any]:
        """How params.yaml becomes a run."""

    @abstractmethod
    def making(self, params: Params, root: Path) -> Making:
        """How a run is made."""

    def origin(self, spec: Any) -> str:
        """Digest of what a run begins with, where its spec does not say all."""
        return ""

    def open(self, params: Params, dataset: str, folder: Path, *, verify: bool) -> Any:
        return self.data_type(folder, verify=verify, made_from=self.section(params, dataset).data)

    def open_as_it_is(self, folder: Path, *, verify: bool) -> Any:
        return self.data_type(folder, verify=verify)

    def digest(self, spec: Any, data: SplitSet[Any]) -> str:
        return data.digest

    def fingerprint(self, spec: Any, data: SplitSet[Any]) -> str:
        return single_study.fingerprints([spec], data, self.code(), self.origin)[spec]

    def train_grids(self, data: SplitSet[Any], session: Session) -> Outcome:
        section = self.section(session.params, session.dataset)
        return single_study.train_grids(self.make_spec(), section, self._study(data, session, adopt=False))

    def train_one(self, spec: Any, data: SplitSet[Any], session: Session) -> Outcome:
        return single_study.train_runs([spec], self._study(data, session, adopt=True))

    def _study(self, data: SplitSet[Any], session: Session, *, adopt: bool) -> single_study.Study:
        params, making = session.params, self.making(session.params, session.root)
        return single_study.Study(
            making=making,
            dataset=session.dataset,
            data=data,
            prepared=data.prepared.folder,
            samples=len(data.rows("train")),
            tracker=session.tracker,
            compute=params.compute,
            tags=session.tags(making.code),
            lineage=session.origin,
            state_epochs=params.tracking.state_epochs,
            adopt=adopt and session.repeats is None,
            repeats=session.repeats,
        )
