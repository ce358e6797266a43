"""Choosing a plan that answers whether methods help."""

import itertools
from collections.abc import Iterable, Sequence

from regcls.errors import UserError
from regcls.methods import KINDS, canonical, missing_need
from regcls.tasks import task_params
from regcls.tasks.task import Plan
from regcls.words import counted, duration


def asked_for(methods: Iterable[str], task: str) -> tuple[str, ...]:
    """The canonical names of the methods to compare with reg, each once; `all`: each part that the task can use, on its own.

    Raises:
        UserError: one does not exist, the task cannot use it, or there are none.
    """
    provides = task_params(task).provides
    parts = [f"reg+{name}" if kind.role == "classes" else name for name, kind in KINDS.items() if kind.needs in (None, *provides)]
    methods = itertools.chain.from_iterable(parts if method == "all" else [method] for method in methods)
    try:
        named = tuple(dict.fromkeys(canonical(method) for method in methods if method != "reg"))
    except ValueError as error:
        raise UserError(f"--methods: {error}") from None
    if not named:
        raise UserError("--methods names no method to compare with reg")
    if missing := next(filter(None, (missing_need(method, provides) for method in named)), None):
        raise UserError(f"--methods: {missing}")
    return named


def affordable(plans: Sequence[Plan], budget: float, *, or_else: str) -> Plan:
    """The first of the plans, from large to small, that takes at most `budget` seconds; `or_else`: what else the user can do.

    Raises:
        UserError: none does.
    """
    if plan := next((plan for plan in plans if plan.seconds <= budget), None):
        return plan
    smallest = plans[-1]
    raise UserError(
        f"--budget: the smallest plan, {counted(smallest.networks, 'network')}, takes about {duration(smallest.seconds)} here: allow more, "
        f"or {or_else}"
    )


def fewer(*numbers: tuple[str, int]) -> list[str]:
    """`To fit the budget: 1 seed instead of 3.`, from pairs of what is left, in words, and what is usual; empty if nothing is left out."""
    less = [f"{left} instead of {usual}" for left, usual in numbers if left.split()[0] != f"{usual:,}"]
    return [f"To fit the budget: {', '.join(less)}."] if less else []
