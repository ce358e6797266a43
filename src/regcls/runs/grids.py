"""Runs of one network each, from grids and command-line options; shared by images and depth."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from regcls.choices import RegressionLoss
from regcls.errors import UserError
from regcls.methods import has_bins, has_class_loss, has_classes, has_regression_loss, is_balanced, searched_as
from regcls.params.single import SEARCH, Backbone, MixedPrecision, Scaling, SingleGrid, SingleOptions, SingleSection, SingleTraining
from regcls.runs import NOTHING_TO_ROUND, RunSpec, check_class_options

BestLambdas = Mapping[tuple[str, int], float]  # (method, C) -> λ with the lowest validation error


@dataclass(frozen=True, kw_only=True)
class SingleSpec(RunSpec):
    """A run: one network trained on one data set."""

    balanced_data: bool  # Table 4: samples enter both losses with probability ρ of `balanced_bins` equalised ranges
    balanced_bins: int
    model: Backbone
    width: int  # channels of the first stage
    class_range: tuple[float, ...]  # range of targets that the C classes cover; empty: that of the training data
    loss: RegressionLoss | None  # None without a regression loss
    huber_delta: float
    loss_scaling: Scaling
    milestones: tuple[int, ...]  # epochs after which the learning rate is multiplied by `decay`
    decay: float
    accumulate: int  # batches per optimizer step
    precision: MixedPrecision
    flip: float  # probability

    def _data_words(self) -> str:
        """The end of `reg+cls-bal 100 λ0.1 s0 · imdb_wiki balanced`."""
        return f"{self.dataset} balanced" if self.balanced_data else self.dataset

    def tags(self) -> dict[str, str]:
        """RunSpec's tags and `balanced_data`."""
        return super().tags() | {"balanced_data": str(self.balanced_data).lower()}


SpecT = TypeVar("SpecT", bound=SingleSpec)
# (section, dataset, *, method, classes, lam, balanced_data, seed) -> a run with params.yaml's training values.
MakeSpec = Callable[..., SpecT]


def expand(make: MakeSpec[SpecT], section: SingleSection, dataset: str, grid: SingleGrid, best_lambdas: BestLambdas) -> list[SpecT]:
    """The runs of a grid, `reg` once per seed, in a fixed order: all methods of a seed, then the next seed.

    Runs whose searched λ is not in `best_lambdas` yet are left out.
    """
    specs: dict[SpecT, None] = {}  # an ordered set
    for seed, method, classes in itertools.product(section.training.seeds[: grid.seeds], grid.methods, grid.classes):
        for lam in _lambdas(section, grid, method, classes, best_lambdas):
            specs[make(section, dataset, method=method, classes=classes, lam=lam, balanced_data=grid.balanced_data, seed=seed)] = None
    return list(specs)


def _lambdas(section: SingleSection, grid: SingleGrid, method: str, classes: int, best_lambdas: BestLambdas) -> tuple[float, ...]:
    if not has_class_loss(method) or grid.lambdas == "default":
        return (section.training.lam_for(classes),)
    if grid.lambdas == "searched":
        lam = searched_lambda(section.grids, best_lambdas, method, classes)
        return () if lam is None else (lam,)
    return grid.lambdas


def searched_lambda(grids: Mapping[str, SingleGrid], best_lambdas: BestLambdas, method: str, classes: int) -> float | None:
    """λ chosen by the search; None if it is not known yet. reg+cls-bal uses that of reg+cls if the search does not include it."""
    return best_lambdas.get((method if method in grids[SEARCH].methods else searched_as(method), classes))


def all_specs(make: MakeSpec[SpecT], section: SingleSection, dataset: str, best_lambdas: BestLambdas) -> list[SpecT]:
    """The runs of all grids without duplicates, those of the λ search first."""
    names = sorted(section.grids, key=lambda name: name != SEARCH)
    return list(dict.fromkeys(spec for name in names for spec in expand(make, section, dataset, section.grids[name], best_lambdas)))


def needs_search(section: SingleSection) -> bool:
    """Whether a grid uses λ from the search."""
    return any(grid.lambdas == "searched" and grid.seeds for grid in section.grids.values())


