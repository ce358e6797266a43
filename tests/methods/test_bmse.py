"""The three Balanced MSE losses compared with their formulas, their gradients, and what they know of the training targets."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn
from torch.nn import functional as F

from regcls.methods import balanced_mse, bmse_bmc, bmse_gai, engine_loss, make_loss, parsed
from regcls.methods.loss import TrainingTargets

NAMES = ("bmse-bmc", "bmse-gai", "bmse-bni")
SIGMA = 0.7
VARIANCE = SIGMA**2 + 1e-8


def data(networks=2, samples=9, *, dtype=torch.float64):
    rng = np.random.default_rng(3)
    targets = rng.exponential(1.5, (networks, samples))
    predictions, kept = targets + rng.normal(0, 1.5, targets.shape), rng.random(targets.shape) < 0.6
    return torch.from_numpy(predictions).to(dtype), torch.from_numpy(targets).to(dtype), torch.from_numpy(kept)


def loss_of(name, targets, *, sigma=None, training=None, **given):
    """The loss as a function of predictions, targets, kept samples and σ (default: as learned at first, or fixed), and its facts."""
    loss = make_loss(name, kind="mae")
    facts = loss.facts_of(targets.numpy() if training is None else training, dtype=targets.dtype, device="cpu", **given)

    def call(predictions, targets, kept, sigma=sigma):
        start = torch.tensor([loss.learned], dtype=targets.dtype).expand(len(targets), -1)
        return loss(predictions, targets, kept, start if sigma is None else sigma, facts)

    return call, facts


def terms_by_hand(name, facts, m, targets):
    """π, μ and v of the density of the m-th network."""
    if name == "bmse-bmc":
        return [(1 / len(targets), target, 0.0) for target in targets]
    if name == "bmse-bni":
        centres = facts["centres"][m].tolist()
        within = (centres[1] - centres[0]) ** 2 / 12  # of a uniform density in a bin
        return [(math.exp(share), centre, within) for share, centre in zip(facts["log_shares"][m], centres, strict=True)]
    return [
        (math.exp(w), mu, v) for w, mu, v in zip(*(facts[key][m].tolist() for key in ("log_weights", "means", "variances")), strict=True)
    ]


def by_hand(name, facts, m, predictions, targets, kept):
    """The loss of one network, by the formulas, sample by sample; without the constant log n of the batch's cross-entropy."""
    predictions, targets = (values[m][kept[m]].tolist() for values in (predictions, targets))
    total, terms = 0.0, terms_by_hand(name, facts, m, targets)
    for prediction, target in zip(predictions, targets, strict=True):
        if name == "bmse-gai":
            inner = sum(p * (v + VARIANCE) ** -0.5 * math.exp(-((prediction - mu) ** 2) / (2 * (v + VARIANCE))) for p, mu, v in terms)
            value = (prediction - target) ** 2 / (2 * VARIANCE) + 0.5 * math.log(VARIANCE) + math.log(inner)
        else:
            inner = sum(
                p * math.sqrt(VARIANCE / (v + VARIANCE)) * math.exp(-((prediction - mu) ** 2) / (2 * (v + VARIANCE))) for p, mu, v in terms
            )
            value = (prediction - target) ** 2 / (2 * VARIANCE) + math.log(inner)
        total += 2 * VARIANCE * (value + (math.log(len(targets)) if name == "bmse-bmc" else 0.0))
    return total / max(1, len(targets))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", [f"sigma={SIGMA}", f"sigma={SIGMA},rate=0"])
@pytest.mark.parametrize("name", NAMES)
def test_a_loss_agrees_with_its_formula_computed_by_hand(name, options, masked):
    predictions, targets, kept = data()
    loss, facts = loss_of(f"{name}({options})", targets)
    found = loss(predictions, targets, kept if masked else None)
    for m in range(2):
        expected = by_hand(name, facts, m, predictions, targets, kept if masked else torch.ones_like(kept))
        assert found[m].item() == pytest.approx(expected, rel=1e-9)


