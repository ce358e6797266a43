"""Losses compared with their closed forms."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from regcls.losses import class_loss, reg_cls, weighted
from regcls.methods import make_loss


def regression_loss(predictions, targets, kept=None, *, kind, huber_delta=1.0):
    """The loss of a single network with the method reg."""
    return make_loss("reg", kind=kind, huber_delta=huber_delta).alone(nn.Identity(), predictions, targets, kept, {})


LOGITS = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0], [2.0, 2.0, -5.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1])
PREDICTIONS, TARGETS = torch.tensor([1.0, 5.0, 2.0, 40.0]).double(), torch.tensor([1.5, 2.0, 2.0, 30.0]).double()
KEPT = torch.tensor([True, False, True, True])
BY_HAND = {  # each sample's loss; Huber with δ = 2
    "mae": [0.5, 3.0, 0.0, 10.0],
    "mse": [0.25, 9.0, 0.0, 100.0],
    "huber": [0.5 * 0.25, 2 * (3.0 - 1.0), 0.0, 2 * (10.0 - 1.0)],
}


def test_the_class_loss_is_the_mean_negative_log_softmax():
    by_hand = -(LOGITS.exp() / LOGITS.exp().sum(1, keepdim=True)).log()[torch.arange(3), LABELS].mean()
    torch.testing.assert_close(class_loss(LOGITS, LABELS), by_hand)


def test_the_class_loss_averages_over_kept_samples_only():
    kept = torch.tensor([True, False, True])
    torch.testing.assert_close(class_loss(LOGITS, LABELS, kept), F.cross_entropy(LOGITS[kept], LABELS[kept]))


def test_a_batch_without_kept_samples_has_no_class_loss_or_gradient():
    logits = LOGITS.clone().requires_grad_()
    loss = class_loss(logits, LABELS, torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


def test_reg_cls_weights_the_regression_loss_by_lambda():
    predictions, targets = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([1.0, 0.0, 0.0]).double()
    expected = 10 * 13 / 3 + class_loss(LOGITS, LABELS)
    torch.testing.assert_close(reg_cls(predictions, targets, LOGITS, LABELS, lam=10.0), expected)


@pytest.mark.parametrize("kind", BY_HAND)
def test_regression_losses_average_over_all_or_kept_samples(kind):
    each = torch.tensor(BY_HAND[kind]).double()
    torch.testing.assert_close(regression_loss(PREDICTIONS, TARGETS, kind=kind, huber_delta=2.0), each.sum() / 4)
    torch.testing.assert_close(regression_loss(PREDICTIONS, TARGETS, KEPT, kind=kind, huber_delta=2.0), each[KEPT].sum() / 3)


@pytest.mark.parametrize("kind", BY_HAND)
def test_a_batch_without_kept_samples_has_no_regression_loss_or_gradient(kind):
    predictions = PREDICTIONS.clone().requires_grad_()
    loss = regression_loss(predictions, TARGETS, torch.zeros(4, dtype=torch.bool), kind=kind)
    loss.backward()
    assert loss.item() == 0
    assert predictions.grad is not None and torch.equal(predictions.grad, torch.zeros(4).double())


def test_samples_not_kept_have_no_gradient():
    predictions = PREDICTIONS.clone().requires_grad_()
    regression_loss(predictions, TARGETS, KEPT, kind="mae").backward()
    torch.testing.assert_close(predictions.grad, torch.tensor([-1 / 3, 0.0, 0.0, 1 / 3]).double())


@pytest.mark.parametrize(
    "scaling, lam, expected",
    [("eq4", 0.1, 0.1 * 3 + 5), ("eq4", 10.0, 10 * 3 + 5), ("released", 0.1, 3 + 5 / 0.1), ("released", 1.0, 3 + 5), ("released", 10.0, 10 * 3 + 5)],
)  # fmt: skip
def test_lambda_weights_the_losses(scaling, lam, expected):
    regression, classification = torch.tensor(3.0).double(), torch.tensor(5.0).double()
    torch.testing.assert_close(weighted(regression, classification, lam=lam, scaling=scaling).item(), float(expected))


@pytest.mark.parametrize("lam, factor", [(0.1, 0.1), (1.0, 1.0), (10.0, 1.0)])
def test_up_to_lambda_1_the_released_scaling_divides_eq_4_by_lambda(lam, factor):
    def gradients(scaling):
        predictions, logits = PREDICTIONS[:3].clone().requires_grad_(), LOGITS.clone().requires_grad_()
        regression = regression_loss(predictions, TARGETS[:3], kind="mse")
        weighted(regression, class_loss(logits, LABELS), lam=lam, scaling=scaling).backward()
        return predictions.grad, logits.grad

    torch.testing.assert_close([gradient * factor for gradient in gradients("released")], list(gradients("eq4")))


@pytest.mark.parametrize("kind", BY_HAND)
def test_the_regression_loss_of_a_map_averages_its_pixels(kind):
    predictions, targets, kept = (tensor.view(1, 2, 2) for tensor in (PREDICTIONS, TARGETS, KEPT))
    for mask in (None, kept):
        expected = regression_loss(PREDICTIONS, TARGETS, None if mask is None else KEPT, kind=kind)
        torch.testing.assert_close(regression_loss(predictions, targets, mask, kind=kind), expected)


def test_unmeasured_pixels_have_no_gradient():
    depth = torch.tensor([[[0.0, 2.0], [4.0, 0.0]]])
    predictions = torch.full_like(depth, 1.0).requires_grad_()
    loss = regression_loss(predictions, depth, depth > 0, kind="mse")
    loss.backward()
    assert loss.item() == (1 + 9) / 2
    assert predictions.grad.tolist() == [[[0, -1], [-3, 0]]]
