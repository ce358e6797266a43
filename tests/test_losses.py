"""Losses against their closed forms."""

import torch
from torch.nn import functional as F

from regcls.losses import class_loss, reg_cls

LOGITS = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0], [2.0, 2.0, -5.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1])


def test_class_loss_is_the_mean_negative_log_softmax():
    by_hand = -(LOGITS.exp() / LOGITS.exp().sum(1, keepdim=True)).log()[torch.arange(3), LABELS].mean()
    torch.testing.assert_close(class_loss(LOGITS, LABELS), by_hand)


def test_class_loss_averages_over_kept_samples_only():
    kept = torch.tensor([True, False, True])
    torch.testing.assert_close(class_loss(LOGITS, LABELS, kept), F.cross_entropy(LOGITS[kept], LABELS[kept]))


def test_a_batch_that_keeps_nothing_has_no_class_loss_and_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    loss = class_loss(logits, LABELS, torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


def test_reg_cls_weighs_the_regression_loss_with_lambda():
    predictions, targets = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([1.0, 0.0, 0.0]).double()
    expected = 10 * 13 / 3 + class_loss(LOGITS, LABELS)
    torch.testing.assert_close(reg_cls(predictions, targets, LOGITS, LABELS, lam=10.0), expected)