def test_bmc_is_the_cross_entropy_of_each_prediction_with_its_own_target():
    predictions, targets, _ = data(1, 50)
    logits = -((predictions[0][:, None] - targets[0]) ** 2) / (2 * VARIANCE)
    loss, _ = loss_of(f"bmse-bmc(sigma={SIGMA})", targets)
    assert loss(predictions, targets, None).item() == pytest.approx(2 * VARIANCE * F.cross_entropy(logits, torch.arange(50)).item())


def normal(at, mean, variance):
    return math.exp(-((at - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def test_gai_integrates_the_noise_over_the_density_of_the_training_targets():
    predictions, targets, _ = data(1, 60)
    loss, facts = loss_of(f"bmse-gai(sigma={SIGMA},components=3)", targets)
    terms = terms_by_hand("bmse-gai", facts, 0, None)
    total = 0.0
    for prediction, target in zip(predictions[0].tolist(), targets[0].tolist(), strict=True):

        def integrand(t, prediction=prediction):
            return normal(t, prediction, VARIANCE) * sum(p * normal(t, mu, v) for p, mu, v in terms)

        evidence = quad(integrand, -15, 25, points=[prediction, *(mu for _, mu, _ in terms)], limit=200)[0]
        total += math.log(evidence) - math.log(normal(target, prediction, VARIANCE))
    assert loss(predictions, targets, None).item() == pytest.approx(2 * VARIANCE * total / 60, rel=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_loss_with_the_factor_2s2_kept_fixed(name, masked):
    predictions, targets, kept = data()
    loss, _ = loss_of(name, targets)
    kept = kept if masked else None
    sigma = torch.tensor([[0.7], [1.3]], dtype=torch.float64, requires_grad=True)

    def without_factor(predictions, sigma):
        return loss(predictions, targets, kept, sigma) / (2 * (sigma.detach()[:, 0] ** 2 + 1e-8))

    assert torch.autograd.gradcheck(without_factor, (predictions.requires_grad_(), sigma))


@pytest.mark.parametrize("name", NAMES)
def test_without_kept_samples_the_loss_and_its_gradients_are_0(name):
    predictions, targets, kept = data()
    loss, _ = loss_of(name, targets)
    kept[1] = False
    sigma = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    found = loss(predictions.requires_grad_(), targets, kept, sigma)
    assert found[0] != 0 == found[1]
    of_predictions, of_sigma = torch.autograd.grad(found.sum(), [predictions, sigma])
    assert of_predictions[0].any() and not of_predictions[1].any() and not of_predictions[~kept].any()
    assert of_sigma[0] != 0 == of_sigma[1]


@pytest.mark.parametrize("name", NAMES)
def test_samples_that_are_not_kept_have_no_effect(name):
    predictions, targets, kept = data()
    loss, _ = loss_of(name, targets)
    before = loss(predictions, targets, kept)
    assert torch.equal(loss(predictions.masked_fill(~kept, 5.0), targets.masked_fill(~kept, -3.0), kept), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("samples", [1, 6])
@pytest.mark.parametrize("name", NAMES)
def test_equal_training_targets_cannot_be_told_apart_and_give_no_gradient(name, samples, dtype):
    """Whatever the prediction, the only target there is has probability 1."""
    targets = torch.full((1, samples), 0.1, dtype=dtype)
    predictions = (targets + torch.linspace(-2, 3, samples, dtype=dtype)).requires_grad_()
    sigma = torch.ones(1, 1, dtype=dtype, requires_grad=True)
    loss, _ = loss_of(name, targets)
    found = loss(predictions, targets, None, sigma)
    constant = 2 * math.log(samples) if name == "bmse-bmc" else 0.0
    assert found.item() == pytest.approx(constant, abs=2e-5)  # gai: its Gaussian has a variance of 10⁻⁶
    for gradient in torch.autograd.grad(found, [predictions, sigma]):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=2e-5)


@pytest.mark.parametrize("sigma", [0.0, 1e-30, -1e-5, -0.7])
@pytest.mark.parametrize("size", [1.0, 1e5])
@pytest.mark.parametrize("name", NAMES)
def test_any_noise_gives_a_finite_loss_and_gradient_in_float32(name, size, sigma):
    """σ may cross 0 on its way: only its square counts."""
    predictions, targets, kept = data(dtype=torch.float32)
    predictions, targets = (size * predictions).requires_grad_(), size * targets
    loss, _ = loss_of(name, targets)
    learned = torch.full((2, 1), sigma, requires_grad=True)
    found = loss(predictions, targets, kept, learned)
    gradients = torch.autograd.grad(found.sum(), [predictions, learned])
    assert torch.isfinite(found).all() and all(torch.isfinite(gradient).all() for gradient in gradients)
    assert gradients[0].any() and torch.equal(found, loss(predictions, targets, kept, -learned))


def test_the_loss_may_be_negative():
    targets = data()[1]
    loss, _ = loss_of("bmse-gai", targets)
    assert (loss(targets, targets, None) < 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_many_samples_are_computed_in_pieces(name, monkeypatch):
    predictions, targets, kept = data(2, 200)
    loss, _ = loss_of(name, targets)
    sigma = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)

    def found():
        value = loss(predictions.requires_grad_(), targets, kept, sigma)
        return value, *torch.autograd.grad(value.sum(), [predictions, sigma])

    whole = found()
    monkeypatch.setitem(balanced_mse.PIECE, "cpu", 1)  # pieces of 64, the last one smaller
    assert all(torch.equal(one, other) for one, other in zip(found(), whole, strict=True))


def test_what_is_kept_for_the_backward_pass_does_not_grow_with_the_bins():
    predictions, targets, _ = data(1, 3000)
    saved = []
    loss, _ = loss_of("bmse-bni(bins=500)", targets)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.numel()) or tensor, lambda tensor: tensor):
        loss(predictions.requires_grad_(), targets, None)
    assert 3000 <= sum(saved) < 20 * 3000


@pytest.mark.parametrize("samples, share", [(1100, 1.0), (5000, 0.7), (300_000, 0.97), (3000, 0.2), (3000, 0.0)])
def test_of_many_kept_samples_bmc_takes_evenly_spaced_ones(samples, share):
    predictions, targets, _ = data(2, samples)
    kept = torch.rand(2, samples, generator=torch.Generator().manual_seed(0)) < share
    found = loss_of("bmse-bmc", targets)[0](predictions, targets, kept)
    for m in range(2):
        places = np.flatnonzero(kept[m])
        chosen = [places[index * len(places) // 1024] for index in range(1024)] if len(places) > 1024 else places
        assert len(set(chosen)) == len(chosen)
        if not len(chosen):
            assert found[m] == 0
            continue
        logits = -((predictions[m][chosen][:, None] - targets[m][chosen]) ** 2) / (2 * (1 + 1e-8))
        assert found[m].item() == pytest.approx(2 * F.cross_entropy(logits, torch.arange(len(chosen))).item())


def test_bmc_takes_all_samples_where_they_are_just_as_many():
    kept = torch.ones(1, 1500, dtype=torch.bool)
    kept[0, 1024:] = False
    places, counted = bmse_bmc.evenly_spaced(kept, 1024)
    assert places[0].tolist() == list(range(1024)) and counted.all()


@pytest.fixture(scope="module")
def two_peaks():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(20, 2, 30_000), rng.normal(50, 5, 10_000)])


def facts_of(name, values, **given):
    return make_loss(name, kind="mse").facts(TrainingTargets(values=np.asarray(values), **given))


def test_gai_finds_the_mixture_of_the_training_targets(two_peaks):
    facts = facts_of("bmse-gai(components=2)", two_peaks)
    order = np.argsort(facts["means"])
    np.testing.assert_allclose(np.exp(facts["log_weights"][order]), [0.75, 0.25], rtol=0.02)
    np.testing.assert_allclose(facts["means"][order], [20, 50], rtol=0.01)
    np.testing.assert_allclose(facts["variances"][order], [4, 25], rtol=0.05)


def test_the_mixture_has_eight_gaussians_and_is_the_same_each_time(two_peaks):
    one, other = (facts_of("bmse-gai", two_peaks) for _ in range(2))
    assert one["means"].shape == (8,) and np.exp(one["log_weights"]).sum() == pytest.approx(1)
    assert all(np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_mixture_follows_the_unit_of_the_targets(two_peaks, scale):
    usual, scaled = facts_of("bmse-gai", two_peaks), facts_of("bmse-gai", scale * two_peaks + 7 * scale)
    np.testing.assert_allclose(scaled["means"], scale * usual["means"] + 7 * scale, rtol=1e-6)
    np.testing.assert_allclose(scaled["variances"], scale**2 * usual["variances"], rtol=1e-6)
    np.testing.assert_allclose(scaled["log_weights"], usual["log_weights"], rtol=1e-6)


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0, 3.0], [1.0, 2.0, 2.0, 5.0]])
def test_few_distinct_targets_have_a_gaussian_each(values):
    facts = facts_of("bmse-gai", np.array(values, dtype=np.float32))
    distinct, counts = np.unique(values, return_counts=True)
    used = np.argsort(facts["means"][: len(distinct)])
    np.testing.assert_allclose(facts["means"][used], distinct, rtol=1e-5)
    np.testing.assert_allclose(np.exp(facts["log_weights"][used]), counts / counts.sum(), rtol=1e-5)
    assert (facts["log_weights"][len(distinct) :] == -np.inf).all() and len(facts["means"]) == 8
    assert all(np.isfinite(facts[key]).all() and (facts["variances"] > 0).all() for key in ("means", "variances"))


