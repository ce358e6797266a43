"""hl-gauss and ce-mean compared with their formulas, and the gradients of their cross-entropy."""

import numpy as np
import pytest
import torch

from methods.histograms import BY_NAME, cross_entropy, gaussian, one_hot
from regcls.classes import uniform_ranges
from regcls.errors import UserError
from regcls.methods import (
    canonical,
    code_of,
    engine_loss,
    has_class_loss,
    has_classes,
    has_regression_loss,
    is_balanced,
    make_distribution,
    missing_need,
    parsed,
    searched_as,
)
from regcls.methods.ce_mean import CrossEntropyMean
from regcls.methods.hl_gauss import HLGauss
from regcls.runs import check_class_options

NAMES = sorted(BY_NAME)
LOW, HIGH, CLASSES = -1.3, 4.2, 7


def histograms_of(name, *ranges, rows=0, dtype=torch.float64):
    return make_distribution(name).histograms(ranges, rows=rows, dtype=dtype, device="cpu")


def histograms(name):
    return histograms_of(name, uniform_ranges(CLASSES, LOW, HIGH))


def data(samples=12):
    rng = np.random.default_rng(5)
    edges = uniform_ranges(CLASSES, LOW, HIGH).edges
    targets = np.concatenate([rng.uniform(LOW, HIGH, samples - 5), [LOW, HIGH, edges[2], LOW - 3, HIGH + 1000]])
    logits = torch.from_numpy(rng.normal(0, 3, (samples, CLASSES)))
    return edges, targets, logits, torch.from_numpy(rng.random(samples) < 0.6)


def by_hand(name, targets, edges):
    return np.stack([BY_NAME[name](target, edges) for target in targets])


@pytest.mark.parametrize("name", NAMES)
def test_histograms_agree_with_the_formula_also_at_edges_and_beyond_the_range(name):
    edges, targets, *_ = data()
    found = histograms(name).of(torch.from_numpy(targets)[:, None])
    np.testing.assert_allclose(found.numpy(), by_hand(name, targets, edges), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(found.sum(1), 1.0, rtol=1e-12)


def test_ce_mean_has_the_classes_of_a_class_loss():
    ranges = uniform_ranges(CLASSES, LOW, HIGH)
    _, targets, *_ = data(500)
    targets = np.concatenate([targets, ranges.edges])
    found = histograms("ce-mean").of(torch.from_numpy(targets)[:, None])
    assert (found.argmax(1).numpy() == ranges.labels(targets)).all() and ((found == 0) | (found == 1)).all()


def test_sigma_is_in_bin_widths():
    """Three quarters of a bin: half the width of bins halves the Gaussian."""
    for classes in (10, 20):
        histograms = histograms_of("hl-gauss", uniform_ranges(classes, 0, 100))
        found = histograms.of(torch.tensor([[50.0]]).double())[0]
        deviation = (found * (histograms.centres[0] - 50) ** 2).sum().sqrt().item()
        width = 100 / classes
        assert deviation == pytest.approx(width * (0.75**2 + 1 / 12) ** 0.5, rel=1e-3)  # of the Gaussian, and within bins


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_the_mean_cross_entropy_of_the_kept_samples(name, masked):
    edges, targets, logits, kept = data()
    expected = cross_entropy(logits, by_hand(name, targets, edges))
    found = histograms(name).loss(logits, torch.from_numpy(targets), kept if masked else None)
    assert found.item() == pytest.approx(expected[kept.numpy()].mean() if masked else expected.mean(), rel=1e-9)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_the_loss_and_equals_softmax_minus_histogram(name, masked):
    edges, targets, logits, kept = data()
    mask, logits = kept if masked else None, logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda values: histograms(name).loss(values, torch.from_numpy(targets), mask), logits)
    (gradient,) = torch.autograd.grad(histograms(name).loss(logits, torch.from_numpy(targets), mask), logits)
    counted = kept if masked else torch.ones_like(kept)
    expected = (logits.softmax(1) - torch.from_numpy(by_hand(name, targets, edges))) * counted[:, None] / counted.sum()
    torch.testing.assert_close(gradient, expected.detach(), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_without_kept_samples_the_loss_and_its_gradient_are_0(name):
    _, targets, logits, kept = data()
    logits.requires_grad_()
    loss = histograms(name).loss(logits, torch.from_numpy(targets), kept & False)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0 and not gradient.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*NAMES, "hl-gauss(sigma=0)", "hl-gauss(sigma=1e300)"])
def test_equal_targets_have_one_bin_around_them_with_all_of_the_mass(name, dtype):
    own = histograms_of(name, uniform_ranges(CLASSES, 3.5, 3.5), dtype=dtype)
    logits = torch.tensor([[0.3]], dtype=dtype, requires_grad=True)
    assert own.centres.tolist() == [[3.5]] and own.of(torch.tensor([[3.5]], dtype=dtype)).tolist() == [[1.0]]
    loss = own.loss(logits, torch.tensor([3.5], dtype=dtype), None)
    assert loss.item() == 0 and torch.autograd.grad(loss, logits)[0].item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [0, 1e-300, 1e-9])
