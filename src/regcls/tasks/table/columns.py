"""Tells which columns of a table are features, and of what kind."""

import hashlib
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.api import types
from pandas.tseries.api import guess_datetime_format

from regcls.progress import tracked
from regcls.tasks.table.model import FALSE, TRUE, names_of
from regcls.words import counted

Kind = Literal["number", "boolean", "date", "nominal"]

MOST_LEVELS = 100  # of a nominal column: rarer ones share the last one
OTHERS = "(others)"  # the last level of such a column
FEWEST_NUMBERS = 0.95  # share of values that are numbers in a column of numbers; the others are read as missing
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}")
ID = re.compile(r"(row|sample|record|unnamed: \d+|(.*[ _])?(id|index|key|no|nr|uuid))", re.IGNORECASE)
MANY = 1000  # columns that take seconds to look at


@dataclass(frozen=True, kw_only=True)
class Described:
    """The features of a table, and sentences on its columns."""

    features: list[dict[str, Any]]  # see model.Column
    remarks: list[str] = field(default_factory=list)


def describe(table: pd.DataFrame, *, nominal: Sequence[str], without: Sequence[str]) -> Described:
    """Look at every column; `without`: the target and others that are no features, `nominal`: those to read as names, not as numbers.

    Left out are columns without a value or with a single one, those equal to an earlier one, and those that number or name the rows.
    """
    names = [name for name in table.columns if name not in without]
    described, seen = Described(features=[]), dict[bytes, str]()
    left_out: dict[str, list[str]] = {}
    for name in tracked(names, len(names), "looking at columns") if len(names) > MANY else names:
        column = _described(table[name], name, is_nominal=name in nominal, remarks=described.remarks)
        reason = _reason(table[name], column)
        if not reason:
            content = hashlib.sha256(pd.util.hash_pandas_object(table[name], index=False).to_numpy().tobytes())
            twin = seen.setdefault(content.digest(), name)
            reason = f"equal to {twin}" if twin != name else ""
        if reason:
            left_out.setdefault(reason, []).append(name)
        else:
            described.features.append(column)
    described.remarks[:0] = [f"left out, {reason}: {listed(columns)}" for reason, columns in left_out.items()]
    return described


def _described(values: pd.Series, name: str, *, is_nominal: bool, remarks: list[str]) -> dict[str, Any]:
    kind, form = ("nominal", "") if is_nominal else _kind(values)
    column: dict[str, Any] = {"name": name, "kind": kind, "format": form, "levels": [], "rest": False}
    if kind == "nominal":
        names = names_of(values)
        counts = names[names != ""].value_counts()
        levels = sorted(counts.index, key=lambda level: (-counts[level], level))
        column["rest"] = len(levels) > MOST_LEVELS
        column["levels"] = [*levels[: MOST_LEVELS - 1], OTHERS] if column["rest"] else levels
        if column["rest"]:
            remarks.append(f"{name} has {len(levels):,} levels: all but the {MOST_LEVELS - 1} most frequent ones share one")
    elif kind == "number" and not types.is_numeric_dtype(values):
        text = _texts(values)
        words = text[pd.to_numeric(text, errors="coerce").isna()]
        if len(words):
            others = counted(len(words), "other value counts", "other values count")
            remarks.append(f"{name} is read as numbers: {others} as missing, such as {words.iloc[0]!r}")
    return column


def _kind(values: pd.Series) -> tuple[Kind, str]:
    """The kind of a column, and the format of its dates."""
    if types.is_bool_dtype(values):
        return "boolean", ""
    if types.is_datetime64_any_dtype(values):
        return "date", ""
    if types.is_numeric_dtype(values):
        return "number", ""
    texts = _texts(values)
    if texts.empty:
        return "nominal", ""
    distinct = texts.drop_duplicates()
    if distinct.str.casefold().isin([*TRUE, *FALSE]).all() and not distinct.str.isnumeric().all():
        return "boolean", ""
    if pd.to_numeric(texts, errors="coerce").notna().mean() >= FEWEST_NUMBERS:
        return "number", ""
    form = next(_date_formats(distinct), "") if distinct.str.match(DATE).all() else ""
    return ("date", form) if form else ("nominal", "")


def _date_formats(texts: pd.Series) -> Iterator[str]:
    """The formats that all texts have; the month comes before the day if both are possible."""
    first = str(texts.iloc[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas says when it guesses the day
        formats = ["ISO8601", *(guess_datetime_format(first, dayfirst=dayfirst) for dayfirst in (False, True))]
    for form in filter(None, formats):
        if pd.to_datetime(texts, format=form, errors="coerce", utc=True).notna().all():
            yield form


def _texts(values: pd.Series) -> pd.Series:
    """The values that are there, as text without blanks around it."""
    texts = values.dropna().astype(str).str.strip()
    return texts[texts != ""]


def _reason(values: pd.Series, column: dict[str, Any]) -> str:
    """Why a column is no feature; empty if it is one."""
    present = values.dropna()
    if present.map(lambda value: isinstance(value, list | dict | np.ndarray)).any():
        return "of lists or mappings"
    count = present.nunique()
    if count == 0:
        return "without values"
    if count == 1 and len(present) == len(values):
        return "with one value only"
    if count < len(values) or len(values) < 10 or column["kind"] == "date":
        return ""
    if column["kind"] == "nominal":
        return "different in every row"
    if column["kind"] == "number" and types.is_integer_dtype(values):
        numbers = np.sort(present.to_numpy(dtype=np.int64))
        if (numbers[0] in (0, 1) and (np.diff(numbers) == 1).all()) or ID.fullmatch(column["name"]):
            return "numbers of the rows"
    return ""


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
