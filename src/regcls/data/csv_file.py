"""Reads a user's csv file, which lists files of samples with their splits, and finds those files in a raw folder."""

import codecs
import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from posixpath import normpath
from typing import Any, NamedTuple

import pandas as pd

from regcls.data import splits
from regcls.data.archives import Holder, spelled
from regcls.data.drawn_splits import drawn_splits
from regcls.data.splits import Split
from regcls.errors import UserError
from regcls.progress import say
from regcls.words import counted

SEPARATORS = {"commas": ",", "semicolons": ";", "tabs": "\t"}
OTHER_COLUMNS = {"split": splits.SPLIT_COLUMNS[1:], "group": ("scene",)}  # other names of columns, read if there is none of the name


class Row(NamedTuple):
    """A row of a csv file."""

    line: int
    texts: Mapping[str, str]  # by column
    separator: str


def read_rows(
    file: Path, needed: Sequence[str], optional: Sequence[str] = (), *, named: Mapping[Any, str | None] | None = None
) -> Iterator[Row]:
    """Yield the rows with the `needed` columns, and those of the `optional` columns that the file has; others are ignored.

    `named`: other names of columns in the file, which must then be there; None if an optional one is not to be read.

    Raises:
        UserError: it is not a csv file, a column is missing or there twice, or a row has more values than there are columns.
    """
    named = named or {}
    needed = [*needed, *(column for column in optional if named.get(column))]
    optional = [column for column in optional if column not in named]
    try:
        text = text_of(file)
        separator, places = _header(file, text, {column: named.get(column) or column for column in needed}, optional)
        reader = csv.reader(StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        filled = (row for row in reader if any(map(str.strip, row)))
        columns = len(next(filled))
        for row in filled:
            line = reader.line_num
            if any(map(str.strip, row[columns:])):
                values = f"it has {len(row)} values for {columns} columns"
                raise fault(file, line, f"{values}: put a value that contains {separator!r} in quotes")
            yield Row(line, {name: row[place] if place < len(row) else "" for name, place in places.items()}, separator)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} is not a CSV file in UTF-8 or UTF-16: {error}") from None


def text_of(file: Path) -> str:
    """The content of a csv file. Raises a UnicodeDecodeError if it is neither UTF-8 nor UTF-16."""
    content = file.read_bytes()
    return content.decode("utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")


