"""Pickling for a process on another machine: paths in the project become paths there, and files go along with their paths."""

import io
import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from regcls.files import write_atomically
from regcls.training.cluster.copies import Prepared


class Travel:
    """Pickles values here for the other side, and unpickles the other side's.

    Both sides exchange what is in their folder `exchanged`: a file or folder in it is sent whenever a value has its path, and written on
    the other side, at the same place in the other folder, when the value is unpickled. Prepared data are not sent: see `copies.Prepared`.
    """

    def __init__(self, exchanged: Path) -> None:
        self.exchanged = exchanged

    def dumps(self, value: object) -> bytes:
        """Pickle a value, with the files whose paths it has."""
        buffer = io.BytesIO()
        _Pickler(buffer, self).dump(value)
        return buffer.getvalue()

    def loads(self, content: bytes) -> Any:
        """The value that the other side has pickled; its files are written first.

        Raises:
            UserError: the disk is full or the folder is not writable; or prepared data are neither here nor to be had.
        """
        return _Unpickler(io.BytesIO(content), self).load()

    def describe(self, path: Path) -> Prepared | tuple[str, dict[str, bytes]] | None:
        """What to send for a path: for `path_of` on the other side; None: the path itself."""
        if path.is_relative_to(self.exchanged):
            files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
            files.sort(key=lambda file: file.suffix == ".json")  # of a checkpoint, it vouches for the .pt, and is written last
            content = {str(file.relative_to(path)): file.read_bytes() for file in files}
            return str(path.relative_to(self.exchanged)), content
        return Prepared.of(path)

    def path_of(self, described: Prepared | tuple[str, Mapping[str, bytes]]) -> Path:
        """The path here, from what the other side's `describe` has returned."""
        if isinstance(described, Prepared):
            return described.find()
        path, content = described
        for name, data in content.items():
            write_atomically(self.exchanged / path / name, partial(_write, data))
        return self.exchanged / path


def _write(content: bytes, file: Path) -> None:
    file.write_bytes(content)


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, travel: Travel) -> None:
        super().__init__(file, protocol=5)
        self._travel = travel

    def persistent_id(self, value: object) -> Prepared | tuple[str, dict[str, bytes]] | None:
        return self._travel.describe(value) if isinstance(value, Path) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, travel: Travel) -> None:
        super().__init__(file)
        self._travel = travel

    def persistent_load(self, described: Any) -> Path:
        return self._travel.path_of(described)
