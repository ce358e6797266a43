"""The runs on faces: one network each."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from regcls.errors import UserError
from regcls.params.faces import SEARCH, Backbone, FaceGrid, FaceOptions, FacePrecision, Faces, RegressionLoss, Scaling
from regcls.params.types import Method
from regcls.runs import RunSpec

Found = Mapping[tuple[Method, int], float]  # (method, C) -> λ with the lowest validation error


@dataclass(frozen=True, kw_only=True)
class FaceSpec(RunSpec):
    """One tracked run: one network, trained on the images of one data set."""

    balanced_data: bool  # Table 4: samples enter both losses with ρ of `balanced_bins` equalised ranges
    balanced_bins: int
    size: int  # pixels of a side of the images
    model: Backbone
    width: int  # channels of the first stage
    class_range: tuple[float, float]  # targets that the C ranges cover
    loss: RegressionLoss
    huber_delta: float
    loss_scaling: Scaling
    milestones: tuple[int, ...]  # epochs after which the learning rate is multiplied with `decay`
    decay: float
    accumulate: int  # batches a step of the optimizer
    precision: FacePrecision
    pad: int  # pixels on each side before the random crop
    flip: float  # probability
    many_above: int  # training images of an age, for the metrics
    few_below: int

    def _data_words(self) -> list[str]:
        """As in `imdb_wiki balanced · reg+cls · 100 · λ 0.1 · seed 0`."""
        return [f"{self.dataset} balanced" if self.balanced_data else self.dataset]

    def tags(self) -> dict[str, str]:
        """With whether the data are balanced."""
        return super().tags() | {"balanced_data": str(self.balanced_data).lower()}


def expand(faces: Faces, dataset: str, grid: FaceGrid, found: Found) -> list[FaceSpec]:
    """The runs of a grid, `reg` once for each seed, in a fixed order: all methods of a seed, then the next seed.

    Where λ is to be searched and `found` does not have it yet, a run is left out.
    """
    specs: dict[FaceSpec, None] = {}  # an ordered set
    for seed, method, classes in itertools.product(faces.training.seeds[: grid.seeds], grid.methods, grid.classes):
        for lam in _lambdas(faces, grid, method, classes, found):
            specs[make_spec(faces, dataset, method=method, classes=classes, lam=lam, balanced_data=grid.balanced_data, seed=seed)] = None
    return list(specs)


def _lambdas(faces: Faces, grid: FaceGrid, method: Method, classes: int, found: Found) -> tuple[float, ...]:
    if method == "reg" or grid.lambdas == "default":
        return (faces.training.lam_for(classes),)
    if grid.lambdas == "searched":
        lam = searched_lambda(faces, found, method, classes)
        return () if lam is None else (lam,)
    return grid.lambdas


def searched_lambda(faces: Faces, found: Found, method: Method, classes: int) -> float | None:
    """λ of the search, None as long as it is not known. reg+cls-bal takes that of reg+cls where it is not searched for itself."""
    return found.get((method if method in faces.grids[SEARCH].methods else "reg+cls", classes))


def all_specs(faces: Faces, dataset: str, found: Found) -> list[FaceSpec]:
    """The runs of all grids, each once; those of the search for λ first."""
    names = sorted(faces.grids, key=lambda name: name != SEARCH)
    return list(dict.fromkeys(spec for name in names for spec in expand(faces, dataset, faces.grids[name], found)))


def needs_search(faces: Faces) -> bool:
    """Whether some grid takes its λ from the search."""
    return any(grid.lambdas == "searched" and grid.seeds for grid in faces.grids.values())


def search_specs(faces: Faces, dataset: str) -> list[FaceSpec]:
    """The runs of the search for λ."""
    return expand(faces, dataset, faces.grids[SEARCH], {}) if SEARCH in faces.grids else []


def chosen_lambdas(errors: Mapping[FaceSpec, float]) -> Found:
    """The λ with the lowest validation error, the mean over its seeds, of each (method, C): `errors` by run.

    Of equal ones the smallest λ is taken; one whose error is not finite, never.
    """
    values: dict[tuple[Method, int], dict[float, list[float]]] = {}
    for spec, error in errors.items():
        if spec.lam is not None:
            values.setdefault((spec.method, spec.classes), {}).setdefault(spec.lam, []).append(error)
    means = {key: {lam: sum(found) / len(found) for lam, found in sorted(by_lam.items())} for key, by_lam in values.items()}
    usable = {key: {lam: mean for lam, mean in by_lam.items() if math.isfinite(mean)} for key, by_lam in means.items()}
    return {key: min(by_lam, key=by_lam.__getitem__) for key, by_lam in usable.items() if by_lam}


def make_spec(faces: Faces, dataset: str, *, method: Method, classes: int, lam: float, balanced_data: bool, seed: int) -> FaceSpec:
    """A run with params.yaml's training values. What does not apply is blanked: equal runs are equal."""
    training = faces.training
    return FaceSpec(
        dataset=dataset,
        method=method,
        classes=0 if method == "reg" else classes,
        lam=None if method == "reg" else float(lam),
        seed=seed,
        epochs=training.epochs,
        batch_size=training.batch_size,
        optimizer=training.optimizer,
        learning_rate=training.balanced_learning_rate if balanced_data else training.learning_rate,
        weight_decay=training.weight_decay,
        balanced_data=balanced_data,
        balanced_bins=training.balanced_bins if balanced_data else 0,
        size=faces.data.size,
        model=training.model,
        width=training.width,
        class_range=(0.0, 0.0) if method == "reg" and not balanced_data else training.class_range,
        loss=training.loss,
        huber_delta=training.huber_delta if training.loss == "huber" else 0.0,
        loss_scaling=_scaling(training.loss_scaling, method, lam),
        milestones=training.milestones,
        decay=training.decay,
        accumulate=training.accumulate,
        precision=training.precision,
        pad=training.pad,
        flip=training.flip,
        many_above=faces.shots.many_above,
        few_below=faces.shots.few_below,
    )