def test_levels_with_counts_are_as_good_as_each_target():
    levels, counts = np.array([4.0, 1.0, 2.5, 9.0], dtype=np.float32), np.array([5, 30, 0, 12])
    one, other = facts_of("bmse-gai(components=2)", levels, counts=counts), facts_of("bmse-gai(components=2)", np.repeat(levels, counts))
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_of_many_targets_evenly_spaced_ones_represent_all(two_peaks):
    few, every = bmse_gai.evenly_spaced(TrainingTargets(values=two_peaks), 100), np.sort(two_peaks)
    assert few.tolist() == [every[200 + 400 * index] for index in range(100)]
    assert bmse_gai.evenly_spaced(TrainingTargets(values=two_peaks), 40_000).tolist() == every.tolist()
    levels, counts = np.arange(5.0), np.array([0, 10**9, 2 * 10**9, 0, 10**9])
    taken = bmse_gai.evenly_spaced(TrainingTargets(values=levels, counts=counts), 1000)
    assert np.bincount(taken.astype(int), minlength=5).tolist() == [0, 250, 500, 0, 250]


def test_a_million_targets_are_fitted_by_a_sample_of_them(two_peaks, monkeypatch):
    whole = facts_of("bmse-gai(components=2)", two_peaks)
    monkeypatch.setattr(bmse_gai, "MOST", 1000)
    np.testing.assert_allclose(np.sort(facts_of("bmse-gai(components=2)", two_peaks)["means"]), np.sort(whole["means"]), rtol=0.01)


