"""Published numbers to compare with: CSV files in the folders of the tasks."""

from functools import cache
from importlib.resources import files
from io import StringIO

import pandas as pd


@cache
def published_table(package: str, name: str) -> pd.DataFrame:
    """A CSV file in the folder of a package."""
    return pd.read_csv(StringIO((files(package) / name).read_text(encoding="utf-8")))


def by_shot(table: pd.DataFrame) -> pd.DataFrame:
    """Printed errors by shot group: method, classes (0: none), metric, shot, value, std (NaN if not printed), uncertain (bool)."""
    table = table.assign(classes=table["classes"].fillna(0).astype(int), uncertain=table["uncertain"].astype(bool))
    return table[["method", "classes", "metric", "shot", "value", "std", "uncertain"]].reset_index(drop=True)
