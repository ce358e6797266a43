"""Does a classification loss next to the regression loss help on imbalanced continuous targets?"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name != "advise":
        raise AttributeError(f"module regcls has no attribute {name}")
    return import_module("regcls.api").advise  # only now: it imports PyTorch and MLflow, which takes seconds
