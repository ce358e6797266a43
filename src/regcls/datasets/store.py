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
            np.save(file, array, allow_pickle=False)
            recorded[name] = {"bytes": file.stat().st_size, "sha256": _sha256(file), "shape": list(array.shape), "dtype": str(array.dtype)}
        table.to_parquet(aside / "table.parquet", index=False)
        write_json(aside / "meta.json", {"format": FORMAT, "rows": len(table), "arrays": recorded, "made_from": dict(made_from)})


def open_prepared(folder: Path) -> Prepared:
    """Open what `write_prepared` wrote.

    Raises:
        UserError: nothing there, another format version, or a file missing or cut short.
    """
    remedy = f"Make it anew with: dvc repro -f prepare@{folder.parent.name}"
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no prepared data in {folder}. {remedy}") from None
    except ValueError:
        raise _damaged(folder / "meta.json", "it is not JSON") from None
    if meta.get("format") != FORMAT:
        raise UserError(f"{folder} has prepared format {meta.get('format')}, this regcls reads format {FORMAT}. {remedy}")
    arrays = {}
    for name, recorded in meta["arrays"].items():
        file = folder / f"{name}.npy"
        found = file.stat().st_size if file.exists() else 0
        if found != recorded["bytes"]:
            raise _damaged(file, f"it has {found} bytes instead of {recorded['bytes']}")
        arrays[name] = np.load(file, mmap_mode="r", allow_pickle=False)
    try:
        table = pd.read_parquet(folder / "table.parquet")
    except (OSError, ValueError):
        raise _damaged(folder / "table.parquet", "it is missing or cannot be read") from None
    if len(table) != meta["rows"]:
        raise _damaged(folder / "table.parquet", f"it has {len(table)} rows instead of {meta['rows']}")
    return Prepared(folder=folder, arrays=arrays, table=table, meta=meta)


def _damaged(file: Path, why: str) -> UserError:
    return UserError(f"{file} is damaged: {why}. Make it anew with: dvc repro -f prepare@{file.parent.parent.name}")


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
