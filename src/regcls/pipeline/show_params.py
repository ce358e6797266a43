"""The effective parameters of a data set."""

from pathlib import Path

import yaml

from regcls.params import Params, origins


def show_params(params: Params, root: Path, dataset: str) -> None:
    """Print every value of a data set's section, and the section that it comes from.

    Raises:
        UserError: params.yaml has no such data set.
    """
    params.check_name(dataset)
    values = origins(root / "params.yaml", dataset)
    lines = [f"{key}: {yaml.safe_dump(value, default_flow_style=True, width=10**6).split(chr(10))[0]}" for key, value, _ in values]
    width = min(max(map(len, lines)), 100)
    for line, (_, _, source) in zip(lines, values, strict=True):
        print(f"{line:<{width}}  # {source}")
