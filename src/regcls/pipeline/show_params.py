"""A data set's section of params.yaml as it is used."""

from pathlib import Path

import yaml

from regcls.params import Params, origins


def show_params(params: Params, root: Path, dataset: str) -> None:
    """Print every value of a data set's section, and the section that it stands in.

    Raises:
        UserError: params.yaml has no such data set.
    """
    params.check_name(dataset)
    found = origins(root / "params.yaml", dataset)
    lines = [f"{key}: {yaml.safe_dump(value, default_flow_style=True, width=10**6).split(chr(10))[0]}" for key, value, _ in found]
    width = min(max(map(len, lines)), 100)
    for line, (_, _, source) in zip(lines, found, strict=True):
        print(f"{line:<{width}}  # {source}")
