"""The training loop for a single network; `ensemble.py` trains many small ones at once.

The task supplies batches, losses and validation errors. The loop takes the optimizer steps, checks that losses and gradients stay finite,
keeps the best weights and saves states from which training resumes bit for bit on the CPU. All randomness in a task must be a function of
its seed, the epoch and the sample.
"""

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from typing import Any, Generic, Literal, NoReturn, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from regcls.training.checkpoint import Checkpoints, DamagedError, Loaded, load_weights
from regcls.training.device import Device

CHECK_EVERY = 20  # steps: reading a loss waits for the GPU
SGD_MOMENTUM = 0.9

BatchT = TypeVar("BatchT")
BatchC = TypeVar("BatchC", contravariant=True)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Optimization hyperparameters."""

    epochs: int
    optimizer: Literal["adam", "sgd"]  # sgd: with momentum 0.9
    learning_rate: float
    milestones: tuple[int, ...]  # epochs after which the rate is multiplied by `decay`
    decay: float
    weight_decay: float  # as L2 in the gradient
    accumulate: int  # batches per step
    precision: Literal["float32", "bf16"]

    @classmethod
    def of(cls, spec: object) -> Self:
        """Take the fields of the same names from a run's spec."""
        return cls(**{field.name: getattr(spec, field.name) for field in fields(cls)})

    def rate(self, epoch: int) -> float:
        """Learning rate of `epoch` (from 0)."""
        return self.learning_rate * self.decay ** sum(milestone <= epoch for milestone in self.milestones)


class Task(Protocol[BatchT]):
    """Data, losses and validation of a training task."""

    batches: int  # per epoch
    selections: Mapping[str, str]  # name -> metric of `validate`; each selection keeps the weights with the lowest value of its metric

    def feed(self, epoch: int, batch: int) -> Generator[BatchT]:
        """All batches from this one (epoch and batch count from 0) to the end of the last epoch."""

    def losses(self, network: nn.Module, batch: BatchT) -> Mapping[str, Tensor]:
        """Scalars: `loss`, which is minimised, and further values to log."""

    def describe(self, batch: BatchT) -> dict[str, Any]:
        """Summary of a batch, for debugging a NaN."""

    def size(self, batch: BatchT) -> int:
        """Number of samples in a batch."""

    def after_epoch(self, network: nn.Module) -> None:
        """Called in eval mode after the last step of an epoch, before `validate`. May change buffers of the network."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Errors after an epoch, by metric name."""


class DivergedError(Exception):
    """A loss or gradient is no longer finite. `details` describes the first such step and its batches."""

    def __init__(self, message: str, details: dict[str, Any]) -> None:
        super().__init__(message, details)  # both, or it could not be unpickled in another process
        self.details = details

    def __str__(self) -> str:
        return str(self.args[0])


