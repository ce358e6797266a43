"""A loss over the whole batch, with a parameter that is learned: what the trainers must be able to do, and no method of ours does yet."""

import torch

from regcls.losses import mean_of
from regcls.methods.loss import Loss


class OverTheBatch(Loss):
    """How unlikely it is that a prediction belongs to its own target rather than to another one of the batch, at a learned width."""

    learned = (0.5,)

    def __call__(self, predictions, targets, kept, learned):
        distances = -((predictions[:, :, None] - targets[:, None, :]) ** 2) / (2 * learned[:, :, None] ** 2)
        if kept is not None:
            distances = distances.masked_fill(~kept[:, None, :], -torch.inf)
        own = torch.diagonal(distances, dim1=1, dim2=2)
        return mean_of(distances.logsumexp(2) - own, kept)


OVER_THE_BATCH = OverTheBatch(kind="mse", huber_delta=1.0)