def test_without_a_width_a_gaussian_is_in_one_bin_or_half_in_either(sigma, dtype):
    own = histograms_of(f"hl-gauss(sigma={sigma})", uniform_ranges(4, 0, 4), dtype=dtype)
    found = own.of(torch.tensor([[0.5], [0.0], [4.0], [2.0], [9.0]], dtype=dtype))
    assert found.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0.5, 0.5, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [1e6, 1e300])
def test_a_gaussian_much_wider_than_the_range_is_flat(sigma, dtype):
    own = histograms_of(f"hl-gauss(sigma={sigma})", uniform_ranges(4, 0, 4), dtype=dtype)
    found = own.of(torch.tensor([[0.0], [1.7], [4.0]], dtype=dtype))
    torch.testing.assert_close(found, torch.full_like(found, 0.25))


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_is_precise_for_many_bins_and_targets_far_from_0(name):
    for low, high in ((0.0, 100.0), (1e4, 1e4 + 50)):
        edges = uniform_ranges(100, low, high).edges
        targets = np.linspace(low, high, 37).astype(np.float32)
        found = histograms_of(name, uniform_ranges(100, low, high), dtype=torch.float32).of(torch.from_numpy(targets)[:, None])
        np.testing.assert_allclose(found.numpy(), by_hand(name, targets.astype(float), edges), atol=2e-3 if low else 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_networks_with_other_bins_do_not_change_a_histogram_and_padding_is_empty(name):
    ranges = [uniform_ranges(3, 0, 1), uniform_ranges(CLASSES, LOW, HIGH), uniform_ranges(1, 2, 2)]
    together = histograms_of(name, *ranges, rows=9).by_sample()
    targets = torch.from_numpy(np.random.default_rng(0).uniform(-2, 5, (3, 1, 40)))
    found = together.of(targets)
    assert found.shape == (3, 9, 40)
    for m, own in enumerate(ranges):
        assert torch.equal(found[m, : len(own)], histograms_of(name, own).of(targets[m, 0, :, None]).T)
        assert not found[m, len(own) :].any() and not together.centres[m, len(own) :].any()
    assert torch.equal(together.first(2).of(targets[:2]), found[:2])


def test_options_and_names():
    assert make_distribution("hl-gauss") == HLGauss(sigma=0.75) and make_distribution("hl-gauss(sigma=2)") == HLGauss(sigma=2.0)
    assert make_distribution("ce-mean") == CrossEntropyMean()
    assert [make_distribution(name) for name in ("reg", "reg+cls", "lds", "random", "hgb")] == [None] * 5
    assert canonical("hl-gauss(sigma=0.75)") == "hl-gauss" and parsed("ce-mean").name == "ce-mean"


@pytest.mark.parametrize("name", ["hl-gauss", "ce-mean", "hl-gauss(sigma=0.5)"])
def test_a_method_by_classes_alone_has_classes_but_neither_lambda_nor_regression_loss(name):
    assert has_classes(name) and not has_class_loss(name) and not has_regression_loss(name) and not is_balanced(name)
    assert searched_as(name) == name and engine_loss(name) is None and missing_need(name, ()) is None
    check_class_options(name, classes=10, lam=None)
    with pytest.raises(UserError, match=r"has no λ: leave out --lambda"):
        check_class_options(name, classes=10, lam=1.0)


@pytest.mark.parametrize("name", ["hl-gauss+cls", "lds+hl-gauss", "reg+ce-mean", "hl-gauss+ce-mean"])
def test_a_method_by_classes_alone_takes_no_other_part(name):
    with pytest.raises(ValueError, match=r"takes no other part|do not go together"):
        parsed(name)


def test_a_method_by_classes_alone_adds_its_own_code_to_fingerprints(source_copy):
    def append(file):
        (source_copy / "methods" / file).write_text((source_copy / "methods" / file).read_text() + "\nmore = 1\n")
        return [code_of(name) for name in ("hl-gauss", "ce-mean", "focal-r")]

    before = [code_of(name) for name in ("hl-gauss", "ce-mean", "focal-r")]
    own = append("hl_gauss.py")
    assert own[0] != before[0] and own[1:] == before[1:]
    shared = append("distribution.py")
    assert shared[0] != own[0] and shared[1] != own[1] and shared[2] == own[2]


def test_the_formulas_by_hand_are_plausible():
    edges = [0.0, 1.0, 2.0, 3.0]
    # 1.5 is 2/3 of σ from the middle bin's edges, and 2 σ from the ends: Φ(2/3) = 0.7475, Φ(2) = 0.9772.
    assert gaussian(1.5, edges) == pytest.approx([0.2407, 0.5187, 0.2407], abs=1e-4) and one_hot(3.0, edges).tolist() == [0, 0, 1]