def _header(file: Path, text: str, needed: Mapping[str, str], optional: Sequence[str]) -> tuple[str, dict[str, int]]:
    """The separator with which the first line has the `needed` columns (column -> name), and the positions of the columns."""
    missing = list(needed.values())
    for separator in SEPARATORS.values():
        rows = csv.reader(StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        names = [name.strip() for name in next((row for row in rows if any(map(str.strip, row))), [])]
        found = {column: _places(names, needed.get(column, column)) for column in (*needed, *optional)}
        if several := [column for column in found if len(found[column]) > 1]:
            raise UserError(f"{file} has several columns {needed.get(several[0], several[0])}: rename all but one")
        missing = min(missing, [name for column, name in needed.items() if not found[column]], key=len)
        if not missing:
            return separator, {column: places[0] for column, places in found.items() if places}
    needs = f"it needs {', '.join(needed.values())} in its first line, separated by {', '.join(SEPARATORS)}"
    raise UserError(f"{file} has no column {', '.join(missing)}; {needs}")


def _places(names: Sequence[str], column: str) -> list[int]:
    """Positions of a column in `names`: of its exact name, else in any case, else of another name for it."""
    folded = [name.casefold() for name in names]
    exact = [place for place, name in enumerate(names) if name == column]
    alike = [place for place, name in enumerate(folded) if name == column.casefold()]
    return exact or alike or [place for place, name in enumerate(folded) if name in OTHER_COLUMNS.get(column, ())]


def path_in(file: Path, row: Row, column: str) -> str:
    """A path in the file's folder: as written if it exists, else without blanks at its ends and with slashes for backslashes.

    Raises:
        UserError: there is none, or it leads out of the folder.
    """
    written = row.texts[column]
    tidy = normpath(written.strip().replace("\\", "/")) if written.strip() else ""
    if not tidy:
        raise fault(file, row.line, f"there is no {column}")
    path = normpath(written) if written != tidy and os.path.lexists(file.parent / written) else tidy
    if path.startswith("/") or path.split("/")[0] == "..":
        raise fault(
            file, row.line, f"{path} is not a relative path in {file.parent}: move or copy the files there, where changes are noticed"
        )
    return path


def split_of(file: Path, row: Row) -> Split:
    """The split of a row: train, val or test.

    Raises:
        UserError: it has another name.
    """
    if (split := splits.split_of(row.texts["split"])) is None:
        raise fault(file, row.line, f"split = {row.texts['split']!r}: write train, val or test")
    return split


def splits_of(
    file: Path, rows: Sequence[Row], units: Sequence[str], *, test_share: float, validation_share: float, seed: int
) -> list[Split]:
    """The split of each row: of its column split or, if there is none, drawn by group; without groups by `units` (N,), such as paths.

    Raises:
        UserError: a split is unknown; a row has no group; a group is in two splits; or there are too few groups to draw from.
    """
    groups = [row.texts["group"].strip() for row in rows] if "group" in rows[0].texts else None
    if groups and "" in groups:
        raise fault(file, rows[groups.index("")].line, "there is no group")
    if "split" not in rows[0].texts:
        say(f"{file.name} has no column split: splits are drawn by {'group' if groups else 'file'}, from data.split_seed")
        return drawn_splits(file, groups or units, test_share=test_share, validation_share=validation_share, seed=seed)
    found, first = [split_of(file, row) for row in rows], dict[str, int]()
    for index, group in enumerate(groups or ()):
        one = first.setdefault(group, index)
        if found[one] != found[index]:
            where = f"{file}, lines {rows[one].line} and {rows[index].line}: group {group}"
            raise UserError(f"{where} is in {found[one]} and in {found[index]}: a network would be tested on a group it was trained on")
    return found


def check_paths(file: Path, table: pd.DataFrame, *, refuse: bool) -> None:
    """Look for paths listed more than once in a table of path, target, split and line, and say so.

    Raises:
        UserError: with `refuse`, a path has several splits or targets.
    """
    several = table[table["path"].duplicated(keep=False)]
    rows: Iterator[Any] = several.itertuples()
    first = dict[str, Any]()
    for row in rows:
        one = first.setdefault(row.path, row)
        where = f"{file}, lines {one.line} and {row.line}: {row.path}"
        if refuse and one.split != row.split:
            raise UserError(f"{where} is in {one.split} and in {row.split}: a network would be tested on an image it was trained on")
        if refuse and one.target != row.target:
            targets = (target if isinstance(target, str) else f"{target:g}" for target in (one.target, row.target))
            raise UserError(f"{where} has two targets, {' and '.join(targets)}: remove one of the lines")
    if crossing := int((several.groupby("path")["split"].nunique() > 1).sum()):
        say(
            f"{file}: {counted(crossing, 'image is', 'images are')} in more than one split: a network is tested on images it was trained on"
        )
    elif first:
        say(f"{file}: {counted(len(first), 'image is', 'images are')} listed more than once, and counted as often")


def check_copies(file: Path, kept: pd.DataFrame, digests: Mapping[int, bytes], dataset: str) -> None:
    """Raise a UserError if images in two splits are the same file; `digests`: by the row of a table of path, split, line and row."""
    images: Iterator[Any] = kept.itertuples()
    first = dict[bytes, Any]()
    for image in images:
        one = first.setdefault(digests[image.row], image)
        if one.split != image.split:
            raise UserError(
                f"{file}, lines {one.line} and {image.line}: {one.path} in {one.split} and {image.path} in {image.split} are the same "
                "file, so a network would be tested on an image it was trained on: remove one, or set "
                f"{dataset}.data.duplicates: allow in params.yaml"
            )


def holders_of(file: Path, table: pd.DataFrame, *, remedy: str, links: bool) -> dict[str, Holder]:
    """The sources of the paths in a table of path and line, by the first folder of a path.

    Raises:
        UserError: one is missing or damaged or, without `links`, a folder is a link, behind which DVC sees no changes.
    """
    raw, holders = file.parent, dict[str, Holder]()
    for folder, line in table.groupby(table["path"].map(os.path.dirname))["line"].min().sort_values().items():
        top, within = top_of(f"{folder}/"), [Path(str(folder)), *Path(str(folder)).parents][:-1]
        paths = [raw / spelled(raw, str(part), {}) for part in within]
        if not links and (link := next(filter(os.path.islink, paths), None)):
            raise fault(file, line, f"{link} is a link to a folder, in which DVC sees no changes: move or copy the folder there")
        try:
            if top not in holders:
                holders[top] = Holder(raw, top, remedy=remedy)
        except UserError as error:
            raise fault(file, line, str(error)) from None
    return holders


def top_of(path: str) -> str:
    """The first folder of a path; "" if it has none."""
    return path.partition("/")[0] if "/" in path else ""


def fault(file: Path, line: int, what: str) -> UserError:
    """An error in a line of the file."""
    return UserError(f"{file}, line {line}: {what}")
