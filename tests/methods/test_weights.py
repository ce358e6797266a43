"""Weights of samples compared with their formulas; in a loss, with masks, and on degenerate targets."""

import math

import numpy as np
import pytest
import torch

from regcls.methods import make_loss
from regcls.methods.bins import kernel

# Targets of two networks in [0, 10], most of them small; limits that give bins of width 1.
TARGETS = np.stack([np.random.default_rng(seed).beta(1, 4, 500) * 10 for seed in range(2)])
LIMITS = (0.0, 10.0)


def gaussian_by_hand(size, sigma):
    """A unit impulse of `size` values, reflected at its ends (d c b a | a b c d | d c b a), times Gaussian weights, maximum 1."""
    values = [0.0] * size
    values[size // 2] = 1.0
    reach = int(4 * sigma + 0.5)
    density = {offset: math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(-reach, reach + 1)}
    total = sum(density.values())

    def at(index):
        period = index % (2 * size)
        return values[period] if period < size else values[2 * size - 1 - period]

    found = [sum(share / total * at(index + offset) for offset, share in density.items()) for index in range(size)]
    return [value / max(found) for value in found]


def weights_by_hand(name, targets, bins=10, low=0.0, high=10.0, reflected=False):
    """The weight of each target, sample by sample."""
    places = [min(int((target - low) / ((high - low) / bins)), bins - 1) for target in targets]
    counts = [places.count(place) for place in range(bins)]
    roots = [math.sqrt(count) for count in counts]
    first = next(place for place, count in enumerate(counts) if count) if reflected else 0
    if name == "inverse":
        density = [min(max(count, 5), 1000) for count in counts]
    elif name == "sqrt-inverse":
        density = roots
    else:
        window, density, own = gaussian_by_hand(5, 2.0), list(roots), roots[first:]
        for place in range(first, bins):
            total = 0.0
            for offset in range(-2, 3):
                index = place - first + offset
                if reflected:
                    index = index % (2 * len(own))
                    index = index if index < len(own) else 2 * len(own) - 1 - index
                if 0 <= index < len(own):
                    total += window[offset + 2] * own[index]
            density[place] = total
    weights = [1 / density[place] for place in places]
    return np.array(weights) * len(weights) / sum(weights)


def facts_of(loss, *targets, dtype=torch.float64, **given):
    return loss.facts_of([np.asarray(each) for each in targets], dtype=dtype, device="cpu", **given)


def test_the_kernel_is_the_released_one():
    for size, sigma in ((5, 2.0), (9, 1.0), (3, 2.0)):
        found = kernel(size, sigma)
        assert found / found.max() == pytest.approx(gaussian_by_hand(size, sigma), rel=1e-12)
    assert (kernel(5, 2.0) / kernel(5, 2.0).max()).round(3).tolist() == [0.858, 0.946, 1.0, 0.946, 0.858]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["mae", "mse"])
@pytest.mark.parametrize("name", ["inverse", "sqrt-inverse", "lds"])
def test_the_loss_is_the_weighted_mean_over_kept_samples(name, kind, masked):
    rng = np.random.default_rng(5)
    predictions, batch = torch.from_numpy(rng.normal(2, 2, (2, 9))), torch.from_numpy(TARGETS[:, :9])
    kept = torch.from_numpy(rng.random((2, 9)) < 0.6)
    loss = make_loss(f"{name}(bins=10)", kind=kind)
    facts = facts_of(loss, *TARGETS, limits=LIMITS)
    found = loss(predictions, batch, kept if masked else None, predictions.new_zeros(2, 0), facts)
    for m in range(2):
        weights = weights_by_hand(name, TARGETS[m])[:9]
        errors = np.abs(predictions[m].numpy() - TARGETS[m, :9]) ** (1 if kind == "mae" else 2)
        chosen = kept[m].numpy() if masked else np.ones(9, bool)
        assert found[m].item() == pytest.approx((weights * errors)[chosen].mean(), rel=1e-12)


