"""Grids of other losses than reg, in every task."""

from dataclasses import replace
from functools import partial

import pytest

from regcls.errors import UserError
from regcls.methods import make_loss
from regcls.methods.ce_mean import CrossEntropyMean
from regcls.methods.hl_gauss import HLGauss
from regcls.params import load_params, parse_options
from regcls.pipeline.recorded import spec_of
from regcls.runs import grids
from regcls.tasks import TASKS, task_named
from regcls.tasks.depth import runs as depth
from regcls.tasks.functions import runs as functions
from regcls.tasks.functions.networks import recipe as recipe_of_functions
from regcls.tasks.images import runs as images
from regcls.tasks.sequences import runs as sequences
from regcls.tasks.sequences.networks import SequenceNetworks
from regcls.tasks.table import runs as table
from regcls.tasks.table.networks import TableNetworks
from regcls.tracking.run_table import TrackedRun

GRIDS = {
    "functions": ("functions", "figure3"),
    "images": ("portraits", "table3"),
    "depth": ("nyud2", "table2"),
    "sequences": ("breakfast", "table5"),
    "table": ("diabetes", "main"),
}
SEARCHING = ("images", "depth", "sequences")


@pytest.fixture(params=TASKS)
def expanded(request, make_project):
    """Expand methods in the task's main grid to its runs."""
    dataset, name = GRIDS[request.param]

    def expanded(*methods, found=None, lambdas="default", **others):
        over = {"methods": list(methods), "classes": [10, 100], "lambdas": lambdas if found is None else "searched"}
        section = load_params(make_project({dataset: {"grids": {name: over, **others}}}) / "params.yaml").datasets[dataset]
        match request.param:
            case "functions":
                return functions.expand(section, dataset, section.grids[name])
            case "sequences":
                return sequences.expand(section, dataset, name, found or {})
            case "table":
                return table.expand(section, dataset, name, most=1000)
            case kind:
                return grids.expand({"images": images, "depth": depth}[kind].make_spec, section, dataset, section.grids[name], found or {})

    expanded.task = request.param
    return expanded


def test_another_loss_has_the_same_runs_as_reg_under_its_own_name(expanded):
    reference = expanded("reg", "reg+cls", "reg+cls-bal")
    other = expanded("focal-r(gamma=1, beta=0.5)", "focal-r(beta=.5)+cls", "focal-r(beta=0.5,)+cls-bal")
    assert other == [replace(spec, method=spec.method.replace("reg", "focal-r(beta=0.5)")) for spec in reference]
    assert {spec.method for spec in other} == {f"focal-r(beta=0.5){classes}" for classes in ("", "+cls", "+cls-bal")}
    assert len({spec.digest() for spec in reference + other}) == 2 * len(reference)


def test_only_class_losses_have_lambda_and_only_balanced_ones_rounding(expanded):
    specs = expanded("reg", "focal-r", "focal-r+cls", "focal-r(beta=0.5)", "focal-r(beta=0.5)+cls-bal")
    alone = [spec for spec in specs if "+" not in spec.method]
    assert {spec.method for spec in alone} == {"reg", "focal-r", "focal-r(beta=0.5)"}
    assert {(spec.classes, spec.lam, spec.rounding) for spec in alone} == {(0, None, None)} and len(alone) == len(set(alone))
    for spec in set(specs) - set(alone):
        assert spec.classes in (10, 100) and spec.lam > 0 and (spec.rounding is None) == (not spec.balanced)
    of_each = {
        method: sum(spec.method == method for spec in specs)
        for method in ("reg", "focal-r", "focal-r(beta=0.5)", "focal-r+cls", "focal-r(beta=0.5)+cls-bal")
    }
    assert of_each["focal-r+cls"] == of_each["focal-r(beta=0.5)+cls-bal"] == 2 * of_each["reg"] > 0
    assert of_each["reg"] == of_each["focal-r"] == of_each["focal-r(beta=0.5)"]


def test_a_method_by_classes_alone_has_a_run_for_each_class_count_whatever_the_lambdas(expanded):
    specs = expanded("reg", "reg+cls", "hl-gauss", "ce-mean", lambdas=[0.5, 5.0])
    runs = {method: [spec for spec in specs if spec.method == method] for method in ("reg", "reg+cls", "hl-gauss", "ce-mean")}
    assert len(specs) == len(set(specs)) and len(runs["hl-gauss"]) == len(runs["ce-mean"]) == 2 * len(runs["reg"])
    assert len(runs["reg+cls"]) == 2 * len(runs["hl-gauss"])
    assert {(spec.classes, spec.lam, spec.rounding) for spec in runs["hl-gauss"]} == {(10, None, None), (100, None, None)}
    if expanded.task in ("images", "depth"):
        assert {(spec.loss, spec.huber_delta, spec.loss_scaling) for spec in runs["hl-gauss"]} == {(None, 0.0, "eq4")}
        assert {spec.class_range for spec in runs["hl-gauss"]} == {spec.class_range for spec in runs["reg+cls"]}


