"""The task of tables: a number for each row, from its other columns."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from regcls.errors import UserError
from regcls.reports.report import Report
from regcls.tasks.many import ManyTask
from regcls.tasks.table import advice, own, report
from regcls.tasks.table.code import result_code
from regcls.tasks.table.data import TableSet
from regcls.tasks.table.networks import TableNetworks
from regcls.tasks.table.params import HGB, TableOptions, Tables
from regcls.tasks.table.prepare import prepare, write_shipped
from regcls.tasks.table.runs import TableSpec, all_specs, single_spec
from regcls.tasks.table.trees import train_trees
from regcls.tasks.task import Draft, NewFile, Plan, PredictRequest, Session, Sources
from regcls.training import ensemble_study
from regcls.training.ensemble_networks import Networks
from regcls.training.outcome import Outcome
from regcls.training.places import places_for


class TableTask(ManyTask[Tables, TableSpec, TableSet]):
    """See `task.Task`."""

    spec_type = TableSpec
    data_type = TableSet
    advises = True
    error = ("test RMSE", "test/rmse/all")

    def draft(self, new: NewFile) -> Draft:
        return own.draft(new)

    def prepare(self, section: Tables, folder: Path, *, raw: Path, dataset: str, processes: int) -> list[str]:
        return prepare(section.data, folder, raw=raw, dataset=dataset)

    def write_stand_in(self, section: Tables, folder: Path, *, processes: int) -> str:
        if section.data.source == "raw":
            raise UserError("a table has no stand-in: source: diabetes is a real one")
        return write_shipped(folder)

    def networks(self, data: TableSet, dataset: str) -> TableNetworks:
        return TableNetworks(data, dataset)

    def digest(self, spec: TableSpec, data: TableSet) -> str:
        return data.digest

    def misfit(self, spec: TableSpec, data: TableSet) -> str | None:
        if spec.classes <= data.most_classes:
            return None
        return f"it has {spec.classes:,} classes, but there are only {data.most_classes:,} training rows with distinct targets: --classes"

    def code(self) -> str:
        return result_code()

    def single_spec(self, section: Tables, dataset: str, options: TableOptions) -> TableSpec:
        return single_spec(section, dataset, options)

    def train_runs(
        self,
        networks: Networks[TableSpec],
        wanted: Mapping[TableSpec, str],
        session: Session,
        *,
        adopt: bool = False,
        repeats: str | None = None,
    ) -> Outcome:
        assert isinstance(networks, TableNetworks)
        trees = {spec: key for spec, key in wanted.items() if spec.method == HGB}
        others = {spec: key for spec, key in wanted.items() if spec not in trees}
        outcome = Outcome(trained=0, kept=0, failed=[], index=[])
        if others:
            outcome += super().train_runs(networks, others, session, adopt=adopt, repeats=repeats)
        if trees:
            tags = session.tags(self.code())
            outcome += train_trees(networks, trees, session.tracker, tags, lineage=session.origin, adopt=adopt, repeats=repeats)
        return outcome

    def train_grids(self, data: TableSet, session: Session) -> Outcome:
        networks = self.networks(data, session.dataset)
        specs = all_specs(session.section, session.dataset, most=data.most_classes)
        return self.train_runs(networks, ensemble_study.fingerprints(networks, specs), session)

    def plan(self, data: TableSet, session: Session, *, methods: Sequence[str], budget: float, level: int | None = None) -> Plan:
        networks, places = self.networks(data, session.dataset), places_for(session.params.compute, session.root)
        return advice.plan(session.section, networks, methods=methods, budget=budget, places=places, level=level)

    def predict(self, request: PredictRequest) -> list[str]:
        raise UserError(
            f"run {request.run_id} predicts from tables: load its model in Python with mlflow.pyfunc.load_model (the run's page in mlflow "
            "ui has the argument), and call its predict with a table as pandas reads it"
        )

    def report(self, sources: Sources) -> Report:
        specs = all_specs(sources.section, sources.dataset, most=sources.data.most_classes)
        networks = self.networks(sources.data, sources.dataset)
        return report.report(sources, fingerprints=ensemble_study.fingerprints(networks, specs))


TASK = TableTask()
