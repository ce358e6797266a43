"""For Python users: `regcls.advise(X, y)`. Losses and classes for one's own training loop: regcls.losses, regcls.classes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import ArrayLike

from regcls.cli import find_root
from regcls.errors import UserError
from regcls.files import write_text
from regcls.params import load_params, with_section
from regcls.pipeline.advise import METHODS, Advice
from regcls.pipeline.advise import advise as advise_on
from regcls.pipeline.new import root_of
from regcls.pipeline.prepare import prepare

NAME = "own_table"


def advise(
    X: pd.DataFrame | ArrayLike,
    y: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    budget: str = "10m",
    methods: Sequence[str] = METHODS,
    unit: str = "",
    folder: str | Path | None = None,
    processes: int = 1,
    **training: Any,
) -> Advice:
    """Does a class loss help to predict `y` (N,) from `X` (N, D)? The same as `regcls advise` on a table, with `.summary()`.

    Args:
        X: features or embeddings, as a frame with columns of any kind or as an array of numbers.
        y: targets, in their unit.
        groups: (N,) such as patients: rows of a group share a fold.
        budget: time for training, as in 90s, 10m or 1.5h.
        methods: to compare with reg.
        unit: of the targets, in words and tables.
        folder: for data, tracked runs and the page, kept; by default a temporary one. The same call goes on with what is there.
        processes: that train in parallel; a script with more needs the guard `if __name__ == "__main__":`.
        training: values of `training` in params.yaml, such as epochs=200.

    Raises:
        UserError: see `pipeline.advise.advise`; or there is no params.yaml, which holds the defaults, around the working directory or the
            package.
    """
    try:
        defaults = find_root(Path.cwd())
    except UserError:
        defaults = find_root(Path(__file__).parent)
    root = Path(folder) if folder else Path(mkdtemp(prefix="regcls-"))
    raw = root / "data" / NAME / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    table = X.copy() if isinstance(X, pd.DataFrame) else pd.DataFrame(np.asarray(X))
    table.columns = [f"x{name}" if isinstance(name, int) else str(name) for name in table.columns]
    if clashing := {"target", "group"} & set(table.columns):
        raise UserError(f"X has a column {min(clashing)}: rename it")
    table["target"] = np.asarray(y)
    if groups is not None:
        table["group"] = np.asarray(groups)
    table.to_parquet(raw / "data.parquet", index=False)
    shipped, file = load_params(defaults / "params.yaml"), defaults / "params.yaml"
    data = {"source": "raw", "file": "data.parquet", "target": "target", "unit": unit, "group": None if groups is None else "group"}
    own = {"like": root_of(shipped, file, "table"), "title": "Your data", "data": data, "training": training}
    write_text(root / "params.yaml", with_section(file, NAME, yaml.safe_dump({NAME: own}, sort_keys=False)))
    params = load_params(root / "params.yaml")
    params = replace(params, compute=replace(params.compute, processes=processes))
    prepare(params, root, NAME)
    return advise_on(params, root, NAME, budget=budget, methods=methods)
