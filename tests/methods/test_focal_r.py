"""focal-r compared with its formula, and its gradient."""

import math

import numpy as np
import pytest
import torch

from regcls.methods import make_loss

KINDS = ("mae", "mse", "huber")
DELTA = 0.7


def data(networks=2, samples=9, *, zeros=False):
    rng = np.random.default_rng(3)
    predictions, targets = rng.normal(0, 2, (2, networks, samples))
    if zeros:
        predictions[:, ::2] = targets[:, ::2]
    return torch.from_numpy(predictions), torch.from_numpy(targets), torch.from_numpy(rng.random((networks, samples)) < 0.6)


def loss_of(kind, beta=0.2, gamma=1.0):
    """A loss without learned parameters."""
    loss = make_loss(f"focal-r(beta={beta},gamma={gamma})", kind=kind, huber_delta=DELTA)
    return lambda predictions, targets, kept: loss(predictions, targets, kept, predictions.new_zeros(len(predictions), 0), {})


def by_hand(kind, beta, gamma, predictions, targets, kept):
    """The loss of one network, sample by sample."""
    total = 0.0
    for prediction, target in zip(predictions[kept].tolist(), targets[kept].tolist(), strict=True):
        error = abs(prediction - target)
        huber = error**2 / 2 if error < DELTA else DELTA * (error - DELTA / 2)
        plain = {"mae": error, "mse": error**2, "huber": huber}[kind]
        total += (2 / (1 + math.exp(-beta * error)) - 1) ** gamma * plain
    return total / max(1, int(kept.sum()))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("beta, gamma", [(0.2, 1.0), (2.0, 0.5), (0.7, 2.0), (1.0, 0.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_agrees_with_its_formula_computed_by_hand(kind, beta, gamma, masked):
    predictions, targets, kept = data()
    found = loss_of(kind, beta, gamma)(predictions, targets, kept if masked else None)
    for m in range(2):
        every = kept[m].numpy() if masked else np.ones(9, bool)
        assert found[m].item() == pytest.approx(by_hand(kind, beta, gamma, predictions[m].numpy(), targets[m].numpy(), every), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_default_options_are_those_of_the_paper(kind):
    predictions, targets, _ = data(1)
    loss = make_loss("focal-r", kind=kind, huber_delta=DELTA)(predictions, targets, None, predictions.new_zeros(1, 0), {})
    assert loss.item() == pytest.approx(by_hand(kind, 0.2, 1.0, predictions[0].numpy(), targets[0].numpy(), np.ones(9, bool)))


@pytest.mark.parametrize("kind", KINDS)
def test_without_kept_samples_the_loss_and_its_gradient_are_0(kind):
    predictions, targets, kept = data()
    predictions.requires_grad_()
    kept[1] = False
    loss = loss_of(kind)(predictions, targets, kept)
    assert loss[0] > 0 == loss[1]
    (gradient,) = torch.autograd.grad(loss.sum(), predictions)
    assert gradient[0].any() and not gradient[1].any() and not gradient[~kept].any()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_weight_is_part_of_the_gradient(kind, gamma, masked):
    predictions, targets, kept = data()
    loss, kept = loss_of(kind, 0.8, gamma), kept if masked else None
    assert torch.autograd.gradcheck(lambda p: loss(p, targets, kept), predictions.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_0_has_gradient_0_and_does_not_affect_the_others(kind, gamma, masked, dtype):
    predictions, targets, kept = data(zeros=True)
    predictions, targets = predictions.to(dtype).requires_grad_(), targets.to(dtype)
    kept = kept if masked else None
    (gradient,) = torch.autograd.grad(loss_of(kind, gamma=gamma)(predictions, targets, kept).sum(), predictions)
    assert torch.isfinite(gradient).all() and not gradient[:, ::2].any()
    others = gradient[:, 1::2] if kept is None else gradient[:, 1::2][kept[:, 1::2]]
    assert others.all()
