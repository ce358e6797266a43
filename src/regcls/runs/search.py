"""The search for λ: which value has the lowest validation error."""

import math
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from regcls.runs import RunSpec

Spec = TypeVar("Spec", bound=RunSpec)
Key = TypeVar("Key", bound=Hashable)


def lowest_lambdas(errors: Mapping[Spec, float], key: Callable[[Spec], Key]) -> dict[Key, float]:
    """The λ with the lowest validation error, the mean over its seeds, for each `key` of a run: `errors` by run.

    Of equal ones the smallest λ is taken; one whose error is not finite, never.
    """
    values: dict[Key, dict[float, list[float]]] = {}
    for spec, error in errors.items():
        if spec.lam is not None:
            values.setdefault(key(spec), {}).setdefault(spec.lam, []).append(error)
    means = {found: {lam: sum(some) / len(some) for lam, some in sorted(by_lam.items())} for found, by_lam in values.items()}
    usable = {found: {lam: mean for lam, mean in by_lam.items() if math.isfinite(mean)} for found, by_lam in means.items()}
    return {found: min(by_lam, key=by_lam.__getitem__) for found, by_lam in usable.items() if by_lam}


def whole_search(errors: Mapping[Spec, float], wanted: Mapping[Spec, object], key: Callable[[Spec], Key]) -> dict[Key, float]:
    """`lowest_lambdas` of those keys of which every wanted run has an error: half a search would choose another λ than the whole one."""
    half = {key(spec) for spec in wanted if spec not in errors}
    return {found: lam for found, lam in lowest_lambdas(errors, key).items() if found not in half}
