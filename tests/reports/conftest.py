from dataclasses import replace

import pandas as pd
import pytest

from regcls.params import Params
from regcls.tasks.functions.runs import FunctionSpec
from reports.made_up import prints, small_params, tracked, with_section


@pytest.fixture(scope="session")
def small() -> Params:
    """Small data sets, and grids of their own on functions: drawing panels takes most of the time, and params.yaml's grids may change."""
    params = small_params()
    grids = params.datasets["functions"].grids
    values = {
        "figure3": {"settings": ("clean", "noisy", "ood"), "classes": (4, 16), "repetitions": 2},
        "figure4": {"classes": (16,), "lambdas": (1.0, 100.0), "repetitions": 1},
        "figure5": {"classes": (4, 16), "repetitions": 1},
    }
    return with_section(
        params, "functions", grids={name: replace(grids[name], samplings=("uniform", "severe"), **values[name]) for name in values}
    )


@pytest.fixture(scope="session")
def fingerprints(small: Params) -> dict[FunctionSpec, str]:
    return prints(small)


@pytest.fixture
def runs(fingerprints: dict[FunctionSpec, str]) -> pd.DataFrame:
    return tracked(fingerprints)
