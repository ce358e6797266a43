"""A data set's prepared folder -> the opened data."""

from pathlib import Path

from regcls.datasets.images import ImageSet
from regcls.datasets.store import prepared_folder
from regcls.datasets.synthetic import SyntheticSets
from regcls.params import Params


def open_data(params: Params, root: Path, dataset: str, *, verify: bool) -> SyntheticSets | ImageSet:
    """The prepared data that params.yaml asks for; with `verify`, after reading all of it and comparing checksums.

    Raises:
        UserError: absent, damaged, of another format version, or made from other parameters.
    """
    folder = prepared_folder(root, dataset)
    if dataset == "synthetic":
        return SyntheticSets(folder, verify=verify, made_from=params.synthetic.data)
    return ImageSet(folder, verify=verify, made_from=params.faces(dataset).data)
