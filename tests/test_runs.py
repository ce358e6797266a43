"""Grids, specs and fingerprints."""

from dataclasses import fields, replace

import pytest

from regcls.params import parse_options
from regcls.params.synthetic import SyntheticOptions
from regcls.runs import fingerprint
from regcls.runs.synthetic import SyntheticSpec, all_specs, expand, single_spec


def test_a_grid_holds_every_combination_once_and_reg_once_for_each_data_set(params):
    grid = params.synthetic.grids["figure3"]
    specs = expand(params.synthetic, grid)
    data_sets = len(grid.settings) * len(grid.samplings) * grid.repetitions
    assert len(specs) == len(set(specs)) == data_sets * (1 + 2 * len(grid.classes))
    assert all((s.classes, s.lam) == (0, None) for s in specs if s.method == "reg")


def test_grids_share_runs(params):
    grids = params.synthetic.grids
    assert len(all_specs(params.synthetic)) < sum(len(expand(params.synthetic, grid)) for grid in grids.values())


def test_a_repetition_brings_its_own_seeds(params):
    seeds = {(s.repetition, s.data_seed, s.seed) for s in all_specs(params.synthetic)}
    assert seeds == {(0, 2732, 0), (1, 9845, 421)}


def test_a_name_tells_data_method_classes_lambda_and_seed(params):
    spec = single_spec(params.synthetic, parse_options("synthetic", {"repetition": "1"}))
    assert spec.name == "noisy-0.1-severe · reg+cls · 64 · λ 1000 · seed 421"
    assert single_spec(params.synthetic, SyntheticOptions(setting="clean", method="reg")).name == "clean-severe · reg · seed 0"


def test_every_option_reaches_the_spec(params):
    given = dict(
        setting="noisy", sampling="uniform", noise="0.1", method="reg+cls-bal", classes="7", repetition="1", seed="9", hidden="5x9", epochs="3",
        batch_size="32", optimizer="sgd", learning_rate="0.5", weight_decay="0", precision="float64", **{"lambda": "3"},
    )  # fmt: skip
    spec = single_spec(params.synthetic, parse_options("synthetic", given))
    assert set(given) == {"lambda" if f.name == "lam" else f.name for f in fields(SyntheticOptions)}
    params_of_run = spec.params()
    assert {name: params_of_run[name] for name in given} == {**given, "lambda": "3.0", "weight_decay": "0.0"}


@pytest.mark.parametrize("name", [f.name for f in fields(SyntheticSpec)])
def test_every_field_of_a_spec_counts_in_its_fingerprint(params, name):
    spec = single_spec(params.synthetic, SyntheticOptions())
    other = replace(spec, **{name: "other"})
    assert fingerprint(spec, data_digest="d", code_digest="c") != fingerprint(other, data_digest="d", code_digest="c")


def test_data_and_code_count_in_a_fingerprint(params):
    spec = single_spec(params.synthetic, SyntheticOptions())
    assert len({fingerprint(spec, data_digest=d, code_digest=c) for d in "ab" for c in "ab"}) == 4
