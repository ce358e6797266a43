"""Params -> the list of runs to make. A RunSpec is everything that decides a run's result, but data and code."""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from regcls.errors import UserError
from regcls.params import Grid, Method, Optimizer, Precision, RunOptions, Sampling, Setting, Synthetic


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One tracked run of the 1D study: one network for each of the ten functions, on one repetition of one data set."""

    dataset: str
    setting: Setting
    sampling: Sampling
    noise: float  # σ of the noise on y; 0 unless the setting is noisy
    method: Method
    classes: int  # C, before classes are merged; 0 for reg
    lam: float | None  # λ of Eq. 4; None for reg
    repetition: int
    data_seed: int
    seed: int
    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    optimizer: Optimizer
    learning_rate: float
    weight_decay: float
    precision: Precision

    @property
    def balanced(self) -> bool:
        """Whether the classes are equalised (Eq. 12) and kept with ρ (Eq. 13)."""
        return self.method == "reg+cls-bal"

    @property
    def data_key(self) -> str:
        """The prepared data that the run sees: `clean`, `ood`, `noisy-0.1`."""
        return data_key(self.setting, self.noise)

    @property
    def name(self) -> str:
        """For a list of runs: `noisy-0.1-severe · reg+cls · 64 · λ 1000 · seed 421`."""
        parts = [f"{self.data_key}-{self.sampling}", self.method]
        if self.method != "reg":
            parts += [str(self.classes), f"λ {self.lam:g}"]
        return " · ".join([*parts, f"seed {self.seed}"])

    def params(self) -> dict[str, str]:
        """Every field as MLflow keeps it; `lam` goes by its name, lambda. A field that does not apply is left out."""
        out = {("lambda" if key == "lam" else key): _text(value) for key, value in asdict(self).items()}
        return {key: value for key, value in out.items() if value != "None"}

    def digest(self) -> str:
        """SHA-256 of the fields, the same on every machine."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a finished run leaves behind."""

    metrics: Mapping[str, float]  # final: train_mse, val_mse, test_mse (means over the functions), functions/test_mse_0 …
    history: Mapping[str, Sequence[float]]  # metric -> its values after epochs 1, 2, …; the last one is the final value
    weights: Mapping[str, np.ndarray]  # "<function>/<torch parameter name>"
    started: float  # Unix seconds
    ended: float


def _text(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def data_key(setting: Setting, noise: float) -> str:
    """The name of the prepared data of a setting: `clean`, `ood`, `noisy-0.1`."""
    return f"noisy-{noise:g}" if setting == "noisy" else setting


def fingerprint(spec: RunSpec, *, data_digest: str, code_digest: str) -> str:
    """Two runs with the same fingerprint give the same numbers: spec, prepared data and code are the same."""
    return hashlib.sha256(f"{spec.digest()} {data_digest} {code_digest}".encode()).hexdigest()[:32]


def expand(synthetic: Synthetic, grid: Grid) -> list[RunSpec]:
    """All runs of a grid, `reg` once for each data set, in a fixed order."""
    specs: dict[RunSpec, None] = {}  # an ordered set
    for repetition, setting, sampling in itertools.product(range(grid.repetitions), grid.settings, grid.samplings):
        for noise in grid.noise if setting == "noisy" else (0.0,):
            for method, classes in itertools.product(grid.methods, grid.classes):
                for lam in (None,) if grid.lambdas == "default" else grid.lambdas:
                    specs[
                        make_spec(
                            synthetic,
                            setting=setting,
                            sampling=sampling,
                            noise=noise,
                            method=method,
                            classes=classes,
                            lam=lam,
                            repetition=repetition,
                        )
                    ] = None
    return list(specs)


def all_specs(synthetic: Synthetic) -> list[RunSpec]:
    """The runs of all grids, each once."""
    return list(dict.fromkeys(itertools.chain.from_iterable(expand(synthetic, grid) for grid in synthetic.grids.values())))


def make_spec(
    synthetic: Synthetic,
    *,
    setting: Setting,
    sampling: Sampling,
    noise: float,
    method: Method,
    classes: int,
    lam: float | None,
    repetition: int,
) -> RunSpec:
    """A run with params.yaml's training values; `lam` None takes the setting's. What does not apply is blanked: equal runs are equal."""
    training = synthetic.training
    return RunSpec(
        dataset="synthetic",
        setting=setting,
        sampling=sampling,
        noise=float(noise) if setting == "noisy" else 0.0,
        method=method,
        classes=0 if method == "reg" else classes,
        lam=None if method == "reg" else float(training.lam[setting] if lam is None else lam),
        repetition=repetition,
        data_seed=synthetic.data.data_seeds[repetition],
        seed=training.seeds[repetition],
        hidden=training.hidden,
        epochs=training.epochs,
        batch_size=training.batch_size,
        optimizer=training.optimizer,
        learning_rate=training.learning_rate[setting],
        weight_decay=training.weight_decay,
        precision=training.precision,
    )


def single_spec(synthetic: Synthetic, options: RunOptions) -> RunSpec:
    """The run that params.yaml's `run:` describes, with `options` over it.

    Raises:
        UserError: an option that would be ignored, or data that is not prepared.
    """
    default, data = synthetic.run, synthetic.data
    setting = options.setting or default.setting
    method = options.method or default.method
    repetition = default.repetition if options.repetition is None else options.repetition
    noise = options.noise or default.noise
    if method == "reg" and (options.classes or options.lam):
        raise UserError("method reg has no classes and no λ: leave out --classes and --lambda, or choose --method reg+cls")
    if setting != "noisy" and options.noise:
        raise UserError(f"setting {setting} has no noise: leave out --noise, or choose --setting noisy")
    if repetition >= data.repetitions:
        raise UserError(
            f"--repetition = {repetition}: only 0 to {data.repetitions - 1} are prepared (synthetic.data.repetitions in params.yaml)"
        )
    if setting == "noisy" and noise not in data.noise:
        raise UserError(f"--noise = {noise:g}: prepared are {', '.join(map(str, data.noise))} (synthetic.data.noise in params.yaml)")
    spec = make_spec(
        synthetic,
        setting=setting,
        sampling=options.sampling or default.sampling,
        noise=noise,
        method=method,
        classes=options.classes or default.classes,
        lam=options.lam,
        repetition=repetition,
    )
    training = ("seed", "hidden", "epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "precision")
    return replace(spec, **{name: value for name in training if (value := getattr(options, name)) is not None})
