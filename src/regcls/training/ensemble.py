"""Trains many small networks at once: the engine of the 1D study and of video progress.

Parameters are stacked along a model axis, forward and backward are batched matrix products with hand-written gradients, and one optimiser
step updates all networks. For regression losses other than the squared error, autograd computes the gradient with respect to the outputs.
Networks may also predict by their class heads alone (methods/distribution.py).
Each network has its own data, initial weights, shuffling and λ. Its result does not depend on the other networks in the call: bit for bit
in float32 on one thread, up to rounding in float64. It equals training that network alone with PyTorch (tests/training).

Numbers of samples may differ: networks are sorted by steps per epoch, most first, and those that have finished an epoch wait, at no cost,
for the others. Numbers of classes may differ: class heads are padded to a common number of rows. Padding logits are −∞, so their rows have
no gradient and stay zero.

Legend: M networks, A of them still active in the epoch, B batch, D inputs, H1 and H2 hidden units, K classes, R >= K rows of a class head.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

# Otherwise the last bit of MKL's matrix products depends on the memory alignment of a matrix, and so on the other networks.
# MKL reads this at its first call, hence before torch.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from regcls.choices import Activation
from regcls.models.mlp import Initialisation, initial_weights
from regcls.training.ensemble_data import Batches, EvaluationSet, Network, place
from regcls.training.likelihoods import Likelihoods
from regcls.training.optimizers import Adam, GradientDescent, Stacked

if TYPE_CHECKING:
    from regcls.methods.distribution import Distribution, Histograms
    from regcls.methods.loss import Facts, Loss

LOG2_E = math.log2(math.e)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Architecture and hyperparameters, the same for all networks of a call."""

    hidden: tuple[int, int]
    activation: Activation
    initialisation: Initialisation
    loss: "Loss | None" = None  # the regression loss; None: squared error
    distribution: "Distribution | None" = None  # of networks without a regression loss, which predict by their uniform classes
    loss_over_batch: str  # reduction of the regression loss: mean | sum. The class loss is always a mean
    drop_last: bool  # leave out an incomplete last batch of an epoch
    epochs: int  # 0: the networks keep their initial weights
    batch_size: int
    optimizer: str  # adam | sgd
    learning_rate: float
    milestones: tuple[int, ...]  # epochs after which the learning rate is multiplied by `decay`
    decay: float
    weight_decay: float
    precision: str  # float32 | float64
    scale: float = 1.0  # factor of both losses
    likelihoods: tuple[str, ...] = ()  # sets to measure likelihoods.MEASURES of after each epoch: `train`, or evaluation sets

    def rate(self, epoch: int) -> float:
        """The learning rate of `epoch` (from 0)."""
        return self.learning_rate * self.decay ** sum(epoch >= milestone for milestone in self.milestones)

    def steps(self, samples: int) -> int:
        """Batches per epoch."""
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """Result of one network. Errors are mean squared errors, in units of y²."""

    # By torch parameter name. Networks that predict by classes have no regressor, but `centres` (K,): they predict Σ softmax · centres.
    weights: dict[str, NDArray[np.floating]]
    train_mse: NDArray[np.float64]  # (epochs,), mean over the epoch's batches
    evaluated: dict[str, NDArray[np.float64]]  # name -> MSE after each epoch (epochs,) for `every_epoch`, else after the last one (1,)
    predicted: dict[str, NDArray[np.floating]]  # name -> (n,) predictions after the last epoch, for `predict`
    # Evaluation set -> top-1 accuracy after the last epoch; `train`: during the last epoch. Empty without classes.
    accuracy: dict[str, float]
    finite: bool  # False: the network diverged, and its results are meaningless
    # Set -> likelihoods.MEASURES after each epoch (epochs, measures), for those of the recipe.
    likelihoods: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def train(
    networks: Sequence[Network],
    recipe: Recipe,
    *,
    device: str = "cpu",
    every_epoch: Sequence[str] = (),
    predict: Sequence[str] = (),
    on_epoch: Callable[[], None] = lambda: None,
    stable: bool = False,
) -> list[Trained]:
    """Train `networks` together; the results are in the same order.

    The networks must agree in D, R and the names of their evaluation sets. `every_epoch`: evaluation sets to measure after each epoch;
    the others are measured after the last. `predict`: evaluation sets to return predictions of. `stable` shifts logits by their maximum,
    which takes a tenth longer; networks whose logits overflow without it are trained again with it, so callers need not set it.

    Raises:
        ValueError: networks do not agree, or have fewer samples than one batch.
    """
    _check(networks, recipe)
    first = networks[0]
    order = sorted(range(len(networks)), key=lambda m: _sort_key(networks[m], recipe))  # engine's row -> index in `networks`
    ensemble = _Ensemble([networks[m] for m in order], recipe, torch.device(device), stable)
    train_errors: list[Tensor] = []
    errors: dict[str, list[Tensor]] = {name: [] for name in first.evaluate}
    epoch_sets = {name: ensemble.evaluation_set(name) for name in every_epoch}
    likelihood_sets = {
        name: Likelihoods(ensemble.networks, name, ensemble.batch, ensemble.dtype, ensemble.device) for name in recipe.likelihoods
    }
    likelihoods: dict[str, list[Tensor]] = {name: [] for name in recipe.likelihoods}
    for epoch in range(recipe.epochs):
        train_errors.append(ensemble.train_epoch(epoch))
        for name, data in epoch_sets.items():
            errors[name].append(ensemble.evaluate(data))
        for name, measured in likelihood_sets.items():
            likelihoods[name].append(ensemble.likelihoods(measured, train_errors[-1]))
        on_epoch()
    predictions: dict[str, list[NDArray[np.floating]]] = {}
    accuracy: dict[str, Tensor] = {}
    for name, values in errors.items():
        data = epoch_sets.get(name) or ensemble.evaluation_set(name)
        values[:] = values or [ensemble.evaluate(data)]
        if name in predict:
            rows = ensemble.predictions(data).flatten(1).cpu().numpy()
            predictions[name] = [row[:size] for row, size in zip(rows, data.sizes, strict=True)]
        if first.head_rows:
            accuracy[name] = ensemble.accuracy(data)
    if first.head_rows and recipe.epochs:
        accuracy["train"] = ensemble.training_accuracy()
    train_mse = torch.stack(train_errors, 1).double().cpu().numpy() if train_errors else np.zeros((len(networks), 0))
    evaluated = {name: torch.stack(values, 1).double().cpu().numpy() for name, values in errors.items()}
    weights = ensemble.weights()
    results = {
        m: Trained(
            weights=weights[row],
            train_mse=train_mse[row],
            evaluated={name: value[row] for name, value in evaluated.items()},
            predicted={name: rows[row].copy() for name, rows in predictions.items()},
            accuracy={name: float(shares[row]) for name, shares in accuracy.items()},
            finite=bool(ensemble.finite[row]),
            likelihoods={name: torch.stack(values, 1)[row].cpu().numpy() for name, values in likelihoods.items() if values},
        )
        for row, m in enumerate(order)
    }
    diverged = [m for m, result in results.items() if not result.finite]
    if diverged and ensemble.rows and not stable:
        retrained = train([networks[m] for m in diverged], recipe, device=device, every_epoch=every_epoch, predict=predict, stable=True)
        results |= dict(zip(diverged, retrained, strict=True))
    return [results[m] for m in range(len(networks))]


