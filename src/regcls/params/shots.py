"""Parameters of shot groups: which targets are many, medium and few."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from numpy.typing import ArrayLike
from pydantic import Field

from regcls.errors import UserError
from regcls.metrics import ShotGroups
from regcls.params.types import STRICT, Natural, NotNegative


@dataclass(frozen=True, kw_only=True)
class _Limits:
    """The limits between the groups, on the number of training samples that share a target's bin."""

    by: str

    def check(self, path: Path, name: str) -> None:
        """Raise a UserError if a target could be many and few at once; `name`: of the data set."""
        few, many = (getattr(self, limit) for limit in ("few_below", "many_above"))
        if few > many + (self.by == "integer"):
            raise UserError(f"{path}: {name}.shots: few_below = {few:g} and many_above = {many:g} overlap: a target would be both")


@dataclass(frozen=True, kw_only=True)
class IntegerShots(_Limits):
    """Shot groups by the number of training samples with the target's integer part: the benchmark's rule."""

    by: Literal["integer"]
    many_above: Natural
    few_below: Natural
    __pydantic_config__ = STRICT

    def groups(self, training: ArrayLike) -> ShotGroups:
        """The groups that training targets (N,) make."""
        return ShotGroups.by_integer(training, many_above=self.many_above, few_below=self.few_below)


@dataclass(frozen=True, kw_only=True)
class DensityShots(_Limits):
    """Shot groups by the number of training samples in the target's bin, in multiples of the mean over bins: for targets of any range."""

    by: Literal["density"]
    bins: Annotated[int, Field(ge=1, le=2**16)]
    many_above: NotNegative
    few_below: NotNegative
    __pydantic_config__ = STRICT

    def groups(self, training: ArrayLike) -> ShotGroups:
        """The groups that training targets (N,) make."""
        return ShotGroups.by_density(training, bins=self.bins, many_above=self.many_above, few_below=self.few_below)


Shots = Annotated[IntegerShots | DensityShots, Field(discriminator="by")]
