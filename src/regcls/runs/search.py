"""The search for λ by validation error."""

import math
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from regcls.runs import RunSpec

Spec = TypeVar("Spec", bound=RunSpec)
Key = TypeVar("Key", bound=Hashable)


def lowest_lambdas(errors: Mapping[Spec, float], key: Callable[[Spec], Key]) -> dict[Key, float]:
    """For each `key` of a run, the λ with the lowest validation error, averaged over seeds; `errors`: by run.

    Of λ with equal errors, the smallest wins; λ whose error is not finite never do.
    """
    values: dict[Key, dict[float, list[float]]] = {}
    for spec, error in errors.items():
        if spec.lam is not None:
            values.setdefault(key(spec), {}).setdefault(spec.lam, []).append(error)
    means = {group: {lam: sum(seeds) / len(seeds) for lam, seeds in sorted(by_lam.items())} for group, by_lam in values.items()}
    usable = {group: {lam: mean for lam, mean in by_lam.items() if math.isfinite(mean)} for group, by_lam in means.items()}
    return {group: min(by_lam, key=by_lam.__getitem__) for group, by_lam in usable.items() if by_lam}


def whole_search(errors: Mapping[Spec, float], wanted: Mapping[Spec, object], key: Callable[[Spec], Key]) -> dict[Key, float]:
    """`lowest_lambdas` for the keys whose requested runs all have an error: a partial search could choose another λ than the full one."""
    incomplete = {key(spec) for spec in wanted if spec not in errors}
    return {group: lam for group, lam in lowest_lambdas(errors, key).items() if group not in incomplete}
