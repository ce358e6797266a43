"""Grids, specs and fingerprints."""

import hashlib
import json
from dataclasses import asdict, fields, replace

import pandas as pd
import pytest

from regcls.errors import UserError
from regcls.params import parse_options
from regcls.params.single import SingleGrid
from regcls.runs import fingerprint
from regcls.runs import grids as images
from regcls.runs.search import lowest_lambdas
from regcls.tasks.functions.params import FunctionOptions, Varied
from regcls.tasks.functions.runs import FunctionSpec, all_specs, expand, single_spec
from regcls.tasks.images import runs as faces
from regcls.tasks.images.params import ImageOptions
from regcls.tracking.run_table import TrackedRun, run_table


def test_a_new_field_at_its_default_leaves_the_digest_as_it_was(params):
    spec = images.single_spec(faces.make_spec, params.datasets["imdb_wiki"], "imdb_wiki", ImageOptions())
    assert replace(spec, bits=16).digest() == spec.digest() != replace(spec, bits=12).digest()
    old = {name: value for name, value in asdict(spec).items() if name != "bits"}
    canonical = json.dumps(old, sort_keys=True, separators=(",", ":"))
    assert spec.digest() == hashlib.sha256(canonical.encode()).hexdigest()


def test_a_grid_has_each_combination_once_and_reg_once_per_data_set(params):
    grid = params.datasets["functions"].grids["figure3"]
    specs = expand(params.datasets["functions"], "functions", grid)
    data_sets = len(grid.settings) * len(grid.samplings) * grid.repetitions
    assert len(specs) == len(set(specs)) == data_sets * (1 + 2 * len(grid.classes))
    assert all((s.classes, s.lam) == (0, None) for s in specs if s.method == "reg")


def test_grids_share_runs(params):
    grids = params.datasets["functions"].grids
    assert len(all_specs(params.datasets["functions"], "functions")) < sum(
        len(expand(params.datasets["functions"], "functions", grid)) for grid in grids.values()
    )


def test_each_repetition_has_its_own_seeds(params):
    seeds = {(s.repetition, s.data_seed, s.seed) for s in all_specs(params.datasets["functions"], "functions")}
    assert seeds == {(0, 2732, 0), (1, 9845, 421)}


def test_a_name_has_data_method_classes_lambda_and_seed(params):
    spec = single_spec(params.datasets["functions"], "functions", parse_options("functions", {"repetition": "1"}))
    assert spec.name == "reg+cls 64 λ1000 s421 · noisy-0.1-severe functions"
    assert (
        single_spec(params.datasets["functions"], "functions", FunctionOptions(setting="clean", method="reg")).name
        == "reg s0 · clean-severe functions"
    )


def test_every_option_reaches_the_spec(params):
    given = dict(
        setting="noisy", sampling="uniform", noise="0.1", method="reg+cls-bal", classes="7", repetition="1", seed="9", hidden="5x9", epochs="3",
        batch_size="32", optimizer="sgd", learning_rate="0.5", weight_decay="0.1", precision="float64", rounding="floor", scale="2.0",
            extra_loss="true", **{"lambda": "3"},
    )  # fmt: skip
    spec = single_spec(params.datasets["functions"], "functions", parse_options("functions", given))
    assert set(given) == {"lambda" if f.name == "lam" else f.name for f in fields(FunctionOptions)}
    params_of_run = spec.params()
    assert {name: params_of_run[name] for name in given} == {**given, "lambda": "3.0"}


def test_a_grid_varies_training_values_and_trains_the_same_training_once(shipped):
    functions = shipped.datasets["functions_width"]
    grid = functions.grids["width"]
    specs = expand(functions, "functions_width", grid)
    adam, descent = ([spec for spec in specs if spec.optimizer == optimizer] for optimizer in ("adam", "sgd"))
    panels, lambdas = 2 * 3 * 5, 1 + 9  # samplings × repetitions × widths; λ of reg+cls, and reg
    # Without weight decay Adam knows no scale, and gradient descent only its product with the learning rate: 1e-9 to 1e3.
    assert len(adam) == panels * lambdas * 5 and {spec.scale for spec in adam} == {1.0}
    rates = {spec.learning_rate for spec in descent}
    assert (
        len(descent) == panels * lambdas * 13 and rates == {float(f"1e{n}") for n in range(-9, 4)} and {s.scale for s in descent} == {1.0}
    )
    assert {spec.hidden for spec in specs} == {(width, 15) for width in (5, 9, 17, 33, 65)}
    decayed = replace(functions, training=replace(functions.training, weight_decay=0.1))
    assert len(expand(decayed, "functions_width", grid)) == panels * lambdas * 5 * 9 * 2


