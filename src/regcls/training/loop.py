"""One network, trained: the loop for every task that is not many small networks at once.

A task gives batches, losses and validation errors; the loop steps, watches that all stays finite, keeps the best weights and saves states
that continue bit for bit on the CPU. All chance in a task must be a function of its seed, the epoch and the sample.
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

CHECK_EVERY = 20  # steps: looking at a loss on a GPU waits for it
SGD_MOMENTUM = 0.9

BatchT = TypeVar("BatchT")
BatchC = TypeVar("BatchC", contravariant=True)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the steps are taken."""

    epochs: int
    optimizer: Literal["adam", "sgd"]  # sgd: with momentum 0.9
    learning_rate: float
    milestones: tuple[int, ...]  # epochs after which the rate is multiplied by `decay`
    decay: float
    weight_decay: float  # as L2 in the gradient
    accumulate: int  # batches a step
    precision: Literal["float32", "bf16"]

    @classmethod
    def of(cls, spec: object) -> Self:
        """The part of a run's spec that the loop needs: its fields of these names."""
        return cls(**{field.name: getattr(spec, field.name) for field in fields(cls)})

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, from 0."""
        return self.learning_rate * self.decay ** sum(milestone <= epoch for milestone in self.milestones)


class Task(Protocol[BatchT]):
    """What is learned."""

    batches: int  # an epoch
    selections: Mapping[str, str]  # name -> metric of `validate`: weights of its lowest value are kept, for each selection its own

    def feed(self, epoch: int, batch: int) -> Generator[BatchT]:
        """All batches from the given one (both from 0) to the end of the last epoch."""

    def losses(self, network: nn.Module, batch: BatchT) -> Mapping[str, Tensor]:
        """`loss`, which is minimised, and what else is to be logged, as scalars."""

    def describe(self, batch: BatchT) -> dict[str, Any]:
        """What was fed, for a person who looks for the reason of a NaN."""

    def size(self, batch: BatchT) -> int:
        """Samples in a batch."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Errors after an epoch, by the names under which they are logged."""


class DivergedError(Exception):
    """A loss or gradient is no longer finite. `fed` says what was fed at the first such step."""

    def __init__(self, message: str, fed: dict[str, Any]) -> None:
        super().__init__(message, fed)  # both, or a process could not send it
        self.fed = fed

    def __str__(self) -> str:
        return str(self.args[0])


class StoppedError(Exception):
    """The process has been asked to end."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What an epoch gave."""

    number: int  # from 1
    time: float  # Unix seconds at its end
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training gave; the weights are in the checkpoints."""

    history: list[Epoch]
    best_epochs: Mapping[str, int]  # by selection, from 1
    seconds: float  # in this process, validation included
    waiting: float  # of them, for data
    samples: int  # trained on in them

    def speed(self) -> dict[str, float]:
        """Metrics; none where a process ended between its last epoch and its result, so that nothing was left to train."""
        return {"images_per_second": self.samples / self.seconds, "waiting_share": self.waiting / self.seconds} if self.samples else {}


class Hooks(Protocol):
    """Whom the loop tells."""

    def batch(self, samples: int, note: str) -> None:
        """A step is through. May raise StoppedError: the state is saved, and the error goes on."""

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is through and its state is saved."""


@dataclass(kw_only=True)
class _Best:
    """Of one selection so far."""

    epoch: int = 0  # 0: none yet
    score: float = math.inf


@dataclass(kw_only=True)
class _Position:
    best: dict[str, _Best]  # by selection
    epoch: int = 0
    batch: int = 0
    samples: int = 0  # of the epoch so far
    sums: dict[str, float] | None = None  # of the losses, over these samples

    @property
    def best_epochs(self) -> dict[str, int]:
        return {name: best.epoch for name, best in self.best.items()}


@dataclass(frozen=True)
class _Fed:
    """What is kept of a batch until its loss is looked at; not its images."""

    samples: int
    described: dict[str, Any]


class _Watch(Generic[BatchT]):
    """Losses and gradient norms of the last steps, looked at together: each look waits for the GPU."""

    def __init__(self, task: Task[BatchT]) -> None:
        self.task = task
        self.steps: list[tuple[list[_Fed], list[Mapping[str, Tensor]], Tensor]] = []
        self.note = ""  # the last loss that was looked at

    def add(self, batches: Sequence[BatchT], losses: list[Mapping[str, Tensor]], norm: Tensor) -> None:
        self.steps.append(([_Fed(self.task.size(batch), self.task.describe(batch)) for batch in batches], losses, norm))

    def flush(self, position: _Position, rate: float) -> None:
        """Add the losses to the epoch's sums.

        Raises:
            DivergedError: at the first step that is not finite.
        """
        if not self.steps:
            return
        names = list(self.steps[0][1][0])
        rows = (
            torch.stack([torch.stack([part[name] for name in names]) for _, losses, _ in self.steps for part in losses]).double().tolist()
        )
        norms = torch.stack([norm for *_, norm in self.steps]).double().tolist()
        place = 0
        for (fed, losses, _), norm in zip(self.steps, norms, strict=True):
            for batch in fed:
                values = rows[place]
                place += 1
                if not all(map(math.isfinite, values)):
                    _stop(fed, dict(zip(names, values, strict=True)), norm, position, rate)
                sums = position.sums or dict.fromkeys(names, 0.0)
                position.sums = {name: sums[name] + value * batch.samples for name, value in zip(names, values, strict=True)}
                position.samples += batch.samples
            if not math.isfinite(norm):
                _stop(fed, {name: float(losses[-1][name]) for name in names}, norm, position, rate)
        self.note = f", loss {rows[-1][names.index('loss')]:.3g}"
        self.steps.clear()


