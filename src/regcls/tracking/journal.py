"""What a tracking server has not been told yet, on disk. Knows nothing of MLflow.

.regcls/journal/<process>/           a folder for each process that tracks
    about.json                       which server and which experiment, and this folder: in a copy of the project it is another
    lock                             held while the process lives
    <run>/start.json                 a folder for each run that the server has not been told all of
    <run>/run_id                     written once the run is there
    <run>/000001-metrics.json        an event, deleted when it is delivered
    <run>/000002-files/              the files of event 000002, under the paths that they get in the run
    <run>/refused.txt                the server refuses this run for good, and why
"""

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from regcls.files import explain_os_errors, link_or_copy, try_lock, write_json, write_text

EVENT = re.compile(r"(\d{6})-([a-z]+)\.json")


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something to tell the server of a run."""

    kind: str
    content: dict[str, Any]
    files: Mapping[str, Path]  # path in the run -> file here


class JournaledRun:
    """A run's events that have not been delivered yet, the earliest first. `name` also tells the run from all others, on any machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.name
        self._count = max((int(file.name[:6]) for file in self.waiting()), default=0)

    @classmethod
    def create(cls, home: Path, start: Mapping[str, Any]) -> "JournaledRun":
        """Begin a run with what it starts with.

        Raises:
            UserError: the disk is full, or not writable.
        """
        folder = home / f"{time.time_ns():019d}-{secrets.token_hex(6)}"
        write_json(folder / "start.json", start)
        return cls(folder)

    @property
    def start(self) -> dict[str, Any]:
        """What the run starts with."""
        return dict(json.loads((self.folder / "start.json").read_text(encoding="utf-8")))

    @property
    def run_id(self) -> str | None:
        """Its id at the server, once it is there."""
        try:
            return (self.folder / "run_id").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def is_there(self, run_id: str) -> None:
        """Note its id at the server."""
        write_text(self.folder / "run_id", f"{run_id}\n")

    @property
    def tried(self) -> bool:
        """Whether the server may know the run already though we do not know its id."""
        return (self.folder / "tried").exists()

    def trying(self) -> None:
        """Note that the server is asked to make the run."""
        (self.folder / "tried").touch()

    def begin_anew(self, start: Mapping[str, Any]) -> None:
        """Forget the run at the server: another one is begun for what is still to be delivered."""
        write_json(self.folder / "start.json", start)
        for name in ("run_id", "tried"):
            (self.folder / name).unlink(missing_ok=True)

    @property
    def refused(self) -> str | None:
        """Why the server will not have it, if so."""
        try:
            return (self.folder / "refused.txt").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def refuse(self, reason: str) -> None:
        """Leave the run alone from now on; its files stay."""
        write_text(self.folder / "refused.txt", f"{reason}\n")

    def forgive(self) -> None:
        """Ask the server once more."""
        (self.folder / "refused.txt").unlink(missing_ok=True)

    def add(self, kind: str, content: Mapping[str, Any], files: Mapping[str, Path], *, instead: str = "") -> None:
        """Append an event. Its files are linked, so they may be renamed or removed, but not written to.

        `instead`: an earlier event whose content has the same `slot` is no longer wanted.

        Raises:
            UserError: the disk is full, or not writable; the event is not there.
        """
        outdated = [file for file in self.waiting() if instead and json.loads(file.read_text(encoding="utf-8")).get("slot") == instead]
        self._count += 1
        number = f"{self._count:06d}"
        with explain_os_errors(self.folder):
            try:
                for path, file in files.items():
                    link_or_copy(file, self.folder / f"{number}-files" / path)
                write_json(self.folder / f"{number}-{kind}.json", content)
            except BaseException:
                shutil.rmtree(self.folder / f"{number}-files", ignore_errors=True)
                raise
        for file in outdated:
            self.drop(file)

    def read(self, file: Path) -> Event | None:
        """An event; None if it has been replaced by a later one."""
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        home = self.folder / f"{file.name[:6]}-files"
        files = {str(path.relative_to(home)): path for path in sorted(home.rglob("*")) if path.is_file()}
        return Event(kind=file.stem[7:], content=content, files=files)

    def drop(self, file: Path) -> None:
        """The event is through, or no longer wanted."""
        file.unlink(missing_ok=True)
        shutil.rmtree(self.folder / f"{file.name[:6]}-files", ignore_errors=True)

    def remove(self) -> None:
        """Nothing of it is left to tell."""
        (self.folder / "start.json").unlink(missing_ok=True)  # first: with it, what is left would be a run to begin
        shutil.rmtree(self.folder, ignore_errors=True)

    def waiting(self) -> list[Path]:
        """Events to be delivered, the earliest first."""
        return sorted(file for file in self.folder.iterdir() if EVENT.fullmatch(file.name))