def test_a_loss_that_learns_a_parameter_keeps_its_scale(shipped):
    functions = shipped.datasets["functions_width"]
    grid = replace(functions.grids["width"], methods=("bmse-gai", "focal-r"), vary=Varied(optimizer=("sgd",), scale=(1.0, 10.0)))
    specs = expand(functions, "functions_width", grid)
    assert {(spec.method, spec.scale) for spec in specs} == {("bmse-gai", 1.0), ("bmse-gai", 10.0), ("focal-r", 1.0)}
    asked = single_spec(functions, "functions_width", FunctionOptions(optimizer="sgd", scale=10.0, learning_rate=0.001))
    assert (asked.scale, asked.learning_rate) == (10.0, 0.001)  # a single run is trained as it is asked for


def test_a_grid_that_measures_likelihoods_has_other_runs(shipped):
    functions = shipped.datasets["functions_extra"]
    grid = functions.grids["extra"]
    measured, plain = (expand(functions, "functions_extra", replace(grid, extra_loss=value)) for value in (True, False))
    assert not set(measured) & set(plain) and {replace(spec, extra_loss=False) for spec in measured} == set(plain)
    assert len(measured) * 10 == 600 + 3000


@pytest.mark.parametrize("name", [f.name for f in fields(FunctionSpec)])
def test_every_field_of_a_spec_affects_its_fingerprint(params, name):
    spec = single_spec(params.datasets["functions"], "functions", FunctionOptions())
    other = replace(spec, **{name: "other"})
    assert fingerprint(spec, data_digest="d", code_digest="c") != fingerprint(other, data_digest="d", code_digest="c")


def test_data_and_code_affect_a_fingerprint(params):
    spec = single_spec(params.datasets["functions"], "functions", FunctionOptions())
    assert len({fingerprint(spec, data_digest=d, code_digest=c) for d in "ab" for c in "ab"}) == 4


NAME = "imdb_wiki"
GRID = SingleGrid(methods=("reg", "reg+cls", "reg+cls-bal"), classes=(10, 100), balanced_data=False, lambdas="default", seeds=2)


def face_spec(params, **given):
    return images.single_spec(
        faces.make_spec,
        params.datasets["imdb_wiki"],
        NAME,
        parse_options("images", {key.replace("lam", "lambda"): str(value) for key, value in given.items()}),
    )


def with_grids(params, **grids):
    return replace(params.datasets["imdb_wiki"], grids={name: replace(GRID, **changes) for name, changes in grids.items()})


def summary(specs):
    return [(s.method, s.classes, s.lam, s.seed) for s in specs]


def test_a_face_grid_has_each_combination_once_and_reg_once_per_seed(params):
    specs = images.expand(faces.make_spec, params.datasets["imdb_wiki"], NAME, GRID, {})
    of_a_seed = [("reg", 0, None), ("reg+cls", 10, 1.0), ("reg+cls", 100, 0.1), ("reg+cls-bal", 10, 1.0), ("reg+cls-bal", 100, 0.1)]
    assert summary(specs) == [(*combination, seed) for seed in (0, 1) for combination in of_a_seed]


def test_every_listed_lambda_is_tried(params):
    grid = replace(GRID, methods=("reg", "reg+cls"), classes=(10,), lambdas=(0.5, 2.0), seeds=1)
    assert summary(images.expand(faces.make_spec, params.datasets["imdb_wiki"], NAME, grid, {})) == [
        ("reg", 0, None, 0),
        ("reg+cls", 10, 0.5, 0),
        ("reg+cls", 10, 2.0, 0),
    ]


