"""Reads the csv file of a data set of images: the path, target and split of each."""

import codecs
import csv
import math
import os
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from posixpath import normpath
from typing import Any

import numpy as np
import pandas as pd

from regcls.data.splits import split_of
from regcls.errors import UserError
from regcls.params.types import LARGEST
from regcls.progress import say
from regcls.words import counted

SEPARATORS = {"commas": ",", "semicolons": ";", "tabs": "\t"}
MERGED = 0.1  # largest share of distinct targets that may be equal in float32: of many numbers with all their digits, a few are


def read_csv(file: Path, *, target: str, refuse_duplicates: bool) -> pd.DataFrame:
    """Read path, target (float32), split (train, val or test) and line of each image; other columns are ignored.

    Raises:
        UserError: it is not a csv file; a column is missing; a target is not a number, or not one in float32; a split is unknown; a path is
            outside the file's folder; or, with `refuse_duplicates`, a path has several splits or targets.
    """
    try:
        table = pd.DataFrame(_rows(file, target), columns=["path", "target", "split", "line"])
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} is not a CSV file in UTF-8 or UTF-16: {error}") from None
    _check_rounding(file, target, table)
    _check_paths(file, target, table, refuse=refuse_duplicates)
    return table.astype({"target": np.float32})


def _rows(file: Path, target: str) -> Iterator[tuple[str, float, str, int]]:
    content = file.read_bytes()
    text = content.decode("utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    separator, places = _header(file, text, (target, "path", "split"))
    reader = csv.reader(StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    filled = (row for row in reader if any(map(str.strip, row)))
    columns, marks = len(next(filled)), dict[str, int]()  # decimal mark -> the first line with it
    for row in filled:
        line = reader.line_num
        if any(map(str.strip, row[columns:])):
            raise _fault(file, line, f"it has {len(row)} values for {columns} columns: put a value that contains {separator!r} in quotes")
        number, path, split = (row[place] if place < len(row) else "" for place in places)
        value = _number(file, line, target, number, comma=separator != ",")
        marks |= {mark: line for mark in ",." if mark in number and mark not in marks}
        if len(marks) > 1:
            one, other = sorted(marks.values())
            raise UserError(f"{file}, lines {one} and {other}: {target} has a comma in one and a point in the other: use one decimal mark")
        yield _path(file, line, path), value, _split(file, line, split), line


def _header(file: Path, text: str, needed: Sequence[str]) -> tuple[str, list[int]]:
    """The separator with which the first line has the `needed` columns, and their positions."""
    missing = needed
    for separator in SEPARATORS.values():
        rows = csv.reader(StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        names = [name.strip() for name in next((row for row in rows if any(map(str.strip, row))), [])]
        found = {column: _places(names, column) for column in needed}
        if several := [column for column in needed if len(found[column]) > 1]:
            raise UserError(f"{file} has several columns {several[0]}: rename all but one")
        missing = min(missing, [column for column in needed if not found[column]], key=len)
        if not missing:
            return separator, [found[column][0] for column in needed]
    raise UserError(
        f"{file} has no column {', '.join(missing)}; it needs {', '.join(needed)} in its first line, separated by {', '.join(SEPARATORS)}"
    )


def _places(names: Sequence[str], column: str) -> list[int]:
    """Positions of a column in `names`; case is ignored if there is no exact match."""
    exact = [place for place, name in enumerate(names) if name == column]
    return exact or [place for place, name in enumerate(names) if name.casefold() == column.casefold()]


def _path(file: Path, line: int, written: str) -> str:
    """A path in the file's folder: as `written` if it exists, else without blanks at its ends and with slashes for backslashes."""
    tidy = normpath(written.strip().replace("\\", "/")) if written.strip() else ""
    if not tidy:
        raise _fault(file, line, "there is no path")
    path = normpath(written) if written != tidy and os.path.lexists(file.parent / written) else tidy
    if path.startswith("/") or path.split("/")[0] == "..":
        raise _fault(file, line, f"{path} is not a path in {file.parent}: move or copy the images there, where changes are noticed")
    return path


def _number(file: Path, line: int, target: str, text: str, *, comma: bool) -> float:
    try:
        number = float(text.replace(",", ".") if comma else text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _fault(file, line, f"{target} = {text!r} is not a number: write it as in 1372000 or 0.5, without unit")
    if abs(number) > LARGEST:
        raise _fault(file, line, f"{target} = {text!r} is too large for networks, which compute in float32: use a larger unit")
    return number


def _split(file: Path, line: int, text: str) -> str:
    if (split := split_of(text)) is None:
        raise _fault(file, line, f"split = {text!r}: write train, val or test")
    return split


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


def _check_paths(file: Path, target: str, table: pd.DataFrame, *, refuse: bool) -> None:
    several = table[table["path"].duplicated(keep=False)]
    rows: Iterator[Any] = several.itertuples()
    first = dict[str, Any]()
    for row in rows:
        one = first.setdefault(row.path, row)
        where = f"{file}, lines {one.line} and {row.line}: {row.path}"
        if refuse and one.split != row.split:
            raise UserError(f"{where} is in {one.split} and in {row.split}: a network would be tested on an image it was trained on")
        if refuse and one.target != row.target:
            raise UserError(f"{where} has two targets, {one.target:g} and {row.target:g}: remove one of the lines")
    if crossing := int((several.groupby("path")["split"].nunique() > 1).sum()):
        say(
            f"{file}: {counted(crossing, 'image is', 'images are')} in more than one split: a network is tested on images it was trained on"
        )
    elif first:
        say(f"{file}: {counted(len(first), 'image is', 'images are')} listed more than once, and counted as often")


def _fault(file: Path, line: int, what: str) -> UserError:
    return UserError(f"{file}, line {line}: {what}")
