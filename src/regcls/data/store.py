"""The prepared format: a folder with memory-mapped arrays (<name>.npy), a table (table.parquet) and meta.json.

meta.json carries the format version, the size and SHA-256 of every array, and what the data set was made from.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike

from regcls.errors import UserError
from regcls.files import check_links, folder_written_aside, write_json
from regcls.progress import progress

FORMAT = 1
Data = TypeVar("Data")  # the dataclass of a data set's parameters
READ_BYTES = 2**24  # per read, for checksums
LONG_BYTES = 2**30  # larger files take seconds to read, and get a progress bar


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """An opened data set. Arrays are read-only views of the files, loaded into memory only when used."""

    folder: Path
    arrays: Mapping[str, np.ndarray]
    table: pd.DataFrame
    meta: Mapping[str, Any]

    def check_made_from(self, wanted: Mapping[str, Any]) -> None:
        """Compare the parameters of the prepared data set with `wanted`.

        Raises:
            UserError: some differ; names them.
        """
        made_from = self.meta["made_from"]
        as_json = json.loads(json.dumps(wanted))
        if differing := [key for key in as_json if made_from.get(key) != as_json[key]]:
            raise UserError(
                f"{self.folder} was prepared with other values of {', '.join(differing)} than params.yaml has now. "
                f"Prepare it again with: regcls prepare {self.folder.parent.name}"
            )

    def verify(self) -> None:
        """Compare the SHA-256 of every array with the recorded one.

        Raises:
            UserError: a file has changed; names it.
        """
        for name, recorded in self.meta["arrays"].items():
            if _sha256(self.folder / f"{name}.npy") != recorded["sha256"]:
                raise _damaged(self.folder / f"{name}.npy", "its content is not what prepare wrote")

    def digest(self, *more: object) -> str:
        """SHA-256 of the table and the arrays, by their recorded checksums, and of `more` values that decide a result."""
        arrays = self.meta["arrays"]
        parts = [self.meta["table"]["sha256"], *(arrays[name]["sha256"] for name in sorted(arrays)), *map(str, more)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class PreparedSet(Generic[Data]):
    """Base class of prepared data sets. Arrays are memory-mapped; only the table is in memory."""

    def __init__(self, folder: Path, *, verify: bool = False, made_from: Data | None = None) -> None:
        """Open `folder`; `verify`: check all checksums.

        Raises:
            UserError: missing, damaged, of another format version, or prepared with other parameters than the dataclass `made_from`.
        """
        self.prepared = open_prepared(folder)
        if made_from is not None:
            self.prepared.check_made_from(deciding_parameters(made_from))
        if verify:
            self.prepared.verify()


def deciding_parameters(data: Any) -> dict[str, Any]:
    """The fields of the dataclass `data` that decide the prepared data: not archive URLs, units or checks. Those that are off are None.

    So are its fields `without_effect`, if it names any: data prepared by an earlier version do not have them.
    """
    values = {name: None if value is False else value for name, value in asdict(data).items()}
    values |= dict.fromkeys(getattr(data, "without_effect", ()))
    unused = {"archives", "unit", "duplicates"} | {name for name in values if name.startswith("expected_")}
    if values.get("source") == "raw":
        unused.add("stand_in")
    return {name: value for name, value in values.items() if name not in unused}


def prepared_folder(root: Path, dataset: str) -> Path:
    """Folder of a data set's prepared files."""
    return root / "data" / dataset / "prepared"


