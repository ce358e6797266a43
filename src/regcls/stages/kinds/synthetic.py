"""The 1D study."""

from pathlib import Path

from regcls.datasets.synthetic import SyntheticSets
from regcls.params import Params
from regcls.params.synthetic import SyntheticOptions
from regcls.runs import RunSpec
from regcls.runs.synthetic import SyntheticSpec, all_specs, single_spec
from regcls.stages.kinds.ensembles import train_one
from regcls.stages.kinds.kind import Session
from regcls.training import ensemble_study
from regcls.training.outcome import Outcome
from regcls.training.synthetic_networks import SyntheticNetworks, result_code


class SyntheticKind:
    """See `kind.Kind`."""

    spec_type: type[RunSpec] = SyntheticSpec
    error = ("test MSE", "test_mse")

    def open(self, params: Params, dataset: str, folder: Path, *, verify: bool) -> SyntheticSets:
        return SyntheticSets(folder, verify=verify, made_from=params.synthetic.data)

    def open_as_it_is(self, folder: Path, *, verify: bool) -> SyntheticSets:
        return SyntheticSets(folder, verify=verify)

    def digest(self, spec: SyntheticSpec, data: SyntheticSets) -> str:
        return data.digest(spec)

    def misfit(self, spec: SyntheticSpec, data: SyntheticSets) -> str:
        seed = data.prepared.meta["made_from"]["data_seeds"][spec.repetition]
        return "" if seed == spec.data_seed else f"were drawn with data seed {seed}, the run's with {spec.data_seed}"

    def code(self) -> str:
        return result_code()

    def fingerprint(self, spec: SyntheticSpec, data: SyntheticSets) -> str:
        return ensemble_study.fingerprints(SyntheticNetworks(data), [spec])[spec]

    def single_spec(self, params: Params, dataset: str, options: SyntheticOptions) -> SyntheticSpec:
        return single_spec(params.synthetic, options)

    def train_grids(self, data: SyntheticSets, session: Session) -> Outcome:
        networks = SyntheticNetworks(data)
        wanted = ensemble_study.fingerprints(networks, all_specs(session.params.synthetic))
        compute, tags = session.params.compute, session.tags(self.code())
        return ensemble_study.train_runs(networks, wanted, session.tracker, compute, tags, lineage=session.origin)

    def train_one(self, spec: SyntheticSpec, data: SyntheticSets, session: Session) -> Outcome:
        return train_one(spec, SyntheticNetworks(data), session)
