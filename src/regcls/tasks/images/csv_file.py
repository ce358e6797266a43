"""Reads the csv file of a data set of images: the path, target and split of each."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from regcls.data.csv_file import Row, check_paths, fault, path_in, read_rows, splits_of
from regcls.errors import UserError
from regcls.params.types import LARGEST
from regcls.tasks.images.params import ImageData

MERGED = 0.1  # largest share of distinct targets that may be equal in float32: of many numbers with all their digits, a few are


def read_csv(file: Path, data: ImageData) -> pd.DataFrame:
    """Read path, target (float32), split (train, val or test) and line of each image; other columns are ignored.

    Without a column of splits they are drawn, by groups if there is a column of groups.

    Raises:
        UserError: it is not a csv file; a column is missing; a target is not a number, or not one in float32; a split is unknown; a path is
            outside the file's folder; a group is in several splits; or, if duplicates are refused, a path has several splits or targets.
    """
    rows = list(read_rows(file, (data.target, "path"), ("split", "group"), named=data.columns))
    table = pd.DataFrame(
        {
            "path": [path_in(file, row, "path") for row in rows],
            "target": _numbers(file, rows, data.target),
            "line": [row.line for row in rows],
        }
    )
    shares = {"test_share": data.test_share, "validation_share": data.validation_share}
    table["split"] = splits_of(file, rows, table["path"].tolist(), **shares, seed=data.split_seed) if rows else []
    _check_rounding(file, data.target, table)
    check_paths(file, table, refuse=data.refuses_duplicates)
    return table.astype({"target": np.float32})


def _numbers(file: Path, rows: Sequence[Row], target: str) -> list[float]:
    numbers, marks = [], dict[str, int]()  # decimal mark -> the first line with it
    for row in rows:
        numbers.append(_number(file, row, target))
        marks |= {mark: row.line for mark in ",." if mark in row.texts[target] and mark not in marks}
        if len(marks) > 1:
            one, other = sorted(marks.values())
            raise UserError(f"{file}, lines {one} and {other}: {target} has a comma in one and a point in the other: use one decimal mark")
    return numbers


def _number(file: Path, row: Row, target: str) -> float:
    text = row.texts[target]
    try:
        number = float(text.replace(",", ".") if row.separator != "," else text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise fault(file, row.line, f"{target} = {text!r} is not a number: write it as in 1372000 or 0.5, without unit")
    if abs(number) > LARGEST:
        raise fault(file, row.line, f"{target} = {text!r} is too large for networks, which compute in float32: use a larger unit")
    return number


def _check_rounding(file: Path, target: str, table: pd.DataFrame) -> None:
    rounded = table["target"].astype(np.float32)
    distinct = table["target"].nunique()
    if distinct - rounded.nunique() > MERGED * distinct:
        equal = table[table["target"].groupby(rounded).transform("nunique") > 1]
        one = equal.iloc[0]
        other = equal[(rounded[equal.index] == np.float32(one["target"])) & (equal["target"] != one["target"])].iloc[0]
        raise UserError(
            f"{file}, lines {one['line']} and {other['line']}: {target} = {one['target']:.17g} and {other['target']:.17g} are equal in "
            "float32, in which networks compute: subtract a constant from all targets, or use another unit"
        )
