"""From a run of the 1D study to its networks, and from trained networks to its result. With the engine, this code decides every number."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls.classes import ClassRanges, class_ranges
from regcls.data.splits import Split
from regcls.methods import engine_loss, make_distribution
from regcls.runs import RunResult
from regcls.tasks.functions.code import result_code
from regcls.tasks.functions.data import FunctionSets
from regcls.tasks.functions.params import Sampling
from regcls.tasks.functions.runs import FunctionSpec
from regcls.training.ensemble import Recipe, Trained
from regcls.training.ensemble_data import Network, padded_to
from regcls.training.ensemble_networks import ClassCounter, Member, mean_accuracy, quietly
from regcls.training.likelihoods import MEASURES

FunctionMember = Member[FunctionSpec]
LIKELIHOODS = "likelihoods.parquet"  # artifact of a run that measures them: function, split, epoch (from 1), MEASURES


class FunctionNetworks:
    """The networks of runs: one per function."""

    part_name, inputs = "function", 1
    every_epoch: Sequence[str] = ("val",)
    predict: Sequence[str] = ()

    def __init__(self, sets: FunctionSets, dataset: str) -> None:
        self.sets, self.dataset = sets, dataset
        self.parts = [str(function) for function in range(sets.functions)]
        self._balanced = ClassCounter()

    def remarks(self) -> Sequence[str]:
        """See `ClassCounter.remarks`."""
        return self._balanced.remarks()

    def reopened(self) -> Callable[[], "FunctionNetworks"]:
        """A function that opens the same data in another process."""
        return partial(_open, self.sets.prepared.folder, self.dataset)

    def result_code(self) -> str:
        """Digest of the code that decides a result, along with the spec and the data."""
        return result_code()

    def digest(self, spec: FunctionSpec) -> str:
        """SHA-256 over the data of a run."""
        return self.sets.digest(spec)

    def recipe(self, spec: FunctionSpec) -> Recipe:
        """See `recipe`."""
        return recipe(spec)

    def samples(self, member: FunctionMember) -> int:
        """Number of training samples."""
        spec = member.spec
        return self.sets.size(spec.data_key, spec.sampling, int(member.part), spec.repetition, "train")

    def order(self, spec: FunctionSpec) -> tuple[object, ...]:
        """Sort key of runs: the order of the grids."""
        return ()

    def head_classes(self, member: FunctionMember) -> int:
        """Number of classes of the head, K: 0 for reg, C for uniform ranges, possibly fewer for equalised ones."""
        spec = member.spec
        if not spec.balanced:
            return spec.classes
        key = (spec.data_key, spec.sampling, int(member.part), spec.repetition)
        make = partial(class_ranges_of, spec, self.sets.get(*key, "train")[1])
        return self._balanced((*key, spec.classes, spec.rounding), make)

    def networks(self, members: Sequence[FunctionMember]) -> list[Network]:
        """The networks with their data: the run's sampling for training, the uniform sets of its setting for validation and test."""
        return [self._network(member) for member in members]

    def _network(self, member: FunctionMember) -> Network:
        spec = member.spec

        def load(sampling: Sampling, split: Split) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
            x, y = self.sets.get(spec.data_key, sampling, int(member.part), spec.repetition, split)
            return x[None], y

        x, y = load(spec.sampling, "train")
        classes = quietly(partial(class_ranges_of, spec, y)) if spec.classes else None
        return Network(
            x=x,
            y=y,
            classes=classes,
            padded_to=padded_to(spec.classes, spec.batch_size),
            lam=1.0 if spec.lam is None else spec.lam,
            seed=spec.seed,
            evaluate={"val": load("uniform", "val"), "test": load("uniform", "test")},
        )

    def result(self, spec: FunctionSpec, trained: Mapping[str, Trained], *, started: float, ended: float) -> RunResult:
        """The result of a run: errors by function, their means over functions, and weights by function."""
        functions = sorted(trained, key=int)
        by_epoch = {"train": [trained[f].train_mse for f in functions]}
        by_epoch |= {name: [trained[f].evaluated[name] for f in functions] for name in ("val", "test")}
        means = {name: np.mean(values, axis=0) for name, values in by_epoch.items()}
        metrics = {f"{split}/mse/all": float(values[-1]) for split, values in means.items()}
        if heads := [len(trained[f].weights["classifier.bias"]) for f in functions if "classifier.bias" in trained[f].weights]:
            metrics["head_classes"] = float(np.mean(heads))  # fewer than C if equalising has merged some
        metrics |= mean_accuracy(trained.values())
        history = {f"{split}/mse/all": values.tolist() for split, values in means.items() if len(values) > 1}
        likelihoods = _likelihoods(trained)
        for split, rows in likelihoods.groupby("split", sort=False):
            measured = rows.groupby("epoch")[list(MEASURES)].mean().dropna(axis="columns", how="all")
            history |= {f"{split}/{name}/all": measured[name].tolist() for name in measured}
            metrics |= {f"{split}/{name}/all": float(measured[name].iloc[-1]) for name in measured}
        metrics |= {
            f"{split}/mse/function_{f}": float(values[i][-1]) for split, values in by_epoch.items() for i, f in enumerate(functions)
        }
        return RunResult(
            metrics=metrics,
            history=history,
            weights={f"{f}/{name}": value for f in functions for name, value in trained[f].weights.items()},
            started=started,
            ended=ended,
            tables={LIKELIHOODS: likelihoods} if len(likelihoods) else {},
        )


def _likelihoods(trained: Mapping[str, Trained]) -> pd.DataFrame:
    """The table LIKELIHOODS; empty if nothing was measured."""
    rows = [
        pd.DataFrame(values, columns=list(MEASURES)).assign(function=int(function), split=split, epoch=np.arange(1, len(values) + 1))
        for function, network in trained.items()
        for split, values in network.likelihoods.items()
    ]
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["function", "split", "epoch", *MEASURES])
    return table[["function", "split", "epoch", *MEASURES]]


def class_ranges_of(spec: FunctionSpec, targets: NDArray[np.floating]) -> ClassRanges:
    """The classes of a run with a class loss: C ranges over `targets` (N,), equalised for reg+cls-bal."""
    if not spec.balanced:
        return class_ranges(spec.classes, targets, balanced=False)
    assert spec.rounding
    return class_ranges(spec.classes, targets, balanced=True, rounding=spec.rounding)


def recipe(spec: FunctionSpec) -> Recipe:
    """The part of a spec that jointly trained networks must share."""
    h1, h2 = spec.hidden
    return Recipe(
        hidden=(h1, h2),
        activation="relu",
        initialisation="xavier",
        loss=engine_loss(spec.method),
        distribution=make_distribution(spec.method),
        loss_over_batch="mean",
        drop_last=True,
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        optimizer=spec.optimizer,
        learning_rate=spec.learning_rate,
        milestones=(),
        decay=1.0,
        weight_decay=spec.weight_decay,
        precision=spec.precision,
        scale=spec.scale,
        likelihoods=("train", "test") if spec.extra_loss else (),
    )


def _open(prepared: Path, dataset: str) -> FunctionNetworks:
    return FunctionNetworks(FunctionSets(prepared), dataset)
