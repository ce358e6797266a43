"""Digest of the code that decides a result of the 1D study, along with the spec and the data."""

from functools import cache

from regcls.provenance import code_digest


@cache
def result_code() -> str:
    """Digest of the ensemble engine, and of the code from a run to its networks and from them to its result."""
    return code_digest("regcls.training.ensemble", alone=["regcls.tasks.functions.networks"])