@pytest.mark.parametrize("classes, lam", [(2, 1.0), (10, 1.0), (100, 0.1), (3, 1.0), (31, 1.0), (32, 0.1), (5000, 0.1)])
def test_an_unlisted_class_count_uses_the_lambda_of_the_nearest_one(params, classes, lam):
    assert face_spec(params, classes=classes).lam == lam  # listed: 2 and 10 -> 1, 100 -> 0.1


def test_balanced_data_use_their_own_learning_rate_and_bins(params):
    plain, balanced = (face_spec(params, balanced_data=value) for value in ("false", "true"))
    assert (plain.learning_rate, plain.balanced_bins) == (0.001, 0)
    assert (balanced.learning_rate, balanced.balanced_bins) == (0.0001, 10)
    assert balanced.name == "reg+cls 100 λ0.1 s0 · imdb_wiki balanced"


def test_search_runs_come_first_and_shared_runs_once(params):
    section = with_grids(params, table3={}, lambda_search={"methods": ("reg+cls",), "lambdas": (0.1, 10.0), "seeds": 1})
    specs = images.all_specs(faces.make_spec, section, NAME, {})
    assert summary(specs[:4]) == [("reg+cls", 10, 0.1, 0), ("reg+cls", 10, 10.0, 0), ("reg+cls", 100, 0.1, 0), ("reg+cls", 100, 10.0, 0)]
    assert len(specs) == len(set(specs)) == 10 + 4 - 1  # 100 classes with λ 0.1 are in both


def test_runs_still_waiting_for_lambda_are_left_out(params):
    section = with_grids(params, table3={"lambdas": "searched", "seeds": 1}, lambda_search={"methods": ("reg+cls", "reg+cls-bal"), "lambdas": (0.1,), "seeds": 1})  # fmt: skip
    assert images.needs_search(section)
    assert summary(images.expand(faces.make_spec, section, NAME, section.grids["table3"], {})) == [("reg", 0, None, 0)]
    found = {("reg+cls", 10): 3.0}
    assert summary(images.expand(faces.make_spec, section, NAME, section.grids["table3"], found)) == [
        ("reg", 0, None, 0),
        ("reg+cls", 10, 3.0, 0),
    ]


def test_unsearched_balanced_classes_use_the_lambda_of_reg_cls(params):
    section = with_grids(params, table3={"lambdas": "searched", "classes": (10,), "seeds": 1}, lambda_search={"methods": ("reg+cls",), "lambdas": (0.1,), "seeds": 1})  # fmt: skip
    specs = images.expand(faces.make_spec, section, NAME, section.grids["table3"], {("reg+cls", 10): 3.0})
    assert summary(specs) == [("reg", 0, None, 0), ("reg+cls", 10, 3.0, 0), ("reg+cls-bal", 10, 3.0, 0)]


def test_the_lambda_with_the_lowest_mean_validation_error_is_chosen(params):
    def errors(method, classes, by_lam):
        values = [(lam, seed, error) for lam, found in by_lam.items() for seed, error in enumerate(found)]
        return {face_spec(params, method=method, classes=classes, lam=lam, seed=seed): error for lam, seed, error in values}

    found = lowest_lambdas(
        {face_spec(params, method="reg"): 0.0}
        | errors("reg+cls", 10, {0.1: [1.0, 9.0], 1.0: [4.0, 4.0], 10.0: [5.0, 5.0]})
        | errors("reg+cls", 100, {1.0: [2.0], 0.1: [2.0]})  # a tie: the smaller one
        | errors("reg+cls-bal", 10, {0.1: [float("nan"), 1.0], 1.0: [float("inf")], 10.0: [50.0]})
        | errors("reg+cls-bal", 100, {0.1: [float("inf")]}),
        images.searched_for,
    )
    assert found == {("reg+cls", 10): 1.0, ("reg+cls", 100): 0.1, ("reg+cls-bal", 10): 10.0}


