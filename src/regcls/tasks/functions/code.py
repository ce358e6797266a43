"""What decides a result of the 1D study, next to the spec and the data."""

from functools import cache

from regcls.provenance import code_digest


@cache
def result_code() -> str:
    """Digest of the engine, and of how a run becomes networks and these a result."""
    return code_digest("regcls.training.ensemble", alone=["regcls.tasks.functions.networks"])
