"""The field's terms, the kinds of number that params.yaml may hold, and what the sections of all data sets share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field

from regcls.methods import canonical

Optimizer = Literal["adam", "sgd"]
Precision = Literal["float32", "float64"]  # of small networks

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
Method = Annotated[str, AfterValidator(canonical)]  # see methods/
OneOrMore = Annotated[tuple[T, ...], Field(min_length=1), AfterValidator(_distinct)]

STRICT = ConfigDict(extra="forbid", strict=True)
FROM_TEXT = ConfigDict(extra="forbid")  # options of the command line: not strict, since all comes as text


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the sections of all data sets have."""

    task: str
    title: Annotated[str, Field(min_length=1)]  # of its report
    published: str | None  # the paper's data set whose printed values stand beside the measured ones
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class TaskParams:
    """What params.yaml and the command line may say to a task."""

    section: type[Any]  # the dataclass of a data set's section, a `Section`
    options: type[Any]  # the dataclass of the options of `regcls run`; None leaves one to params.yaml
    check: Callable[[Path, str, Any], None]  # raises a UserError where values that are right one by one do not fit each other
    defaults: Callable[[Any], dict[str, str]]  # a section -> what `regcls run DATASET --help` says of the options' defaults
    purposes: Mapping[str, str]  # option -> what it is, where the task has words of its own
    example: str  # options of `regcls run DATASET`


def plain(section: object) -> dict[str, str]:
    """The fields of a section as text, for help."""
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in vars(section).items()}


def layer_widths(text: str) -> tuple[int, int]:
    """`6x15` -> (6, 15).

    Raises:
        ValueError: it is not so written.
    """
    first, _, second = text.replace(",", "x").partition("x")
    if not (first.isdecimal() and second.isdecimal()):
        raise ValueError("write the units of two layers, as in 6x15")
    return int(first), int(second)
