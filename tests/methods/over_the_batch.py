"""Losses over the whole batch: bmse-bmc in plain PyTorch, and one whose parameter is learned as the weights are, which no method uses yet."""

import torch
from torch.nn import functional as F

from regcls.losses import mean_of
from regcls.methods.loss import Loss


class OverTheBatch(Loss):
    """−log probability that a prediction belongs to its own target and not to another one of the batch, with a learned width."""

    @property
    def learned(self):
        return (0.5,)

    def __call__(self, predictions, targets, kept, learned, facts):
        distances = -((predictions[:, :, None] - targets[:, None, :]) ** 2) / (2 * learned[:, :, None] ** 2)
        if kept is not None:
            distances = distances.masked_fill(~kept[:, None, :], -torch.inf)
        own = torch.diagonal(distances, dim1=1, dim2=2)
        return mean_of(distances.logsumexp(2) - own, kept)


OVER_THE_BATCH = OverTheBatch(kind="mse", huber_delta=1.0)


def over_the_batch(predictions, targets, width=0.5):
    """The same loss in plain PyTorch, for one network and all samples."""
    distances = (predictions[:, None] - targets) ** 2 / (2 * width**2)
    return F.cross_entropy(-distances, torch.arange(len(targets)))


def batch_monte_carlo(predictions, targets, sigma=1.0):
    """bmse-bmc in plain PyTorch, for one network and the kept samples."""
    if len(targets) > 1024:
        chosen = torch.arange(1024) * len(targets) // 1024
        predictions, targets = predictions[chosen], targets[chosen]
    variance = torch.as_tensor(sigma) ** 2
    logits = -((predictions[:, None] - targets) ** 2) / (2 * variance)
    return 2 * variance.detach() * F.cross_entropy(logits, torch.arange(len(targets)))


def logged(method):
    """What a method logs in the first step, besides the losses."""
    return {"noise_sigma": 1.0} if method.startswith("bmse") else {}
