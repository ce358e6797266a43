"""What `regcls new` can tell from a user's csv that lists files: its columns, and the files to copy."""

import csv
import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from regcls.data.archives import Place
from regcls.data.csv_file import OTHER_COLUMNS, SEPARATORS, holders_of, text_of, top_of
from regcls.data.splits import SPLIT_COLUMNS, split_column
from regcls.errors import UserError
from regcls.progress import tracked
from regcls.words import counted

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".ppm", ".pgm")  # of images


def all_columns(file: Path) -> tuple[pd.DataFrame, str]:
    """All columns with a name as text, blanks at the ends removed, and the separator: the one that gives most columns.

    Raises:
        UserError: it is not a csv file, has no rows below its header, or two columns of one name.
    """
    try:
        readers = [csv.reader(StringIO(text_of(file), newline=""), delimiter=mark, skipinitialspace=True) for mark in SEPARATORS.values()]
        tables = [[[text.strip() for text in row] for row in reader if any(map(str.strip, row))] for reader in readers]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} is not a CSV file in UTF-8 or UTF-16: {error}") from None
    rows, separator = max(zip(tables, SEPARATORS.values(), strict=True), key=lambda one: len(one[0][0]) if one[0] else 0)
    if len(rows) < 2:
        raise UserError(f"{file} has no rows: write a line for each sample, below one with the names of the columns")
    names, width = rows[0], len(rows[0])
    if several := [name for name in names if name and names.count(name) > 1]:
        raise UserError(f"{file} has several columns {several[0]}: rename all but one")
    table = pd.DataFrame([(row + [""] * width)[:width] for row in rows[1:]], columns=names)
    return table.loc[:, [name != "" for name in names]], separator


def path_column(file: Path, table: pd.DataFrame, key: str) -> str:
    """The column of paths to images: the one called `key`, else the only one whose values all end as names of images do.

    Raises:
        UserError: there is none, or there are several.
    """
    names = [str(name) for name in table]
    found = [name for name in names if name.casefold() == key]
    found = found or [name for name in names if table[name].str.lower().str.endswith(SUFFIXES).all()]
    if len(found) != 1:
        what = f"several columns of paths: {', '.join(found)}" if found else f"no column of paths to images ({', '.join(SUFFIXES)})"
        raise UserError(f"{file} has {what}. Call one of its columns {key}; it has {', '.join(names)}")
    return found[0]


def noticed(file: Path, table: pd.DataFrame, *, split: str, group: str) -> tuple[dict[Any, str | None], list[str]]:
    """The value of data.columns for a table of all columns, and sentences on the splits; `split`, `group`: given names, may be empty."""
    names = [str(name) for name in table]
    found = {"split": split or split_column(table)}
    found["group"] = group or next((name for name in names if name.casefold() in ("group", *OTHER_COLUMNS["group"])), None)
    columns = {key: name for key, name in found.items() if name and name.casefold() != key}
    unread = [name for name in names if name.casefold() in SPLIT_COLUMNS] if not found["split"] else []
    by = f"by {found['group']}" if found["group"] else "by file: name a column whose values stay together with --group, if there is one"
    how = f"from the column {found['split']}" if found["split"] else f"drawn from data.split_seed, {by}"
    return {**columns, **({"split": None} if unread else {})}, [f"splits: {how}"]


def copies_of(file: Path, table: pd.DataFrame, name: str, *, links: bool) -> tuple[dict[str, Path], dict[str, Place]]:
    """The files to be copied with a csv that lists them in a table of path and line, by their paths in raw/, and the places of the samples.

    A path without a place does not exist.

    Raises:
        UserError: as `holders_of`, or no file exists.
    """
    holders = holders_of(file, table, remedy=f"Paths are relative to {file.parent}", links=links)
    copies, places = {f"{name}.csv": file}, dict[str, Place]()
    for path in table["path"].unique():
        holder = holders[top_of(path)]
        place, packed = holder.place(path), holder.origin.is_file()
        if place and (packed or os.path.isfile(place.file)):
            places[path] = place
            copies[os.path.relpath(place.file, file.parent)] = Path(place.file)
    if not places:
        raise UserError(
            f"{file}: none of the {len(table):,} files exists, such as {table['path'].iloc[0]}. Paths are relative to {file.parent}"
        )
    return copies, places


def remarks_on(table: pd.DataFrame, places: Mapping[str, Place]) -> list[str]:
    """Sentences on files that do not exist, are listed twice, or are copies of others; `places`: of those that exist, by path."""
    missing = [path for path in table["path"].unique() if path not in places]
    twice = table.loc[table["path"].duplicated(), "path"].unique().tolist()
    first, copied = dict[bytes, str](), list[str]()
    for path, place in tracked(places.items(), len(places), "comparing files"):
        with suppress(ValueError):  # unreadable: prepare says so
            one = first.setdefault(hashlib.sha256(place.read()).digest(), path)
            copied += [f"{path} of {one}"] if one != path else []
    found = {("does not exist", "do not exist"): missing, ("is listed more than once", "are listed more than once"): twice}
    found |= {("is a copy of another", "are copies of others"): copied}
    return [f"{counted(len(paths), f'file {is_}', f'files {are}')}, such as {paths[0]}" for (is_, are), paths in found.items() if paths]
