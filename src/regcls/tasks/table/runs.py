"""Runs on a table: one network for each fold."""

import itertools
from dataclasses import dataclass, replace
from typing import ClassVar

from regcls.choices import Activation
from regcls.errors import UserError
from regcls.methods import has_class_loss, has_classes, is_balanced
from regcls.params.types import Precision
from regcls.runs import NOTHING_TO_ROUND, RunSpec, check_class_options
from regcls.tasks.table.params import HGB, TableOptions, Tables


@dataclass(frozen=True, kw_only=True)
class TableSpec(RunSpec):
    """A run: one network for each fold, or with `hgb` one ensemble of trees, whose network parameters are blank."""

    task: ClassVar[str] = "table"
    hidden: tuple[int, ...]
    activation: Activation
    milestones: tuple[int, ...]  # epochs after which the learning rate is multiplied by `decay`
    decay: float
    precision: Precision


def make_spec(table: Tables, dataset: str, *, method: str, classes: int, lam: float | None, seed: int) -> TableSpec:
    """A run with the training values of params.yaml; `lam` None: that of params.yaml.

    Fields that do not apply are blanked, so that equal runs have equal specs.
    """
    training, trees = table.training, method == HGB
    return TableSpec(
        dataset=dataset,
        method=method,
        classes=classes if has_classes(method) else 0,
        lam=float(training.lam if lam is None else lam) if has_class_loss(method) else None,
        rounding=training.rounding if is_balanced(method) else None,
        seed=seed,
        epochs=0 if trees else training.epochs,
        batch_size=0 if trees else training.batch_size,
        optimizer="adam" if trees else training.optimizer,
        learning_rate=0.0 if trees else training.learning_rate,
        weight_decay=0.0 if trees else training.weight_decay,
        hidden=() if trees else training.hidden,
        activation="relu" if trees else training.activation,
        milestones=() if trees else training.milestones,
        decay=1.0 if trees or not training.milestones else training.decay,
        precision="float32" if trees else training.precision,
    )


def expand(table: Tables, dataset: str, name: str, *, most: int) -> list[TableSpec]:
    """The runs of the grid `name` in a fixed order; `most`: see TableSet.most_classes, which limits the class counts."""
    grid = table.grids[name]
    lambdas: tuple[float | None, ...] = (None,) if grid.lambdas == "default" else grid.lambdas
    specs: dict[TableSpec, None] = {}  # an ordered set: reg has neither classes nor λ
    for seed, method, classes, lam in itertools.product(table.training.seeds[: grid.seeds], grid.methods, grid.classes, lambdas):
        if method == HGB and seed != table.training.seeds[0]:
            continue  # trees do not depend on the seed
        specs[make_spec(table, dataset, method=method, classes=min(classes, most), lam=lam, seed=seed)] = None
    return list(specs)


def all_specs(table: Tables, dataset: str, *, most: int) -> list[TableSpec]:
    """The runs of all grids without duplicates; `most`: see `expand`."""
    return list(dict.fromkeys(spec for name in table.grids for spec in expand(table, dataset, name, most=most)))


def single_spec(table: Tables, dataset: str, options: TableOptions) -> TableSpec:
    """The run described by `run:` in params.yaml, overridden by `options`.

    Raises:
        UserError: an option has no effect on this run.
    """
    method = options.method or table.run.method
    check_class_options(method, classes=options.classes, lam=options.lam)
    if not is_balanced(method) and options.rounding:
        raise UserError(NOTHING_TO_ROUND.format(method=method))
    changed = {
        name: value
        for name in ("activation", "rounding", "hidden", "epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "precision")
        if (value := getattr(options, name)) is not None
    }
    if method == HGB and changed:
        raise UserError(f"method {HGB} is not a network: leave out --{next(iter(changed)).replace('_', '-')}")
    spec = make_spec(
        table,
        dataset,
        method=method,
        classes=options.classes or table.run.classes,
        lam=options.lam,
        seed=table.training.seeds[0] if options.seed is None else options.seed,
    )
    return replace(spec, **changed)
