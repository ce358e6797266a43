"""The 1D study."""

from regcls.datasets.synthetic import SyntheticSets
from regcls.params import Params
from regcls.params.synthetic import Synthetic, SyntheticOptions
from regcls.runs import RunSpec
from regcls.runs.synthetic import SyntheticSpec, all_specs, single_spec
from regcls.stages.kinds.ensembles import EnsembleKind
from regcls.stages.kinds.kind import Session
from regcls.training import ensemble_study
from regcls.training.outcome import Outcome
from regcls.training.synthetic_networks import SyntheticNetworks, result_code


class SyntheticKind(EnsembleKind):
    """See `kind.Kind`."""

    spec_type: type[RunSpec] = SyntheticSpec
    error = ("test MSE", "test_mse")
    data_type = SyntheticSets

    def section(self, params: Params) -> Synthetic:
        return params.synthetic

    def networks(self, data: SyntheticSets, dataset: str) -> SyntheticNetworks:
        return SyntheticNetworks(data)

    def digest(self, spec: SyntheticSpec, data: SyntheticSets) -> str:
        return data.digest(spec)

    def misfit(self, spec: SyntheticSpec, data: SyntheticSets) -> str:
        seed = data.prepared.meta["made_from"]["data_seeds"][spec.repetition]
        return "" if seed == spec.data_seed else f"were drawn with data seed {seed}, the run's with {spec.data_seed}"

    def code(self) -> str:
        return result_code()

    def single_spec(self, params: Params, dataset: str, options: SyntheticOptions) -> SyntheticSpec:
        return single_spec(params.synthetic, options)

    def train_grids(self, data: SyntheticSets, session: Session) -> Outcome:
        networks = SyntheticNetworks(data)
        wanted = ensemble_study.fingerprints(networks, all_specs(session.params.synthetic))
        compute, tags = session.params.compute, session.tags(self.code())
        return ensemble_study.train_runs(networks, wanted, session.tracker, compute, tags, lineage=session.origin)