def test_the_search_for_lambda_does_not_wait_for_methods_without_one(expanded):
    if expanded.task not in SEARCHING:
        pytest.skip("no search")
    search = {"lambda_search": {"methods": ["reg+cls"], "classes": [10, 100], "lambdas": [2.0, 3.0], "seeds": 1}}
    specs = expanded("reg", "reg+cls", "hl-gauss", found={}, **search)
    assert {(spec.method, spec.classes) for spec in specs} == {("reg", 0), ("hl-gauss", 10), ("hl-gauss", 100)}


def test_balanced_classes_of_another_loss_use_its_own_lambda(expanded):
    if expanded.task not in SEARCHING:
        pytest.skip("no search")
    place = (10, "percent", "s1") if expanded.task == "sequences" else (10,)
    found = {("reg+cls", *place): 2.0, ("focal-r+cls", *place): 3.0}
    search = {"lambda_search": {"methods": ["reg+cls", "focal-r+cls"], "classes": [10, 100], "lambdas": [2.0, 3.0], "seeds": 1}}
    specs = expanded("reg", "focal-r", "reg+cls-bal", "focal-r+cls", "focal-r+cls-bal", found=found, **search)
    assert {(spec.method, spec.classes, spec.lam) for spec in specs} == {
        ("reg", 0, None), ("focal-r", 0, None), ("reg+cls-bal", 10, 2.0), ("focal-r+cls", 10, 3.0), ("focal-r+cls-bal", 10, 3.0),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["functions", "sequences"])
def test_small_networks_apply_their_loss_to_squared_errors(params, kind):
    dataset, _ = GRIDS[kind]
    recipe = {"functions": recipe_of_functions, "sequences": partial(SequenceNetworks.recipe, None)}[kind]
    for method, loss in (("focal-r(beta=0.5)+cls", make_loss("focal-r(beta=0.5)", kind="mse")), ("reg+cls", None)):
        spec = task_named(kind).single_spec(params.datasets[dataset], dataset, parse_options(kind, {"method": method}))
        assert recipe(spec).loss == loss


@pytest.mark.parametrize("kind", ["functions", "sequences", "table"])
def test_small_networks_by_classes_alone_have_a_distribution_instead_of_a_loss(params, kind):
    dataset, _ = GRIDS[kind]
    recipe = {
        "functions": recipe_of_functions,
        "sequences": partial(SequenceNetworks.recipe, None),
        "table": partial(TableNetworks.recipe, None),
    }[kind]
    for method, distribution in (("hl-gauss(sigma=2)", HLGauss(sigma=2.0)), ("ce-mean", CrossEntropyMean()), ("reg+cls", None)):
        spec = task_named(kind).single_spec(params.datasets[dataset], dataset, parse_options(kind, {"method": method}))
        assert (recipe(spec).loss, recipe(spec).distribution) == (None, distribution)


@pytest.mark.parametrize("kind", TASKS)
def test_a_run_by_classes_alone_round_trips_through_its_parameters(params, kind):
    dataset, _ = GRIDS[kind]
    task = task_named(kind)
    spec = task.single_spec(params.datasets[dataset], dataset, parse_options(kind, {"method": "hl-gauss", "classes": "7"}))
    written = spec.params()
    assert (spec.name.split(" ")[:3], written["method"], "lambda" in written) == (["hl-gauss", "7", f"s{spec.seed}"], "hl-gauss", False)
    row = TrackedRun(run_id="r", name="n", status="FINISHED", started=0, ended=0, tags={"task": kind}, params=dict(written), metrics={})
    assert spec_of(row) == spec


@pytest.mark.parametrize("option", ["loss", "huber_delta", "loss_scaling", "targets", "lambda"])
def test_options_of_a_regression_loss_are_refused_by_classes_alone(params, option):
    value = {"loss": "mse", "huber_delta": "2", "loss_scaling": "eq4", "targets": "standardised", "lambda": "2"}[option]
    with pytest.raises(UserError, match=f"method hl-gauss has no .*: leave out --{option.replace('_', '-')}"):
        task_named("images").single_spec(
            params.datasets["portraits"], "portraits", parse_options("images", {"method": "hl-gauss", option: value})
        )


@pytest.mark.parametrize("kind", TASKS)
def test_a_run_of_another_loss_can_be_requested_on_the_command_line(params, kind):
    dataset, _ = GRIDS[kind]
    spec = task_named(kind).single_spec(params.datasets[dataset], dataset, parse_options(kind, {"method": "focal-r( beta = 0.5 )+cls"}))
    assert (spec.method, spec.balanced, spec.params()["method"]) == ("focal-r(beta=0.5)+cls", False, "focal-r(beta=0.5)+cls")
    assert spec.classes > 0 and spec.name.startswith(f"focal-r(beta=0.5)+cls {spec.classes} λ")
