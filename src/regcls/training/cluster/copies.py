"""Prepared data on a node: from a shared disk, or pulled from the DVC remote, once for all processes of the node."""

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from regcls.dvc_remote import default_remote
from regcls.errors import MissingError, UserError
from regcls.files import explain_os_errors, lock, write_text
from regcls.training import worker

PULLED = ("dvc.yaml", "dvc.lock")  # what `dvc pull` reads, besides its configuration


def scratch() -> Path:
    """The folder on a node for all that training leaves there. Only this user can enter it: copies may have a password.

    Raises:
        UserError: it cannot be made, or is another user's.
    """
    folder = Path(os.environ.get("REGCLS_SCRATCH") or tempfile.gettempdir()) / f"regcls-{os.getuid()}"
    with explain_os_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or stat.S_IMODE(found.st_mode) != 0o700:
        raise UserError(f"{folder} is not a folder of yours that only you can enter. Remove it, or set REGCLS_SCRATCH to another place.")
    return folder


@dataclass(frozen=True)
class Prepared:
    """A folder of prepared data on the main process's machine, and how to get the same data elsewhere."""

    folder: str
    digest: str  # of its meta.json
    files: Mapping[str, str]  # path -> text of what `dvc pull` needs; empty if the project has no DVC remote

    @classmethod
    def of(cls, folder: Path) -> Self | None:
        """None if there are no prepared data in the folder.

        Raises:
            UserError: DVC's configuration cannot be read.
        """
        digest = _meta_digest(folder)
        return cls(str(folder), digest, _project_files(folder.parents[2], folder.parent.name)) if digest else None

    def find(self) -> Path:
        """The folder on this machine, where the data are shared or pulled.

        Raises:
            UserError: this machine does not see the folder, and the data cannot be pulled.
        """
        folder, host = Path(self.folder), os.uname().nodename
        if _meta_digest(folder) == self.digest:
            return folder
        share = f"Share {folder} with all nodes, or push it to a DVC remote that they reach: dvc remote add -d NAME URL; dvc push"
        if not self.files:
            raise UserError(f"{host} does not see {folder}, and the project has no DVC remote. {share}")
        dataset, home = folder.parent.name, scratch() / "copies" / self.digest[:16]
        copy = home / "data" / dataset / "prepared"
        with lock(home.with_suffix(".lock"), on_wait=lambda holder: None):
            if (home / "complete").exists() and _meta_digest(copy) == self.digest:
                return copy
            worker.say(f"{host} pulls {dataset} from the DVC remote, once")
            for name, text in self.files.items():
                write_text(home / name, text)
            command = [sys.executable, "-m", "dvc", "pull", "--quiet", "--force", f"prepare@{dataset}"]
            pulled = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
            shutil.rmtree(home / ".dvc" / "cache", ignore_errors=True)
            if pulled.returncode or _meta_digest(copy) != self.digest:
                why = " ".join((pulled.stderr.strip() or "the remote has another version").split())[-300:]
                raise UserError(f"{host} does not see {folder}, and dvc pull prepare@{dataset} fails there: {why}. {share}")
            write_text(home / "complete", "")
        return copy


def _meta_digest(folder: Path) -> str:
    """SHA-256 of meta.json, which has the checksums of the arrays; empty if there is none."""
    try:
        return hashlib.sha256((folder / "meta.json").read_bytes()).hexdigest()
    except OSError:
        return ""


@cache
def _project_files(root: Path, dataset: str) -> dict[str, str]:
    from configobj import ConfigObj  # type: ignore[import-untyped]  # as DVC writes its configuration

    try:
        remote = default_remote(root)
    except MissingError:
        return {}
    config = ConfigObj({"core": {"no_scm": "true", "analytics": "false", "check_update": "false", "remote": remote.name}})
    config["cache"] = {"type": "copy"}  # not links, since the cache is removed
    config[f'remote "{remote.name}"'] = {key: str(value) for key, value in {**remote.settings, "url": remote.url}.items()}
    texts = {name: (root / name).read_text(encoding="utf-8") for name in PULLED if (root / name).is_file()}
    return {**texts, "params.yaml": f"datasets: [{dataset}]\n", ".dvc/config": "\n".join(config.write()) + "\n"}
