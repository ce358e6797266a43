"""The prepared format: a folder with memory-mapped arrays (<name>.npy), a table (table.parquet) and meta.json.

meta.json carries the format version, the size and SHA-256 of every array, and what the data set was made from.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regcls.errors import UserError
from regcls.files import folder_written_aside, write_json

FORMAT = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """An opened data set. Arrays are read-only views of the files: nothing is held in memory until it is used."""

    folder: Path
    arrays: Mapping[str, np.ndarray]
    table: pd.DataFrame
    meta: Mapping[str, Any]

    def check_made_from(self, wanted: Mapping[str, Any]) -> None:
        """Compare the parameters that the data set was made from with `wanted`.

        Raises:
            UserError: naming the ones that differ.
        """
        made_from, as_json = self.meta["made_from"], json.loads(json.dumps(wanted))
        if differing := [key for key in as_json if made_from.get(key) != as_json[key]]:
            raise UserError(
                f"{self.folder} was prepared with other values of {', '.join(differing)} than params.yaml has now. "
                f"Prepare it again with: dvc repro prepare@{self.folder.parent.name}"
            )

    def verify(self) -> None:
        """Read every array and compare it with its recorded SHA-256.

        Raises:
            UserError: naming the file that was changed.
        """
        for name, recorded in self.meta["arrays"].items():
            if _sha256(self.folder / f"{name}.npy") != recorded["sha256"]:
                raise _damaged(self.folder / f"{name}.npy", "its content is not what prepare wrote")


def prepared_folder(root: Path, dataset: str) -> Path:
    """Where a data set's prepared files are."""
    return root / "data" / dataset / "prepared"


def write_prepared(folder: Path, *, arrays: Mapping[str, np.ndarray], table: pd.DataFrame, made_from: Mapping[str, Any]) -> None:
    """Write a data set; `folder` holds the old one or the whole new one, never a part.

    Raises:
        UserError: the disk is full or the folder is not writable.
    """
    with folder_written_aside(folder) as aside:
        recorded = {}
        for name, array in arrays.items():
            file = aside / f"{name}.npy"
            _save(file, array)
            recorded[name] = {"bytes": file.stat().st_size, "sha256": _sha256(file), "shape": list(array.shape), "dtype": str(array.dtype)}
        table.to_parquet(aside / "table.parquet", index=False)
        meta = {"format": FORMAT, "arrays": recorded, "table": {"sha256": _sha256(aside / "table.parquet")}, "made_from": dict(made_from)}
        write_json(aside / "meta.json", meta)


def _save(file: Path, array: np.ndarray) -> None:
    """np.save, but on a full disk the error says so: NumPy's own writing of the content leaves out the reason."""
    array = np.ascontiguousarray(array)
    with file.open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, np.lib.format.header_data_from_array_1_0(array))
        handle.write(array.data)


def open_prepared(folder: Path) -> Prepared:
    """Open what `write_prepared` wrote.

    Raises:
        UserError: nothing there, another format version, or a file missing or cut short.
    """
    remedy = f"Make it anew with: dvc repro -f prepare@{folder.parent.name}"
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
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
        found = file.stat().st_size if file.exists() else 0
        if found != size:
            raise _damaged(file, f"it has {found} bytes instead of {size}")
    table = folder / "table.parquet"
    if not table.exists():
        raise _damaged(table, "it is missing")
    if _sha256(table) != table_sha256:  # always: it is small, and decides which samples are whose
        raise _damaged(table, "its content is not what prepare wrote")
    arrays = {name: _map(folder / f"{name}.npy", recorded) for name, recorded in meta["arrays"].items()}
    return Prepared(folder=folder, arrays=arrays, table=pd.read_parquet(table), meta=meta)


def _map(file: Path, recorded: Mapping[str, Any]) -> np.ndarray:
    try:
        array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
        whole = (list(array.shape), str(array.dtype)) == (recorded["shape"], recorded["dtype"])
    except Exception:  # a damaged header is read as Python source, which fails in every way there is
        whole = False
    if not whole:
        raise _damaged(file, "its content is not what prepare wrote")
    return array


def _damaged(file: Path, why: str) -> UserError:
    return UserError(f"{file} is damaged: {why}. Make it anew with: dvc repro -f prepare@{file.parent.parent.name}")


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
