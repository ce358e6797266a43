"""The engine compared with plain PyTorch, and with itself alongside other networks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from methods.over_the_batch import OVER_THE_BATCH
from regcls.classes import equalised, uniform_ranges
from regcls.methods import make_distribution, make_loss
from regcls.models.mlp import initial_weights
from regcls.training import ensemble_data
from regcls.training.ensemble import Recipe, _Ensemble, train
from regcls.training.ensemble_data import Network, stream_seeds
from training.reference import predict_by_classes, train_plainly

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = Recipe(
    hidden=(6, 15),
    activation="relu",
    initialisation="xavier",
    loss_over_batch="mean",
    drop_last=True,
    epochs=2,
    batch_size=64,
    optimizer="adam",
    learning_rate=0.01,
    milestones=(),
    decay=0.1,
    weight_decay=0.001,
    precision="float64",
)


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
        padded_to=classes,
        lam=lam if classes else 1.0,
        seed=seed,
        evaluate={"val": (x[:, :100], y[:100]), "test": (x[:, :333], y[:333])},
    )


def difference(trained, model):
    weights = {name: value for name, value in model.state_dict().items() if name != "loss_parameters"}
    return max(np.abs(trained.weights[name] - value.detach().numpy()).max() for name, value in weights.items())


@pytest.mark.parametrize("precision, tolerance", [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("classes, balanced", [(0, False), (2, False), (16, False), (100, False), (16, True), (100, True)])
def test_networks_agree_with_plain_pytorch(classes, balanced, optimizer, precision, tolerance):
    # Plain gradient descent at λ = 10 needs a smaller step.
    recipe = replace(RECIPE, precision=precision, optimizer=optimizer, learning_rate=0.01 if optimizer == "adam" else 0.001)
    nets = [network(classes, balanced=balanced, seed=seed) for seed in (0, 421)]
    for net, trained in zip(nets, train(nets, recipe), strict=True):
        model, history, _ = train_plainly(net, recipe)
        assert difference(trained, model) < tolerance
        assert trained.train_mse == pytest.approx(history, rel=tolerance * 10)
        with torch.no_grad():
            x, y = (torch.from_numpy(a).to(getattr(torch, precision)) for a in net.evaluate["test"])
            assert trained.evaluated["test"][-1] == pytest.approx(float(((model(x.T) - y) ** 2).mean()), rel=tolerance * 10)


@pytest.mark.parametrize("optimizer, weight_decay", [("adam", 0.1), ("sgd", 0.1), ("sgd", 0.0)])
def test_a_scale_multiplies_both_losses_but_not_the_weight_decay(optimizer, weight_decay):
    recipe = replace(RECIPE, optimizer=optimizer, weight_decay=weight_decay, learning_rate=0.001)
    net, scaled = network(16), replace(recipe, scale=0.01)
    assert difference(train([net], scaled)[0], train_plainly(net, scaled)[0]) < 1e-10
    same = replace(recipe, learning_rate=0.00001)  # the same training if only the product of scale and learning rate counts
    gap = difference(train([net], scaled)[0], train_plainly(net, same)[0])
    assert (gap < 1e-10) == (optimizer == "sgd" and not weight_decay)


def test_networks_with_several_inputs_agree_with_plain_pytorch():
    net = network(16, inputs=3)
    assert difference(train([net], RECIPE)[0], train_plainly(net, RECIPE)[0]) < 1e-10


# The published networks of video progress, on a few samples: 64 inputs, squared errors summed over a batch, also over the last, incomplete one,
# a rate that falls.
VIDEO = replace(
    RECIPE,
    hidden=(40, 20),
    initialisation="pytorch",
    batch_size=40,
    epochs=4,
    milestones=(1, 3),
    learning_rate=0.001,
    loss_over_batch="sum",
    drop_last=False,
)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("loss_over_batch", ["mean", "sum"])
def test_last_batch_and_class_accuracy_agree_with_plain_pytorch(loss_over_batch, drop_last, balanced):
    recipe = replace(VIDEO, loss_over_batch=loss_over_batch, drop_last=drop_last)
    nets = [network(8, balanced=balanced, seed=seed, samples=samples, inputs=64, lam=0.1) for seed, samples in enumerate((410, 241, 80))]
    for net, trained in zip(nets, train(nets, recipe, every_epoch=["val"]), strict=True):
        model, history, accuracy = train_plainly(net, recipe)
        assert difference(trained, model) < 1e-10
        assert trained.train_mse == pytest.approx(history, rel=1e-9)
        assert trained.accuracy.pop("train") == pytest.approx(accuracy) and 0 < accuracy < 1
        for name, found in trained.accuracy.items():
            x, y = net.evaluate[name]
            classes = model.classifier(model.features(torch.from_numpy(x.T))).argmax(1).numpy()
            assert found == pytest.approx((classes == net.classes.labels(y)).mean())
        assert set(trained.accuracy) == {"val", "test"}


def test_few_samples_form_one_batch_if_the_last_batch_is_kept():
    net = network(16, samples=13, inputs=64)
    model, history, _ = train_plainly(net, VIDEO)
    trained = train([net, network(16, samples=410, inputs=64)], VIDEO)[0]
    assert difference(trained, model) < 1e-10 and trained.train_mse == pytest.approx(history, rel=1e-9)


BALANCED_MSE = [
    make_loss(name, kind="mse") for name in ("bmse-bmc", "bmse-gai(sigma=0.3,components=3)", "bmse-bni(sigma=2,rate=0.1,bins=7)")
]
OTHERS = [*(make_loss(name, kind="mse") for name in ("focal-r(beta=2,gamma=1.5)", "lds(bins=7)")), OVER_THE_BATCH, *BALANCED_MSE]


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("loss_over_batch", ["mean", "sum"])
@pytest.mark.parametrize("loss", OTHERS)
def test_other_losses_agree_with_plain_pytorch(loss, loss_over_batch, balanced):
    recipe = replace(VIDEO, loss=loss, loss_over_batch=loss_over_batch)
    nets = [network(8, balanced=balanced, seed=seed, samples=samples, inputs=64, lam=0.1) for seed, samples in enumerate((410, 241, 80))]
    for net, trained in zip(nets, train(nets, recipe), strict=True):
        model, history, _ = train_plainly(net, recipe)
        assert difference(trained, model) < 1e-10 < difference(trained, train_plainly(net, replace(recipe, loss=None))[0])
        assert trained.train_mse == pytest.approx(history, rel=1e-9)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("loss", [OVER_THE_BATCH, *BALANCED_MSE])
def test_each_network_learns_the_parameters_of_its_loss(loss, optimizer):
    nets = [network(0, seed=seed, samples=samples, inputs=64) for seed, samples in enumerate((410, 241))]
    recipe = replace(VIDEO, loss=loss, optimizer=optimizer, weight_decay=0.1, learning_rate={"adam": 0.001, "sgd": 1e-5}[optimizer])
    ensemble = _Ensemble(nets, recipe, torch.device("cpu"), stable=False)
    for epoch in range(recipe.epochs):
        ensemble.train_epoch(epoch)
    learned = ensemble.trainable[1].params.layers[0][:, 0]
    for own, weights, net in zip(learned, ensemble.weights(), nets, strict=True):
        model = train_plainly(net, recipe)[0]
        assert torch.allclose(own, model.loss_parameters[0], rtol=0, atol=1e-10)
        assert all(np.allclose(value, model.get_parameter(name).detach(), rtol=0, atol=1e-10) for name, value in weights.items())
    assert learned[0] != learned[1] and (learned != loss.learned[0]).all()


@pytest.mark.parametrize("loss", OTHERS)
def test_other_networks_do_not_change_results_with_another_loss(loss):
    recipe = replace(VIDEO, loss=loss, precision="float32")
    nets = unequal_networks(0)
    for net, beside in zip(nets, train(nets, recipe, predict=["test"]), strict=True):
        assert_identical(beside, train([net], recipe, predict=["test"])[0])


def unequal_networks(classes, *, samples=(410, 165, 90, 410, 241)):
    """Networks with unequal steps per epoch; the first and the fourth, and their copies, share their samples."""
    nets = [network(classes, seed=seed, samples=count, inputs=64, lam=100.0) for seed, count in enumerate(samples)]
    return [*nets, *(replace(nets[index], seed=seed, lam=3.0) for index, seed in ((0, 0), (0, 9), (3, 3), (2, 9)))]


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("classes", [0, 100])
def test_video_networks_of_unequal_sizes_agree_with_plain_pytorch(classes, optimizer, activation):
    rate = {"adam": 0.001, "sgd": 1e-6}[optimizer]
    recipe = replace(VIDEO, activation=activation, optimizer=optimizer, learning_rate=rate)
    nets = unequal_networks(classes)
    for net, trained in zip(nets, train(nets, recipe, predict=["test"]), strict=True):
        model, history, _ = train_plainly(net, recipe)
        assert difference(trained, model) < 1e-10
        assert trained.train_mse == pytest.approx(history, rel=1e-9)
        predictions = model(torch.from_numpy(net.evaluate["test"][0].T)).detach().numpy()
        assert trained.predicted["test"] == pytest.approx(predictions, abs=1e-9)
        assert trained.evaluated["test"] == pytest.approx([np.mean((predictions - net.evaluate["test"][1]) ** 2)], rel=1e-9)


def networks_with_unequal_classes():
    """Networks for one call with K from 2 to 100: some balanced (two of them on the same samples), some not."""
    balanced = [network(100, balanced=True, seed=seed, samples=count, inputs=64, lam=100.0) for seed, count in enumerate((410, 165, 241))]
    fewer = equalised(uniform_ranges(40, balanced[0].y.min(), balanced[0].y.max()), balanced[0].y)
    two = replace(network(2, seed=3, samples=241, inputs=64), padded_to=100)
    nets = [*balanced, replace(balanced[0], classes=fewer), two, network(100, seed=4, samples=165, inputs=64, lam=100.0)]
    assert len({n.outputs for n in nets}) >= 5 and {n.head_rows for n in nets} == {100}
    assert sum(n.classes.keep.min() < 1 for n in nets) == 4
    return nets


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_networks_with_unequal_class_counts_agree_with_plain_pytorch(optimizer, stable):
    recipe = replace(VIDEO, optimizer=optimizer, learning_rate={"adam": 0.001, "sgd": 1e-6}[optimizer])
    nets = networks_with_unequal_classes()
    for net, trained in zip(nets, train(nets, recipe, stable=stable), strict=True):
        model, history, _ = train_plainly(net, recipe)
        assert {name: value.shape for name, value in trained.weights.items()} == {n: tuple(v.shape) for n, v in model.state_dict().items()}
        assert difference(trained, model) < 1e-10
        assert trained.train_mse == pytest.approx(history, rel=1e-9)


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_other_networks_class_counts_do_not_change_results(optimizer, stable):
    rate = {"adam": 0.001, "sgd": 1e-6}[optimizer]
    recipe = replace(VIDEO, precision="float32", optimizer=optimizer, learning_rate=rate)
    nets = networks_with_unequal_classes()
    together = train(nets, recipe, predict=["test"], stable=stable)
    for net, beside in zip(nets, together, strict=True):
        assert_identical(beside, train([net], recipe, predict=["test"], stable=stable)[0])


@pytest.mark.parametrize("stable", [False, True])
def test_padding_stays_zero(stable):
    ensemble = _Ensemble(sorted(networks_with_unequal_classes(), key=lambda n: -n.y.size), VIDEO, torch.device("cpu"), stable)
    for epoch in range(2):
        ensemble.train_epoch(epoch)
    for m, net in enumerate(ensemble.networks):
        for numbers in (ensemble.params, *ensemble.trainable[0].moments):
            assert not numbers.layers[2][m, 1 + net.outputs :].any()
            assert numbers.layers[2][m, 1 : 1 + net.outputs].any()


BY_CLASSES = ("hl-gauss", "ce-mean", "hl-gauss(sigma=2)")


def networks_by_classes():
    """Networks with K from 1 to 100 uniform classes, a common number of rows, and unequal steps per epoch."""
    nets = [network(count, seed=seed, samples=n, inputs=64) for count, seed, n in ((100, 0, 410), (7, 1, 165), (100, 2, 90), (40, 0, 410))]
    equal = replace(network(1, seed=5, samples=90, inputs=64), y=np.full(90, 0.25), classes=uniform_ranges(9, 0.25, 0.25))
    return [replace(net, padded_to=100, lam=1.0) for net in (*nets, equal)]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", BY_CLASSES)
def test_networks_that_predict_by_classes_agree_with_plain_pytorch(name, optimizer, stable, drop_last):
    rate = {"adam": 0.001, "sgd": 0.03}[optimizer]
    recipe = replace(VIDEO, distribution=make_distribution(name), optimizer=optimizer, learning_rate=rate, drop_last=drop_last)
    nets = networks_by_classes()
    for net, trained in zip(nets, train(nets, recipe, predict=["test"], every_epoch=["val"], stable=stable), strict=True):
        model, history, accuracy = train_plainly(net, recipe, by_classes=name)
        assert set(trained.weights) == {*model.state_dict(), "centres"} and not any("regressor" in key for key in trained.weights)
        assert difference(trained, model) < 1e-10
        assert trained.train_mse == pytest.approx(history, rel=1e-9)
        assert trained.accuracy["train"] == pytest.approx(accuracy)
        predictions = predict_by_classes(model, net, torch.from_numpy(net.evaluate["test"][0].T)).detach().numpy()
        assert trained.predicted["test"] == pytest.approx(predictions, abs=1e-9)
        assert trained.evaluated["test"] == pytest.approx([np.mean((predictions - net.evaluate["test"][1]) ** 2)], rel=1e-9)
        assert trained.evaluated["val"].shape == (recipe.epochs,)


@pytest.mark.parametrize("name", BY_CLASSES)
def test_saved_weights_and_centres_give_the_predictions(name):
    net = network(16, inputs=64)
    trained = train([net], replace(VIDEO, distribution=make_distribution(name)), predict=["test"])[0]
    w, x = trained.weights, net.evaluate["test"][0].T
    for layer in ("layers.0", "layers.1"):
        x = np.maximum(x @ w[f"{layer}.weight"].T + w[f"{layer}.bias"], 0)
    odds = np.exp(x @ w["classifier.weight"].T + w["classifier.bias"])
    assert trained.predicted["test"] == pytest.approx((odds / odds.sum(1, keepdims=True)) @ w["centres"], abs=1e-10)
    assert w["centres"] == pytest.approx((net.classes.edges[1:] + net.classes.edges[:-1]) / 2)


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", BY_CLASSES)
def test_other_networks_do_not_change_predictions_by_classes(name, optimizer, stable):
    rate = {"adam": 0.001, "sgd": 0.03}[optimizer]
    recipe = replace(VIDEO, precision="float32", distribution=make_distribution(name), optimizer=optimizer, learning_rate=rate)
    nets = networks_by_classes()
    together = train(nets, recipe, predict=["test"], every_epoch=["val"], stable=stable)
    for net, beside in zip(nets, together, strict=True):
        assert_identical(beside, train([net], recipe, predict=["test"], every_epoch=["val"], stable=stable)[0])


@pytest.mark.parametrize("name", BY_CLASSES)
def test_without_a_regression_loss_its_row_of_the_last_layer_stays_0(name):
    nets = sorted(networks_by_classes(), key=lambda n: -n.y.size)
    ensemble = _Ensemble(nets, replace(VIDEO, distribution=make_distribution(name)), torch.device("cpu"), stable=False)
    before = ensemble.params.flat.clone()
    for epoch in range(2):
        ensemble.train_epoch(epoch)
    assert not torch.equal(before, ensemble.params.flat)
    assert not any(numbers.layers[2][:, 0].any() for numbers in (ensemble.params, *ensemble.trainable[0].moments))


@pytest.mark.parametrize("name", BY_CLASSES)
def test_overflowing_logits_of_classes_alone_train_stably(name):
    recipe = replace(RECIPE, precision="float32", learning_rate=3.0, epochs=3, distribution=make_distribution(name))
    nets = [replace(network(16, seed=seed), padded_to=64) for seed in (0, 1)]
    for net, trained in zip(nets, train(nets, recipe, predict=["test"]), strict=True):
        assert trained.finite and np.isfinite(trained.train_mse).all() and np.isfinite(trained.predicted["test"]).all()
        assert_identical(trained, train([net], recipe, predict=["test"], stable=True)[0])


def test_overflowing_logits_next_to_padding_train_stably():
    # Logits far beyond what exp2 can hold, beside those of padding, which are −∞.
    recipe = replace(RECIPE, precision="float32", learning_rate=3.0, epochs=3)
    nets = [replace(network(16, balanced=balanced, lam=1e-6), padded_to=64) for balanced in (False, True)]
    for net, trained in zip(nets, train(nets, recipe), strict=True):
        assert trained.finite
        assert_identical(trained, train([net], recipe, stable=True)[0])


def test_heads_are_padded_if_a_batch_has_few_logits():
    assert [ensemble_data.padded_to(classes, 40) for classes in (0, 100, 204, 205)] == [0, 100, 204, 0]
    assert [ensemble_data.padded_to(classes, 256) for classes in (16, 32, 64)] == [16, 32, 0]


@pytest.mark.parametrize("classes, optimizer, activation", [(0, "adam", "sigmoid"), (100, "adam", "relu"), (100, "sgd", "relu")])
def test_other_networks_sizes_do_not_change_results(classes, optimizer, activation):
    rate = {"adam": 0.001, "sgd": 1e-6}[optimizer]
    recipe = replace(VIDEO, precision="float32", optimizer=optimizer, activation=activation, learning_rate=rate)
    nets = unequal_networks(classes)
    together, alone = train(nets, recipe, predict=["test"]), [train([n], recipe, predict=["test"])[0] for n in nets]
    for a, b in zip(together, alone, strict=True):
        assert_identical(a, b)


@pytest.mark.parametrize("inputs", [1, 64])
def test_the_block_size_does_not_change_results(monkeypatch, inputs):
    nets = [network(16, seed=seed, samples=count, inputs=inputs) for seed, count in enumerate((410, 165, 90))]
    recipe = replace(VIDEO, precision="float32")
    reference = train(nets, recipe, predict=["test"])
    monkeypatch.setitem(ensemble_data.BLOCK_BYTES, "cpu", 100_000)
    for a, b in zip(reference, train(nets, recipe, predict=["test"]), strict=True):
        assert_identical(a, b)


def assert_identical(a, b):
    assert all(np.array_equal(a.weights[name], b.weights[name]) for name in a.weights)
    assert np.array_equal(a.train_mse, b.train_mse)
    assert all(np.array_equal(a.evaluated[name], b.evaluated[name]) for name in a.evaluated)
    assert all(np.array_equal(a.predicted[name], b.predicted[name]) for name in a.predicted)
    assert a.accuracy == b.accuracy


def test_frames_shared_by_networks_are_stored_once():
    nets = unequal_networks(0)
    nets.sort(key=lambda n: -n.y.size)
    batches = ensemble_data.Batches(nets, [VIDEO.steps(n.y.size) for n in nets], 40, torch.float64, torch.device("cpu"))
    stored = {source.data_ptr() for group in batches.groups for source, _ in group.sources}
    assert len(nets) == 9 and len(stored) == 5


def test_without_epochs_networks_keep_their_initial_weights():
    net = network(0, samples=10, inputs=64)  # less than a batch, which is never needed
    trained = train([net], replace(VIDEO, epochs=0), predict=["val"], every_epoch=["test"])[0]
    weights = initial_weights(64, VIDEO.hidden, 0, net.seed, VIDEO.initialisation)
    assert all(np.array_equal(trained.weights[name], value.double().numpy()) for name, value in weights.items())
    assert trained.train_mse.shape == (0,) and trained.finite and trained.accuracy == {}
    assert trained.evaluated["val"].shape == trained.evaluated["test"].shape == (1,)
    assert trained.evaluated["val"][0] == pytest.approx(np.mean((trained.predicted["val"] - net.evaluate["val"][1]) ** 2))


@pytest.mark.parametrize("classes, balanced", [(0, False), (16, False), (64, True)])
def test_other_networks_do_not_change_results(classes, balanced):
    recipe = replace(RECIPE, precision="float32")
    nets = [network(classes, balanced=balanced, seed=seed, lam=lam) for seed in (0, 1, 2) for lam in (1.0, 100.0)]
    together, alone = train(nets, recipe), [train([n], recipe)[0] for n in nets]
    for a, b in zip(together, alone, strict=True):
        assert_identical(a, b)


def test_sets_of_unequal_size_train_together():
    nets = [network(4, seed=0, samples=700), network(4, seed=0, samples=690), network(4, seed=1, samples=650)]
    for net, trained in zip(nets, train(nets, RECIPE), strict=True):
        assert difference(trained, train_plainly(net, RECIPE)[0]) < 1e-10


def test_evaluation_happens_at_the_requested_epochs():
    trained = train([network(4)], RECIPE, every_epoch=["val"])[0]
    assert trained.evaluated["val"].shape == (2,)
    assert trained.evaluated["test"].shape == (1,)


def test_overflowing_logits_train_stably():
    net = network(16, lam=1e-6)
    recipe = replace(RECIPE, precision="float32", learning_rate=3.0, epochs=3)  # logits far beyond what exp2 can hold
    alone, beside = train([net], recipe)[0], train([network(16, seed=1), net], recipe)[1]
    assert all(np.isfinite(value).all() for value in alone.weights.values())
    assert all(np.array_equal(alone.weights[name], beside.weights[name]) for name in alone.weights)


@pytest.mark.parametrize("seed", [0, 421, 2**32 - 1])
def test_order_and_draws_use_different_random_streams(seed):
    order, draws = (torch.rand(4, generator=torch.Generator().manual_seed(s)) for s in stream_seeds(seed))
    assert not torch.isclose(order, draws).any()


@pytest.mark.parametrize("classes", [0, 4])
def test_a_diverging_network_says_so_and_does_not_affect_others(classes):
    recipe = replace(RECIPE, optimizer="sgd", learning_rate=0.001, precision="float32")
    good, bad = network(classes), replace(network(classes), y=network(classes).y * 1e30)
    one, other = train([good, bad], recipe)
    assert one.finite and not other.finite
    assert np.array_equal(one.train_mse, train([good], recipe)[0].train_mse)


def test_incompatible_networks_are_refused():
    with pytest.raises(ValueError, match="must agree"):
        train([network(4), network(8)], RECIPE)


def test_too_few_samples_for_a_batch_are_refused():
    with pytest.raises(ValueError, match="do not fill one batch"):
        train([network(4, samples=63)], RECIPE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("classes, balanced", [(0, False), (16, False), (100, True)])
def test_cuda_results_agree_with_the_cpu(classes, balanced):
    nets = [network(classes, balanced=balanced, seed=seed) for seed in (0, 1)]
    for a, b in zip(train(nets, RECIPE, device="cuda"), train(nets, RECIPE), strict=True):
        assert all(np.allclose(a.weights[name], b.weights[name], atol=1e-9) for name in a.weights)
