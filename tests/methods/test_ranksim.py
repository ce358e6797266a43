"""The ranking similarity loss and its gradient compared with their formulas, computed pair by pair; masks and degenerate batches."""

import math

import numpy as np
import pytest
import torch

from regcls.methods import make_feature_methods
from regcls.methods.loss import TrainingTargets

TARGETS = np.array([30.0, 4.0, 30.0, 17.0, 31.0, 4.0, 58.0, 16.0, 18.0, 90.0])
KEPT = np.array([True, False, True, True, True, True, False, True, True, True])


def features_of(seed=0, samples=10, count=4):
    return torch.from_numpy(np.random.default_rng(seed).gamma(0.5, 1.0, (samples, count)))


def loss_of(features, targets=TARGETS, kept=None, name="ranksim"):
    known = TrainingTargets(values=np.asarray(targets))
    methods = make_feature_methods(name, features=features.shape[1], targets=known)
    kept = None if kept is None else torch.from_numpy(kept)
    return methods.losses(features, torch.as_tensor(targets, dtype=features.dtype), kept)["ranksim_loss"]


def first_ones(targets, kept):
    """Indices of kept samples whose target was not there before."""
    found = {}
    for index, target in enumerate(targets):
        if kept is None or kept[index]:
            found.setdefault(target, index)
    return list(found.values())


def ranks(values):
    """1 / n for the greatest value, … n / n; the first of equal ones comes first."""
    order = sorted(range(len(values)), key=lambda index: (-values[index], index))
    return [(order.index(index) + 1) / len(values) for index in range(len(values))]


def cosines(features, chosen):
    return [
        [
            sum(a * b for a, b in zip(features[i], features[j], strict=True)) / math.hypot(*features[i]) / math.hypot(*features[j])
            for j in chosen
        ]
        for i in chosen
    ]


def by_hand(features, targets, kept, gamma, strength):
    """The loss, and its gradient with respect to the similarities of the chosen samples."""
    chosen = first_ones(targets, kept)
    total, gradients, n = 0.0, [], len(chosen)
    for i, similarities in zip(chosen, cosines(features.tolist(), chosen), strict=True):
        wanted, found = ranks([-abs(targets[i] - targets[j]) for j in chosen]), ranks(similarities)
        total += gamma * sum((f - w) ** 2 for f, w in zip(found, wanted, strict=True)) / n
        moved = ranks([s + strength * gamma * 2 * (f - w) / n for s, f, w in zip(similarities, found, wanted, strict=True)])
        gradients.append([-(f - m) / strength for f, m in zip(found, moved, strict=True)])
    return total, torch.tensor(gradients, dtype=torch.float64), chosen


CASES = pytest.mark.parametrize(
    "name, gamma, strength", [("ranksim", 100.0, 2.0), ("ranksim(gamma=0.7,strength=0.3)", 0.7, 0.3)], ids=["defaults", "others"]
)


@CASES
@pytest.mark.parametrize("kept", [None, KEPT], ids=["all", "kept"])
def test_the_loss_and_its_gradient_agree_with_their_formulas(name, gamma, strength, kept):
    features = features_of().requires_grad_()
    expected, similarities, chosen = by_hand(features.detach(), TARGETS.tolist(), kept, gamma, strength)
    assert len(chosen) == (8 if kept is None else 7)
    loss = loss_of(features, kept=kept, name=name)
    assert loss.item() == pytest.approx(expected, rel=1e-12) and expected > 0
    (gradient,) = torch.autograd.grad(loss, features)
    units = features[chosen] / features[chosen].norm(dim=1, keepdim=True)
    (of_cosines,) = torch.autograd.grad((units @ units.T * similarities).sum(), features)
    torch.testing.assert_close(gradient, of_cosines, rtol=1e-6, atol=1e-9)
    assert gradient[chosen].any(1).all() and not gradient[[n for n in range(10) if n not in chosen]].any()


def test_steps_along_the_gradient_order_features_as_targets():
    features = features_of(3, samples=8, count=8).requires_grad_()
    targets = np.arange(8.0) ** 2
    losses = []
    for _ in range(300):
        loss = loss_of(features, targets)
        losses.append(loss.item())
        with torch.no_grad():
            features -= 0.02 * torch.autograd.grad(loss, features)[0]
    assert losses[0] > 5 * min(losses)


def test_features_in_the_order_of_targets_have_no_loss():
    angles = torch.tensor([0.1, 0.25, 0.45, 0.7, 1.0, 1.4], dtype=torch.float64)
    features = (
        torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([1.0, 7.0, 0.2, 3.0, 40.0, 2.0])[:, None]
    )  # lengths do not matter
    assert loss_of(features, angles.numpy()).item() == 0
    assert loss_of(features.flip(0), angles.numpy() ** 2).item() > 0


@pytest.mark.parametrize(
    "targets, kept",
    [([5.0], None), ([5.0] * 3, None), ([1.0, 2.0, 3.0], [False] * 3), ([1.0, 2.0, 3.0], [False, True, False])],
    ids=["one sample", "equal targets", "none kept", "one kept"],
)
def test_fewer_than_two_targets_have_no_loss_and_no_gradient(targets, kept):
    features = features_of(samples=len(targets)).requires_grad_()
    loss = loss_of(features, targets, None if kept is None else np.array(kept))
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss.item() == 0 and not gradient.any()


@pytest.mark.parametrize("name", ["ranksim", "ranksim(strength=0)", "ranksim(gamma=0)"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_of_0_and_options_of_0_have_finite_gradients(name, dtype):
    features = features_of().to(dtype)
    features[3] = 0
    features.requires_grad_()
    loss = loss_of(features, name=name)
    (gradient,) = torch.autograd.grad(loss, features)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all() and not gradient[3].any()
    assert bool(gradient.any()) == (name == "ranksim")


def test_the_loss_does_not_round_similarities_under_autocast():
    features = features_of().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = loss_of(features)
    assert within.dtype == torch.float32 and torch.equal(within, loss_of(features))
