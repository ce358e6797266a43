"""Digest of the code that decides a result on a table, along with the spec and the data."""

from functools import cache

from regcls.provenance import code_digest

MODULES = ("networks", "data", "model", "trees")


@cache
def result_code() -> str:
    """Digest of the ensemble engine, and of the code from a run to its networks and from them to its result."""
    return code_digest("regcls.training.ensemble", alone=[f"regcls.tasks.table.{name}" for name in MODULES])
