"""Many small networks at once: the engine of the 1D study.

Parameters are stacked along a model axis, forward and backward are batched matrix products with hand-written gradients,
and one optimiser step serves all. Every network has its own data, initial weights, shuffling and λ, and its result does not
depend on which others it shares a call with: bit for bit in float32, to rounding in float64. It computes what PyTorch would
for one network (tests/training).

Legend: M networks, B batch, N samples, D inputs, H1 and H2 hidden units, K classes. Samples lie on the last axis; a row of
ones below the features makes each bias a column of its weight matrix.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# MKL's matrix products otherwise depend, in the last bit, on where in memory a matrix lies, and so on its company.
# MKL reads this at its first call, hence before torch.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regcls.classes import ClassRanges
from regcls.models.mlp import initial_weights

LOG2_E = math.log2(math.e)


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """What one network is trained and evaluated on."""

    x: NDArray[np.floating]  # (D, N)
    y: NDArray[np.floating]  # (N,)
    classes: ClassRanges | None  # None: regression loss alone
    lam: float  # λ of Eq. 4; 1 where there is no class loss
    seed: int  # of the initial weights and of the shuffling
    evaluate: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]]  # name -> x (D, n), y (n,)

    @property
    def outputs(self) -> int:
        """K, 0 without a class head."""
        return 0 if self.classes is None else len(self.classes)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How networks are trained; the same for all networks of a call."""

    hidden: tuple[int, int]
    epochs: int
    batch_size: int
    optimizer: str  # adam | sgd
    learning_rate: float
    weight_decay: float
    precision: str  # float32 | float64


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """What became of one network. Errors are mean squared errors, in units of y²."""

    weights: dict[str, NDArray[np.floating]]  # by torch parameter name
    train_mse: NDArray[np.float64]  # (epochs,), mean over the epoch's batches
    evaluated: dict[str, NDArray[np.float64]]  # name -> (epochs,) for `every_epoch`, else (1,), after the last epoch
    finite: bool  # False: the network diverged, and its numbers mean nothing


def train(
    networks: Sequence[Network],
    recipe: Recipe,
    *,
    device: str = "cpu",
    every_epoch: Sequence[str] = (),
    on_epoch: Callable[[], None] = lambda: None,
    stable: bool = False,
) -> list[Trained]:
    """Train `networks` side by side and return them in order.

    They must agree in D, in K and in full batches an epoch. `every_epoch` names the evaluation sets to measure after each
    epoch; the others are measured at the end. `stable` shifts logits by their maximum, which costs a tenth more; networks
    whose logits overflow without are trained again with it, so nobody has to ask.

    Raises:
        ValueError: networks that do not agree, or fewer samples than one batch.
    """
    ensemble = _Ensemble(networks, recipe, torch.device(device), stable)
    errors: list[Tensor] = []
    measured: dict[str, list[Tensor]] = {name: [] for name in networks[0].evaluate}
    for epoch in range(recipe.epochs):
        errors.append(ensemble.train_epoch())
        for name, values in measured.items():
            if name in every_epoch or epoch == recipe.epochs - 1:
                values.append(ensemble.evaluate(name))
        on_epoch()
    train_mse = torch.stack(errors, 1).double().cpu().numpy()
    evaluated = {name: torch.stack(values, 1).double().cpu().numpy() for name, values in measured.items()}
    weights = {name: value.cpu().numpy() for name, value in ensemble.weights().items()}
    trained = [
        Trained(
            weights={name: value[m].copy() for name, value in weights.items()},
            train_mse=train_mse[m],
            evaluated={name: value[m] for name, value in evaluated.items()},
            finite=bool(ensemble.finite[m]),
        )
        for m in range(len(networks))
    ]
    broken = [m for m, result in enumerate(trained) if not result.finite]
    if broken and ensemble.k and not stable:
        again = train([networks[m] for m in broken], recipe, device=device, every_epoch=every_epoch, stable=True)
        for m, result in zip(broken, again, strict=True):
            trained[m] = result
    return trained


def stream_seeds(seed: int) -> tuple[int, int]:
    """Seeds of the order of the samples and of the draws for ρ (Eq. 13), both below 2³²: the generator ignores higher bits."""
    return seed, seed ^ 0x9E3779B9


