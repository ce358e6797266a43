"""The optimizers of torch.optim for many networks at once, with parameters in one flat vector and a step count for each network.

PyTorch's per-step bookkeeping would cost more than the arithmetic.

Legend: M networks.
"""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam's


class Stacked:
    """One flat vector with the parameters of M networks, or values of the same shapes; its layers are views (M, outputs, inputs + 1)."""

    def __init__(self, shapes: Sequence[tuple[int, int]], count: int, dtype: torch.dtype, device: torch.device) -> None:
        self.shapes, self.count = shapes, count
        sizes = [count * rows * columns for rows, columns in shapes]
        sizes.append(-sum(sizes) % 64)  # padding: the optimiser's vector loop rounds a remainder differently from the rest
        self.flat = torch.zeros(sum(sizes), dtype=dtype, device=device)
        self.layers = [part.view(count, *shape) for part, shape in zip(self.flat.split(sizes), shapes, strict=False)]

    def like(self, count: int) -> "Stacked":
        """Zeros for `count` networks."""
        return Stacked(self.shapes, count, self.flat.dtype, self.flat.device)

    def first(self, count: int) -> "Stacked":
        """A copy of the first `count` networks."""
        copy = self.like(count)
        for source, target in zip(self.layers, copy.layers, strict=True):
            target.copy_(source[:count])
        return copy

    def take_back(self, part: "Stacked") -> None:
        """Overwrite the first networks with those of `part`."""
        for target, source in zip(self.layers, part.layers, strict=True):
            target[: part.count].copy_(source)


class Adam:
    """torch.optim.Adam with L2 in the gradient."""

    moments = 2  # state vectors

    def __init__(self, params: Stacked, gradient: Stacked, moments: Sequence[Stacked], weight_decay: float) -> None:
        self.params, self.gradient, self.weight_decay = params, gradient, weight_decay
        self.mean, self.square = moments
        self.root, self.update = params.like(params.count), params.like(params.count)
        self.flats = params.flat, gradient.flat, self.mean.flat, self.square.flat, self.root.flat

    def begin(self, taken: NDArray[np.int64], steps: int, learning_rate: float) -> None:
        """Prepare `steps` steps at one learning rate; `taken` (M,): the steps that each network has taken so far."""
        first, second = _corrections()
        number = np.minimum(taken + 1 + np.arange(steps)[:, None], len(first) - 1)
        kind = np.float32 if self.params.flat.dtype == torch.float32 else np.float64
        divisors, rates = (values.astype(kind) for values in (second[number], -learning_rate / first[number]))
        # Scalars, not vectors, if they are the same for all networks: equally many steps taken, or so many that it no longer matters.
        self.alike = bool((divisors == divisors[:, :1]).all() and (rates == rates[:, :1]).all())
        self.numbers: list[tuple[float, float]] = list(zip(divisors[:, 0].tolist(), rates[:, 0].tolist(), strict=True))
        self.vectors = () if self.alike else tuple(self._vectors(values) for values in (divisors, rates))

    def _vectors(self, values: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(values)[..., None, None].to(self.params.flat.device)

    def step(self, index: int) -> None:
        """Take the index-th of the steps that `begin` has prepared."""
        params, gradient, mean, square, root = self.flats
        gradient.add_(params, alpha=self.weight_decay)
        mean.lerp_(gradient, 1 - BETA1)
        square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        torch.sqrt(square, out=root)
        if self.alike:
            divisor, rate = self.numbers[index]
            params.addcdiv_(mean, root.div_(divisor).add_(EPSILON), value=rate)
            return
        divisors, rates = self.vectors
        for roots, means, updates in zip(self.root.layers, self.mean.layers, self.update.layers, strict=True):
            roots.div_(divisors[index])
            torch.mul(means, rates[index], out=updates)
        params.addcdiv_(self.update.flat, root.add_(EPSILON))


@cache
def _corrections() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Adam's bias corrections 1 − β₁ᵗ and √(1 − β₂ᵗ) after t steps, up to the t from which both are 1 in float64.

    Computed in Python: the rounding of a power in NumPy's vector loop may depend on the other elements.
    """
    last = math.ceil(math.log(2.0**-54) / math.log(BETA2))
    first, second = ([1 - beta**t if t else 1.0 for t in range(last + 1)] for beta in (BETA1, BETA2))
    return np.array(first), np.sqrt(second)


class GradientDescent:
    """torch.optim.SGD without momentum, with L2 in the gradient."""

    moments = 0

    def __init__(self, params: Stacked, gradient: Stacked, moments: Sequence[Stacked], weight_decay: float) -> None:
        self.params, self.gradient, self.weight_decay = params.flat, gradient.flat, weight_decay

    def begin(self, taken: NDArray[np.int64], steps: int, learning_rate: float) -> None:
        """Prepare the next steps; see Adam.begin."""
        self.learning_rate = learning_rate

    def step(self, index: int) -> None:
        """Take one step."""
        self.gradient.add_(self.params, alpha=self.weight_decay)
        self.params.sub_(self.gradient, alpha=self.learning_rate)
