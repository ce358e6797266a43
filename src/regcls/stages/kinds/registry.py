"""Data set -> its kind."""

from functools import cache
from pathlib import Path
from typing import Any

from regcls.datasets.store import prepared_folder
from regcls.params import KINDS, Params
from regcls.params import Kind as Name
from regcls.stages.kinds.kind import Kind


def kind_of(dataset: str) -> Kind:
    """The kind of a data set that params.yaml knows."""
    return _kind(KINDS[dataset])


@cache
def _kind(name: Name) -> Kind:
    # What a kind needs (albumentations, Matplotlib) is imported with it: seconds, which others do without.
    match name:
        case "synthetic":
            from regcls.stages.kinds.synthetic import SyntheticKind

            return SyntheticKind()
        case "faces":
            from regcls.stages.kinds.faces import FaceKind

            return FaceKind()
        case "depth":
            from regcls.stages.kinds.depth import DepthKind

            return DepthKind()
        case "video":
            from regcls.stages.kinds.video import VideoKind

            return VideoKind()


def open_data(params: Params, root: Path, dataset: str, *, verify: bool) -> Any:
    """The prepared data that params.yaml asks for. Raises as `Kind.open` does."""
    return kind_of(dataset).open(params, dataset, prepared_folder(root, dataset), verify=verify)
