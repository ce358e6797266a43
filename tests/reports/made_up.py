"""A plausible tracking store: what `Tracker.collect` would give, made up from a seed, for the parameters given."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regcls.params import Params, load_params
from regcls.tasks.functions.runs import FunctionSpec, all_specs

PARAMS = Path(__file__).parents[2] / "params.yaml"
SMALL = {"functions": "functions_small", "imdb_wiki": "portraits", "nyud2": "rooms", "breakfast": "walks"}
LEVEL = {"clean": 0.15, "noisy": 0.14, "ood": 1.0}
STEP = {"uniform": 0.0, "mild": 0.15, "moderate": 0.24, "severe": 0.25}
FUNCTIONS = 10
SPLITS = (("train", 0.8), ("val", 0.98), ("test", 1.0))


def small_params() -> Params:
    """params.yaml with a small data set in the place of each of the paper's, whose values stand beside."""
    params = load_params(PARAMS)
    small = {name: replace(params.datasets[other], title=params.datasets[name].title, published=name) for name, other in SMALL.items()}
    return replace(params, chosen=tuple(small), datasets={**params.datasets, **small})


def with_section(params: Params, dataset: str, **values: Any) -> Params:
    """`params` with other values in the section of a data set."""
    return replace(params, datasets={**params.datasets, dataset: replace(params.datasets[dataset], **values)})


def prints(params: Params) -> dict[FunctionSpec, str]:
    """A stand-in for the fingerprints: unique, the same every time."""
    return {spec: spec.digest()[:32] for spec in all_specs(params.datasets["functions"], "functions")}


def tracked(fingerprints: Mapping[FunctionSpec, str]) -> pd.DataFrame:
    """A finished run for each spec: MSE rises with imbalance, and a class loss takes some of that away."""
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
            | {f"{split}_mse": test.mean() * factor for split, factor in SPLITS}
            | {f"functions/{split}_mse_{f}": test[f] * factor for split, factor in SPLITS for f in range(FUNCTIONS)}
        )
    return pd.DataFrame(rows)


class MadeUpLinks:
    """Those of `mlflow ui`, in short."""

    def run_url(self, run_id: str) -> str:
        return f"http://127.0.0.1:5000/#/experiments/1/runs/{run_id}"

    def runs_url(self, tag: str, value: str) -> str:
        return f"http://127.0.0.1:5000/#/experiments/1/runs?searchFilter={tag}%20%3D%20{value}"

    def compare_url(self, run_ids: Sequence[str]) -> str:
        return f"http://127.0.0.1:5000/#/compare-runs?runs={','.join(run_ids)}"


class MadeUpSets:
    """Sine waves in place of the prepared data."""

    def get(self, data_key: str, sampling: str, function: int, repetition: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([len(data_key), len(sampling), len(split)])
        x = rng.uniform(-1, 1, 6000)
        if data_key == "ood":
            x = x[np.floor((x + 1) * 4.5).astype(int) % 3 == ("train", "val", "test").index(split)]
        y = 0.84 * np.sin(22 * x) + 0.66 * np.sin(7 * x) + (rng.normal(0, 0.1, x.shape) if data_key.startswith("noisy") else 0)
        near = np.abs(y - 0.4) < {"uniform": 9, "mild": 0.6, "moderate": 0.25, "severe": 0.08}[sampling]
        keep = near | (rng.uniform(size=x.shape) < 0.08)
        return x[keep].astype(np.float32), y[keep].astype(np.float32)
