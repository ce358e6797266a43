"""Digest of the code that decides a result on images, along with the spec and the data."""

from functools import cache

from regcls.provenance import code_digest

MODULES = (  # besides the heads and the ResNet they import
    "classes",
    "data.splits",
    "losses",
    "methods.loss",
    "models.distribution",
    "models.predictor",
    "models.standardised",
    "tasks.images.data",
    "tasks.images.train",
    "training.augment",
    "training.feed",
    "training.loop",
)


@cache
def result_code() -> str:
    """Digest of the code of MODULES and the network."""
    return code_digest("regcls.models.heads", alone=[f"regcls.{name}" for name in MODULES])
