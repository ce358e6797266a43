"""The perceptron and its initial weights."""

import pytest
import torch

from regcls.models.mlp import MLP, initial_weights


def test_weights_are_xavier_uniform_and_biases_zero():
    weights = initial_weights(1, (6, 15), 64, 0, "xavier")
    bound = (6 / (15 + 64)) ** 0.5
    assert weights["classifier.weight"].abs().max() <= bound
    assert weights["classifier.weight"].std() > 0.9 * bound / 3**0.5
    assert all(not value.any() for name, value in weights.items() if name.endswith("bias"))


def test_the_trunk_of_reg_cls_depends_on_no_class_count_but_differs_from_reg():
    reg, few, many = (initial_weights(1, (6, 15), classes, 421, "xavier") for classes in (0, 4, 1024))
    assert torch.equal(few["layers.1.weight"], many["layers.1.weight"])
    assert not torch.equal(reg["layers.1.weight"], few["layers.1.weight"])


def test_reg_draws_pytorchs_default_weights_before_xaviers():
    torch.manual_seed(7)
    layer = torch.nn.Linear(1, 6)
    torch.nn.init.xavier_uniform_(layer.weight)
    assert torch.equal(initial_weights(1, (6, 15), 0, 7, "xavier")["layers.0.weight"], layer.weight)


def drawn_by_hand(seed, classes=0):
    """Linear layers drawn one after another with PyTorch's default initialisation."""
    torch.manual_seed(seed)
    pairs = {"layers.0": (64, 40), "layers.1": (40, 20), "regressor": (20, 1)} | ({"classifier": (20, classes)} if classes else {})
    layers = {name: torch.nn.Linear(*pair) for name, pair in pairs.items()}
    return layers, {f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.named_parameters()}


def same(weights, expected):
    return weights.keys() == expected.keys() and all(torch.equal(weights[name], value) for name, value in expected.items())


@pytest.mark.parametrize("classes", [0, 100])
def test_relu_networks_may_keep_pytorchs_initialisation(classes):
    assert same(initial_weights(64, (40, 20), classes, 5, "pytorch"), drawn_by_hand(5, classes)[1])


def test_normal_weights_are_drawn_after_pytorchs_default_ones():
    layers, expected = drawn_by_hand(5, 100)
    for layer in layers.values():
        torch.nn.init.normal_(layer.weight, 0, 0.01)
        torch.nn.init.zeros_(layer.bias)
    assert same(initial_weights(64, (40, 20), 100, 5, "normal"), expected)


def test_pytorchs_initialisation_gives_reg_and_reg_cls_the_same_start():
    reg, both = (initial_weights(64, (40, 20), classes, 3, "pytorch") for classes in (0, 100))
    assert all(torch.equal(reg[name], both[name]) for name in reg)


def test_drawing_weights_does_not_touch_the_global_generator():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    initial_weights(1, (6, 15), 4, 0, "xavier")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_prediction_is_the_regression_output():
    torch.manual_seed(0)
    model = MLP(3, (6, 15), classes=4)
    assert model(torch.zeros(5, 3)).shape == (5,)


def test_hidden_units_may_use_sigmoids():
    torch.manual_seed(0)
    model, x = MLP(3, (6, 15), activation="sigmoid"), torch.randn(5, 3)
    first = torch.sigmoid(model.layers[0](x))
    assert torch.equal(model.features(x), torch.sigmoid(model.layers[1](first)))
