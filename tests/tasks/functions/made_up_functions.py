"""A plausible store of function runs, made up from a seed: what `Tracker.collect` would return, and the data."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from regcls.params import Params
from regcls.reports.report import Report
from regcls.tasks.functions import report
from regcls.tasks.functions.params import FunctionGrid
from regcls.tasks.functions.runs import FunctionSpec, all_specs
from reports.made_up import small_params, sources, with_section

LEVEL = {"clean": 0.15, "noisy": 0.14, "ood": 1.0}
STEP = {"uniform": 0.0, "mild": 0.15, "moderate": 0.24, "severe": 0.25}
FUNCTIONS = 10
SPLITS = (("train", 0.8), ("val", 0.98), ("test", 1.0))


def small() -> Params:
    """The small parameters with fixed grids: drawing panels takes most of the time, and params.yaml's grids may change."""
    params = small_params()
    grids = params.datasets["functions"].grids
    values = {
        "figure3": {"settings": ("clean", "noisy", "ood"), "classes": (4, 16), "repetitions": 2},
        "figure4": {"classes": (16,), "lambdas": (1.0, 100.0), "repetitions": 1},
        "figure5": {"classes": (4, 16), "repetitions": 1},
    }
    return with_grids(params, **{name: replace(grids[name], samplings=("uniform", "severe"), **values[name]) for name in values})


def with_grids(params: Params, **grids: FunctionGrid) -> Params:
    return with_section(params, "functions", grids=grids)


def prints(params: Params) -> dict[FunctionSpec, str]:
    """Replaces fingerprints: unique and reproducible."""
    return {spec: spec.digest()[:32] for spec in all_specs(params.datasets["functions"], "functions")}


def tracked(fingerprints: Mapping[FunctionSpec, str]) -> pd.DataFrame:
    """A finished run for each spec: MSE rises with imbalance, less so with a class loss."""
    rows: list[dict[str, Any]] = []
    for position, (spec, fingerprint) in enumerate(fingerprints.items()):
        shared = np.random.default_rng([spec.seed, 1]).normal(0, 0.02)
        own = np.random.default_rng(position).normal(0, 0.05, FUNCTIONS)
        mean = LEVEL[spec.setting] + STEP[spec.sampling] * (1.0 if spec.method == "reg" else 0.55) + shared
        if spec.lam is not None:
            mean += 0.5 / (1 + spec.lam)
        test = np.abs(mean * (1 + 0.3 * np.sin(np.arange(FUNCTIONS))) + own)
        rows.append(
            {"run_id": f"{position:032x}", "run_name": spec.name, "status": "FINISHED", "fingerprint": fingerprint}
            | {"started": 1e9 + position, "seconds": 4.0}
            | asdict(spec)
            | {"lam": np.nan if spec.lam is None else spec.lam}
            | {f"{split}/mse/all": test.mean() * factor for split, factor in SPLITS}
            | {f"{split}/mse/function_{f}": test[f] * factor for split, factor in SPLITS for f in range(FUNCTIONS)}
        )
    return pd.DataFrame(rows)


class MadeUpSets:
    """Sine waves that replace the prepared data."""

    functions = FUNCTIONS

    def get(self, data_key: str, sampling: str, function: int, repetition: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([len(data_key), len(sampling), len(split)])
        x = rng.uniform(-1, 1, 6000)
        if data_key == "ood":
            x = x[np.floor((x + 1) * 4.5).astype(int) % 3 == ("train", "val", "test").index(split)]
        y = 0.84 * np.sin(22 * x) + 0.66 * np.sin(7 * x) + (rng.normal(0, 0.1, x.shape) if data_key.startswith("noisy") else 0)
        near = np.abs(y - 0.4) < {"uniform": 9, "mild": 0.6, "moderate": 0.25, "severe": 0.08}[sampling]
        keep = near | (rng.uniform(size=x.shape) < 0.08)
        return x[keep].astype(np.float32), y[keep].astype(np.float32)


class Store:
    """All runs of params.yaml's grids on functions, finished."""

    def __init__(self, params: Params) -> None:
        self.params, self.fingerprints = params, prints(params)
        self.runs = tracked(self.fingerprints)

    def report(self, *, fingerprints: Mapping[FunctionSpec, str] | None = None, **changed: Any) -> Report:
        """The report, optionally with other `runs` or `params` than the store's own."""
        given = sources(**({"params": self.params, "dataset": "functions", "data": MadeUpSets(), "runs": self.runs} | changed))
        return report.report(given, fingerprints=fingerprints or self.fingerprints)
