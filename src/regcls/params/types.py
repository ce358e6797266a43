"""Types of the values in params.yaml, and the base class of all data set sections."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field

from regcls.methods import Need, canonical

Optimizer = Literal["adam", "sgd"]
Precision = Literal["float32", "float64"]  # of small networks

SMALLEST, LARGEST = 1e-30, 1e30  # sizes of numbers that stay finite and above zero in float32, squared errors and products included

T = TypeVar("T")


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) != len(values):
        raise ValueError("a value is in the list twice")
    return values


def _in_range(value: float) -> float:
    if value and not SMALLEST <= abs(value) <= LARGEST:
        raise ValueError(f"networks compute in float32: write a number from {SMALLEST:g} to {LARGEST:g}")
    return value


Finite = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_in_range)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(_in_range)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_in_range)]
Share = Annotated[float, Field(ge=0, le=1)]
# No real use exceeds these limits; far larger numbers would only exhaust the memory, or overflow.
Natural = Annotated[int, Field(ge=0, le=10**9)]
Count = Annotated[int, Field(ge=1, le=10**9)]
Epochs = Annotated[int, Field(ge=1, le=10**6)]
BatchSize = Annotated[int, Field(ge=1, le=2**16)]
Units = Annotated[int, Field(ge=1, le=2**16)]  # of a hidden layer
Width = Annotated[int, Field(ge=1, le=2**10)]  # channels of a network's first stage
Pixels = Annotated[int, Field(ge=32, le=2**11)]
Classes = Annotated[int, Field(ge=2, le=2**16)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Method = Annotated[str, AfterValidator(canonical)]  # see methods/
OneOrMore = Annotated[tuple[T, ...], Field(min_length=1), AfterValidator(_distinct)]

STRICT = ConfigDict(extra="forbid", strict=True)
FROM_TEXT = ConfigDict(extra="forbid")  # for command-line options: not strict, since all values are text


@dataclass(frozen=True, kw_only=True)
class Section:
    """Base class of data set sections."""

    task: str
    title: Annotated[str, Field(min_length=1)]  # of its report
    published: str | None  # the paper's data set whose published values the report shows next to ours
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class TaskParams:
    """Parameters and command-line options of a task."""

    section: type[Any]  # dataclass of a data set's section, a `Section`
    options: type[Any]  # dataclass of the options of `regcls run`; None: as in params.yaml
    check: Callable[[Path, str, Any], None]  # raises a UserError if valid values of a section contradict each other
    defaults: Callable[[Any], dict[str, str]]  # section -> the options' defaults, for `regcls run DATASET --help`
    purposes: Mapping[str, str]  # option -> help text, where it differs from the common one
    example: str  # example options of `regcls run DATASET`
    provides: frozenset[Need] = frozenset()  # what its trainer has for methods that need it
    own: str = ""  # the file that `regcls new` takes, for --help; empty: none


def plain(section: object) -> dict[str, str]:
    """The fields of a section as text, for help texts."""
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in vars(section).items()}


def layer_widths(text: str) -> tuple[int, int]:
    """Parse `6x15` to (6, 15).

    Raises:
        ValueError: `text` has another form.
    """
    first, _, second = text.replace(",", "x").partition("x")
    if not (first.isdecimal() and second.isdecimal()):
        raise ValueError("write the units of two layers, as in 6x15")
    return int(first), int(second)