def smoothed_by_hand(counts, window, *, reflected):
    """Each bin's mean over its neighbours, with the weights `window`; beyond the ends there is nothing, or the mirror image."""
    half, bins, found = len(window) // 2, len(counts), []
    for b in range(bins):
        total = 0.0
        for offset, weight in zip(range(-half, half + 1), window, strict=True):
            at = b + offset
            if reflected:
                at = -1 - at if at < 0 else 2 * bins - 1 - at if at >= bins else at
            total += weight * counts[at] if 0 <= at < bins else 0.0
        found.append(total)
    return np.array(found)


WINDOW = [0.18625069, 0.20524768, 0.21700326, 0.20524768, 0.18625069]  # the released kernel of size 5, σ = 2


def test_bni_knows_the_smoothed_shares_of_the_bins():
    ages = np.array([0.5, 3.2, 3.9, 3.0, 40.0, 99.9, 100.0], dtype=np.float32)
    facts = facts_of("bmse-bni", ages, limits=(0.0, 100.0))
    counts = np.zeros(100)
    counts[[0, 3, 40, 99]] = [1, 3, 1, 2]
    expected = smoothed_by_hand(counts, WINDOW, reflected=False)
    np.testing.assert_allclose(facts["centres"], np.arange(100) + 0.5)
    np.testing.assert_allclose(np.exp(facts["log_shares"]), expected / expected.sum(), rtol=1e-6)
    assert (facts["log_shares"][10:37] == -np.inf).all()


