from pathlib import Path

import pandas as pd
import pytest
from reports.made_up import prints, tracked

from regcls.params import Params, load_params
from regcls.runs import RunSpec

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(scope="session")
def demo() -> Params:
    return load_params(PARAMS, scale="demo")


@pytest.fixture(scope="session")
def fingerprints(demo: Params) -> dict[RunSpec, str]:
    return prints(demo)


@pytest.fixture
def runs(fingerprints: dict[RunSpec, str]) -> pd.DataFrame:
    return tracked(fingerprints)
