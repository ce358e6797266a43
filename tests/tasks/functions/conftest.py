import pandas as pd
import pytest

from regcls.params import Params
from regcls.tasks.functions.runs import FunctionSpec
from tasks.functions import made_up_functions
from tasks.functions.made_up_functions import prints, tracked


@pytest.fixture(scope="session")
def small() -> Params:
    """Small data sets and grids."""
    return made_up_functions.small()


@pytest.fixture(scope="session")
def fingerprints(small: Params) -> dict[FunctionSpec, str]:
    return prints(small)


@pytest.fixture
def runs(fingerprints: dict[FunctionSpec, str]) -> pd.DataFrame:
    return tracked(fingerprints)
