"""From a run on a table to its networks, and from trained networks to its result. With the engine, this code decides every number."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls.classes import ClassRanges, class_ranges
from regcls.data.splits import Split
from regcls.methods import engine_loss, make_distribution
from regcls.relevance import RARE, Relevance, sera
from regcls.runs import RunResult
from regcls.tasks.table.code import result_code
from regcls.tasks.table.data import TableSet
from regcls.tasks.table.logged import code_model
from regcls.tasks.table.runs import TableSpec
from regcls.training.ensemble import Recipe, Trained
from regcls.training.ensemble_data import Network, padded_to
from regcls.training.ensemble_networks import ClassCounter, Member, mean_accuracy, quietly

PREDICTIONS = "predictions.parquet"  # artifact of a run: part, row, prediction of each test row, in the target's unit

TableMember = Member[TableSpec]


class TableNetworks:
    """The networks of runs: one per part (fold). They learn standardised targets."""

    part_name = "part"
    every_epoch: Sequence[str] = ()
    predict: Sequence[str] = ("val", "test")

    def __init__(self, table: TableSet, dataset: str) -> None:
        self.table, self.dataset, self.parts, self.inputs = table, dataset, table.parts, table.size
        self.fitted = cache(table.fitted)
        self._balanced = ClassCounter()
        self._sizes = cache(lambda part: len(table.rows(part, "train")))

    def remarks(self) -> Sequence[str]:
        """See `ClassCounter.remarks`."""
        return self._balanced.remarks()

    def reopened(self) -> Callable[[], "TableNetworks"]:
        """A function that opens the same data in another process."""
        return partial(_open, self.table.prepared.folder, self.dataset)

    def result_code(self) -> str:
        """Digest of the code that decides a result, along with the spec and the data."""
        return result_code()

    def digest(self, spec: TableSpec) -> str:
        """SHA-256 over the data."""
        return self.table.digest

    def recipe(self, spec: TableSpec) -> Recipe:
        """The part of a spec that jointly trained networks must share."""
        h1, h2 = spec.hidden
        return Recipe(
            hidden=(h1, h2),
            activation=spec.activation,
            initialisation="pytorch",
            loss=engine_loss(spec.method),
            distribution=make_distribution(spec.method),
            loss_over_batch="mean",
            drop_last=False,
            epochs=spec.epochs,
            batch_size=spec.batch_size,
            optimizer=spec.optimizer,
            learning_rate=spec.learning_rate,
            milestones=spec.milestones,
            decay=spec.decay,
            weight_decay=spec.weight_decay,
            precision=spec.precision,
        )

    def samples(self, member: TableMember) -> int:
        """Number of training rows."""
        return self._sizes(member.part)

    def order(self, spec: TableSpec) -> tuple[object, ...]:
        """Sort key that puts runs with the same order of samples next to each other."""
        return spec.method, spec.seed

    def head_classes(self, member: TableMember) -> int:
        """Number of classes of the head, K: 0 without classes, C for uniform ranges, possibly fewer for equalised ones."""
        spec = member.spec
        if not spec.balanced:
            return spec.classes
        key = (member.part, spec.classes, spec.rounding)
        return self._balanced(key, lambda: self._ranges(spec, self.targets(member.part, "train")))

    def networks(self, members: Sequence[TableMember]) -> list[Network]:
        """The networks with their data; networks on the same rows share the arrays, which the engine relies on."""

        @cache
        def load(part: str, split: Split) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
            return self.table.inputs(part, split, self.fitted(part)), self.targets(part, split)

        return [self._network(member, load) for member in members]

    def _network(self, member: TableMember, load: Callable[[str, Split], tuple[NDArray[np.float32], NDArray[np.float64]]]) -> Network:
        spec = member.spec
        x, y = load(member.part, "train")
        return Network(
            x=x,
            y=y,
            classes=quietly(lambda: self._ranges(spec, y)) if spec.classes else None,
            padded_to=padded_to(spec.classes, spec.batch_size),
            lam=1.0 if spec.lam is None else spec.lam,
            seed=spec.seed,
            evaluate={"val": load(member.part, "val"), "test": load(member.part, "test")},
        )

    def _ranges(self, spec: TableSpec, targets: NDArray[np.float64]) -> ClassRanges:
        """C ranges over the training targets; equalised for balanced classes."""
        return class_ranges(spec.classes, targets, balanced=spec.balanced, rounding=spec.rounding or "round")

    def targets(self, part: str, split: Split) -> NDArray[np.float64]:
        """Standardised targets (n,)."""
        mean, deviation = self.fitted(part)["target"]
        return np.asarray((self.table.targets[self.table.rows(part, split)] - mean) / deviation)

    def result(self, spec: TableSpec, trained: Mapping[str, Trained], *, started: float, ended: float) -> RunResult:
        """The result of a run: errors by part in the target's unit, and their means; weights and test predictions by part."""
        parts = [part for part in self.parts if part in trained]
        by_part = [self._errors(part, trained[part]) for part in parts]
        metrics = {name: float(np.mean([errors[name] for errors in by_part if name in errors])) for name in by_part[0]}
        for name in ("val/rmse", "test/rmse"):
            metrics |= {f"{name}/{part}": errors[f"{name}/all"] for part, errors in zip(parts, by_part, strict=True)}
        metrics |= mean_accuracy(trained[part] for part in parts)
        curves = [trained[part].train_mse * self.fitted(part)["target"][1] ** 2 for part in parts]
        weights = {f"{part}/{name}": value for part in parts for name, value in (self.fitted(part) | trained[part].weights).items()}
        return RunResult(
            metrics=metrics,
            history={"train/mse/all": np.mean(curves, axis=0).tolist()} if spec.epochs else {},
            weights=weights,
            started=started,
            ended=ended,
            tables={PREDICTIONS: self._predictions(parts, trained)},
            model=code_model(self.table.columns, weights, spec.activation) if spec.epochs else None,
        )

    def _errors(self, part: str, trained: Trained) -> dict[str, float]:
        measured = dict[str, float]()
        for split in ("val", "test"):
            targets = self.table.targets[self.table.rows(part, split)]
            errors = self._in_unit(part, trained.predicted[split]) - targets
            measured[f"{split}/rmse/all"] = float(np.sqrt(np.mean(errors**2)))
            measured[f"{split}/mae/all"] = float(np.mean(np.abs(errors)))
            if split == "test":
                relevance = Relevance.of(self.table.targets[self.table.rows(part, "train")])(targets)
                measured["test/sera/all"] = sera(errors, relevance)
                if (rare := relevance > RARE).any():
                    measured["test/rmse/rare"] = float(np.sqrt(np.mean(errors[rare] ** 2)))
        return measured

    def _in_unit(self, part: str, outputs: NDArray[np.floating]) -> NDArray[np.float64]:
        mean, deviation = self.fitted(part)["target"]
        return np.asarray(mean + deviation * outputs.astype(np.float64))

    def _predictions(self, parts: Sequence[str], trained: Mapping[str, Trained]) -> pd.DataFrame:
        rows = [self.table.rows(part, "test") for part in parts]
        return pd.DataFrame(
            {
                "part": pd.Categorical(np.repeat(parts, [len(part) for part in rows]), categories=list(self.parts)),
                "row": np.concatenate(rows),
                "prediction": np.concatenate([self._in_unit(part, trained[part].predicted["test"]) for part in parts]),
            }
        )


def _open(prepared: Path, dataset: str) -> TableNetworks:
    return TableNetworks(TableSet(prepared), dataset)