def test_bni_reflects_the_bins_of_depth_from_the_first_one_with_pixels():
    depths, counts = np.array([1.5, 2.5, 9.5]), np.array([6, 3, 1])
    facts = facts_of("bmse-bni(bins=10)", depths, counts=counts, limits=(0.0, 10.0), reflected=True)
    expected = smoothed_by_hand([6, 3, 0, 0, 0, 0, 0, 0, 1], WINDOW, reflected=True)
    np.testing.assert_allclose(np.exp(facts["log_shares"]), [0.0, *(expected / expected.sum())], rtol=1e-6)


@pytest.mark.parametrize("name", ["bmse-gai", "bmse-bni"])
def test_a_prediction_far_beyond_all_targets_has_a_high_loss(name):
    targets = np.array([0.0] * 30 + [0.5, 1.0, 4.0])
    loss, batch = make_loss(f"{name}(sigma=0.1,rate=0)", kind="mse"), torch.from_numpy(targets)[None]
    facts = loss.facts_of([targets], dtype=torch.float64, device="cpu")
    near, far, farther = (
        loss(torch.where(batch == 0, shift, batch), batch, None, batch.new_zeros(1, 0), facts) for shift in (0.0, -100.0, -1000.0)
    )
    assert near < far < farther


@pytest.mark.parametrize("options", ["kernel_size=1", "kernel_sigma=0"])
def test_bni_without_a_kernel_knows_the_shares_themselves(options):
    facts = facts_of(f"bmse-bni(bins=4,{options})", [0.0, 0.2, 1.5, 4.0])
    np.testing.assert_allclose(np.exp(facts["log_shares"]), [0.5, 0.25, 0.0, 0.25])


@pytest.mark.parametrize("name", NAMES)
def test_the_noise_is_learned_from_1_with_a_rate_of_its_own(name):
    loss, network = make_loss(name, kind="mse"), nn.Linear(1, 1)
    loss.attach(network)
    assert loss.learned == (1.0,) and loss.own_rates == {"loss_parameters": 0.01} and network.loss_parameters.item() == 1.0
    nn.init.constant_(network.loss_parameters, -0.5)
    assert {key: value.item() for key, value in loss.logged(network).items()} == {"noise_sigma": pytest.approx(0.5)}


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_of_0_keeps_the_noise_fixed(name):
    loss, network = make_loss(f"{name}(sigma=3,rate=0)", kind="mse"), nn.Linear(1, 1)
    loss.attach(network)
    assert loss.learned == () and loss.own_rates == loss.logged(network) == {} and len(list(network.parameters())) == 2


def test_options_reach_the_loss():
    assert make_loss("bmse-gai(sigma=10,rate=0.1,components=16)", kind="mse").learned == (10.0,)
    assert facts_of("bmse-gai(components=16)", np.arange(100.0))["means"].shape == (16,)
    assert engine_loss("bmse-bni(bins=7)+cls").facts(TrainingTargets(values=np.arange(9.0)))["centres"].shape == (7,)
    assert parsed("bmse-gai(sigma=2)+cls-bal").name == "bmse-gai(sigma=2)+cls-bal"


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_samples_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name}\+lds: {name} is no mean over samples that lds could weigh"):
        parsed(f"{name}+lds")