class Journal:
    """The runs of one process, for one server."""

    def __init__(self, root: Path, *, uri: str, experiment: str, name: str) -> None:
        """Begin a journal in the project's folder `root`; `uri` without a password, id and name of the experiment.

        Raises:
            UserError: the disk is full, or not writable.
        """
        self.home = root / ".regcls" / "journal"
        self.folder = self.home / secrets.token_hex(8)
        self._about = {"uri": uri, "experiment": experiment, "name": name, "folder": str(self.folder)}
        held = try_lock(self.folder / "lock")
        assert held is not None
        self._held: IO[str] = held
        write_json(self.folder / "about.json", self._about)

    def create(self, start: Mapping[str, Any]) -> JournaledRun:
        """See JournaledRun.create."""
        return JournaledRun.create(self.folder, start)

    def inherit(self, *, refused: bool) -> list[JournaledRun]:
        """Take over what processes that have ended left undelivered for the same server and experiment; `refused`: also what it refused."""
        inherited = []
        for folder, held in _ended(self.home):
            with held:
                about = _about(folder)
                if (about.get("uri"), about.get("experiment")) != (self._about["uri"], self._about["experiment"]):
                    continue
                for run in _runs(folder):
                    if refused or run.refused is None:
                        run.forgive()
                        if about.get("folder") != str(folder):  # moved, or a copy of what was delivered since
                            run.trying()
                        moved = self.folder / run.name
                        run.folder.rename(moved)
                        inherited.append(JournaledRun(moved))
                if not _runs(folder):
                    shutil.rmtree(folder, ignore_errors=True)
        return inherited

    def close(self) -> None:
        """Leave what is undelivered to the next process."""
        if not _runs(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
        self._held.close()


@dataclass(frozen=True, kw_only=True)
class Left:
    """What a process that has ended did not deliver, or what was refused."""

    uri: str
    experiment: str  # its name
    runs: list[JournaledRun]


def left_behind(root: Path) -> list[Left]:
    """All of it, in the project's folder `root`."""
    found = []
    for folder, held in _ended(root / ".regcls" / "journal"):
        with held:
            if runs := _runs(folder):
                about = _about(folder)
                found.append(Left(uri=about.get("uri", "an unknown server"), experiment=about.get("name", "?"), runs=runs))
    return found


def waiting(root: Path) -> int:
    """How many runs wait for `regcls sync` in the project's folder `root`."""
    return sum(len(left.runs) for left in left_behind(root))


def _ended(home: Path) -> Iterator[tuple[Path, IO[str]]]:
    """The folders of processes that have ended, locked."""
    for folder in sorted(home.iterdir()) if home.is_dir() else ():
        if (folder / "about.json").exists() and not _is_copy(folder) and (held := try_lock(folder / "lock")):
            yield folder, held


def _is_copy(folder: Path) -> bool:
    """Whether the original still has it to deliver, in the project that this one is a copy of; its process may live."""
    original = _about(folder).get("folder", folder)
    return os.path.exists(original) and not os.path.samefile(original, folder)


def _about(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / "about.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _runs(folder: Path) -> list[JournaledRun]:
    return [JournaledRun(path.parent) for path in sorted(folder.glob("*/start.json"))]