class _Shuffled:
    """The training samples of networks with one seed and one N: they see the same order and the same draws."""

    def __init__(self, networks: Sequence[Network], rows: slice, dtype: torch.dtype, device: torch.device) -> None:
        self.rows = rows
        self.samples = networks[0].y.size
        # Two streams, so that drawing for ρ does not change the order that reg and reg+cls share.
        self.order, self.draws = (torch.Generator().manual_seed(seed) for seed in stream_seeds(networks[0].seed))
        self.x = torch.stack([torch.tensor(n.x, dtype=dtype, device=device) for n in networks])
        self.minus_y = torch.stack([-torch.tensor(n.y[None], dtype=dtype, device=device) for n in networks])
        labels = [n.classes.labels(n.y[None]) for n in networks if n.classes is not None]
        self.labels = torch.from_numpy(np.stack(labels)).to(device) if labels else None
        keep = [n.classes.keep[label] for n, label in zip(networks, labels, strict=False) if n.classes is not None]
        self.keep = torch.from_numpy(np.stack(keep)).to(device, torch.float32) if keep and min(k.min() for k in keep) < 1 else None


class _Adam:
    """torch.optim.Adam with L2 in the gradient, on one flat vector: its per-step bookkeeping would cost more than the arithmetic."""

    def __init__(self, params: Tensor, gradient: Tensor, learning_rate: float, weight_decay: float) -> None:
        self.params, self.gradient, self.learning_rate, self.weight_decay = params, gradient, learning_rate, weight_decay
        self.mean, self.square, self.scratch = torch.zeros_like(params), torch.zeros_like(params), torch.empty_like(params)
        self.steps = 0

    def step(self, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        self.steps += 1
        self.gradient.add_(self.params, alpha=self.weight_decay)
        self.mean.lerp_(self.gradient, 1 - beta1)
        self.square.mul_(beta2).addcmul_(self.gradient, self.gradient, value=1 - beta2)
        torch.sqrt(self.square, out=self.scratch)
        self.scratch.div_(math.sqrt(1 - beta2**self.steps)).add_(epsilon)
        self.params.addcdiv_(self.mean, self.scratch, value=-self.learning_rate / (1 - beta1**self.steps))


class _GradientDescent:
    """torch.optim.SGD without momentum, with L2 in the gradient, on one flat vector."""

    def __init__(self, params: Tensor, gradient: Tensor, learning_rate: float, weight_decay: float) -> None:
        self.params, self.gradient, self.learning_rate, self.weight_decay = params, gradient, learning_rate, weight_decay

    def step(self) -> None:
        self.gradient.add_(self.params, alpha=self.weight_decay)
        self.params.sub_(self.gradient, alpha=self.learning_rate)


class _Ensemble:
    """M networks in training."""

    def __init__(self, networks: Sequence[Network], recipe: Recipe, device: torch.device, stable: bool) -> None:
        first = networks[0]
        self.batch, self.stable = recipe.batch_size, stable
        self.steps = first.y.size // self.batch
        if self.steps == 0:
            raise ValueError(f"{first.y.size} training samples do not fill one batch of {self.batch}")
        for n in networks:
            if (len(n.x), n.outputs, n.y.size // self.batch, set(n.evaluate)) != (
                len(first.x),
                first.outputs,
                self.steps,
                set(first.evaluate),
            ):
                raise ValueError("networks trained together must agree in inputs, classes, full batches an epoch and evaluation sets")
        self.dtype, self.device = getattr(torch, recipe.precision), device
        self.m, self.d, self.k, (self.h1, self.h2) = len(networks), len(first.x), first.outputs, recipe.hidden
        self.finite = torch.ones(self.m, dtype=torch.bool)
        self._load_weights(networks, recipe)
        self._load_data(networks)
        self._allocate()

    def _load_weights(self, networks: Sequence[Network], recipe: Recipe) -> None:
        """One flat vector of all parameters, and views of it, (M, outputs, inputs + 1) each; row 0 of the head is the regression output."""
        shapes = [(self.h1, self.d + 1), (self.h2, self.h1 + 1), (1 + self.k, self.h2 + 1)]
        sizes = [self.m * rows * columns for rows, columns in shapes]
        sizes.append(-sum(sizes) % 64)  # the optimiser's vector loop rounds a remainder otherwise than the rest
        self.flat = torch.zeros(sum(sizes), dtype=self.dtype, device=self.device)
        self.gradient = torch.zeros_like(self.flat)

        def views(flat: Tensor) -> list[Tensor]:
            return [part.view(self.m, *shape) for part, shape in zip(flat.split(sizes), shapes, strict=False)]

        self.params, self.grads = views(self.flat), views(self.gradient)
        initial = {seed: initial_weights(self.d, recipe.hidden, self.k, seed) for seed in {n.seed for n in networks}}
        for m, network in enumerate(networks):
            for name, value in initial[network.seed].items():
                self._view(self.params, name)[m] = value
        optimizers: dict[str, type[_Adam] | type[_GradientDescent]] = {"adam": _Adam, "sgd": _GradientDescent}
        self.optimizer = optimizers[recipe.optimizer](self.flat, self.gradient, recipe.learning_rate, recipe.weight_decay)

    def _view(self, stacked: Sequence[Tensor], name: str) -> Tensor:
        """The part of `stacked` that holds the torch parameter `name`, with the model axis first."""
        layer, kind = name.rsplit(".", 1)
        rows = {"layers.0": stacked[0], "layers.1": stacked[1], "regressor": stacked[2][:, :1], "classifier": stacked[2][:, 1:]}[layer]
        return rows[..., -1] if kind == "bias" else rows[..., :-1]

    def weights(self) -> dict[str, Tensor]:
        """Parameters by torch name, (M, ...) each."""
        layers = ["layers.0", "layers.1", "regressor"] + (["classifier"] if self.k else [])
        return {f"{layer}.{kind}": self._view(self.params, f"{layer}.{kind}") for layer in layers for kind in ("weight", "bias")}

    def _load_data(self, networks: Sequence[Network]) -> None:
        self.groups = []
        start = 0
        for m in range(1, self.m + 1):  # consecutive networks with one seed and one N
            if m == self.m or (networks[m].seed, networks[m].y.size) != (networks[start].seed, networks[start].y.size):
                self.groups.append(_Shuffled(networks[start:m], slice(start, m), self.dtype, self.device))
                start = m
        lam = torch.tensor([n.lam for n in networks], dtype=self.dtype, device=self.device)
        self.regression_scale = (2 / self.batch * lam).view(self.m, 1, 1)  # gradient of λ · mean squared error
        self.sets: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        for name in networks[0].evaluate:
            pairs = [n.evaluate[name] for n in networks]
            longest = -(-max(y.size for _, y in pairs) // self.batch) * self.batch  # whole blocks: a shorter one is summed in another order
            x = torch.zeros(self.m, self.d + 1, longest, dtype=self.dtype)
            y, share = torch.zeros(2, self.m, 1, longest, dtype=self.dtype)  # share: of a sample in the mean; 0 for padding
            for m, (xs, ys) in enumerate(pairs):
                x[m, :-1, : ys.size], x[m, -1] = torch.tensor(xs), 1.0
                y[m, 0, : ys.size], share[m, 0, : ys.size] = torch.tensor(ys), 1 / ys.size
            self.sets[name] = x.to(self.device), y.to(self.device), share.to(self.device)

    def _allocate(self) -> None:
        m, b, seen = self.m, self.batch, self.steps * self.batch

        def ones(*shape: int) -> Tensor:
            return torch.ones(*shape, dtype=self.dtype, device=self.device)

        self.x, self.minus_y = ones(m, self.d + 1, seen), ones(m, 1, seen)  # one epoch in order
        self.labels = torch.zeros(m, 1, seen, dtype=torch.int64, device=self.device)
        self.weight = ones(m, 1, seen) / b  # of each sample in its batch's class loss
        self.a1, self.a2 = ones(m, self.h1 + 1, b), ones(m, self.h2 + 1, b)  # activations; the last row stays 1
        self.out = ones(m, 1 + self.k, b)
        self.d2, self.d1 = ones(m, self.h2, b), ones(m, self.h1, b)
        # Class rows of the head in units of log2, so that exp2, the cheapest exponential, gives e^logit.
        self.head_units = ones(1, 1 + self.k, 1)
        self.head_units[:, 1:] = LOG2_E
        self.head = torch.empty_like(self.params[2])
        self.squares = torch.zeros(m, 1, b, dtype=self.dtype, device=self.device)

    @torch.no_grad()
    def train_epoch(self) -> Tensor:
        """One pass over the shuffled data; (M,) mean squared training error over the epoch's batches."""
        self._shuffle()
        self.squares.zero_()
        for step in range(self.steps):
            batch = slice(step * self.batch, (step + 1) * self.batch)
            self._gradients(self.x[..., batch], self.minus_y[..., batch], batch)
            self.optimizer.step()
        self.finite &= torch.stack([p.isfinite().all(2).all(1) for p in self.params]).all(0).cpu()
        return self.squares.sum((1, 2)) / (self.steps * self.batch)

    def _shuffle(self) -> None:
        seen = self.steps * self.batch  # the last, incomplete batch is dropped
        for group in self.groups:
            order = torch.randperm(group.samples, generator=group.order)[:seen].to(self.device)

            def ordered(values: Tensor, order: Tensor = order) -> Tensor:  # gather is several times faster than index_select here
                return values.gather(-1, order.expand(*values.shape[:-1], seen))

            self.x[group.rows, :-1], self.minus_y[group.rows] = ordered(group.x), ordered(group.minus_y)
            if group.labels is not None:
                self.labels[group.rows] = ordered(group.labels)
            if group.keep is not None:
                draws = torch.rand(seen, generator=group.draws).to(self.device)
                kept = (draws < ordered(group.keep)).to(self.dtype).view(-1, self.steps, self.batch)
                # Mean over the kept samples of each batch; none kept: all weights 0 (Eq. 13).
                self.weight[group.rows, 0] = (kept / kept.sum(2, keepdim=True).clamp_(min=1)).flatten(1)

    def _gradients(self, x: Tensor, minus_y: Tensor, batch: slice) -> None:
        """Fill the gradient vector for one batch. x (M, D + 1, B), minus_y (M, 1, B)."""
        (w1, w2, w3), (g1, g2, g3) = self.params, self.grads
        a1, a2, out = self.a1[:, :-1], self.a2[:, :-1], self.out
        torch.bmm(w1, x, out=self.d1)
        torch.clamp_min(self.d1, 0, out=a1)
        torch.bmm(w2, self.a1, out=self.d2)
        torch.clamp_min(self.d2, 0, out=a2)
        torch.mul(w3, self.head_units, out=self.head)
        torch.bmm(self.head, self.a2, out=out)

        error = out[:, :1].add_(minus_y)
        self.squares.addcmul_(error, error)
        error.mul_(self.regression_scale)
        if self.k:
            self._class_gradient(out[:, 1:], self.labels[..., batch], self.weight[..., batch])

        torch.bmm(out, self.a2.mT, out=g3)
        torch.bmm(w3[..., :-1].mT, out, out=self.d2)
        torch.ops.aten.threshold_backward(self.d2, a2, 0, grad_input=self.d2)
        torch.bmm(self.d2, self.a1.mT, out=g2)
        torch.bmm(w2[..., :-1].mT, self.d2, out=self.d1)
        torch.ops.aten.threshold_backward(self.d1, a1, 0, grad_input=self.d1)
        torch.bmm(self.d1, x.mT, out=g1)

    def _class_gradient(self, logits: Tensor, labels: Tensor, weight: Tensor) -> None:
        """Logits in log2 units (M, K, B) -> gradient of the weighted cross-entropy, in place: weight · (softmax − one-hot)."""
        if self.stable:
            logits.sub_(logits.amax(1, keepdim=True))
        logits.exp2_()
        logits.mul_(weight / logits.sum(1, keepdim=True))
        logits.scatter_add_(1, labels, -weight)

    @torch.no_grad()
    def evaluate(self, name: str) -> Tensor:
        """(M,) mean squared error of the regression output on an evaluation set."""
        x, y, share = self.sets[name]
        w1, w2, w3 = self.params
        total = torch.zeros(self.m, dtype=torch.float64, device=self.device)
        for start in range(0, y.shape[-1], self.batch):  # in blocks that stay in cache
            block = slice(start, start + self.batch)
            torch.clamp_min(torch.bmm(w1, x[..., block]), 0, out=self.a1[:, :-1])
            torch.clamp_min(torch.bmm(w2, self.a1), 0, out=self.a2[:, :-1])
            error = torch.bmm(w3[:, :1], self.a2).sub_(y[..., block])
            total += error.square_().mul_(share[..., block]).sum((1, 2))
        return total
