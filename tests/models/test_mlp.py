"""The perceptron and its initial weights."""

import torch

from regcls.models.mlp import MLP, initial_weights


def test_weights_are_xavier_uniform_and_biases_zero():
    weights = initial_weights(1, (6, 15), 64, seed=0)
    bound = (6 / (15 + 64)) ** 0.5
    assert weights["classifier.weight"].abs().max() <= bound
    assert weights["classifier.weight"].std() > 0.9 * bound / 3**0.5
    assert all(not value.any() for name, value in weights.items() if name.endswith("bias"))


def test_the_trunk_of_reg_cls_is_the_same_for_every_number_of_classes_and_not_that_of_reg():
    reg, few, many = (initial_weights(1, (6, 15), classes, seed=421) for classes in (0, 4, 1024))
    assert torch.equal(few["layers.1.weight"], many["layers.1.weight"])
    assert not torch.equal(reg["layers.1.weight"], few["layers.1.weight"])


def test_reg_draws_first_with_pytorchs_own_initialisation_before_xaviers():
    torch.manual_seed(7)
    layer = torch.nn.Linear(1, 6)
    torch.nn.init.xavier_uniform_(layer.weight)
    assert torch.equal(initial_weights(1, (6, 15), 0, seed=7)["layers.0.weight"], layer.weight)


def test_drawing_weights_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    initial_weights(1, (6, 15), 4, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_prediction_is_the_regression_output():
    torch.manual_seed(0)
    model = MLP(3, (6, 15), classes=4)
    assert model(torch.zeros(5, 3)).shape == (5,)


def test_hidden_units_may_be_sigmoids():
    torch.manual_seed(0)
    model, x = MLP(3, (6, 15), activation="sigmoid"), torch.randn(5, 3)
    first = torch.sigmoid(model.layers[0](x))
    assert torch.equal(model.features(x), torch.sigmoid(model.layers[1](first)))