class Writer:
    """Writes a data set. Callers may put further files into `folder`, and further information into `notes`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: dict[str, Any] = {}  # stored in meta.json
        self._arrays: dict[str, dict[str, Any]] = {}

    def save(self, name: str, array: np.ndarray) -> None:
        """Write a whole array."""
        array = np.ascontiguousarray(array)
        with (self.folder / f"{name}.npy").open("wb") as handle:
            _write_header(handle, array.shape, array.dtype)
            handle.write(array.data)  # np.save does not say that the disk is full
        self._arrays[name] = {"shape": list(array.shape), "dtype": str(array.dtype)}

    def empty(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> np.memmap:
        """A memory-mapped array of zeros, to be filled in place, also by other processes (`.filename`, `.offset`).

        Allocates its disk space at once: a full disk is an error here, not a crash when a page is written.

        Raises:
            UserError: not enough space.
        """
        file, dtype = self.folder / f"{name}.npy", np.dtype(dtype)
        size, free = dtype.itemsize * math.prod(shape), shutil.disk_usage(self.folder).free
        if size > free:  # checked first: a file system may fill up before it refuses
            raise UserError(
                f"{self.folder.parent} has {free / 1e9:.1f} GB of free space, {size / 1e9:.1f} GB are needed; nothing was replaced. "
                "Free some space and start again."
            )
        with file.open("wb") as handle:
            _write_header(handle, shape, dtype)
            handle.flush()
            os.posix_fallocate(handle.fileno(), 0, handle.tell() + size)
        self._arrays[name] = {"shape": list(shape), "dtype": str(dtype)}
        array: np.memmap = np.lib.format.open_memmap(file, mode="r+")
        return array

    def save_table(self, table: pd.DataFrame) -> None:
        """Write table.parquet."""
        table.to_parquet(self.folder / "table.parquet", index=False)

    def _finish(self, made_from: Mapping[str, Any]) -> None:
        recorded = {}
        for name, kind in self._arrays.items():
            file = self.folder / f"{name}.npy"
            recorded[name] = {"bytes": file.stat().st_size, "sha256": _sha256(file), **kind}
        table = {"sha256": _sha256(self.folder / "table.parquet")}
        on = {name: value for name, value in made_from.items() if value is not None}  # so that a new switch changes nothing while it is off
        meta = {"format": FORMAT, "arrays": recorded, "table": table, "made_from": on}
        write_json(self.folder / "meta.json", meta | ({"notes": self.notes} if self.notes else {}))


@contextmanager
def prepared_writer(folder: Path, *, made_from: Mapping[str, Any]) -> Iterator[Writer]:
    """Write a data set piece by piece; it replaces `folder` when the block ends without an exception.

    Raises:
        UserError: the disk is full or the folder is not writable.
    """
    with folder_written_aside(folder) as aside:
        writer = Writer(aside)
        yield writer
        writer._finish(made_from)


def write_prepared(folder: Path, *, arrays: Mapping[str, np.ndarray], table: pd.DataFrame, made_from: Mapping[str, Any]) -> None:
    """`prepared_writer` for arrays in memory.

    Raises:
        UserError: the disk is full or the folder is not writable.
    """
    with prepared_writer(folder, made_from=made_from) as writer:
        for name, array in arrays.items():
            writer.save(name, array)
        writer.save_table(table)


def _write_header(handle: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    np.lib.format.write_array_header_1_0(handle, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})


def open_prepared(folder: Path) -> Prepared:
    """Open a prepared data set.

    Raises:
        UserError: it does not exist, has another format version, or a file is missing or cut short.
    """
    remedy = f"Prepare it with: regcls prepare {folder.parent.name}"
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        check_links(folder)
        raise UserError(f"there is no prepared data in {folder}. {remedy}") from None
    except ValueError:
        raise _damaged(folder / "meta.json", "it is not JSON") from None
    try:
        if meta["format"] != FORMAT:
            raise UserError(f"{folder} has prepared format {meta['format']}, this regcls reads format {FORMAT}. {remedy}")
        sizes, table_sha256 = {name: recorded["bytes"] for name, recorded in meta["arrays"].items()}, meta["table"]["sha256"]
    except (KeyError, TypeError, AttributeError):
        raise _damaged(folder / "meta.json", "it is not what prepare wrote") from None
    for name, size in sizes.items():
        file = folder / f"{name}.npy"
        actual = file.stat().st_size if file.exists() else 0
        if actual != size:
            raise _damaged(file, f"it has {actual} bytes instead of {size}")
    table = folder / "table.parquet"
    if not table.exists():
        raise _damaged(table, "it is missing")
    if _sha256(table) != table_sha256:  # always checked: it is small, and assigns the samples to splits
        raise _damaged(table, "its content is not what prepare wrote")
    arrays = {name: _map(folder / f"{name}.npy", recorded) for name, recorded in meta["arrays"].items()}
    return Prepared(folder=folder, arrays=arrays, table=pd.read_parquet(table), meta=meta)


def _map(file: Path, recorded: Mapping[str, Any]) -> np.ndarray:
    try:
        array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
        intact = (list(array.shape), str(array.dtype)) == (recorded["shape"], recorded["dtype"])
    except Exception:  # the header is parsed as Python source, so a damaged one can raise anything
        intact = False
    if not intact:
        raise _damaged(file, "its content is not what prepare wrote")
    return array


def _damaged(file: Path, why: str) -> UserError:
    return UserError(f"{file} is damaged: {why}. Prepare it again with: regcls prepare {file.parent.parent.name}")


def _sha256(file: Path) -> str:
    digest, size = hashlib.sha256(), file.stat().st_size
    with file.open("rb") as handle, progress(size, f"checksum of {file.name}") if size > LONG_BYTES else nullcontext() as advance:
        while content := handle.read(READ_BYTES):
            digest.update(content)
            if advance:
                advance(len(content))
    return digest.hexdigest()
