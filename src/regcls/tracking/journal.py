"""Events not yet delivered to a tracking server, on disk. Does not use MLflow.

.regcls/journal/<process>/           a folder for each process that tracks
    about.json                       server, experiment and the path of this folder, which differs in a copy of the project
    lock                             locked while the process lives
    <run>/start.json                 a folder for each run that is not fully delivered
    <run>/run_id                     written once the run is on the server
    <run>/000001-metrics.json        an event, deleted when it is delivered
    <run>/000002-files/              the files of event 000002, under their artifact paths
    <run>/refused.txt                why the server refuses this run for good
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
    """Something to log in a run on the server."""

    kind: str
    content: dict[str, Any]
    files: Mapping[str, Path]  # artifact path -> local file


class JournaledRun:
    """The undelivered events of a run, earliest first. Its `name` is unique across machines."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.name
        self._count = max((int(file.name[:6]) for file in self.events()), default=0)

    @classmethod
    def create(cls, home: Path, start: Mapping[str, Any]) -> "JournaledRun":
        """Begin a run; `start`: the content of Tracker.start.

        Raises:
            UserError: the disk is full, or not writable.
        """
        folder = home / f"{time.time_ns():019d}-{secrets.token_hex(6)}"
        write_json(folder / "start.json", start)
        return cls(folder)

    @property
    def start(self) -> dict[str, Any]:
        """The content of Tracker.start."""
        return dict(json.loads((self.folder / "start.json").read_text(encoding="utf-8")))

    @property
    def run_id(self) -> str | None:
        """The id on the server, once the run is there."""
        try:
            return (self.folder / "run_id").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def note_id(self, run_id: str) -> None:
        """Record the id on the server."""
        write_text(self.folder / "run_id", f"{run_id}\n")

    @property
    def was_requested(self) -> bool:
        """Whether the run may be on the server although its id is not recorded."""
        return (self.folder / "tried").exists()

    def note_request(self) -> None:
        """Record that the server is asked to create the run."""
        (self.folder / "tried").touch()

    def restart(self, start: Mapping[str, Any]) -> None:
        """Detach from the run on the server: the remaining events go into a new one."""
        write_json(self.folder / "start.json", start)
        for name in ("run_id", "tried"):
            (self.folder / name).unlink(missing_ok=True)

    @property
    def refused(self) -> str | None:
        """Why the server refuses the run, if it does."""
        try:
            return (self.folder / "refused.txt").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    def refuse(self, reason: str) -> None:
        """Record that the server refuses the run; its files stay."""
        write_text(self.folder / "refused.txt", f"{reason}\n")

    def retry(self) -> None:
        """Allow another attempt to deliver the run."""
        (self.folder / "refused.txt").unlink(missing_ok=True)

    def add(self, kind: str, content: Mapping[str, Any], files: Mapping[str, Path], *, replaces: str = "") -> None:
        """Append an event. Its files are linked, so they may be renamed or removed, but not written to.

        `replaces`: drop earlier events whose content has a `slot` that begins with this.

        Raises:
            UserError: the disk is full, or not writable; the event is not added.
        """
        events = [(file, self.read(file)) for file in self.events() if replaces]
        outdated = [file for file, event in events if event and event.content.get("slot", "").startswith(replaces)]
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
        """Read an event; None if it is dropped in the meantime."""
        home = self.folder / f"{file.name[:6]}-files"
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            files = {str(path.relative_to(home)): path for path in sorted(home.rglob("*")) if path.is_file()}
        except FileNotFoundError:
            return None
        return Event(kind=file.stem[7:], content=content, files=files)

    def drop(self, file: Path) -> None:
        """Delete an event that is delivered or replaced."""
        file.unlink(missing_ok=True)
        shutil.rmtree(self.folder / f"{file.name[:6]}-files", ignore_errors=True)

    def remove(self) -> None:
        """Delete the fully delivered run."""
        (self.folder / "start.json").unlink(missing_ok=True)  # first: a folder with start.json counts as a run to deliver
        shutil.rmtree(self.folder, ignore_errors=True)

    def events(self) -> list[Path]:
        """Files of the undelivered events, earliest first."""
        return sorted(file for file in self.folder.iterdir() if EVENT.fullmatch(file.name))


class Journal:
    """The runs of one process, for one server."""

    def __init__(self, root: Path, *, uri: str, experiment: str, name: str) -> None:
        """Begin a journal in the project's folder `root`. `uri`: without password; `experiment`, `name`: id and name of the experiment.

        Raises:
            UserError: the disk is full, or not writable.
        """
        self.home = root / ".regcls" / "journal"
        self.folder = self.home / secrets.token_hex(8)
        self._about = {"uri": uri, "experiment": experiment, "name": name, "folder": str(self.folder)}
        lock = try_lock(self.folder / "lock")
        assert lock is not None
        self._lock: IO[str] = lock
        write_json(self.folder / "about.json", self._about)

    def create(self, start: Mapping[str, Any]) -> JournaledRun:
        """See JournaledRun.create."""
        return JournaledRun.create(self.folder, start)

    def inherit(self, *, refused: bool) -> list[JournaledRun]:
        """Take over undelivered runs of ended processes for the same server and experiment; `refused`: also runs that it refused."""
        inherited = []
        for folder, lock in _ended(self.home):
            with lock:
                about = _about(folder)
                if (about.get("uri"), about.get("experiment")) != (self._about["uri"], self._about["experiment"]):
                    continue
                for run in _runs(folder):
                    if refused or run.refused is None:
                        run.retry()
                        if about.get("folder") != str(folder):  # moved, or a copy, whose original may have been delivered since
                            run.note_request()
                        new_folder = self.folder / run.name
                        run.folder.rename(new_folder)
                        inherited.append(JournaledRun(new_folder))
                if not _runs(folder):
                    shutil.rmtree(folder, ignore_errors=True)
        return inherited

    def close(self) -> None:
        """Leave undelivered runs to the next process."""
        if not _runs(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """Undelivered or refused runs of a process that has ended."""

    uri: str
    experiment: str  # name
    runs: list[JournaledRun]


def backlogs(root: Path) -> list[Backlog]:
    """The backlogs of all processes that have ended, in the project's folder `root`."""
    found = []
    for folder, lock in _ended(root / ".regcls" / "journal"):
        with lock:
            if runs := _runs(folder):
                about = _about(folder)
                found.append(Backlog(uri=about.get("uri", "an unknown server"), experiment=about.get("name", "?"), runs=runs))
    return found


def undelivered_count(root: Path) -> int:
    """How many runs wait for `regcls sync` in the project's folder `root`."""
    return sum(len(backlog.runs) for backlog in backlogs(root))


def _ended(home: Path) -> Iterator[tuple[Path, IO[str]]]:
    """The folders of processes that have ended, with their locks."""
    for folder in sorted(home.iterdir()) if home.is_dir() else ():
        if (folder / "about.json").exists() and not _is_copy(folder) and (lock := try_lock(folder / "lock")):
            yield folder, lock


def _is_copy(folder: Path) -> bool:
    """Whether the project is a copy, and the original still has this journal to deliver; its process may be alive."""
    original = _about(folder).get("folder", folder)
    return os.path.exists(original) and not os.path.samefile(original, folder)


def _about(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / "about.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _runs(folder: Path) -> list[JournaledRun]:
    return [JournaledRun(path.parent) for path in sorted(folder.glob("*/start.json"))]
