"""Methods on features: names, their interface, and the trainers that refuse them."""

import numpy as np
import pytest
import torch

from regcls.cli import main
from regcls.errors import UserError
from regcls.methods import canonical, code_of, has_bins, has_classes, make_feature_methods, make_loss
from regcls.methods.features import FeatureMethod, FeatureMethods
from regcls.methods.lds import LabelDistributionSmoothing
from regcls.methods.loss import TrainingTargets
from regcls.params import load_params

KNOWN = TrainingTargets(values=np.array([1.0, 2.0, 5.0]))


@pytest.mark.parametrize(
    "given, name",
    [
        ("reg+fds", "fds"),
        ("fds+lds", "lds+fds"),
        ("cls-bal+fds+lds", "lds+fds+cls-bal"),
        ("ranksim+fds", "fds+ranksim"),
        ("fds+ranksim", "fds+ranksim"),
        ("ranksim(gamma=100,strength=2)+cls+focal-r", "focal-r+ranksim+cls"),
        ("fds(momentum=0.9,bins=50,least=0.1,most=10)", "fds(bins=50,least=0.1,most=10)"),
    ],
)
def test_methods_on_features_combine_with_each_other_and_with_other_parts(given, name):
    assert canonical(given) == canonical(name) == name


@pytest.mark.parametrize("name", ["fds+fds", "ranksim+fds+ranksim(gamma=1)"])
def test_a_method_on_features_is_used_once(name):
    with pytest.raises(ValueError, match="do not go together: a method has one of them"):
        canonical(name)


def test_a_network_gets_the_methods_of_its_name_and_its_usual_loss():
    methods = make_feature_methods("lds+ranksim+fds+cls", features=4, targets=KNOWN)
    assert list(methods) == ["fds", "ranksim"] and make_loss("lds+fds", kind="mse").weighting == LabelDistributionSmoothing(
        bins=0, size=5, sigma=2.0
    )
    assert make_feature_methods("lds+cls", features=4, targets=KNOWN) is None
    assert (has_bins("fds"), has_bins("ranksim"), has_classes("fds"), has_classes("fds+cls-bal")) == (True, False, False, True)


def append(file, text):
    file.write_text(file.read_text() + text)


def test_fingerprints_cover_the_code_of_methods_on_features(source_copy):
    before = [code_of(name) for name in ("fds", "ranksim", "lds")]
    append(source_copy / "methods" / "features.py", "\nmore = 1\n")
    after = [code_of(name) for name in ("fds", "ranksim", "lds")]
    assert before[0] != after[0] and before[1] != after[1] and before[2] == after[2]


def test_methods_work_on_features_in_turn_and_see_the_training_set_as_often_as_they_ask():
    class Twice(FeatureMethod):
        def calibrate(self, features, targets):
            return 2 * features

        def loss(self, features, targets, kept):
            return features.sum()

        def after_epoch(self, seen):
            self.seen = [[float(features.sum()) for features, _ in seen()] for _ in range(2)]
            self.gradients = torch.is_grad_enabled()

    class More(FeatureMethod):
        def calibrate(self, features, targets):
            return features + targets[:, None]

    methods = FeatureMethods({"twice": Twice(), "more": More(), "nothing": FeatureMethod()})
    features, targets = torch.ones(3, 2), torch.arange(3.0)
    assert torch.equal(methods.calibrate(features, targets), 2 + targets[:, None].expand(3, 2))
    assert methods.losses(features, targets, None) == {"twice_loss": 6.0}
    begun = []

    def seen():
        begun.append(True)
        yield features, targets
        yield 2 * features, targets

    methods.after_epoch(seen)
    assert methods["twice"].seen == [[6.0, 12.0]] * 2 and not methods["twice"].gradients and len(begun) == 2


REFUSED = [
    ("functions_small", "figure3", "fds", "fds needs features"),
    ("functions_small", "figure3", "ranksim", "ranksim needs features of each sample"),
    ("walks", "table5", "lds+fds", "fds needs features"),
    ("walks", "table5", "ranksim+cls", "ranksim needs features of each sample"),
    ("diabetes", "main", "fds+cls", "fds needs features"),
    ("diabetes", "main", "ranksim", "ranksim needs features of each sample"),
    ("rooms", "table2", "fds+ranksim", "ranksim needs features of each sample"),
]


@pytest.mark.parametrize("dataset, grid, method, reason", REFUSED)
def test_a_grid_of_a_method_whose_features_the_networks_lack_is_an_error(make_project, dataset, grid, method, reason):
    root = make_project({dataset: {"grids": {grid: {"methods": ["reg", method]}}}})
    with pytest.raises(UserError) as error:
        load_params(root / "params.yaml")
    expected = f"{dataset}.grids.{grid}.methods: {canonical(method)}: {reason}, which the networks here do not have (regcls methods)"
    assert str(error.value) == f"{root}/params.yaml: {expected}"


@pytest.mark.parametrize("dataset, method, reason", [(dataset, method, reason) for dataset, _, method, reason in REFUSED])
def test_such_a_run_ends_with_one_line_and_code_2_before_data_are_prepared(make_project, monkeypatch, capsys, dataset, method, reason):
    root = make_project()
    monkeypatch.chdir(root)
    assert main(["run", dataset, "--method", method]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"regcls: error: {canonical(method)} ") and error.count("\n") == 1
    assert f"cannot be trained: {canonical(method)}: {reason}, which the networks here do not have" in error
    assert not (root / "data").exists()


@pytest.mark.parametrize("dataset", ["portraits", "rooms"])
def test_trainers_that_have_the_features_take_grids_of_them(make_project, dataset):
    grid = {"portraits": "table3", "rooms": "table2"}[dataset]
    methods = ["reg", "fds", "lds+fds", "fds+cls", *(["ranksim", "fds+ranksim+cls-bal"] if dataset == "portraits" else [])]
    section = load_params(make_project({dataset: {"grids": {grid: {"methods": methods, "lambdas": "default"}}}}) / "params.yaml").datasets[
        dataset
    ]
    assert list(section.grids[grid].methods) == methods
