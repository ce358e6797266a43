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
from pyarrow import ArrowException  # type: ignore[import-untyped]

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
        processes: that train in parallel. 1: this process trains, on the first GPU if there is one; more: on the CPU that many, or one on
            each GPU, and a script needs the guard `if __name__ == "__main__":`.
        training: values of `training` in params.yaml, such as epochs=200.

    Raises:
        UserError: see `pipeline.advise.advise`; X is no table, or y or groups do not fit it; or there is no params.yaml, which holds the
            defaults, around the package or the working directory.
    """
    try:
        defaults = find_root(Path(__file__).parent)
    except UserError:
        defaults = find_root(Path.cwd())
    table = _table(X, y, groups)
    root = Path(folder) if folder else Path(mkdtemp(prefix="regcls-"))
    raw = root / "data" / NAME / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    try:
        table.to_parquet(raw / "data.parquet", index=False)
    except (ArrowException, ValueError, TypeError) as error:
        raise UserError(f"X cannot be stored as a table: {str(error).splitlines()[0]}") from None
    shipped, file = load_params(defaults / "params.yaml"), defaults / "params.yaml"
    data = {"source": "raw", "file": "data.parquet", "target": "target", "unit": unit, "group": None if groups is None else "group"}
    own = {"like": root_of(shipped, file, "table"), "title": "Your data", "data": data, "training": training}
    write_text(root / "params.yaml", with_section(file, NAME, yaml.safe_dump({NAME: own}, sort_keys=False)))
    params = load_params(root / "params.yaml")
    params = replace(params, compute=replace(params.compute, processes=processes, gpus=1 if processes == 1 else "auto"))
    prepare(params, root, NAME)
    return advise_on(params, root, NAME, budget=budget, methods=(methods,) if isinstance(methods, str) else methods)


def _table(X: Any, y: Any, groups: Any) -> pd.DataFrame:
    """X with the columns target and group."""
    if isinstance(X, pd.DataFrame):
        table = X.copy()
    else:
        dense = X.toarray() if hasattr(X, "toarray") else X.detach().cpu() if hasattr(X, "detach") else X
        features = np.asarray(dense)
        if features.ndim != 2 or features.dtype.kind not in "biuf":
            raise UserError(f"X is an array {features.shape} of {features.dtype}: give numbers (N, D), or a pandas DataFrame")
        table = pd.DataFrame(features)
    table.columns = [f"x{name}" if isinstance(name, int) else str(name) for name in table.columns]
    for name, values in (("target", y), *([] if groups is None else [("group", groups)])):
        if name in table:
            raise UserError(f"X has a column {name}: rename it")
        if isinstance(X, pd.DataFrame) and isinstance(values, pd.Series) and not values.index.equals(X.index):
            raise UserError(f"the index of the {name} differs from that of X: bring them into the same order, or give its .to_numpy()")
        column = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
        if column.shape != (len(table),):
            raise UserError(f"X has {len(table):,} rows, but the {name} has the shape {column.shape}")
        table[name] = column.astype(float) if name == "target" and column.dtype.kind == "b" else column
    return table
