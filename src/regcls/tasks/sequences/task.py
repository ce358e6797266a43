"""The task of sequences: a number for each frame of a video, from its features."""

from pathlib import Path

from regcls.reports.report import Report
from regcls.tasks.many import ManyTask
from regcls.tasks.sequences import report, study
from regcls.tasks.sequences.code import result_code
from regcls.tasks.sequences.data import SequenceSet
from regcls.tasks.sequences.networks import SequenceNetworks
from regcls.tasks.sequences.params import SequenceOptions, Sequences
from regcls.tasks.sequences.prepare import counts, prepare
from regcls.tasks.sequences.runs import SequenceSpec, all_specs, single_spec
from regcls.tasks.sequences.stand_in import write_archive
from regcls.tasks.task import Session, Sources, too_many_classes
from regcls.training import ensemble_study
from regcls.training.outcome import Outcome


class SequencesTask(ManyTask[Sequences, SequenceSpec, SequenceSet]):
    """See `task.Task`."""

    spec_type = SequenceSpec
    data_type = SequenceSet
    error = ("test RMSE", "test/rmse/all")

    def prepare(self, section: Sequences, folder: Path, *, raw: Path, dataset: str, processes: int) -> list[str]:
        prepare(section.data, folder, raw=raw, dataset=dataset, processes=processes)
        return counts(folder)

    def write_stand_in(self, section: Sequences, folder: Path, *, processes: int) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        write_archive(folder, section.data.stand_in)
        return f"videos of {section.data.stand_in.persons} persons"

    def networks(self, data: SequenceSet, dataset: str) -> SequenceNetworks:
        return SequenceNetworks(data, dataset)

    def digest(self, spec: SequenceSpec, data: SequenceSet) -> str:
        return data.digest

    def misfit(self, spec: SequenceSpec, data: SequenceSet) -> str | None:
        if spec.split in data.splits:
            frames = data.table[~data.is_tested(spec.split)].groupby("activity")["frames"].sum()
            return too_many_classes(spec, int(frames.max()), f"training frames of {frames.idxmax()}, and fewer of other activities,")
        return f"the data here have splits {', '.join(data.splits)}, but not the run's {spec.split}"

    def code(self) -> str:
        return result_code()

    def single_spec(self, section: Sequences, dataset: str, options: SequenceOptions) -> SequenceSpec:
        return single_spec(section, dataset, options)

    def train_grids(self, data: SequenceSet, session: Session) -> Outcome:
        self.check_fit(all_specs(session.section, session.dataset, {}), data)
        networks, tags = self.networks(data, session.dataset), session.tags(self.code())
        return study.train_grids(session.section, networks, session.tracker, session.params.compute, tags, lineage=session.origin)

    def report(self, sources: Sources) -> Report:
        networks = self.networks(sources.data, sources.dataset)
        best_lambdas = study.found_lambdas(sources.section, networks, sources.runs)
        fingerprints = ensemble_study.fingerprints(networks, all_specs(sources.section, sources.dataset, best_lambdas))
        return report.report(sources, fingerprints=fingerprints, best_lambdas=best_lambdas)


TASK = SequencesTask()
