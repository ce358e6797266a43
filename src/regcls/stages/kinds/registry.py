"""Data set -> its kind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regcls.datasets.store import prepared_folder
from regcls.params import KINDS, Params
from regcls.params import Kind as Name
from regcls.stages.kinds.depth import DepthKind
from regcls.stages.kinds.faces import FaceKind
from regcls.stages.kinds.kind import Kind
from regcls.stages.kinds.synthetic import SyntheticKind
from regcls.stages.kinds.video import VideoKind

BY_NAME: Mapping[Name, Kind] = {"synthetic": SyntheticKind(), "faces": FaceKind(), "depth": DepthKind(), "video": VideoKind()}


def kind_of(dataset: str) -> Kind:
    """The kind of a data set that params.yaml knows."""
    return BY_NAME[KINDS[dataset]]


def open_data(params: Params, root: Path, dataset: str, *, verify: bool) -> Any:
    """The prepared data that params.yaml asks for. Raises as `Kind.open` does."""
    return kind_of(dataset).open(params, dataset, prepared_folder(root, dataset), verify=verify)
