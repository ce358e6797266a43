"""Base class of tasks on sets of images whose runs train one network each."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from regcls.data.splits import SplitSet
from regcls.runs.grids import BestLambdas, MakeSpec, SingleSpec, all_specs, search_specs
from regcls.tasks import single_advice
from regcls.tasks.task import Plan, SectionT, Session, Sources, Task
from regcls.training import single_study
from regcls.training.outcome import Outcome
from regcls.training.single import Trainer

SpecT = TypeVar("SpecT", bound=SingleSpec)
DataT = TypeVar("DataT", bound=SplitSet[Any])


class SingleTask(Task[SectionT, SpecT, DataT]):
    """A task whose runs train one network each."""

    advises = True

    @abstractmethod
    def make_spec(self) -> MakeSpec[SpecT]:
        """The function that turns params.yaml values into a run spec."""

    @abstractmethod
    def trainer(self, section: SectionT, root: Path) -> Trainer:
        """The trainer of the task's runs."""

    def sizes(self, section: SectionT) -> list[tuple[Any, int]]:
        """The section, and with smaller images; each with the side length of its images in pixels. For advice within a budget."""
        return [(section, 1)]

    def plan(self, data: DataT, session: Session, *, methods: Sequence[str], budget: float, level: int | None = None) -> Plan:
        self.check_fit(all_specs(self.make_spec(), session.section, session.dataset, {}), data)
        study, sizes = self._study(data, session, adopt=False), self.sizes(session.section)
        return single_advice.plan(study, sizes, self.make_spec(), methods=methods, budget=budget, level=level)

    def origin(self, spec: SpecT) -> str:
        """Digest of a run's initial weights, as far as its spec does not determine them."""
        return ""

    def digest(self, spec: SpecT, data: DataT) -> str:
        return data.digest

    def fingerprint(self, spec: SpecT, data: DataT) -> str:
        return single_study.fingerprints([spec], data, self.code(), self.origin)[spec]

    def train_grids(self, data: DataT, session: Session) -> Outcome:
        # The search has all classes of the grids that use its result.
        self.check_fit(all_specs(self.make_spec(), session.section, session.dataset, {}), data)
        return single_study.train_grids(self.make_spec(), session.section, self._study(data, session, adopt=False))

    def train_one(self, spec: SpecT, data: DataT, session: Session) -> Outcome:
        return single_study.train_runs([spec], self._study(data, session, adopt=True))

    def _study(self, data: DataT, session: Session, *, adopt: bool) -> single_study.Study:
        trainer = self.trainer(session.section, session.root)
        return single_study.Study(
            trainer=trainer,
            dataset=session.dataset,
            data=data,
            prepared=data.prepared.folder,
            samples=len(data.rows("train")),
            tracker=session.tracker,
            compute=session.params.compute,
            tags=session.tags(trainer.code),
            lineage=session.origin,
            state_epochs=session.params.tracking.state_epochs,
            adopt=adopt and session.repeats is None,
            repeats=session.repeats,
        )

    def wanted(self, sources: Sources) -> tuple[BestLambdas, dict[SpecT, str]]:
        """The λ chosen by the search, and the fingerprint of every requested run."""
        make, section, dataset = self.make_spec(), sources.section, sources.dataset
        trainer = self.trainer(section, sources.root)

        def fingerprints(specs: Sequence[SpecT]) -> dict[SpecT, str]:
            return single_study.fingerprints(specs, sources.data, trainer.code, trainer.origin)

        best_lambdas = single_study.found_lambdas(fingerprints(search_specs(make, section, dataset)), trainer.score, sources.runs)
        return best_lambdas, fingerprints(all_specs(make, section, dataset, best_lambdas))
