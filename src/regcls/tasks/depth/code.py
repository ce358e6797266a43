"""What decides a result on depth, next to the spec and the data."""

from functools import cache

from regcls.provenance import code_digest

MODULES = (  # with the network
    "classes",
    "data.splits",
    "losses",
    "models.pretrained",
    "tasks.depth.augment",
    "tasks.depth.data",
    "tasks.depth.evaluation",
    "tasks.depth.metrics",
    "tasks.depth.pixels",
    "tasks.depth.train",
    "training.augment",
    "training.feed",
    "training.loop",
)


@cache
def result_code() -> str:
    """Digest of the code of MODULES and of the network."""
    return code_digest("regcls.tasks.depth.model", alone=[f"regcls.{name}" for name in MODULES])
