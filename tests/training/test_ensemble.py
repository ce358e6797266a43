"""The engine against plain PyTorch, and against itself in other company."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from regcls.classes import equalised, uniform_ranges
from regcls.training.ensemble import Network, Recipe, stream_seeds, train
from training.reference import train_plainly

RECIPE = Recipe(hidden=(6, 15), epochs=2, batch_size=64, optimizer="adam", learning_rate=0.01, weight_decay=0.001, precision="float64")


def network(classes: int = 0, *, balanced: bool = False, seed: int = 0, samples: int = 700, lam: float = 10.0, inputs: int = 1) -> Network:
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, (inputs, samples))
    y = np.sin(5 * x.sum(0)) + random.exponential(0.2, samples)
    ranges = uniform_ranges(classes, y.min(), y.max()) if classes else None
    ranges = equalised(ranges, y) if balanced else ranges
    return Network(
        x=x,
        y=y,
        classes=ranges,
        lam=lam if classes else 1.0,
        seed=seed,
        evaluate={"val": (x[:, :100], y[:100]), "test": (x[:, :333], y[:333])},
    )


def difference(trained, model):
    return max(np.abs(trained.weights[name] - value.detach().numpy()).max() for name, value in model.state_dict().items())


@pytest.mark.parametrize("precision, tolerance", [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("classes, balanced", [(0, False), (2, False), (16, False), (100, False), (16, True), (100, True)])
def test_agrees_with_plain_pytorch(classes, balanced, optimizer, precision, tolerance):
    # Plain gradient descent at λ = 10 needs a smaller step.
    recipe = replace(RECIPE, precision=precision, optimizer=optimizer, learning_rate=0.01 if optimizer == "adam" else 0.001)
    nets = [network(classes, balanced=balanced, seed=seed) for seed in (0, 421)]
    for net, trained in zip(nets, train_each(nets, recipe), strict=True):
        model, history = train_plainly(net, recipe)
        assert difference(trained, model) < tolerance
        assert trained.train_mse == pytest.approx(history, rel=tolerance * 10)
        with torch.no_grad():
            x, y = (torch.from_numpy(a).to(getattr(torch, precision)) for a in net.evaluate["test"])
            assert trained.evaluated["test"][-1] == pytest.approx(float(((model(x.T) - y) ** 2).mean()), rel=tolerance * 10)


def train_each(nets, recipe, **options):
    """Together where they may be: balanced classes can leave each network another number of classes."""
    alike = len({n.outputs for n in nets}) == 1
    return train(nets, recipe, **options) if alike else [train([n], recipe, **options)[0] for n in nets]


def test_several_inputs_agree_with_plain_pytorch():
    net = network(16, inputs=3)
    assert difference(train([net], RECIPE)[0], train_plainly(net, RECIPE)[0]) < 1e-10


@pytest.mark.parametrize("classes, balanced", [(0, False), (16, False), (64, True)])
def test_company_does_not_change_a_result(classes, balanced):
    recipe = replace(RECIPE, precision="float32")
    nets = [network(classes, seed=seed, lam=lam) for seed in (0, 1, 2) for lam in (1.0, 100.0)]
    if balanced:
        ranges = equalised(uniform_ranges(classes, nets[0].y.min(), nets[0].y.max()), nets[0].y)
        nets = [replace(n, classes=ranges) for n in nets]
    together, alone = train(nets, recipe), [train([n], recipe)[0] for n in nets]
    for a, b in zip(together, alone, strict=True):
        assert all(np.array_equal(a.weights[name], b.weights[name]) for name in a.weights)
        assert np.array_equal(a.train_mse, b.train_mse)
        assert np.array_equal(a.evaluated["test"], b.evaluated["test"])


def test_sets_of_unequal_size_train_together():
    nets = [network(4, seed=0, samples=700), network(4, seed=0, samples=690), network(4, seed=1, samples=650)]
    for net, trained in zip(nets, train(nets, RECIPE), strict=True):
        assert difference(trained, train_plainly(net, RECIPE)[0]) < 1e-10


def test_evaluation_follows_the_epochs_asked_for():
    trained = train([network(4)], RECIPE, every_epoch=["val"])[0]
    assert trained.evaluated["val"].shape == (2,)
    assert trained.evaluated["test"].shape == (1,)


def test_overflowing_logits_are_trained_stably():
    net = network(16, lam=1e-6)
    recipe = replace(RECIPE, precision="float32", learning_rate=3.0, epochs=3)  # logits far beyond what exp2 can hold
    alone, beside = train([net], recipe)[0], train([network(16, seed=1), net], recipe)[1]
    assert all(np.isfinite(value).all() for value in alone.weights.values())
    assert all(np.array_equal(alone.weights[name], beside.weights[name]) for name in alone.weights)


@pytest.mark.parametrize("seed", [0, 421, 2**32 - 1])
def test_order_and_draws_come_from_different_streams(seed):
    order, draws = (torch.rand(4, generator=torch.Generator().manual_seed(s)) for s in stream_seeds(seed))
    assert not torch.isclose(order, draws).any()


@pytest.mark.parametrize("classes", [0, 4])
def test_a_network_that_diverges_says_so_and_leaves_the_others_alone(classes):
    recipe = replace(RECIPE, optimizer="sgd", learning_rate=0.001, precision="float32")
    good, bad = network(classes), replace(network(classes), y=network(classes).y * 1e30)
    one, other = train([good, bad], recipe)
    assert one.finite and not other.finite
    assert np.array_equal(one.train_mse, train([good], recipe)[0].train_mse)


def test_networks_that_do_not_agree_are_refused():
    with pytest.raises(ValueError, match="must agree"):
        train([network(4), network(8)], RECIPE)


def test_too_few_samples_for_a_batch_are_refused():
    with pytest.raises(ValueError, match="do not fill one batch"):
        train([network(4, samples=63)], RECIPE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("classes", [0, 16])
def test_cuda_agrees_with_the_cpu(classes):
    nets = [network(classes, seed=seed) for seed in (0, 1)]
    for a, b in zip(train(nets, RECIPE, device="cuda"), train(nets, RECIPE), strict=True):
        assert all(np.allclose(a.weights[name], b.weights[name], atol=1e-9) for name in a.weights)
