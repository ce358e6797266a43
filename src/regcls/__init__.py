"""Does a classification loss next to the regression loss help on imbalanced continuous targets?"""

from typing import Any

__all__ = ["advise"]


def __getattr__(name: str) -> Any:
    if name != "advise":
        raise AttributeError(f"module regcls has no attribute {name}")
    from regcls.api import advise  # here: it imports PyTorch and MLflow, which takes seconds

    return advise
