"""Optimizer steps of many networks at once, compared with torch.optim; each network has its own step count."""

import numpy as np
import pytest
import torch

from regcls.training.optimizers import Adam, GradientDescent, Stacked

SHAPES = [(3, 2), (2, 4)]


def stacked(count, seed):
    out = Stacked(SHAPES, count, torch.float64, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    for layer in out.layers:
        layer.copy_(torch.randn(layer.shape, generator=generator, dtype=torch.float64))
    return out


@pytest.mark.parametrize("ours, theirs", [(Adam, torch.optim.Adam), (GradientDescent, torch.optim.SGD)])
@pytest.mark.parametrize("taken", [[0, 0, 0], [0, 0, 5], [20, 7, 40_000]])
def test_steps_agree_with_torch_optim(ours, theirs, taken):
    params, gradient, moments = stacked(3, 0), stacked(3, 1), [stacked(3, seed) for seed in range(2, 2 + ours.moments)]
    if moments:
        moments[1].flat.abs_()
    plain = [[layer[m].clone().requires_grad_() for layer in params.layers] for m in range(3)]
    optimizers = [theirs(tensors, lr=0.01, weight_decay=0.1) for tensors in plain]
    for m, optimizer in enumerate(optimizers):
        for index, tensor in enumerate(plain[m]):
            tensor.grad = gradient.layers[index][m].clone()
            if moments:
                state = {"exp_avg": moments[0], "exp_avg_sq": moments[1]}
                optimizer.state[tensor] = {name: value.layers[index][m].clone() for name, value in state.items()}
                optimizer.state[tensor]["step"] = torch.tensor(float(taken[m]))
    optimizer = ours(params, gradient, moments, 0.1)
    optimizer.begin(np.array(taken), 2, 0.01)
    for step in range(2):
        kept = gradient.flat.clone()
        optimizer.step(step)
        gradient.flat.copy_(kept)  # the weight decay was added to it
        for one in optimizers:
            one.step()
    for m, tensors in enumerate(plain):
        for index, tensor in enumerate(tensors):
            assert torch.allclose(params.layers[index][m], tensor.detach(), rtol=1e-12, atol=1e-14)


def test_networks_with_equal_or_very_many_steps_share_step_factors():
    params, gradient, moments = stacked(2, 0), stacked(2, 1), [stacked(2, 2), stacked(2, 3)]
    optimizer = Adam(params, gradient, moments, 0.0)
    for taken, alike in (([5, 5], True), ([5, 6], False), ([40_000, 90_000], True)):
        optimizer.begin(np.array(taken), 3, 0.1)
        assert optimizer.alike == alike


def test_the_first_networks_can_be_taken_out_and_put_back():
    whole = stacked(3, 0)
    before, part = [layer.clone() for layer in whole.layers], whole.first(2)
    assert all(torch.equal(a, b[:2]) for a, b in zip(part.layers, before, strict=True))
    part.flat.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(whole.layers, before, strict=True))
    whole.take_back(part)
    for layer, old in zip(whole.layers, before, strict=True):
        assert torch.equal(layer[:2], old[:2] + 1) and torch.equal(layer[2], old[2])
