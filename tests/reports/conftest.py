from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from regcls.params import Params, load_params
from regcls.tasks.functions.runs import FunctionSpec
from reports.made_up import prints, tracked

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(scope="session")
def demo() -> Params:
    """The real parameters with small grids of their own: drawing panels takes most of the time, and params.yaml's demo may change."""
    params = load_params(PARAMS, scale="demo")
    small = {
        "figure3": {"settings": ("clean", "noisy", "ood"), "classes": (4, 16), "repetitions": 2},
        "figure4": {"classes": (16,), "lambdas": (1.0, 100.0), "repetitions": 1},
        "figure5": {"classes": (4, 16), "repetitions": 1},
    }
    grids = {name: replace(params.synthetic.grids[name], samplings=("uniform", "severe"), **values) for name, values in small.items()}
    return replace(params, synthetic=replace(params.synthetic, grids=grids))


@pytest.fixture(scope="session")
def fingerprints(demo: Params) -> dict[FunctionSpec, str]:
    return prints(demo)


@pytest.fixture
def runs(fingerprints: dict[FunctionSpec, str]) -> pd.DataFrame:
    return tracked(fingerprints)
