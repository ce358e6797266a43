"""A run -> its networks, and trained networks -> the run's result. With the engine, the code that decides every number."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regcls.classes import class_ranges
from regcls.datasets.synthetic import Split, SyntheticSets
from regcls.params.synthetic import Sampling
from regcls.runs import RunResult
from regcls.runs.synthetic import SyntheticSpec
from regcls.training.ensemble import Network, Recipe, Trained


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network of a run: the run and the function it learns."""

    spec: SyntheticSpec
    function: int


def recipe(spec: SyntheticSpec) -> Recipe:
    """The part of a spec that networks trained together must share."""
    h1, h2 = spec.hidden
    return Recipe(hidden=(h1, h2), epochs=spec.epochs, batch_size=spec.batch_size, optimizer=spec.optimizer,
                  learning_rate=spec.learning_rate, weight_decay=spec.weight_decay, precision=spec.precision)  # fmt: skip


def network(member: Member, sets: SyntheticSets) -> Network:
    """What a network sees: its own sampling in training; the uniform sets of its setting in validation and test."""
    spec = member.spec

    def load(sampling: Sampling, split: Split) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        x, y = sets.get(spec.data_key, sampling, member.function, spec.repetition, split)
        return x[None], y

    x, y = load(spec.sampling, "train")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where classes cannot be balanced, the plan has said so
        classes = None if spec.method == "reg" else class_ranges(spec.classes, y, balanced=spec.balanced)
    return Network(
        x=x,
        y=y,
        classes=classes,
        lam=1.0 if spec.lam is None else spec.lam,
        seed=spec.seed,
        evaluate={"val": load("uniform", "val"), "test": load("uniform", "test")},
    )


def result(trained: Mapping[int, Trained], *, started: float, ended: float) -> RunResult:
    """Function -> trained network: errors by function and their means over the functions; weights by function."""
    functions = sorted(trained)
    by_epoch = {"train_mse": [trained[f].train_mse for f in functions]}
    by_epoch |= {f"{name}_mse": [trained[f].evaluated[name] for f in functions] for name in ("val", "test")}
    means = {name: np.mean(values, axis=0) for name, values in by_epoch.items()}
    metrics = {name: float(values[-1]) for name, values in means.items()}
    if heads := [len(trained[f].weights["classifier.bias"]) for f in functions if "classifier.bias" in trained[f].weights]:
        metrics["head_classes"] = float(np.mean(heads))  # fewer than C where equalising has merged some
    metrics |= {f"functions/{name}_{f}": float(values[i][-1]) for name, values in by_epoch.items() for i, f in enumerate(functions)}
    return RunResult(
        metrics=metrics,
        history={name: values.tolist() for name, values in means.items() if len(values) > 1},
        weights={f"{f}/{name}": value for f in functions for name, value in trained[f].weights.items()},
        started=started,
        ended=ended,
    )
