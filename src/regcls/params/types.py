"""The field's terms and the kinds of number that params.yaml may hold."""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field

Scale = Literal["demo", "paper"]
Method = Literal["reg", "reg+cls", "reg+cls-bal"]
VideoMethod = Literal["random", "kukleva", "reg", "reg+cls", "reg+cls-bal"]  # the first is not trained, the second has sigmoids
Optimizer = Literal["adam", "sgd"]
Rounding = Literal["ceil", "floor", "round"]  # as in classes.py

T = TypeVar("T")


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) != len(values):
        raise ValueError("a value stands in the list twice")
    return values


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Classes = Annotated[int, Field(ge=2)]  # one class has nothing to tell apart
Seed = Annotated[int, Field(ge=0, lt=2**32)]
OneOrMore = Annotated[tuple[T, ...], Field(min_length=1), AfterValidator(_distinct)]

STRICT = ConfigDict(extra="forbid", strict=True)
FROM_TEXT = ConfigDict(extra="forbid")  # options of the command line: not strict, since all comes as text
