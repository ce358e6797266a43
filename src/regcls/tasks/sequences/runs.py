"""Runs on video progress: one network per activity."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from regcls.choices import Activation
from regcls.errors import UserError
from regcls.methods import has_class_loss, has_classes, is_balanced, searched_as
from regcls.params.single import SEARCH
from regcls.params.types import Precision
from regcls.runs import NOTHING_TO_ROUND, RunSpec, check_class_options
from regcls.tasks.sequences.params import SequenceGrid, SequenceOptions, Sequences, SequenceSplit, Unit

WITH_SIGMOIDS = ("random", "kukleva")  # regardless of `activation` in params.yaml
Key = tuple[str, int, Unit, SequenceSplit]
BestLambdas = Mapping[Key, float]  # (method, C, unit, split) -> λ with the lowest validation error


@dataclass(frozen=True, kw_only=True)
class SequenceSpec(RunSpec):
    """A run: one network for each of the ten activities, on one split."""

    task: ClassVar[str] = "sequences"
    unit: Unit  # of the target: percent (frame index / number of frames, within [0, 1]) or frames (frame index)
    split: SequenceSplit
    held_out: bool  # whether some training videos are held out for validation, for the search for λ
    hidden: tuple[int, ...]
    activation: Activation
    milestones: tuple[int, ...]  # epochs after which the learning rate is multiplied by `decay`
    decay: float
    precision: Precision

    @property
    def data_name(self) -> str:
        """`breakfast/percent/s1`, or `breakfast/percent/s1/held-out` if videos are held out."""
        return f"{self.dataset}/{self.unit}/{self.split}" + ("/held-out" if self.held_out else "")

    def _data_words(self) -> str:
        """The end of `reg+cls 100 λ100 s0 · breakfast percent s1`, where s0 is the seed and s1 the split."""
        return f"{self.dataset} {self.unit} {self.split}" + (" held-out" if self.held_out else "")

    def tags(self) -> dict[str, str]:
        """RunSpec's tags, unit, split and held_out."""
        return super().tags() | {"unit": self.unit, "split": self.split, "held_out": str(self.held_out).lower()}


def make_spec(
    sequences: Sequences,
    dataset: str,
    *,
    method: str,
    classes: int,
    lam: float | None,
    unit: Unit,
    split: SequenceSplit,
    seed: int,
    held_out: bool = False,
) -> SequenceSpec:
    """A run with the training values of params.yaml; `lam` None: that of the unit.

    Fields that do not apply are blanked, so that equal runs have equal specs.
    """
    training, trained = sequences.training, method != "random"
    return SequenceSpec(
        dataset=dataset,
        method=method,
        classes=classes if has_classes(method) else 0,
        lam=float(training.lam[unit] if lam is None else lam) if has_class_loss(method) else None,
        rounding=training.rounding if is_balanced(method) else None,
        seed=seed,
        epochs=training.epochs if trained else 0,
        batch_size=training.batch_size,
        optimizer=training.optimizer if trained else "adam",
        learning_rate=training.learning_rate if trained else 0.0,
        weight_decay=training.weight_decay if trained else 0.0,
        unit=unit,
        split=split,
        held_out=held_out,
        hidden=training.hidden,
        activation="sigmoid" if method in WITH_SIGMOIDS else training.activation,
        milestones=training.milestones if trained else (),
        decay=training.decay if trained and training.milestones else 1.0,
        precision=training.precision,
    )


def expand(sequences: Sequences, dataset: str, name: str, best_lambdas: BestLambdas) -> list[SequenceSpec]:
    """The runs of the grid `name` in a fixed order, those without classes once per seed; the search holds videos out.

    Runs whose searched λ is not in `best_lambdas` yet are left out.
    """
    grid = sequences.grids[name]
    specs: dict[SequenceSpec, None] = {}  # an ordered set
    axes = itertools.product(sequences.training.seeds[: grid.seeds], grid.units, grid.splits, grid.methods, grid.classes)
    for seed, unit, split, method, classes in axes:
        for lam in _lambdas(sequences, grid, (method, classes, unit, split), best_lambdas):
            spec = make_spec(
                sequences, dataset, method=method, classes=classes, lam=lam, unit=unit, split=split, seed=seed, held_out=name == SEARCH
            )
            specs[spec] = None
    return list(specs)


def _lambdas(sequences: Sequences, grid: SequenceGrid, key: Key, best_lambdas: BestLambdas) -> tuple[float | None, ...]:
    if not has_class_loss(key[0]) or grid.lambdas == "default":
        return (None,)
    if grid.lambdas == "searched":
        lam = searched_lambda(sequences, best_lambdas, key)
        return () if lam is None else (lam,)
    return grid.lambdas


def searched_lambda(sequences: Sequences, best_lambdas: BestLambdas, key: Key) -> float | None:
    """λ chosen by the search; None if it is not known yet. reg+cls-bal uses that of reg+cls if the search does not include it."""
    method, classes, unit, split = key
    return best_lambdas.get((method if method in sequences.grids[SEARCH].methods else searched_as(method), classes, unit, split))


def all_specs(sequences: Sequences, dataset: str, best_lambdas: BestLambdas) -> list[SequenceSpec]:
    """The runs of all grids without duplicates, those of the λ search first."""
    names = sorted(sequences.grids, key=lambda name: name != SEARCH)
    return list(dict.fromkeys(spec for name in names for spec in expand(sequences, dataset, name, best_lambdas)))


def needs_search(sequences: Sequences) -> bool:
    """Whether a grid uses λ from the search."""
    return any(grid.lambdas == "searched" and grid.seeds for grid in sequences.grids.values())


def search_specs(sequences: Sequences, dataset: str) -> list[SequenceSpec]:
    """The runs of the λ search."""
    return expand(sequences, dataset, SEARCH, {}) if SEARCH in sequences.grids else []


def searched_for(spec: SequenceSpec) -> Key:
    """The key of a run's λ in `BestLambdas`."""
    return spec.method, spec.classes, spec.unit, spec.split


def single_spec(sequences: Sequences, dataset: str, options: SequenceOptions) -> SequenceSpec:
    """The run described by `run:` in params.yaml, overridden by `options`.

    Raises:
        UserError: an option has no effect on this run, or there is no such split.
    """
    default = sequences.run
    method, split = options.method or default.method, options.split or default.split
    check_class_options(method, classes=options.classes, lam=options.lam)
    if not is_balanced(method) and options.rounding:
        raise UserError(NOTHING_TO_ROUND.format(method=method))
    if method in WITH_SIGMOIDS and options.activation:
        raise UserError(f"method {method} always has sigmoids: leave out --activation, or choose --method reg")
    training_options = ("epochs", "learning_rate", "weight_decay", "optimizer")
    if method == "random" and (unused := [name for name in training_options if getattr(options, name) is not None]):
        raise UserError(f"method random is not trained: leave out --{unused[0].replace('_', '-')}")
    if split not in sequences.data.test_persons:
        raise UserError(
            f"--split = {split}: there are {', '.join(sequences.data.test_persons)} ({dataset}.data.test_persons in params.yaml)"
        )
    spec = make_spec(
        sequences,
        dataset,
        method=method,
        classes=options.classes or default.classes,
        lam=options.lam,
        unit=options.unit or default.unit,
        split=split,
        seed=sequences.training.seeds[0] if options.seed is None else options.seed,
    )
    plain = ("activation", "rounding", "hidden", "epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "precision")
    return replace(spec, **{name: value for name in plain if (value := getattr(options, name)) is not None})
