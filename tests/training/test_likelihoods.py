"""L_extra and likelihoods, compared with their formulas written for one network and one sample at a time."""

import math
from dataclasses import replace
from statistics import NormalDist, correlation, fmean

import numpy as np
import pytest
import torch

from regcls.classes import class_ranges
from regcls.training import likelihoods
from regcls.training.ensemble import Recipe, train
from regcls.training.likelihoods import BINS, MEASURES
from training.reference import train_plainly
from training.test_ensemble import RECIPE, network

pytestmark = pytest.mark.usefixtures("one_thread")

SETS = ("train", "test")


def plainly(net, recipe: Recipe, name: str, mse: float) -> dict[str, float]:
    """MEASURES of a network that PyTorch has trained."""
    model = train_plainly(net, recipe)[0]
    x, y = (net.x, net.y) if name == "train" else net.evaluate[name]
    features = model.features(torch.from_numpy(x.T))
    predictions = model.regressor(features)[:, 0].tolist()
    rows = []
    if net.classes:
        share = [float(np.mean(net.classes.labels(net.y) == k)) for k in range(len(net.classes))]
        for p, c in zip(model.classifier(features).softmax(1).tolist(), net.classes.labels(y), strict=True):
            if share[c]:
                extra = math.log(share[c]) - math.log(sum(a * b for a, b in zip(p, share, strict=True)))
                rows.append((-math.log(p[c]), extra, 1 - p[c]))
    found = dict.fromkeys(MEASURES, math.nan)
    if rows:
        loss, extra, others = zip(*rows, strict=True)
        found |= {"class_loss": fmean(loss), "extra_loss": fmean(extra), "other_classes": fmean(others), "seen": len(rows) / y.size}
        found["correlation"] = correlation(loss, extra)
    bins = class_ranges(BINS, net.y, balanced=False)
    density = np.bincount(bins.labels(net.y), minlength=BINS) / net.y.size / np.diff(bins.edges)
    nll = []
    for target, b, prediction in zip(y.tolist(), bins.labels(y), predictions, strict=True):
        if density[b]:
            likelihood = NormalDist(prediction, math.sqrt(mse))
            masses = [likelihood.cdf(high) - likelihood.cdf(low) for low, high in zip(bins.edges, bins.edges[1:], strict=False)]
            balanced = -math.log(likelihood.pdf(target))
            nll.append((balanced, balanced - math.log(density[b]) + math.log(sum(d * m for d, m in zip(density, masses, strict=True)))))
    found["balanced_nll"], found["imbalanced_nll"] = map(fmean, zip(*nll, strict=True))
    return found


@pytest.mark.parametrize("precision, tolerance", [("float64", 1e-9), ("float32", 2e-3)])
@pytest.mark.parametrize("classes, balanced", [(0, False), (4, False), (40, False), (40, True)])
def test_measures_agree_with_their_formulas(classes, balanced, precision, tolerance):
    recipe = replace(RECIPE, precision=precision, likelihoods=SETS, drop_last=False)
    nets = [network(classes, balanced=balanced, seed=seed, samples=500) for seed in (0, 421)]
    for net, trained in zip(nets, train(nets, recipe), strict=True):
        for name in SETS:
            expected = plainly(net, replace(recipe, precision="float64"), name, trained.train_mse[-1])
            found = trained.likelihoods[name]
            assert found.shape == (recipe.epochs, len(MEASURES))
            assert dict(zip(MEASURES, found[-1], strict=True)) == pytest.approx(expected, abs=tolerance, nan_ok=True)
            assert not np.array_equal(found[0], found[-1], equal_nan=True)


def test_classes_that_training_has_not_seen_do_not_count():
    net = network(200, seed=3)
    empty = np.flatnonzero(np.bincount(net.classes.labels(net.y), minlength=200) == 0)
    x, y = net.evaluate["test"]
    rare = (net.classes.edges[empty[0]] + net.classes.edges[empty[0] + 1]) / 2
    y = np.where(np.arange(y.size) % 3 == 0, rare, y)
    net = replace(net, evaluate={"test": (x, y)})
    recipe = replace(RECIPE, likelihoods=SETS)
    found = dict(zip(MEASURES, train([net], recipe)[0].likelihoods["test"][-1], strict=True))
    assert found["seen"] == pytest.approx(1 - 1 / 3) and np.isfinite(list(found.values())).all()
    assert found == pytest.approx(plainly(net, recipe, "test", train([net], recipe)[0].train_mse[-1]), abs=1e-9)


def test_a_uniform_class_head_leaves_no_extra_loss_beyond_the_share_of_the_class():
    shares = torch.tensor([[[0.7, 0.2, 0.1]]], dtype=torch.float64)
    labels = torch.tensor([[[0, 1, 2]]])
    loss, extra, others = likelihoods.class_losses(torch.zeros(1, 3, 3, dtype=torch.float64), labels, shares)
    assert loss.flatten().tolist() == pytest.approx([math.log(3)] * 3)
    assert extra.flatten().tolist() == pytest.approx([math.log(3 * share) for share in (0.7, 0.2, 0.1)])
    assert others.flatten().tolist() == pytest.approx([2 / 3] * 3)
    # A sure and right classifier: both are 0 (Eq. 10 and 11).
    loss, extra, others = likelihoods.class_losses(60 * torch.eye(3, dtype=torch.float64)[None], labels, shares)
    assert max(loss.abs().max(), extra.abs().max(), others.abs().max()) < 1e-12


def test_measuring_changes_no_result():
    nets = [network(16, seed=seed) for seed in (0, 421)]
    recipe = replace(RECIPE, precision="float32")
    for plain, measured in zip(train(nets, recipe), train(nets, replace(recipe, likelihoods=SETS)), strict=True):
        assert all(np.array_equal(value, measured.weights[name]) for name, value in plain.weights.items())
        assert np.array_equal(plain.train_mse, measured.train_mse)


def test_large_sets_are_sampled_evenly(monkeypatch):
    monkeypatch.setattr(likelihoods, "SAMPLES", 50)
    net = network(4)
    x, y = net.evaluate["test"]
    chosen = np.linspace(0, y.size - 1, 50).astype(int)
    sampled = replace(net, evaluate={"test": (x[:, chosen], y[chosen])})
    recipe = replace(RECIPE, likelihoods=("test",))
    whole, part = (train([each], recipe)[0].likelihoods["test"] for each in (net, sampled))
    assert np.array_equal(whole, part)
