"""Checks the number of samples found against the expected number."""

from collections.abc import Mapping

from regcls.errors import UserError

TOLERANCE = 0.01  # relative


def about_equal(found: int, expected: int) -> bool:
    """Within 1 %."""
    return abs(found - expected) <= TOLERANCE * expected


def check_count(found: int, expected: int | None, *, what: str, dataset: str, key: str, left_out: Mapping[str, int]) -> None:
    """Compare the number of `what` found with `expected`, the value of `<dataset>.data.<key>` in params.yaml; None: accept any number.

    Raises:
        UserError: it differs by more than 1 %; with the number left out for each reason.
    """
    if expected is None or about_equal(found, expected):
        return
    why = "; ".join(f"{number} {reason}" for reason, number in left_out.items() if number)
    raise UserError(
        f"{dataset}: {found} {what} found, {expected} expected (within {TOLERANCE:.0%}){f'; left out: {why}' if why else ''}. "
        f"Complete data/{dataset}/raw, or if your data are meant to differ set {dataset}.data.{key} to null in params.yaml"
    )
