"""Reads a table: CSV with any separator, Parquet, Feather, or arrays of NumPy."""

import codecs
import csv
import gzip
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import ArrowException  # type: ignore[import-untyped]

from regcls.errors import UserError
from regcls.progress import Advance, progress
from regcls.tasks.table.params import TableData

SEPARATORS = ",;\t|"
SAMPLE = 2**16  # bytes at the start of a CSV file, from which separator and decimal mark are told
LONG_BYTES = 2**26  # larger files take seconds to read, and get a progress bar
COMMA_NUMBER, POINT_NUMBER = re.compile(r"[+-]?\d+,\d+(e[+-]?\d+)?", re.IGNORECASE), re.compile(r"[+-]?\d+\.\d+(e[+-]?\d+)?", re.IGNORECASE)


def read_table(raw: Path, data: TableData) -> pd.DataFrame:
    """The table of a data set: a row per sample, columns by name.

    Arrays of an .npz file are columns; those with two axes (N, D) are columns name_0 to name_D−1. An .npy file has the features; target,
    split and group lie beside it, in a file each: price.npy.

    Raises:
        UserError: the file is missing, unreadable or empty, or has two columns of one name.
    """
    file = raw / data.file
    if not file.is_file():
        names = sorted(path.name for path in raw.iterdir() if not path.name.startswith(".")) if raw.is_dir() else []
        there = f"; there are {', '.join(names[:5])}" if names else ""
        raise UserError(f"{file} does not exist{there}. Put the table there, or name it in `data.file` of params.yaml")
    try:
        table = _reader(file, data)
    except UnicodeDecodeError:
        raise UserError(f"{file} is not in UTF-8 or UTF-16: save it as UTF-8") from None
    except (ValueError, OSError, EOFError, KeyError, ArrowException) as error:
        raise UserError(f"{file} cannot be read as {file.suffix.removeprefix('.').upper()}: {str(error).splitlines()[0]}") from None
    table.columns = [str(name).strip() for name in table.columns]
    if twice := table.columns[table.columns.duplicated()].tolist():
        raise UserError(f"{file} has several columns {twice[0]}: rename all but one")
    if table.empty:
        raise UserError(f"{file} has no rows")
    return table.reset_index(drop=True)


def _reader(file: Path, data: TableData) -> pd.DataFrame:
    match file.suffix.lower():
        case ".parquet":
            return pd.read_parquet(file)
        case ".feather":
            return pd.read_feather(file)
        case ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                return _of_arrays({name: arrays[name] for name in arrays.files})
        case ".npy":
            beside = [name for name in (data.target, data.split, data.group) if name]
            files = {name: file.with_name(f"{name}.npy") for name in beside}
            return _of_arrays({file.stem: np.load(file, allow_pickle=False)} | {name: np.load(path) for name, path in files.items()})
        case _:
            return _read_csv(file, data.target)


def _of_arrays(arrays: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Arrays (N,) and (N, D) as columns.

    Raises:
        ValueError: their lengths differ, or one has more axes.
    """
    lengths = {name: array.shape[:1] for name, array in arrays.items()}
    if len(set(lengths.values())) > 1 or any(array.ndim not in (1, 2) for array in arrays.values()):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"arrays need one or two axes, and a row for each sample: {shapes}")
    frames = []
    for name, array in arrays.items():
        names = [name] if array.ndim == 1 else [f"{name}_{index}" for index in range(array.shape[1])]
        frames.append(pd.DataFrame(array, columns=names))
    return pd.concat(frames, axis=1)


def _read_csv(file: Path, target: str) -> pd.DataFrame:
    with _opened(file) as handle:
        start = handle.read(SAMPLE)
    encoding = "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    text = codecs.getincrementaldecoder(encoding)().decode(start)
    separator = _separator(text, target)
    size = file.stat().st_size
    with progress(size, f"reading {file.name}") if size > LONG_BYTES else nullcontext() as advance, _opened(file, advance) as handle:
        options: Any = {"sep": separator, "decimal": _decimal(text, separator), "encoding": encoding}
        table: pd.DataFrame = pd.read_csv(handle, **options, skipinitialspace=True, low_memory=False, index_col=False)
    return table


@contextmanager
def _opened(file: Path, advance: Advance | None = None) -> Iterator[Any]:
    """The content of a file, unpacked; `advance`: moved by its bytes on disk."""
    with file.open("rb") as handle:
        stored: Any = _Reported(handle, advance) if advance else handle
        yield gzip.GzipFile(fileobj=stored) if file.suffix.lower() == ".gz" else stored


class _Reported(io.RawIOBase):
    """A file whose reading moves a progress bar."""

    def __init__(self, handle: Any, advance: Advance) -> None:
        self._handle, self._advance = handle, advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = int(self._handle.readinto(buffer))
        self._advance(count)
        return count


def _separator(text: str, target: str) -> str:
    """The separator that gives the first line most columns, the target among them if possible."""
    first = next((line for line in text.splitlines() if line.strip()), "")

    def rank(mark: str) -> tuple[bool, int]:
        names = [name.strip().casefold() for name in next(csv.reader([first], delimiter=mark), [])]
        return target.casefold() in names, len(names)

    return max(SEPARATORS, key=rank)


def _decimal(text: str, separator: str) -> str:
    """The decimal mark: a comma if the first rows have numbers with commas and none with points."""
    if separator == ",":
        return "."
    values = [value.strip() for row in csv.reader(text.splitlines()[1:-1], delimiter=separator) for value in row]
    return "," if any(map(COMMA_NUMBER.fullmatch, values)) and not any(map(POINT_NUMBER.fullmatch, values)) else "."
