"""Run specs: all that decides a run's result except data and code. Each task has its own subclass of RunSpec."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import ClassVar

import numpy as np
import pandas as pd

from regcls.choices import Rounding
from regcls.errors import UserError
from regcls.methods import code_of, has_class_loss, has_classes, is_balanced
from regcls.params.types import Optimizer

NOTHING_TO_ROUND = "method {method} has no balanced classes: leave out --rounding, or choose one with +cls-bal"


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """The fields shared by all tracked runs."""

    task: ClassVar[str]
    dataset: str
    method: str  # see methods/
    classes: int  # C, before classes are merged; 0 without classes
    lam: float | None  # λ of Eq. 4; None with only one loss
    rounding: Rounding | None  # of Eq. 12; None if nothing is equalised
    seed: int
    epochs: int
    batch_size: int
    optimizer: Optimizer
    learning_rate: float
    weight_decay: float

    @property
    def balanced(self) -> bool:
        """Whether the classes are equalised (Eq. 12) and kept with ρ (Eq. 13)."""
        return is_balanced(self.method)

    @property
    def name(self) -> str:
        """Name in lists of runs: `reg+cls 100 λ0.1 s0 · imdb_wiki`. Lists truncate long names, so the fields that vary come first."""
        classes = [str(self.classes)] * (self.classes > 0) + ([] if self.lam is None else [f"λ{self.lam:g}"])
        return f"{' '.join([self.method, *classes, f's{self.seed}'])} · {self._data_words()}"

    @property
    def data_name(self) -> str:
        """Name of the training data in MLflow's list of data sets."""
        return self.dataset

    def _data_words(self) -> str:
        return self.dataset

    def params(self) -> dict[str, str]:
        """All fields as MLflow parameters; `lam` is named lambda. Fields that do not apply are left out."""
        texts = {("lambda" if key == "lam" else key): _text(value) for key, value in asdict(self).items()}
        return {key: text for key, text in texts.items() if text != "None"}

    def tags(self) -> dict[str, str]:
        """Tags to find and group runs by."""
        names = {"task": self.task, "dataset": self.dataset, "method": self.method, "classes": self.classes, "seed": self.seed}
        return {key: str(value) for key, value in names.items()} | {"balanced": str(self.balanced).lower()}

    def digest(self) -> str:
        """SHA-256 of the fields, identical on every machine.

        A field with a default is newer than runs without it. At its default it is left out, so that equal runs keep their digest.
        """
        defaults = {each.name: each.default for each in fields(self)}
        given = {name: value for name, value in asdict(self).items() if value != defaults[name]}
        canonical = json.dumps(given, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class CodeModel:
    """An MLflow model that takes a table and opens without this project: code of an mlflow.pyfunc model, and the files that it reads."""

    code: str  # a Python file, which ends with mlflow.models.set_model
    files: Mapping[str, bytes]  # name -> content; the model finds their paths by these names in `context.artifacts`
    columns: Sequence[str]  # of the table
    packages: Sequence[str]  # that it imports


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The result of a finished run of many small networks."""

    metrics: Mapping[str, float]  # final values: test/mse/all (mean over parts), test/mse/function_0, test/rmse/coffee …
    history: Mapping[str, Sequence[float]]  # metric -> values after epochs 1, 2, …; the last is the final value
    weights: Mapping[str, np.ndarray]  # "<function or activity>/<torch parameter name>"
    started: float  # Unix seconds
    ended: float
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # artifact path (*.parquet) -> table
    model: CodeModel | None = None


def check_class_options(method: str, *, classes: int | None, lam: float | None) -> None:
    """Raise a UserError if a class count or λ is given for a method that has none."""
    if (classes or lam) and not has_classes(method):
        raise UserError(f"method {method} has no classes and no λ: leave out --classes and --lambda, or choose one with +cls")
    if lam and not has_class_loss(method):
        raise UserError(f"method {method} has no λ: leave out --lambda, or choose one with +cls")


def _text(value: object) -> str:
    if isinstance(value, tuple):  # integers as 6x15, others as 0.0, 100.0
        return ("x" if all(isinstance(part, int) for part in value) else ", ").join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def fingerprint(spec: RunSpec, *, data_digest: str, code_digest: str) -> str:
    """Fingerprint of a run: equal fingerprints mean equal spec, prepared data and code (that of the method included), so equal results."""
    return hashlib.sha256(f"{spec.digest()} {data_digest} {code_digest}{code_of(spec.method)}".encode()).hexdigest()[:32]