class StoppedError(Exception):
    """The process was asked to stop."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Metrics of an epoch."""

    number: int  # from 1
    time: float  # end, Unix seconds
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Result of training, without the weights, which are in the checkpoints."""

    history: list[Epoch]
    best_epochs: Mapping[str, int]  # by selection, from 1
    seconds: float  # in this process, including validation
    waiting: float  # seconds of these spent waiting for data
    samples: int  # trained on in this process

    def speed(self) -> dict[str, float]:
        """Speed metrics; empty if the state was already past the last epoch, so that this process trained nothing."""
        return {"images_per_second": self.samples / self.seconds, "waiting_share": self.waiting / self.seconds} if self.samples else {}


class Hooks(Protocol):
    """Callbacks of the loop."""

    def batch(self, samples: int, note: str) -> None:
        """Called after each step. May raise StoppedError: the loop saves the state and re-raises."""

    def epoch(self, epoch: Epoch) -> None:
        """Called after each epoch, once its state is saved."""


@dataclass(kw_only=True)
class _Best:
    """Best epoch of a selection so far."""

    epoch: int = 0  # 0: none yet
    score: float = math.inf


@dataclass(kw_only=True)
class _Position:
    best: dict[str, _Best]  # by selection
    epoch: int = 0
    batch: int = 0
    samples: int = 0  # in this epoch so far
    sums: dict[str, float] | None = None  # of the losses over these samples

    @property
    def best_epochs(self) -> dict[str, int]:
        return {name: best.epoch for name, best in self.best.items()}


@dataclass(frozen=True)
class _BatchSummary:
    """What is kept of a batch, without its images, until its losses are checked."""

    samples: int
    description: dict[str, Any]


class _Watch(Generic[BatchT]):
    """Losses and gradient norms of the latest steps, checked together: reading them waits for the GPU."""

    def __init__(self, task: Task[BatchT]) -> None:
        self.task = task
        self.steps: list[tuple[list[_BatchSummary], list[Mapping[str, Tensor]], Tensor]] = []
        self.note = ""  # the last loss that was read

    def add(self, batches: Sequence[BatchT], losses: list[Mapping[str, Tensor]], norm: Tensor) -> None:
        self.steps.append(([_BatchSummary(self.task.size(batch), self.task.describe(batch)) for batch in batches], losses, norm))

    def flush(self, position: _Position, rate: float) -> None:
        """Add the losses to the epoch's sums.

        Raises:
            DivergedError: a loss or gradient norm is not finite; describes the first such step.
        """
        if not self.steps:
            return
        names = list(self.steps[0][1][0])
        rows = (
            torch.stack([torch.stack([part[name] for name in names]) for _, losses, _ in self.steps for part in losses]).double().tolist()
        )
        norms = torch.stack([norm for *_, norm in self.steps]).double().tolist()
        row = 0
        for (batches, losses, _), norm in zip(self.steps, norms, strict=True):
            for batch in batches:
                values = rows[row]
                row += 1
                if not all(map(math.isfinite, values)):
                    _stop(batches, dict(zip(names, values, strict=True)), norm, position, rate)
                sums = position.sums or dict.fromkeys(names, 0.0)
                position.sums = {name: sums[name] + value * batch.samples for name, value in zip(names, values, strict=True)}
                position.samples += batch.samples
            if not math.isfinite(norm):
                _stop(batches, {name: float(losses[-1][name]) for name in names}, norm, position, rate)
        self.note = f", loss {rows[-1][names.index('loss')]:.3g}"
        self.steps.clear()


def _stop(batches: list[_BatchSummary], losses: dict[str, float], norm: float, position: _Position, rate: float) -> NoReturn:
    values = ", ".join(f"{name} {value:g}" for name, value in losses.items())
    details = {"epoch": position.epoch + 1, "losses": losses, "gradient_norm": norm, "learning_rate": rate}
    details["batches"] = [batch.description for batch in batches]
    raise DivergedError(f"diverged in epoch {position.epoch + 1}: {values}, gradient norm {norm:g}, learning rate {rate:g}", details)


def train(
    network: nn.Module,
    task: Task[BatchT],
    recipe: Recipe,
    *,
    device: Device,
    compiled: bool,
    checkpoints: Checkpoints,
    checkpoint_minutes: float,
    hooks: Hooks,
    say: Callable[[str], None],
    own_rates: Mapping[str, float] | None = None,
) -> Trained:
    """Train `network`, which is on `device`, from its newest checkpoint, or from its present weights if there is none.

    `own_rates`: learning rates of parameters, by name, that do not follow the recipe: they are constant, without weight decay.

    Raises:
        DivergedError: a loss or gradient is not finite; the last good checkpoint is kept.
        UserError: the newest checkpoint belongs to another network, or the disk is full.
        StoppedError: a hook raised it; the state is saved.
    """
    optimizer = _optimizer(network, recipe, own_rates or {})
    position, history = _Position(best={name: _Best() for name in task.selections}), list[Epoch]()
    try:
        loaded = checkpoints.load(device=device)
    except DamagedError as error:
        say(f"{error}; training starts from scratch")
        checkpoints.clear()
        loaded = None
    if loaded:
        for damaged in loaded.damaged:
            say(f"checkpoint {damaged}; using the one before it")
        position, history = _restore(loaded, network, optimizer)
        start = "all epochs are done" if position.epoch == recipe.epochs else f"epoch {position.epoch + 1}, batch {position.batch + 1}"
        say(f"resumes from {loaded.file.name}: {start}")
    forward: nn.Module = torch.compile(network) if compiled else network  # type: ignore[assignment]
    watch = _Watch(task)
    started = saved = time.monotonic()
    waiting, samples = 0.0, 0
    with closing(task.feed(position.epoch, position.batch)) as feed:
        while position.epoch < recipe.epochs:
            rate = recipe.rate(position.epoch)
            optimizer.param_groups[0]["lr"] = rate
            network.train()
            while position.batch < task.batches:
                count = min(recipe.accumulate, task.batches - position.batch)
                before = time.monotonic()
                batches = [next(feed) for _ in range(count)]
                waiting += time.monotonic() - before
                watch.add(batches, *_step(forward, task, batches, optimizer, recipe, device))
                position.batch += count
                if len(watch.steps) >= CHECK_EVERY:
                    watch.flush(position, rate)
                step_samples = sum(map(task.size, batches))
                samples += step_samples
                speed = samples / (time.monotonic() - started)
                try:
                    hooks.batch(step_samples, f"epoch {position.epoch + 1} of {recipe.epochs}{watch.note}, {speed:.0f} images/s")
                except StoppedError:
                    watch.flush(position, rate)
                    _save(checkpoints, network, optimizer, position, history)
                    raise
                if time.monotonic() - saved > checkpoint_minutes * 60 and position.batch < task.batches:
                    watch.flush(position, rate)
                    _save(checkpoints, network, optimizer, position, history)
                    saved = time.monotonic()
            watch.flush(position, rate)
            epoch = _end_epoch(network, task, position, rate)
            if epoch.number in position.best_epochs.values():
                checkpoints.save_best(network.state_dict(), epoch=epoch.number)
            history.append(epoch)
            position = _Position(epoch=position.epoch + 1, best=position.best)
            _save(checkpoints, network, optimizer, position, history)
            saved = time.monotonic()
            hooks.epoch(epoch)
    for name, best in position.best.items():
        if not best.epoch:
            raise DivergedError(f"diverged: no epoch has a finite {task.selections[name]}", {})
    seconds = time.monotonic() - started
    return Trained(history=history, best_epochs=position.best_epochs, seconds=seconds, waiting=waiting, samples=samples)


def _optimizer(network: nn.Module, recipe: Recipe, own_rates: Mapping[str, float]) -> torch.optim.Optimizer:
    """The optimizer; its first group of parameters follows the recipe."""
    groups: list[dict[str, Any]] = [{"params": [value for name, value in network.named_parameters() if name not in own_rates]}]
    groups += [{"params": [network.get_parameter(name)], "lr": rate, "weight_decay": 0.0} for name, rate in own_rates.items()]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.learning_rate, momentum=SGD_MOMENTUM, weight_decay=recipe.weight_decay)
    return torch.optim.Adam(groups, recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)


def _step(
    forward: nn.Module, task: Task[BatchT], batches: list[BatchT], optimizer: torch.optim.Optimizer, recipe: Recipe, device: Device
) -> tuple[list[Mapping[str, Tensor]], Tensor]:
    """Take one optimizer step on the mean loss of `batches`; return their losses and the gradient norm, still on the device."""
    optimizer.zero_grad(set_to_none=True)
    losses: list[Mapping[str, Tensor]] = []
    for batch in batches:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=recipe.precision == "bf16"):
            parts = task.losses(forward, batch)
        (parts["loss"] / len(batches)).backward()
        losses.append({name: value.detach() for name, value in parts.items()})
    norm = torch.nn.utils.get_total_norm([p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None])
    optimizer.step()
    return losses, norm


def _end_epoch(network: nn.Module, task: Task[Any], position: _Position, rate: float) -> Epoch:
    """Validate, and update the best epoch of each selection in `position`."""
    network.eval()
    task.after_epoch(network)
    errors = task.validate(network)
    number = position.epoch + 1
    for name, metric in task.selections.items():
        if errors[metric] < position.best[name].score:
            position.best[name] = _Best(epoch=number, score=errors[metric])
    assert position.sums is not None
    losses = {f"train/{name}": value / position.samples for name, value in position.sums.items()}
    return Epoch(number=number, time=time.time(), metrics={**losses, **errors, "learning_rate": rate})


def _save(
    checkpoints: Checkpoints, network: nn.Module, optimizer: torch.optim.Optimizer, position: _Position, history: list[Epoch]
) -> None:
    state = {
        "weights": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "position": {"epoch": position.epoch, "batch": position.batch, "samples": position.samples, "sums": position.sums},
        "best": {name: {"epoch": best.epoch, "score": best.score} for name, best in position.best.items()},
        "history": [{"number": epoch.number, "time": epoch.time, "metrics": epoch.metrics} for epoch in history],
        "generators": {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None},
    }
    checkpoints.save(state, epoch=position.epoch, batch=position.batch)


def _restore(loaded: Loaded, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[_Position, list[Epoch]]:
    state = loaded.content
    load_weights(network, state["weights"], file=loaded.file)
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["generators"]["cpu"].cpu())
    if state["generators"]["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["generators"]["cuda"].cpu())
    position = _Position(**state["position"], best={name: _Best(**best) for name, best in state["best"].items()})
    return position, [Epoch(**epoch) for epoch in state["history"]]