def search_specs(make: MakeSpec[SpecT], section: SingleSection, dataset: str) -> list[SpecT]:
    """The runs of the λ search."""
    return expand(make, section, dataset, section.grids[SEARCH], {}) if SEARCH in section.grids else []


def searched_for(spec: SingleSpec) -> tuple[str, int]:
    """The key of a run's λ in `BestLambdas`."""
    return spec.method, spec.classes


def shared_fields(training: SingleTraining, *, method: str, classes: int, lam: float, balanced_data: bool, seed: int) -> dict[str, Any]:
    """The SingleSpec fields common to images and depth. Fields that do not apply are blanked, so that equal runs have equal specs."""
    copied = ("epochs", "optimizer", "weight_decay", "model", "width", "milestones", "precision", "flip")
    loss = training.loss if has_regression_loss(method) else None
    return {name: getattr(training, name) for name in copied} | {
        "decay": training.decay if training.milestones else 1.0,
        "method": method,
        "classes": classes if has_classes(method) else 0,
        "lam": float(lam) if has_class_loss(method) else None,
        "rounding": training.rounding if is_balanced(method) or balanced_data else None,
        "seed": seed,
        "balanced_data": balanced_data,
        "balanced_bins": training.balanced_bins if balanced_data else 0,
        "class_range": _class_range(training, needed=has_classes(method) or has_bins(method) or balanced_data),
        "loss": loss,
        "huber_delta": training.huber_delta if loss == "huber" else 0.0,
        "loss_scaling": _scaling(training.loss_scaling, method, lam),
    }


def _class_range(training: SingleTraining, *, needed: bool) -> tuple[float, ...]:
    if not needed:
        return 0.0, 0.0
    return () if training.class_range == "data" else training.class_range


def _scaling(scaling: Scaling, method: str, lam: float) -> Scaling:
    """Both scalings are the same for λ > 1 and without classes."""
    return "eq4" if not has_class_loss(method) or lam > 1 else scaling


# Options that are copied to a spec unchanged; `targets` is an option on images only.
PLAIN = (
    "rounding",
    "model",
    "width",
    "loss",
    "epochs",
    "batch_size",
    "accumulate",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "precision",
    "targets",
)

OF_REGRESSION = ("loss", "huber_delta", "loss_scaling", "targets")  # options that only methods with a regression loss have


def single_spec(make: MakeSpec[SpecT], section: SingleSection, dataset: str, options: SingleOptions) -> SpecT:
    """The run described by `run:` in params.yaml, overridden by `options`.

    Raises:
        UserError: an option has no effect on this run.
    """
    default, training = section.run, section.training
    method = options.method or default.method
    check_class_options(method, classes=options.classes, lam=options.lam)
    loss = (options.loss or training.loss) if has_regression_loss(method) else None
    if not loss and (unused := [name for name in OF_REGRESSION if getattr(options, name, None)]):
        raise UserError(f"method {method} has no regression loss: leave out --{unused[0].replace('_', '-')}, or choose --method reg+cls")
    if loss != "huber" and options.huber_delta:
        raise UserError(f"loss {loss} has no δ: leave out --huber-delta, or choose --loss huber")
    if not has_class_loss(method) and options.loss_scaling:
        raise UserError(f"method {method} has only one loss to scale: leave out --loss-scaling, or choose --method {method}+cls")
    balanced_data = default.balanced_data if options.balanced_data is None else options.balanced_data
    if not is_balanced(method) and not balanced_data and options.rounding:
        raise UserError(NOTHING_TO_ROUND.format(method=method))
    classes = options.classes or default.classes
    spec = make(
        section,
        dataset,
        method=method,
        classes=classes,
        lam=options.lam or training.lam_for(classes),
        balanced_data=balanced_data,
        seed=training.seeds[0] if options.seed is None else options.seed,
    )
    changed: dict[str, Any] = {name: value for name in PLAIN if (value := getattr(options, name, None)) is not None}
    if loss == "huber":
        changed["huber_delta"] = options.huber_delta or training.huber_delta
    if options.loss_scaling:
        changed["loss_scaling"] = _scaling(options.loss_scaling, method, spec.lam or 1.0)
    return replace(spec, **changed)