def _scaling(scaling: Scaling, method: Method, lam: float) -> Scaling:
    """Of λ > 1, and without classes, the two are the same."""
    return "eq4" if method == "reg" or lam > 1 else scaling


def single_spec(faces: Faces, dataset: str, options: FaceOptions) -> FaceSpec:
    """The run that params.yaml's `run:` describes, with `options` over it.

    Raises:
        UserError: an option that would be ignored.
    """
    default, training = faces.run, faces.training
    method = options.method or default.method
    if method == "reg" and (options.classes or options.lam):
        raise UserError("method reg has no classes and no λ: leave out --classes and --lambda, or choose --method reg+cls")
    loss = options.loss or training.loss
    if loss != "huber" and options.huber_delta:
        raise UserError(f"loss {loss} has no δ: leave out --huber-delta, or choose --loss huber")
    if method == "reg" and options.loss_scaling:
        raise UserError("method reg has one loss, nothing to scale: leave out --loss-scaling, or choose --method reg+cls")
    classes = options.classes or default.classes
    spec = make_spec(
        faces,
        dataset,
        method=method,
        classes=classes,
        lam=options.lam or training.lam_for(classes),
        balanced_data=default.balanced_data if options.balanced_data is None else options.balanced_data,
        seed=training.seeds[0] if options.seed is None else options.seed,
    )
    names = ("model", "width", "loss", "epochs", "batch_size", "accumulate", "optimizer", "learning_rate", "weight_decay", "precision")
    changed: dict[str, Any] = {name: value for name in names if (value := getattr(options, name)) is not None}
    if loss == "huber":
        changed["huber_delta"] = options.huber_delta or training.huber_delta
    if options.loss_scaling:
        changed["loss_scaling"] = _scaling(options.loss_scaling, method, spec.lam or 1.0)
    return replace(spec, **changed)
