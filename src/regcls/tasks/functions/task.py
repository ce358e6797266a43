"""The task of the controlled study of 1D functions."""

from pathlib import Path

from regcls.progress import tracked
from regcls.reports.report import Report
from regcls.tasks.functions import report
from regcls.tasks.functions.code import result_code
from regcls.tasks.functions.data import FunctionSets
from regcls.tasks.functions.networks import FunctionNetworks
from regcls.tasks.functions.params import FunctionOptions, Functions
from regcls.tasks.functions.prepare import prepare
from regcls.tasks.functions.runs import FunctionSpec, all_specs, single_spec
from regcls.tasks.many import ManyTask
from regcls.tasks.task import Session, Sources, too_many_classes
from regcls.training import ensemble_study
from regcls.training.outcome import Outcome


class FunctionsTask(ManyTask[Functions, FunctionSpec, FunctionSets]):
    """See `task.Task`."""

    spec_type = FunctionSpec
    data_type = FunctionSets
    error = ("test MSE", "test/mse/all")

    def prepare(self, section: Functions, folder: Path, *, raw: Path, dataset: str, processes: int) -> list[str]:
        table = prepare(section.data, folder, processes=processes, progress=tracked)
        kind = table["sampling"].where(table["sampling"] == "uniform", "imbalanced")
        return [
            f"{data:12s} {split:6s} {sampling:11s} {len(samples):4d} sets of {samples.min()} to {samples.max()} samples"
            for (data, split, sampling), samples in table.groupby(["data", "split", kind], sort=False)["samples"]
        ]

    def networks(self, data: FunctionSets, dataset: str) -> FunctionNetworks:
        return FunctionNetworks(data, dataset)

    def digest(self, spec: FunctionSpec, data: FunctionSets) -> str:
        return data.digest(spec)

    def misfit(self, spec: FunctionSpec, data: FunctionSets) -> str | None:
        seed = data.prepared.meta["made_from"]["data_seeds"][spec.repetition]
        if seed == spec.data_seed:
            sizes = [data.size(spec.data_key, spec.sampling, f, spec.repetition, "train") for f in range(data.functions)]
            return too_many_classes(spec, max(sizes), "training samples of a function")
        return f"the data here were drawn with data seed {seed}, the run's with {spec.data_seed}"

    def code(self) -> str:
        return result_code()

    def single_spec(self, section: Functions, dataset: str, options: FunctionOptions) -> FunctionSpec:
        return single_spec(section, dataset, options)

    def train_grids(self, data: FunctionSets, session: Session) -> Outcome:
        networks = self.networks(data, session.dataset)
        specs = all_specs(session.section, session.dataset)
        self.check_fit(specs, data)
        return self.train_runs(networks, ensemble_study.fingerprints(networks, specs), session)

    def report(self, sources: Sources) -> Report:
        wanted = all_specs(sources.section, sources.dataset)
        networks = self.networks(sources.data, sources.dataset)
        return report.report(sources, fingerprints=ensemble_study.fingerprints(networks, wanted))


TASK = FunctionsTask()
