"""Params -> the list of runs to make. A RunSpec is all that decides a run's result, but data and code; each task has its own."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import ClassVar

import numpy as np
import pandas as pd

from regcls.choices import Rounding
from regcls.methods import code_of, is_balanced
from regcls.params.types import Optimizer

NO_CLASSES = "method {method} has no classes and no λ: leave out --classes and --lambda, or choose one with +cls"
NOTHING_TO_ROUND = "method {method} has no balanced classes: leave out --rounding, or choose one with +cls-bal"


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """What every tracked run has."""

    task: ClassVar[str]
    dataset: str
    method: str  # see methods/
    classes: int  # C, before classes are merged; 0 without a class loss
    lam: float | None  # λ of Eq. 4; None without a class loss
    rounding: Rounding | None  # of Eq. 12; None where nothing is equalised
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
        """For a list of runs. Lists cut long names, so what differs comes first: `reg+cls 100 λ0.1 s0 · imdb_wiki`."""
        classes = [str(self.classes), f"λ{self.lam:g}"] if self.classes else []
        return f"{' '.join([self.method, *classes, f's{self.seed}'])} · {self._data_words()}"

    @property
    def data_name(self) -> str:
        """The training data, for MLflow's list of data sets."""
        return self.dataset

    def _data_words(self) -> str:
        return self.dataset

    def params(self) -> dict[str, str]:
        """Every field as MLflow keeps it; `lam` goes by its name, lambda. A field that does not apply is left out."""
        out = {("lambda" if key == "lam" else key): _text(value) for key, value in asdict(self).items()}
        return {key: value for key, value in out.items() if value != "None"}

    def tags(self) -> dict[str, str]:
        """What runs are found and grouped by."""
        names = {"task": self.task, "dataset": self.dataset, "method": self.method, "classes": self.classes, "seed": self.seed}
        return {key: str(value) for key, value in names.items()} | {"balanced": str(self.balanced).lower()}

    def digest(self) -> str:
        """SHA-256 of the fields, the same on every machine."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a finished run of many small networks leaves behind."""

    metrics: Mapping[str, float]  # final: test/mse/all (the mean over parts), test/mse/function_0, test/rmse/coffee …
    history: Mapping[str, Sequence[float]]  # metric -> its values after epochs 1, 2, …; the last one is the final value
    weights: Mapping[str, np.ndarray]  # "<function>/<torch parameter name>", or an activity's name instead of the function
    started: float  # Unix seconds
    ended: float
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # artifact path (*.parquet) -> table


def _text(value: object) -> str:
    if isinstance(value, tuple):  # whole numbers as 6x15, a range as 0.0, 100.0
        return ("x" if all(isinstance(part, int) for part in value) else ", ").join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def fingerprint(spec: RunSpec, *, data_digest: str, code_digest: str) -> str:
    """Two runs with the same fingerprint give the same numbers: spec, prepared data and code, that of the method with it, are the same."""
    return hashlib.sha256(f"{spec.digest()} {data_digest} {code_digest}{code_of(spec.method)}".encode()).hexdigest()[:32]