def _sort_key(network: Network, recipe: Recipe) -> tuple[int, int, int]:
    """Most steps first; networks with the same order of samples are adjacent."""
    return -recipe.steps(network.y.size), network.y.size, network.seed


def _check(networks: Sequence[Network], recipe: Recipe) -> None:
    first = networks[0]
    for n in networks:
        if recipe.epochs and not recipe.steps(n.y.size):
            raise ValueError(f"{n.y.size} training samples do not fill one batch of {recipe.batch_size}")
        if (len(n.x), n.head_rows, set(n.evaluate)) != (len(first.x), first.head_rows, set(first.evaluate)):
            raise ValueError("networks trained together must agree in inputs, rows of the class head and evaluation sets")


class _Ensemble:
    """M networks in training."""

    def __init__(self, networks: Sequence[Network], recipe: Recipe, device: torch.device, stable: bool) -> None:
        first = networks[0]
        self.networks, self.recipe, self.stable, self.batch = networks, recipe, stable, recipe.batch_size
        self.dtype, self.device = getattr(torch, recipe.precision), device
        self.m, self.d, self.rows, (self.h1, self.h2) = len(networks), len(first.x), first.head_rows, recipe.hidden
        self.finite = torch.ones(self.m, dtype=torch.bool)
        self._load_weights()
        self.padding = self._padding()
        if recipe.epochs:
            self.batches = Batches(networks, [recipe.steps(n.y.size) for n in networks], self.batch, self.dtype, device)
        scale = 2 / self.batch if recipe.loss_over_batch == "mean" else 2.0
        lam = torch.tensor([n.lam for n in networks], dtype=self.dtype, device=device)
        self.lam = lam
        self.facts = self._facts()
        self.histograms = self._histograms()
        self.regression_scale = (scale * lam).view(self.m, 1, 1)  # gradient of λ · squared error, in a batch of B
        self.endings = None if recipe.drop_last else self._endings()
        self.squares = torch.zeros(self.m, 1, self.batch, dtype=self.dtype, device=device)
        self.hits = torch.zeros_like(self.squares)  # of the class head
        self.active = _Active(self, self.m)

    def _load_weights(self) -> None:
        """Row 0 of the last layer is the regression output, which stays 0 if classes alone predict; the rows below are the class head."""
        shapes = [(self.h1, self.d + 1), (self.h2, self.h1 + 1), (1 + self.rows, self.h2 + 1)]
        optimizers: dict[str, type[Adam] | type[GradientDescent]] = {"adam": Adam, "sgd": GradientDescent}
        self.optimizer = optimizers[self.recipe.optimizer]
        self.trainable = [self._trainable(shapes, rate=None)]
        self.params = self.trainable[0].params
        if (loss := self.recipe.loss) and loss.learned:
            self.trainable.append(self._trainable([(1, len(loss.learned))], rate=loss.learned_rate))
            self.trainable[1].params.layers[0].copy_(torch.tensor(loss.learned))
        kinds = {(n.outputs, n.seed) for n in self.networks}
        initial = {kind: initial_weights(self.d, self.recipe.hidden, *kind, self.recipe.initialisation) for kind in kinds}
        for m, network in enumerate(self.networks):
            parts = self._parts(self.params.layers, m)
            for name, part in parts.items():
                part.copy_(initial[network.outputs, network.seed][name])

    def _trainable(self, shapes: Sequence[tuple[int, int]], *, rate: float | None) -> "_Trainable":
        params = Stacked(shapes, self.m, self.dtype, self.device)
        return _Trainable(params=params, moments=[params.like(self.m) for _ in range(self.optimizer.moments)], rate=rate)

    def _padding(self) -> Tensor | None:
        """(M, 1 + R, H2 + 1) to add to the last layer: −∞ for the bias of padding rows, else 0. None if no head is padded."""
        if all(n.outputs == self.rows for n in self.networks):
            return None
        padding = torch.zeros_like(self.params.layers[2])
        for m, network in enumerate(self.networks):
            padding[m, 1 + network.outputs :, -1] = -math.inf
        return padding

    def _facts(self) -> "Facts":
        """What the loss needs to know of each network's training targets."""
        if self.recipe.loss is None:
            return {}
        distinct = {place(n.y): n.y.astype(self.recipe.precision, copy=False) for n in self.networks}  # seeds share their targets
        facts = self.recipe.loss.facts_of(list(distinct.values()), dtype=self.dtype, device=self.device)
        index = torch.tensor([list(distinct).index(place(n.y)) for n in self.networks], device=self.device)
        return {name: values.index_select(0, index) for name, values in facts.items()}

    def _histograms(self) -> "Histograms | None":
        """The histograms that networks without a regression loss learn."""
        if self.recipe.distribution is None:
            return None
        ranges = [n.classes for n in self.networks if n.classes is not None]
        return self.recipe.distribution.histograms(ranges, rows=self.rows, dtype=self.dtype, device=self.device).by_sample()

    def _endings(self) -> Tensor:
        """(M, 1, B): factors of the errors in each network's last, incomplete batch; 0 for the samples that fill it up."""
        sizes = torch.tensor([n.y.size % self.batch or self.batch for n in self.networks]).view(-1, 1, 1)
        factors = (torch.arange(self.batch) < sizes).to(self.dtype)
        return (factors * self.batch / sizes if self.recipe.loss_over_batch == "mean" else factors).to(self.device)

    def _parts(self, layers: Sequence[Tensor], m: int) -> dict[str, Tensor]:
        """Views of the m-th network's parameters in `layers`, without padding, by torch name."""
        (first, second, last), k = (layer[m] for layer in layers), self.networks[m].outputs
        regressor = {"regressor": last[:1]} if self.recipe.distribution is None else {}
        rows = {"layers.0": first, "layers.1": second} | regressor | ({"classifier": last[1 : 1 + k]} if k else {})
        weights = {f"{layer}.weight": values[:, :-1] for layer, values in rows.items()}
        return weights | {f"{layer}.bias": values[:, -1] for layer, values in rows.items()}

    def weights(self) -> list[dict[str, NDArray[np.floating]]]:
        """Parameters of each network, by torch name."""
        layers = [layer.cpu() for layer in self.params.layers]
        weights = [{name: part.numpy().copy() for name, part in self._parts(layers, m).items()} for m in range(self.m)]
        if self.histograms is not None:
            for own, network, centres in zip(weights, self.networks, self.histograms.centres[..., 0].cpu().numpy(), strict=True):
                own["centres"] = centres[: network.outputs].copy()
        return weights

    @torch.no_grad()
    def train_epoch(self, epoch: int) -> Tensor:
        """One pass over the shuffled data; (M,) mean squared training error over the epoch's batches."""
        self.batches.shuffle()
        self.squares.zero_()
        counts_hits = self.rows > 0 and epoch == self.recipe.epochs - 1  # in every epoch this would take a tenth longer
        steps = np.array(self.batches.steps)
        first = 0
        for last in sorted(set(self.batches.steps)):
            active = self.active if (count := int((steps >= last).sum())) == self.m else _Active(self, count)
            active.begin(epoch * steps[:count] + first, last - first, self.recipe.rate(epoch))
            self._train_steps(active, first, last, counts_hits=counts_hits)
            active.hand_back(self)
            first = last
        layers = [layer for part in self.trainable for layer in part.params.layers]
        self.finite &= torch.stack([layer.isfinite().all(2).all(1) for layer in layers]).all(0).cpu()
        seen: Tensor = torch.tensor(self.batches.seen).to(self.squares)
        return self.squares.sum((1, 2)) / seen

    def _train_steps(self, active: "_Active", first: int, last: int, *, counts_hits: bool) -> None:
        batches, ending = self.batches, None
        if self.endings is not None:  # for the networks whose last step of the epoch is the last of these
            more = torch.tensor([steps > last for steps in batches.steps[: active.count]], device=self.device).view(-1, 1, 1)
            ending = torch.where(more, 1.0, self.endings[: active.count])
        for start in range(first, last, batches.longest):
            length = min(batches.longest, last - start)
            batches.fill(start, length, active.count)
            tensors = (t[:length, : active.count] for t in (batches.x, batches.minus_y, batches.labels, batches.weight))
            for step, (x, minus_y, labels, weight) in enumerate(zip(*tensors, strict=True)):
                at_end = ending if start + step == last - 1 else None
                active.gradients(x, minus_y, labels, weight, at_end, counts_hits)
                active.step(start - first + step)

    def evaluation_set(self, name: str) -> EvaluationSet:
        """The evaluation set `name` of each network."""
        return EvaluationSet([n.evaluate[name] for n in self.networks], self.batch, self.dtype, self.device)

    @torch.no_grad()
    def likelihoods(self, measured: Likelihoods, mse: Tensor) -> Tensor:
        """See `Likelihoods.measure`."""
        predictions = torch.empty_like(self.squares)

        def outputs(x: Tensor) -> tuple[Tensor, Tensor]:
            self.active.predict(x, predictions)
            return predictions, self.active.class_logits()

        return measured.measure(outputs, mse)

    @torch.no_grad()
    def predictions(self, data: EvaluationSet) -> Tensor:
        """(M, blocks, B), with padding at the end; valid until the next call."""
        for index, out in enumerate(data.room):  # in blocks that stay in cache
            self.active.predict(data.inputs(slice(index * self.batch, (index + 1) * self.batch)), out)
        return data.room[:, :, 0].transpose(0, 1)

    def evaluate(self, data: EvaluationSet) -> Tensor:
        """(M,) mean squared error of the predictions."""
        errors = self.predictions(data)
        errors.sub_(data.y.view_as(errors)).square_().mul_(data.share.view_as(errors))
        return errors.sum(2).double().cumsum(1)[:, -1]

    @torch.no_grad()
    def accuracy(self, data: EvaluationSet) -> Tensor:
        """(M,) top-1 accuracy of the class head."""
        labels = data.labels([n.classes for n in self.networks if n.classes is not None])
        total = torch.zeros(self.m, dtype=torch.float64, device=self.device)
        for start in range(0, data.longest, self.batch):
            block = slice(start, start + self.batch)
            self.active.features(data.inputs(block))
            total += _hits(self.active.class_logits(), labels[..., block].long()).mul(data.share[..., block]).sum((1, 2))
        return total

    def training_accuracy(self) -> Tensor:
        """(M,) top-1 accuracy on the batches of the last epoch, each before its step."""
        return self.hits.sum((1, 2)).double() / torch.tensor(self.batches.seen, device=self.device)


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (M, R, B), labels (M, 1, B) -> whether the most probable class is the label's (M, 1, B)."""
    return logits.gather(1, labels) == logits.amax(1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class _Trainable:
    """Weights of networks, or parameters of their loss, and the state of the optimizer."""

    params: Stacked
    moments: Sequence[Stacked]
    rate: float | None  # their own learning rate, constant and without weight decay; None: as in the recipe

    def first(self, count: int) -> "_Trainable":
        """A copy of the first `count` networks."""
        return replace(self, params=self.params.first(count), moments=[moments.first(count) for moments in self.moments])

    def take_back(self, part: "_Trainable") -> None:
        """Overwrite the first networks with those of `part`."""
        for target, source in zip((self.params, *self.moments), (part.params, *part.moments), strict=True):
            target.take_back(source)


class _Active:
    """The first A networks of an ensemble, with buffers for one batch. Uses the ensemble's own parameters if A = M, else copies."""

    def __init__(self, ensemble: _Ensemble, count: int) -> None:
        self.count, self.rows, self.stable, self.activation = count, ensemble.rows, ensemble.stable, ensemble.recipe.activation
        whole = count == ensemble.m
        self.trainable = ensemble.trainable if whole else [part.first(count) for part in ensemble.trainable]
        self.params, *self.loss_params = (part.params for part in self.trainable)
        self.gradient, *self.loss_gradients = gradients = [part.params.like(count) for part in self.trainable]
        self.optimizers = [
            ensemble.optimizer(part.params, gradient, part.moments, ensemble.recipe.weight_decay if part.rate is None else 0.0)
            for part, gradient in zip(self.trainable, gradients, strict=True)
        ]
        self.lam, self.regression_scale, self.squares, self.hits = (
            each[:count] for each in (ensemble.lam, ensemble.regression_scale, ensemble.squares, ensemble.hits)
        )
        self.loss, self.sums, self.scale = ensemble.recipe.loss, ensemble.recipe.loss_over_batch == "sum", ensemble.recipe.scale
        self.facts = {name: values[:count] for name, values in ensemble.facts.items()}
        self.histograms = None if ensemble.histograms is None else ensemble.histograms.first(count)
        h1, h2, b = ensemble.h1, ensemble.h2, ensemble.batch

        def ones(*shape: int) -> Tensor:
            return torch.ones(*shape, dtype=ensemble.dtype, device=ensemble.device)

        self.a1, self.a2 = ones(count, h1 + 1, b), ones(count, h2 + 1, b)  # activations; the last row stays 1
        self.out = ones(count, 1 + self.rows, b)
        self.d2, self.d1 = ones(count, h2, b), ones(count, h1, b)
        # Views, which would cost as much as a small operation if made in every step.
        self.hidden1, self.hidden2, self.error, self.logits = self.a1[:, :-1], self.a2[:, :-1], self.out[:, :1], self.out[:, 1:]
        self.w2_back, self.w3_back = (layer[..., :-1].mT for layer in self.params.layers[1:])
        # Class rows of the head in units of log2, so that exp2, the cheapest exponential, gives e^logit.
        self.head_units = ones(1, 1 + self.rows, 1)
        self.head_units[:, 1:] = LOG2_E
        self.padding = None if ensemble.padding is None else ensemble.padding[:count]
        self.head = torch.empty_like(self.params.layers[2]) if self.rows else self.params.layers[2]

    def hand_back(self, ensemble: _Ensemble) -> None:
        """Write copied parameters back to the ensemble."""
        if self.params is not ensemble.params:
            for target, source in zip(ensemble.trainable, self.trainable, strict=True):
                target.take_back(source)

    def begin(self, taken: NDArray[np.int64], steps: int, learning_rate: float) -> None:
        """Prepare the optimizers' next steps; see Adam.begin."""
        for part, optimizer in zip(self.trainable, self.optimizers, strict=True):
            optimizer.begin(taken, steps, learning_rate if part.rate is None else part.rate)

    def step(self, index: int) -> None:
        """Take the index-th of the steps that `begin` has prepared."""
        if self.scale != 1:
            for gradient in (self.gradient, *self.loss_gradients):
                gradient.flat.mul_(self.scale)
        for optimizer in self.optimizers:
            optimizer.step(index)

    def features(self, x: Tensor) -> None:
        """Activations of both hidden layers for x (A, D + 1, B)."""
        w1, w2, _ = self.params.layers
        self._activate(torch.bmm(w1, x, out=self.d1), self.hidden1)
        self._activate(torch.bmm(w2, self.a1, out=self.d2), self.hidden2)

    def predict(self, x: Tensor, out: Tensor) -> None:
        """Write the predictions for x (A, D + 1, B) to `out` (A, 1, B)."""
        self.features(x)
        if self.histograms is None:
            torch.bmm(self.params.layers[2][:, :1], self.a2, out=out)
        else:
            self._last_layer()
            out.copy_(self._mean_of_classes(self.histograms, stable=True))

    def class_logits(self) -> Tensor:
        """(A, R, B) logits of the class head, from the activations of the last call of `features` or `predict`."""
        last = self.params.layers[2] if self.padding is None else self.params.layers[2] + self.padding
        return torch.bmm(last[:, 1:], self.a2)

    def _activate(self, values: Tensor, out: Tensor) -> None:
        torch.clamp_min(values, 0, out=out) if self.activation == "relu" else torch.sigmoid(values, out=out)

    def _activate_backward(self, gradient: Tensor, activations: Tensor) -> None:
        # `grad_input` names the overload: to find it by its arguments takes longer than a small operation.
        if self.activation == "relu":
            torch.ops.aten.threshold_backward.grad_input(gradient, activations, 0, grad_input=gradient)
        else:
            torch.ops.aten.sigmoid_backward.grad_input(gradient, activations, grad_input=gradient)

    def gradients(self, x: Tensor, minus_y: Tensor, labels: Tensor, weight: Tensor, ending: Tensor | None, counts_hits: bool) -> None:
        """Fill the gradient vector for one batch.

        x (A, D + 1, B); minus_y, labels and weight (A, 1, B); ending (A, 1, B) if the batch is the incomplete last one of some networks.
        """
        (g1, g2, g3), out = self.gradient.layers, self.out
        self.features(x)
        self._last_layer()
        if counts_hits:
            hits = _hits(self.logits, labels)
            self.hits += hits if ending is None else hits & (ending > 0)
        if self.histograms is not None:
            self._histogram_gradient(self.histograms, minus_y, weight, ending)
        else:
            self._regression_gradient(minus_y, ending)
            if self.rows:
                self._class_gradient(self.logits, labels, weight)

        torch.bmm(out, self.a2.mT, out=g3)
        product = torch.bmm if self.rows else torch.mul  # faster with a single output
        product(self.w3_back, out, out=self.d2)
        self._activate_backward(self.d2, self.hidden2)
        torch.bmm(self.d2, self.a1.mT, out=g2)
        torch.bmm(self.w2_back, self.d2, out=self.d1)
        self._activate_backward(self.d1, self.hidden1)
        torch.bmm(self.d1, x.mT, out=g1)

    def _last_layer(self) -> None:
        """Fill `out` with the regression output and, in log2 units, the logits of the class head; padding logits are −∞."""
        w3 = self.params.layers[2]
        if self.padding is not None:
            torch.addcmul(self.padding, w3, self.head_units, out=self.head)
        elif self.rows:
            torch.mul(w3, self.head_units, out=self.head)
        torch.bmm(self.head, self.a2, out=self.out)

    def _count(self, error: Tensor, ending: Tensor | None) -> None:
        """Add the squares of errors (A, 1, B) to those of the epoch; sets to 0 those of samples that fill up a last batch."""
        if ending is not None:
            error.mul_(ending.sign())
        self.squares.addcmul_(error, error)

    def _regression_gradient(self, minus_y: Tensor, ending: Tensor | None) -> None:
        """Regression output -> gradient of its weighted loss, in place."""
        gradient = None if self.loss is None else self._loss_gradient(self.loss, self.out[:, 0], minus_y[:, 0], ending)
        error = self.error.add_(minus_y)
        self._count(error, ending)
        if gradient is not None:
            error.copy_(gradient)
        else:
            error.mul_(self.regression_scale)
            if ending is not None:
                error.mul_(ending)

    def _loss_gradient(self, loss: "Loss", predictions: Tensor, minus_y: Tensor, ending: Tensor | None) -> Tensor:
        """Predictions (A, B) -> gradient of the weighted loss (A, 1, B); writes that of the loss's parameters to `loss_gradients`.

        Rows are padded, with samples that are not kept, to a multiple of the vector length: else the last bit would depend on the other
        networks.
        """
        batch = predictions.shape[1]
        fill = (0, -batch % 64)
        kept = torch.ones_like(predictions, dtype=torch.bool) if ending is None else ending[:, 0] > 0
        weights = self.lam * kept.sum(1) if self.sums else self.lam
        with torch.enable_grad():
            outputs = F.pad(predictions, fill).requires_grad_()
            own = [params.layers[0][:, 0].clone().requires_grad_() for params in self.loss_params]  # none or one
            learned = own[0] if own else predictions.new_zeros(self.count, 0)
            total = (weights * loss(outputs, F.pad(-minus_y, fill), F.pad(kept, fill), learned, self.facts)).sum()
            gradient, *own_gradients = torch.autograd.grad(total, [outputs, *own])
        for target, values in zip(self.loss_gradients, own_gradients, strict=True):
            target.layers[0].copy_(values[:, None])
        return gradient[:, None, :batch]

    def _class_gradient(self, logits: Tensor, labels: Tensor, weight: Tensor) -> None:
        """Logits in log2 units (A, R, B) -> gradient of the weighted cross-entropy, in place: weight · (softmax − one-hot)."""
        if self.stable:
            logits.sub_(logits.amax(1, keepdim=True))
        logits.exp2_()
        logits.mul_(weight / logits.sum(1, keepdim=True))
        logits.scatter_add_(1, labels, -weight)

    def _mean_of_classes(self, histograms: "Histograms", *, stable: bool) -> Tensor:
        """(A, 1, B) predictions of networks without a regression loss, from `out`, where probabilities replace the logits."""
        logits = self.logits
        if stable:
            logits.sub_(logits.amax(1, keepdim=True))
        logits.exp2_()
        logits.div_(logits.sum(1, keepdim=True))
        return torch.bmm(histograms.centres.mT, logits)

    def _histogram_gradient(self, histograms: "Histograms", minus_y: Tensor, weight: Tensor, ending: Tensor | None) -> None:
        """Logits in `out` -> gradient of the cross-entropy, in place: weight · (softmax − histogram of the target)."""
        self._count(self._mean_of_classes(histograms, stable=self.stable).add_(minus_y), ending)
        self.error.zero_()
        self.logits.sub_(histograms.of(-minus_y)).mul_(weight)