def test_every_option_reaches_the_spec_of_a_face_run(params):
    given = dict(
        method="reg+cls-bal", classes="7", balanced_data="true", seed="9", model="resnet34", width="3", loss="huber", huber_delta="2.5",
        loss_scaling="eq4", epochs="3", batch_size="32", accumulate="4", optimizer="sgd", learning_rate="0.5", weight_decay="0.25",
        precision="bf16", rounding="floor", targets="standardised", **{"lambda": "3.0"},
    )  # fmt: skip
    spec = images.single_spec(faces.make_spec, params.datasets["imdb_wiki"], NAME, parse_options("images", given))
    assert set(given) == {"lambda" if f.name == "lam" else f.name for f in fields(ImageOptions)}
    params_of_run = spec.params()
    assert {name: params_of_run[name] for name in given} == given


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"method": "reg", "classes": 10}, "method reg has no classes and no λ: leave out --classes and --lambda"),
        ({"method": "reg", "lam": 1.0}, "method reg has no classes and no λ"),
        ({"method": "reg", "loss_scaling": "eq4"}, "method reg has only one loss to scale: leave out --loss-scaling"),
        ({"method": "reg+cls", "rounding": "floor"}, "method reg+cls has no balanced classes: leave out --rounding"),
        ({"huber_delta": 2}, "loss mae has no δ: leave out --huber-delta, or choose --loss huber"),
        ({"classes": 1}, "--classes = "),
        ({"width": 0}, "--width = "),
        ({"loss": "rmse"}, "--loss = "),
    ],
)
def test_ignored_and_impossible_options_are_refused(params, given, expected):
    with pytest.raises(UserError) as caught:
        face_spec(params, **given)
    assert str(caught.value).startswith(expected)


def test_equal_runs_have_equal_specs(params):
    assert face_spec(params, method="reg") == face_spec(params, method="reg", loss="mae", balanced_data="false")
    assert face_spec(params, method="reg").huber_delta == 0.0 and face_spec(params, loss="huber").huber_delta == 1.0


@pytest.mark.parametrize("name", [f.name for f in fields(faces.ImageSpec)])
def test_every_field_of_a_face_run_affects_its_fingerprint(params, name):
    spec = face_spec(params)
    other = replace(spec, **{name: "other"})
    assert fingerprint(spec, data_digest="d", code_digest="c") != fingerprint(other, data_digest="d", code_digest="c")


@pytest.mark.parametrize("given", [{}, {"method": "reg", "loss": "huber"}, {"method": "reg+cls-bal", "balanced_data": "true", "lam": 1e-7}])
def test_a_spec_can_be_rebuilt_from_its_logged_params(params, given):
    spec = face_spec(params, **given)
    row = TrackedRun(run_id="r", name=spec.name, status="FINISHED", started=0, ended=1, tags={}, params=spec.params(), metrics={})
    (found,) = run_table([row], faces.ImageSpec).to_dict("records")
    again = {field.name: found[field.name] for field in fields(faces.ImageSpec)}
    again |= {name: None for name in ("lam", "rounding") if pd.isna(again[name])}
    assert faces.ImageSpec(**again) == spec
    assert faces.ImageSpec(**again).digest() == spec.digest()


def test_inapplicable_values_do_not_change_a_face_run(params):
    other = replace(params.datasets["imdb_wiki"].training, loss_scaling="eq4", class_range=(0.0, 50.0))
    changed = replace(params.datasets["imdb_wiki"], training=other)

    def spec(section, **kind):
        kind = {"method": "reg", "classes": 10, "lam": 0.1, "balanced_data": False, "seed": 0} | kind
        return faces.make_spec(section, "imdb_wiki", **kind)

    assert spec(params.datasets["imdb_wiki"]) == spec(changed)
    assert spec(params.datasets["imdb_wiki"], balanced_data=True) != spec(changed, balanced_data=True)
    both = [
        replace(section, training=replace(section.training, class_range=(0.0, 50.0))) for section in (params.datasets["imdb_wiki"], changed)
    ]
    assert spec(both[0], method="reg+cls", lam=10.0) == spec(both[1], method="reg+cls", lam=10.0)
    assert spec(both[0], method="reg+cls", lam=0.1) != spec(both[1], method="reg+cls", lam=0.1)