def _stop(batches: list[_Fed], losses: dict[str, float], norm: float, position: _Position, rate: float) -> NoReturn:
    said = ", ".join(f"{name} {value:g}" for name, value in losses.items())
    fed = {"epoch": position.epoch + 1, "losses": losses, "gradient_norm": norm, "learning_rate": rate}
    fed["batches"] = [batch.described for batch in batches]
    raise DivergedError(f"diverged in epoch {position.epoch + 1}: {said}, gradient norm {norm:g}, learning rate {rate:g}", fed)


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
) -> Trained:
    """Train `network`, which lies on `device`, from its newest checkpoint, or from where it stands if there is none.

    Raises:
        DivergedError: a loss or gradient is not finite; the last good checkpoint is kept.
        UserError: the newest checkpoint is of another network, or the disk is full.
        StoppedError: a hook raised it; the state is saved.
    """
    optimizer = _optimizer(network, recipe)
    position, history = _Position(best={name: _Best() for name in task.selections}), list[Epoch]()
    try:
        loaded = checkpoints.load(device=device)
    except DamagedError as error:
        say(f"{error}; it is trained from its beginning")
        checkpoints.clear()
        loaded = None
    if loaded:
        for damaged in loaded.damaged:
            say(f"checkpoint {damaged}; the one before it is used")
        position, history = _restore(loaded, network, optimizer)
        where = "all epochs are through" if position.epoch == recipe.epochs else f"epoch {position.epoch + 1}, batch {position.batch + 1}"
        say(f"goes on from {loaded.file.name}: {where}")
    forward: nn.Module = torch.compile(network) if compiled else network  # type: ignore[assignment]
    watch = _Watch(task)
    started = saved = time.monotonic()
    waiting, samples = 0.0, 0
    with closing(task.feed(position.epoch, position.batch)) as feed:
        while position.epoch < recipe.epochs:
            rate = recipe.rate(position.epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate
            network.train()
            while position.batch < task.batches:
                together = min(recipe.accumulate, task.batches - position.batch)
                before = time.monotonic()
                batches = [next(feed) for _ in range(together)]
                waiting += time.monotonic() - before
                watch.add(batches, *_step(forward, task, batches, optimizer, recipe, device))
                position.batch += together
                if len(watch.steps) >= CHECK_EVERY:
                    watch.flush(position, rate)
                seen = sum(map(task.size, batches))
                samples += seen
                speed = samples / (time.monotonic() - started)
                try:
                    hooks.batch(seen, f"epoch {position.epoch + 1} of {recipe.epochs}{watch.note}, {speed:.0f} images/s")
                except StoppedError:
                    watch.flush(position, rate)
                    _save(checkpoints, network, optimizer, position, history)
                    raise
                if time.monotonic() - saved > checkpoint_minutes * 60 and position.batch < task.batches:
                    watch.flush(position, rate)
                    _save(checkpoints, network, optimizer, position, history)
                    saved = time.monotonic()
            watch.flush(position, rate)
            done = _end_epoch(network, task, position, rate)
            if done.number in position.best_epochs.values():
                checkpoints.save_best(network.state_dict(), epoch=done.number)
            history.append(done)
            position = _Position(epoch=position.epoch + 1, best=position.best)
            _save(checkpoints, network, optimizer, position, history)
            saved = time.monotonic()
            hooks.epoch(done)
    for name, best in position.best.items():
        if not best.epoch:
            raise DivergedError(f"diverged: no epoch has a finite {task.selections[name]}", {})
    seconds = time.monotonic() - started
    return Trained(history=history, best_epochs=position.best_epochs, seconds=seconds, waiting=waiting, samples=samples)


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), recipe.learning_rate, momentum=SGD_MOMENTUM, weight_decay=recipe.weight_decay)
    return torch.optim.Adam(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)


def _step(
    forward: nn.Module, task: Task[BatchT], batches: list[BatchT], optimizer: torch.optim.Optimizer, recipe: Recipe, device: Device
) -> tuple[list[Mapping[str, Tensor]], Tensor]:
    """One step of the optimizer over the mean of some batches: their losses and the norm of the gradient, still on the device."""
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
    """Validate, and note in `position` of which selections this is the best epoch so far."""
    network.eval()
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
        "generators": {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []},
    }
    checkpoints.save(state, epoch=position.epoch, batch=position.batch)


def _restore(loaded: Loaded, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[_Position, list[Epoch]]:
    state = loaded.content
    load_weights(network, state["weights"], file=loaded.file)
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["generators"]["cpu"].cpu())
    if state["generators"]["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([generator.cpu() for generator in state["generators"]["cuda"]])
    position = _Position(**state["position"], best={name: _Best(**best) for name, best in state["best"].items()})
    return position, [Epoch(**epoch) for epoch in state["history"]]