@pytest.mark.parametrize("name", ["inverse", "sqrt-inverse", "lds"])
def test_weights_have_the_mean_1_over_the_training_samples(name):
    loss = make_loss(f"{name}(bins=10)", kind="mse")
    ones = torch.from_numpy(TARGETS)
    found = loss(ones + 1, ones, None, ones.new_zeros(2, 0), facts_of(loss, *TARGETS, limits=LIMITS))
    assert found.tolist() == pytest.approx([1.0, 1.0], rel=1e-12)


def test_depth_reflects_bins_from_the_first_with_pixels_on_and_counts_levels():
    levels = np.array([0.75, 1.25, 1.75, 4.5, 9.75])
    counts = np.array([7, 20, 400, 90, 3])
    pixels = np.repeat(levels, counts)
    loss = make_loss("lds(bins=20)", kind="mse")
    facts = facts_of(loss, levels, counts=counts, limits=LIMITS, reflected=True)
    expected = dict(zip(pixels, weights_by_hand("lds", pixels, bins=20, reflected=True), strict=True))
    batch = torch.from_numpy(levels)[None]
    found = loss(batch + 1, batch, torch.eye(5, dtype=torch.bool)[:1], batch.new_zeros(1, 0), facts)
    assert found.item() == pytest.approx(expected[0.75], rel=1e-12)
    assert facts["weights"][0, [2, 3, 9, 19]].tolist() == pytest.approx([expected[each] for each in (1.25, 1.75, 4.5, 9.75)], rel=1e-12)


def test_without_limits_20_bins_cover_the_training_targets():
    loss = make_loss("sqrt-inverse", kind="mse")
    facts = facts_of(loss, TARGETS[0])
    assert facts["weights"].shape == (1, 20) and facts_of(loss, TARGETS[0], limits=LIMITS)["weights"].shape == (1, 100)
    assert facts["edges"][0].tolist() == pytest.approx(np.linspace(TARGETS[0].min(), TARGETS[0].max(), 21)[1:-1].tolist())


def test_a_target_on_an_edge_is_in_the_same_bin_in_float32():
    depths = np.linspace(0, 10, 101).astype(np.float32)
    loss = make_loss("sqrt-inverse", kind="mse")
    counts = np.arange(1, 102)
    facts = facts_of(loss, depths, dtype=torch.float32, counts=counts, limits=LIMITS)
    batch = torch.from_numpy(depths)[None]
    inverse = torch.stack([loss(batch + 1, batch, (batch == each), batch.new_zeros(1, 0), facts) for each in batch[0, :-2]])[:, 0] ** -2
    assert torch.allclose(inverse / inverse[0], torch.arange(1.0, 100.0), rtol=1e-4)


@pytest.mark.parametrize("name", ["inverse", "sqrt-inverse", "lds", "focal-r+lds"])
def test_gradients(name):
    loss, kept = make_loss(f"{name}", kind="mse"), torch.arange(18).view(2, 9) % 3 > 0
    facts, batch = facts_of(loss, *TARGETS), torch.from_numpy(TARGETS[:, :9])
    predictions = (batch + torch.linspace(-2, 3, 9, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss(p, batch, kept, p.new_zeros(2, 0), facts), predictions)


@pytest.mark.parametrize("name", ["inverse", "sqrt-inverse", "lds"])
@pytest.mark.parametrize("targets", [[3.0], [3.0, 3.0, 3.0], [1.0, 1.0, 9.0]], ids=["one", "equal", "empty bins"])
@pytest.mark.parametrize("limits", [None, LIMITS, (20.0, 30.0)], ids=["seen", "given", "elsewhere"])
def test_degenerate_targets_have_finite_weights_with_mean_1(name, targets, limits):
    loss, batch = make_loss(name, kind="mae"), torch.tensor([targets], dtype=torch.float64)
    facts = facts_of(loss, np.array(targets), limits=limits)
    assert torch.isfinite(facts["weights"]).all() and (facts["weights"] > 0).all()
    assert loss(batch + 2, batch, None, batch.new_zeros(1, 0), facts).item() == pytest.approx(2.0, rel=1e-12)
    none = torch.zeros(1, len(targets), dtype=torch.bool)
    assert loss(batch + 2, batch, none, batch.new_zeros(1, 0), facts).item() == 0.0
