"""Runs of the 1D study."""

import itertools
from dataclasses import dataclass, replace
from typing import ClassVar

from regcls.errors import UserError
from regcls.methods import engine_loss, has_class_loss, has_classes, is_balanced
from regcls.params.types import Precision
from regcls.runs import NOTHING_TO_ROUND, RunSpec, check_class_options
from regcls.tasks.functions.params import FunctionGrid, FunctionOptions, Functions, Sampling, Setting


@dataclass(frozen=True, kw_only=True)
class FunctionSpec(RunSpec):
    """A run: one network for each of the ten functions, on one repetition of one data set."""

    task: ClassVar[str] = "functions"
    setting: Setting
    sampling: Sampling
    noise: float  # σ of the noise on y; 0 unless the setting is noisy
    repetition: int
    data_seed: int
    hidden: tuple[int, ...]
    precision: Precision
    scale: float = 1.0  # factor of both losses
    extra_loss: bool = False  # measure likelihoods while training

    @property
    def data_key(self) -> str:
        """The prepared data of the run: `clean`, `ood`, `noisy-0.1`."""
        return data_key(self.setting, self.noise)

    @property
    def data_name(self) -> str:
        """`functions/noisy-0.1-severe/0`."""
        return f"{self.dataset}/{self.data_key}-{self.sampling}/{self.repetition}"

    def _data_words(self) -> str:
        """The end of `reg+cls 64 λ1000 s421 · noisy-0.1-severe functions`."""
        return f"{self.data_key}-{self.sampling} {self.dataset}"

    def tags(self) -> dict[str, str]:
        """RunSpec's tags and the repetition."""
        return super().tags() | {"repetition": str(self.repetition)}


def data_key(setting: Setting, noise: float) -> str:
    """The name of the prepared data of a setting: `clean`, `ood`, `noisy-0.1`."""
    return f"noisy-{noise:g}" if setting == "noisy" else setting


def expand(functions: Functions, dataset: str, grid: FunctionGrid) -> list[FunctionSpec]:
    """The runs of a grid, `reg` once per data set, in a fixed order."""
    specs: dict[FunctionSpec, None] = {}  # an ordered set
    for repetition, setting, sampling in itertools.product(range(grid.repetitions), grid.settings, grid.samplings):
        for noise in grid.noise if setting == "noisy" else (0.0,):
            for method, classes in itertools.product(grid.methods, grid.classes):
                for lam in (None,) if grid.lambdas == "default" else grid.lambdas:
                    spec = make_spec(
                        functions,
                        dataset,
                        setting=setting,
                        sampling=sampling,
                        noise=noise,
                        method=method,
                        classes=classes,
                        lam=lam,
                        repetition=repetition,
                    )
                    specs |= {_unscaled(replace(spec, extra_loss=grid.extra_loss, **varied)): None for varied in grid.vary.combinations()}
    return list(specs)


def all_specs(functions: Functions, dataset: str) -> list[FunctionSpec]:
    """The runs of all grids without duplicates."""
    return list(dict.fromkeys(itertools.chain.from_iterable(expand(functions, dataset, grid) for grid in functions.grids.values())))


def make_spec(
    functions: Functions,
    dataset: str,
    *,
    setting: Setting,
    sampling: Sampling,
    noise: float,
    method: str,
    classes: int,
    lam: float | None,
    repetition: int,
) -> FunctionSpec:
    """A run with the training values of params.yaml; `lam` None: that of the setting.

    Fields that do not apply are blanked, so that equal runs have equal specs.
    """
    training = functions.training
    return FunctionSpec(
        dataset=dataset,
        setting=setting,
        sampling=sampling,
        noise=float(noise) if setting == "noisy" else 0.0,
        method=method,
        classes=classes if has_classes(method) else 0,
        lam=float(training.lam[setting] if lam is None else lam) if has_class_loss(method) else None,
        rounding=training.rounding if is_balanced(method) else None,
        repetition=repetition,
        data_seed=functions.data.data_seeds[repetition],
        seed=training.seeds[repetition],
        hidden=training.hidden,
        epochs=training.epochs,
        batch_size=training.batch_size,
        optimizer=training.optimizer,
        learning_rate=training.learning_rate[setting],
        weight_decay=training.weight_decay,
        precision=training.precision,
        scale=training.scale,
    )


def _unscaled(spec: FunctionSpec) -> FunctionSpec:
    """The same training with scale 1, if there is one.

    Without weight decay only the product of scale and learning rate counts for gradient descent (but not for a parameter of the loss, which
    has a learning rate of its own), and Adam's steps do not depend on the scale, up to its ε.
    """
    if spec.scale == 1 or spec.weight_decay or ((loss := engine_loss(spec.method)) and loss.learned):
        return spec
    rate = spec.scale * spec.learning_rate if spec.optimizer == "sgd" else spec.learning_rate
    return replace(spec, scale=1.0, learning_rate=float(f"{rate:.12g}"))


# Options that replace a value of the spec.
FREE = (
    *("rounding", "seed", "hidden", "epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "precision"),
    *("scale", "extra_loss"),
)


def single_spec(functions: Functions, dataset: str, options: FunctionOptions) -> FunctionSpec:
    """The run described by `run:` in params.yaml, overridden by `options`.

    Raises:
        UserError: an option has no effect on this run, or asks for data that are not prepared.
    """
    default, data = functions.run, functions.data
    setting, sampling = options.setting or default.setting, options.sampling or default.sampling
    method = options.method or default.method
    repetition = default.repetition if options.repetition is None else options.repetition
    noise = options.noise or default.noise
    check_class_options(method, classes=options.classes, lam=options.lam)
    if not is_balanced(method) and options.rounding:
        raise UserError(NOTHING_TO_ROUND.format(method=method))
    if setting != "noisy" and options.noise:
        raise UserError(f"setting {setting} has no noise: leave out --noise, or choose --setting noisy")
    if repetition >= data.repetitions:
        raise UserError(
            f"--repetition = {repetition}: only 0 to {data.repetitions - 1} are prepared ({dataset}.data.repetitions in params.yaml)"
        )
    for name, value, prepared in (("setting", setting, data.settings), ("sampling", sampling, data.samplings)):
        if value not in prepared:
            raise UserError(f"--{name} = {value}: prepared are {', '.join(prepared)} ({dataset}.data.{name}s in params.yaml)")
    if setting == "noisy" and noise not in data.noise:
        raise UserError(f"--noise = {noise:g}: prepared are {', '.join(map(str, data.noise))} ({dataset}.data.noise in params.yaml)")
    spec = make_spec(
        functions,
        dataset,
        setting=setting,
        sampling=sampling,
        noise=noise,
        method=method,
        classes=options.classes or default.classes,
        lam=options.lam,
        repetition=repetition,
    )
    changed = {name: value for name in FREE if (value := getattr(options, name)) is not None}
    return replace(spec, **changed)
