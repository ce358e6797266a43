"""Published numbers, to stand beside measured ones: each task has its own, as CSV beside its code."""

from functools import cache
from importlib.resources import files
from io import StringIO

import pandas as pd


@cache
def published_table(package: str, name: str) -> pd.DataFrame:
    """A CSV beside the code of a package."""
    return pd.read_csv(StringIO((files(package) / name).read_text(encoding="utf-8")))


def by_shot(table: pd.DataFrame) -> pd.DataFrame:
    """Printed errors by shot group: method, classes (0: none), metric, shot, value, std (NaN where none is printed), uncertain (bool)."""
    table = table.assign(classes=table["classes"].fillna(0).astype(int), uncertain=table["uncertain"].astype(bool))
    return table[["method", "classes", "metric", "shot", "value", "std", "uncertain"]].reset_index(drop=True)
