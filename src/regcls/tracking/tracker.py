"""Writes the project's runs to MLflow, and reads them back.

Without MLFLOW_TRACKING_URI the store is mlflow.db and mlartifacts/ in the project's root, which `mlflow ui` shows when started there.
"""

import getpass
import hashlib
import json
import logging
import os
import re
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls import files
from regcls.errors import UserError
from regcls.processes import is_living, process_identity
from regcls.progress import say
from regcls.runs import RunResult, RunSpec
from regcls.tracking.journal import Journal
from regcls.tracking.run_table import RERUN_TAG, TrackedRun, run_table
from regcls.tracking.store import (
    address_of,
    database_of,
    folder_of,
    lock_path,
    locks_of,
    open_database,
    project_root,
    say_waiting,
    sqlite_uri,
    store_uri,
    without_password,
)
from regcls.words import printable

# MLflow reads these when it is imported or at each call; the user's own settings take precedence.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it would print two lines per run
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")  # seconds per attempt (MLflow: 120)
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 15 seconds (MLflow: four minutes); writes are retried anyway
for _name in ("DOWNLOAD", "UPLOAD"):  # these bypass the server, for an object store that perhaps only the server can reach
    os.environ.setdefault(f"MLFLOW_ENABLE_PROXY_MULTIPART_{_name}", "false")

from mlflow.entities import ExperimentTag, Run
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _get_latest_schema_revision
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from regcls.tracking.courier import Courier
from regcls.tracking.files import STATE, RunFiles, explain_store_errors, save_code_model, save_model
from regcls.tracking.reading import artifact_folders, row_of, rows_of, runs_beginning
from regcls.tracking.views import TAG, View
from regcls.tracking.writer import ALIVE_TAG, DIED, WEIGHTS, Point, Writer, is_unknown, milliseconds, points_of, weights_of

for _name, _level in (("alembic", logging.WARNING), ("mlflow.store.db.utils", logging.CRITICAL)):
    logging.getLogger(_name).setLevel(_level)  # their errors are raised as exceptions as well

EXPERIMENT_KIND = ("mlflow.experimentKind", "custom_model_development")  # `mlflow ui` opens on runs, not on language-model traces
PROBE_WAIT = 5.0  # seconds for the first answer of a tracking server
PATIENCE = 20.0  # seconds without an answer, at the end, until undelivered events are left in the journal
GRACE = 6.0  # seconds to deliver after SIGTERM or Ctrl-C: `docker stop` kills after ten
SILENCE = 1800.0  # seconds without a heartbeat until another machine's run counts as dead
LINEAGE = "lineage.json"
SHOWN = 5  # runs listed if a search is ambiguous
DATA_DIGEST_TAG = "data_digest"  # the caller's tag that identifies a version of a data set


TimedPoint = tuple[str, float, int, float]  # name, value, step, Unix seconds


class Tracker:
    """The project's runs in one MLflow experiment. Use one Tracker per process, from one thread."""

    def __init__(self, root: Path, *, experiment: str) -> None:
        """Open the store; create it if it does not exist yet.

        Raises:
            UserError: the server does not answer, or the SQLite file is locked, damaged, not writable or of another MLflow version.
        """
        self.root = project_root(root)
        self.uri = store_uri(self.root)
        self._is_own = self.uri == sqlite_uri(self.root / "mlflow.db")
        # Popped, or child processes would log into the same run.
        self.adopted_run = os.environ.pop("MLFLOW_RUN_ID", None) or None
        self._courier: Courier | None = None
        self._lineage: tuple[Mapping[str, Any], Path] | None = None  # of the latest run, and its file
        with explain_store_errors(self.uri):
            if database := database_of(self.uri):
                artifacts, schema = database.parent / "mlartifacts", _get_latest_schema_revision()
                create = partial(_create_database, artifacts=artifacts, experiment=experiment)
                open_database(database, schema=schema, create=create, root=self.root)
            else:
                _probe(self.uri)
            self._client = MlflowClient(self.uri)
            self._is_direct = database is not None  # no journal: unlike a server, a file does not come and go
            self.files = RunFiles(self._client, self.uri)
            self.experiment_id = self._find_experiment(experiment)
            if not self._is_direct:  # now, while the server is available
                self._experiment_name = str(self._client.get_experiment(self.experiment_id).name)
                if self.adopted_run:
                    self._client.get_run(self.adopted_run)
            self._writer = Writer(self._client, self.files, self.experiment_id, in_sqlite=self._is_direct)

    def _find_experiment(self, experiment: str) -> str:
        self._name_default(experiment)
        if experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID"):  # `mlflow run` sets it, even beside MLFLOW_EXPERIMENT_NAME
            return str(self._client.get_experiment(experiment_id).experiment_id)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or experiment
        if experiment_id := self._by_name(name):
            return experiment_id
        database = database_of(self.uri)
        if database is None:
            return self._create_experiment(name, None)
        with files.lock(lock_path(database), on_wait=say_waiting):
            if experiment_id := self._by_name(name):
                return experiment_id
            return self._create_experiment(name, address_of(database.parent / "mlartifacts" / re.sub(r"[^\w.-]", "_", name)))

    def _name_default(self, experiment: str) -> None:
        """Rename experiment 0 if a plain mlflow command has created our store: such commands log there, and ours must be beside them."""
        if not self._is_own or self._by_name(experiment):
            return
        with files.lock(lock_path(self.root / "mlflow.db"), on_wait=say_waiting):
            default = self._client.get_experiment("0")
            if (default.name, default.lifecycle_stage) == ("Default", "active"):
                self._client.rename_experiment("0", experiment)
                self._client.set_experiment_tag("0", *EXPERIMENT_KIND)

    def _by_name(self, name: str) -> str | None:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            return None
        if experiment.lifecycle_stage != "active":
            raise UserError(
                f"experiment {name!r} in {without_password(self.uri)} is deleted. Restore it with "
                f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`, or set MLFLOW_EXPERIMENT_NAME to another name."
            )
        return str(experiment.experiment_id)

    def _create_experiment(self, name: str, artifacts: str | None) -> str:
        try:
            return str(self._client.create_experiment(name, artifact_location=artifacts, tags=dict([EXPERIMENT_KIND])))
        except MlflowException as error:
            if error.error_code == "RESOURCE_ALREADY_EXISTS" and (experiment_id := self._by_name(name)):  # another process was faster
                return experiment_id
            raise

    def start(
        self,
        spec: RunSpec,
        *,
        fingerprint: str,
        tags: Mapping[str, str],
        adopt: bool = False,
        continues: str | None = None,
        lineage: Mapping[str, Any] | None = None,
    ) -> str:
        """Begin a run with its parameters, tags and data set; return its name for the other methods (for its id see `run_id`).

        `adopt`: continue the run that `mlflow run` has begun for this process, if there is one; otherwise that one becomes the parent.
        `continues`: name or id of an interrupted run, which is reopened if it exists, has this fingerprint, and has neither finished nor
        failed. `lineage`: provenance of the run, stored as lineage.json.
        """
        adopts = self.adopted_run if adopt else None
        tags = {**tags, **self._own_tags(spec, fingerprint, tags)}
        if self.adopted_run and not adopts:
            tags["mlflow.parentRunId"] = self.adopted_run
        content = {
            "name": spec.name,
            "started": milliseconds(time.time()),
            "params": spec.params(),
            "tags": tags,
            "data": {"dataset": spec.dataset, "name": spec.data_name, "digest": tags.get(DATA_DIGEST_TAG, "unknown")},
            "adopts": adopts,
            "continues": continues,
        }
        if self._is_direct:
            with explain_store_errors(self.uri):
                name = self._writer.start(content)
        else:
            name = self._sender.begin(content)
        if lineage:
            try:
                self._log_lineage(name, lineage)
            except UserError as error:  # its folder cannot be written
                self.stop(name, status="KILLED", reason=str(error))
                raise
        return name

    def _log_lineage(self, run: str, lineage: Mapping[str, Any]) -> None:
        """Log lineage.json as a single file shared by all runs on this disk: with uncommitted changes it is not small."""
        if self._lineage is None or self._lineage[0] is not lineage:
            text = json.dumps(lineage, indent=2, ensure_ascii=False) + "\n"
            file = self.root / ".regcls" / "lineage" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
            files.write_text(file, text)
            self._lineage = lineage, file
        if self._is_direct:
            with explain_store_errors(self.uri):
                self._writer.log_shared(run, LINEAGE, self._lineage[1])
        else:
            self.log_files(run, {LINEAGE: self._lineage[1]})

    def _own_tags(self, spec: RunSpec, fingerprint: str, tags: Mapping[str, str]) -> dict[str, str]:
        own = {
            **spec.tags(),
            "fingerprint": fingerprint,
            "regcls.host": socket.gethostname(),  # this and the next two: the process that trains the run
            "regcls.root": str(self.root),
            "regcls.process": process_identity(os.getpid()) or "",
            "mlflow.user": _user(),
            "mlflow.source.name": " ".join(["regcls", *sys.argv[1:]])[:500],
            "mlflow.source.type": "LOCAL",
        }
        if tags.get("git_commit", "unknown") != "unknown":
            own["mlflow.source.git.commit"] = tags["git_commit"]
        return own

    def _log(self, run: str, kind: str, content: Mapping[str, Any], paths: Mapping[str, Path] | None = None, *, replaces: str = "") -> None:
        if self._is_direct:
            with explain_store_errors(self.uri):
                self._writer.log(run, kind, content, paths or {})
        else:
            self._sender.add(run, kind, content, paths or {}, replaces=replaces)

    @contextmanager
    def parent(self, name: str, tags: Mapping[str, str]) -> Iterator[Callable[[str, str], None]]:
        """Make all runs that begin within the block children of a new run, which it yields a function to store texts of (path, text).

        Within `mlflow run`, that run is the parent. Earlier runs with these `tags` that a dead process of this machine has left RUNNING are
        ended.
        """
        earlier, host = self.adopted_run, socket.gethostname()
        with explain_store_errors(self.uri):
            if earlier is None:
                alike = " and ".join(f"tags.`{key}` = '{value}'" for key, value in {**tags, "regcls.host": host}.items())
                for run in self._client.search_runs([self.experiment_id], f"attributes.status = 'RUNNING' and {alike}"):
                    if not is_living(run.data.tags.get("regcls.process", "")):
                        self._client.set_terminated(run.info.run_id, "KILLED")
                process = {"regcls.host": host, "regcls.process": process_identity(os.getpid()) or "", "mlflow.user": _user()}
                created = self._client.create_run(self.experiment_id, tags={**tags, **process}, run_name=name)
                self.adopted_run = str(created.info.run_id)
            run_id, status = str(self.adopted_run), "KILLED"
            try:
                yield lambda path, text: self._client.log_text(run_id, text, path)
                status = "FINISHED"
            except Exception:
                status = "FAILED"
                raise
            finally:
                if earlier is None:
                    self._client.set_terminated(run_id, status)
                self.adopted_run = earlier

    def log_metrics(self, run: str, points: Sequence[TimedPoint]) -> None:
        """Log points. Logging equal ones again changes nothing."""
        self._log(run, "metrics", {"points": _in_milliseconds(points)})

    def log_tags(self, run: str, tags: Mapping[str, str]) -> None:
        """Add tags, or replace their values."""
        self._log(run, "tags", {"tags": dict(tags)})

    def log_files(self, run: str, paths: Mapping[str, Path]) -> None:
        """Store files: artifact path -> local file, which must not be written to from now on (but may be renamed or removed).

        Raises:
            UserError: the disk is full, or the store does not answer.
        """
        self._log(run, "files", {}, paths)

    def log_json(self, run: str, path: str, content: Any) -> None:
        """Store a value as JSON. Raises as `log_files` does."""
        with self._aside() as file:
            file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            self.log_files(run, {path: file})

    def log_table(self, run: str, path: str, table: pd.DataFrame) -> None:
        """Store a table as parquet. Raises as `log_files` does."""
        with self._aside() as file:
            table.to_parquet(file, index=False)
            self.log_files(run, {path: file})

    def log_state(self, run: str, paths: Mapping[str, Path], *, slot: int) -> None:
        """Store the state from which another machine would resume, replacing an earlier one in `slot`. Raises as `log_files` does.

        States are removed when the run is FINISHED.
        """
        stored = {f"{STATE}/{slot}/{path}": file for path, file in paths.items()}
        self._log(run, "files", {"slot": f"{STATE}/{slot}"}, stored, replaces=f"{STATE}/{slot}")

    def log_model(self, run: str, module: Any, *, example: NDArray[np.uint8], points: Sequence[TimedPoint], step: int) -> None:
        """Store a torch module (B, …) -> (B, …) as an MLflow model, with `points` as its metrics. Raises as `log_files` does."""
        with self._aside() as folder:
            save_model(module, folder, example=example)
            self._log_model(run, folder, _in_milliseconds(points), step)

    def _log_model(self, run: str, folder: Path, points: Sequence[Point], step: int) -> None:
        paths = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
        self._log(run, "model", {"points": points, "step": step}, paths)

    def fetch_state(self, run_id: str, folder: Path) -> list[Path]:
        """Download the states stored by `log_state` into `folder`; return a folder for each slot.

        Raises:
            UserError: the store does not answer.
        """
        stored = self.files.fetch_folder(run_id, STATE, folder)
        return sorted(stored.iterdir()) if stored else []

    @contextmanager
    def _aside(self) -> Iterator[Path]:
        """A temporary path for a file or folder to log."""
        home = self.root / ".regcls"  # on the same disk as the journal, so that it can link the file
        with files.explain_os_errors(home):
            home.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=home, prefix=".aside-") as folder:
                yield Path(folder) / "content"

    def finish(self, run: str, result: RunResult) -> None:
        """Log the result of a run of many small networks, and mark it FINISHED."""
        for path, table in result.tables.items():
            self.log_table(run, path, table)
        if result.model:
            with self._aside() as folder:
                save_code_model(result.model, folder)
                self._log_model(run, folder, [], len(next(iter(result.history.values()), ())))
        if self._is_direct:
            with explain_store_errors(self.uri):
                self._writer.finish(run, result)
            return
        with self._aside() as file:
            file.write_bytes(weights_of(result))
            self._log(run, "finish", {"points": points_of(result), "at": milliseconds(result.ended)}, {WEIGHTS: file})

    def end(self, run: str) -> None:
        """Mark a run FINISHED, after its results are logged. States that still wait are not sent any more."""
        self._log(run, "end", {"status": "FINISHED", "reason": None, "at": milliseconds(time.time())}, replaces=STATE)

    def stop(self, run: str, *, status: Literal["KILLED", "FAILED"], reason: str) -> None:
        """End a run that will not finish; the tag `stopped` says why."""
        self._log(run, "end", {"status": status, "reason": without_password(reason), "at": milliseconds(time.time())})

    @property
    def _sender(self) -> Courier:
        if self._courier is None:
            client = MlflowClient(self.uri)  # the thread's own
            writer = Writer(client, RunFiles(client, self.uri), self.experiment_id, in_sqlite=False)
            journal = Journal(self.root, uri=without_password(self.uri), experiment=self.experiment_id, name=self._experiment_name)
            self._courier = Courier(journal, writer, self.uri)
        return self._courier

    @property
    def locks(self) -> Path:
        """The folder of the locks that keep processes from training a run twice."""
        return locks_of(self.uri, self.root)

    @property
    def is_remote(self) -> bool:
        """Whether runs go to a server, through the journal."""
        return not self._is_direct

    def run_id(self, run: str) -> str:
        """The MLflow id of the run that `start` has named; empty while it is not delivered to the server."""
        return run if self._is_direct else self._sender.run_id(run) or ""

    def inherit(self, *, refused: bool = False) -> int:
        """Deliver journaled runs of processes that have ended; return their number. `refused`: retry runs that the server refused.

        Raises:
            UserError: they could not be delivered.
        """
        if self._is_direct or not (count := self._sender.inherit(refused=refused)):
            return 0
        say(f"{count} run(s) of an earlier process were not delivered yet; delivering them first")
        self.deliver()
        return count

    def deliver(self) -> None:
        """Wait until everything is delivered to the server.

        Raises:
            UserError: something could not be delivered; the message says where it is kept.
        """
        if self._courier is None:
            return
        if undelivered := self._courier.deliver(patience=PATIENCE):
            reasons = "; ".join(dict.fromkeys(undelivered.values()))
            raise UserError(
                f"{len(undelivered)} run(s) could not be delivered to {without_password(self.uri)}: {reasons} They are kept in "
                f"{self.root / '.regcls' / 'journal'}: once that is fixed, `regcls sync` delivers them."
            )

    def is_delivered(self, run: str) -> bool:
        """Whether an ended run is completely in the store."""
        return self._is_direct or self._sender.is_delivered(run)

    def deliver_shortly(self) -> None:
        """Deliver for a few seconds only, since this process was asked to stop; the next one delivers the rest."""
        if self._courier is not None:
            self._courier.deliver(patience=GRACE, longest=GRACE)

    def reconcile(self, dataset: str) -> list[str]:
        """Mark the stale runs of a data set KILLED; return their ids. The caller must hold the grid's lock."""
        stale = self.stale(dataset)
        with explain_store_errors(self.uri):
            for run_id in stale:
                self._writer.end(run_id, "KILLED", reason=DIED, at=milliseconds(time.time()))
        return stale

    def stale(self, dataset: str) -> list[str]:
        """Ids of the runs of a data set that are RUNNING although their process has died.

        Excluded: the adopted run, runs whose process lives (`regcls run` beside the grid), and on a server runs of other hosts or folders
        as long as they send heartbeats.
        """
        with explain_store_errors(self.uri):
            rows = rows_of(self._client, self.experiment_id, "dataset", dataset, status="RUNNING")
        return [row.run_id for row in rows if row.run_id != self.adopted_run and self._is_stale(row.tags)]

    def _is_stale(self, tags: Mapping[str, str]) -> bool:
        host, process = tags.get("regcls.host"), tags.get("regcls.process", "")
        if host is None:  # not a run of regcls
            return False
        same_host = host == socket.gethostname()
        # In the project's own store every run belongs to this folder, even if a container with another host name trained it.
        if self._is_own or (same_host and tags.get("regcls.root") == str(self.root)):
            return not same_host or process.partition("-")[0] == str(os.getpid()) or not is_living(process)
        alive = tags.get(ALIVE_TAG, "")
        return alive.isdecimal() and time.time() - int(alive) > SILENCE

    def finished(self, dataset: str) -> dict[str, str]:
        """Fingerprint -> id of the FINISHED runs of a data set; of several, the earliest."""
        run_ids: dict[str, str] = {}
        for row in self._with_status(dataset, "FINISHED"):
            run_ids.setdefault(row.tags["fingerprint"], row.run_id)
        return run_ids

    def interrupted(self, dataset: str) -> dict[str, str]:
        """Fingerprint -> id of the KILLED runs of a data set, without repetitions of other runs; of several, the latest."""
        return {row.tags["fingerprint"]: row.run_id for row in self._with_status(dataset, "KILLED") if RERUN_TAG not in row.tags}

    def without_files(self) -> dict[str, Path]:
        """FINISHED runs whose files are gone: run id -> the folder where they were. Only of a store and files on this machine's disks.

        Raises:
            UserError: a link on the way to the files leads nowhere, so perhaps they are not gone.
        """
        with explain_store_errors(self.uri):
            found = artifact_folders(self._client, self.experiment_id, status="FINISHED")
        folders = {run_id: folder_of(address) for run_id, address in found.items() if address.startswith(("/", "file:"))}
        lost = {run_id: folder for run_id, folder in folders.items() if files.is_missing(folder)}
        for home in {folder.parents[1] for folder in lost.values()}:
            files.check_links(home)
        return lost

    def delete(self, run_id: str) -> None:
        """Delete a run; `mlflow runs restore` brings it back, until `mlflow gc`."""
        with explain_store_errors(self.uri):
            self._client.delete_run(run_id)

    def _with_status(self, dataset: str, status: str) -> list[TrackedRun]:
        with explain_store_errors(self.uri):
            rows = rows_of(self._client, self.experiment_id, "dataset", dataset, status=status)
        return [row for row in rows if "fingerprint" in row.tags]

    def collect(self, dataset: str, kind: type[RunSpec]) -> pd.DataFrame:
        """Table of all runs of a data set with any status, earliest first: see run_table. `kind`: class of their specs."""
        with explain_store_errors(self.uri):
            rows = rows_of(self._client, self.experiment_id, "dataset", dataset, values=True)
        return run_table(rows, kind)

    def metrics(self, run_id: str) -> dict[str, float]:
        """The last value of each metric of a run."""
        with explain_store_errors(self.uri):
            return dict(self._client.get_run(run_id).data.metrics)

    def find(self, text: str) -> TrackedRun:
        """The run, with all its tags, that `text` identifies: its id or fingerprint, the beginning of one, or the URL of its page.

        Of several runs with the same fingerprint it is the one that counts, the earliest FINISHED.

        Raises:
            UserError: there is none, there are several, or it is deleted.
        """
        url = re.search(r"/runs/([0-9a-f]{32})\b", text)
        name = url[1] if url else text.strip().lower()
        runs = self._matching(name)
        if len({run.data.tags.get("fingerprint", run.info.run_id) for run in runs}) == 1 and not runs[0].info.run_id.startswith(name):
            runs = sorted(runs, key=lambda run: run.info.status != "FINISHED")[:1]
        store = without_password(self.uri)
        if not runs:
            raise UserError(f"no run in {store} with an id that begins with {text!r}. `mlflow ui` shows the ids.")
        if len(runs) > 1:
            lines = "".join(f"\n{run.info.run_id} {run.info.status} {printable(run.info.run_name)}" for run in runs[:SHOWN])
            count = f"more than {SHOWN}" if len(runs) > SHOWN else len(runs)
            raise UserError(f"{count} runs in {store} with an id that begins with {text!r}; `mlflow ui` shows the ids.{lines}")
        if runs[0].info.lifecycle_stage != "active":
            raise UserError(f"run {name} in {store} is deleted. Restore it with `mlflow runs restore --run-id {name}`.")
        return row_of(runs[0])

    def _matching(self, name: str) -> list[Run]:
        if not re.fullmatch("[0-9a-f]{1,32}", name):
            return []
        with explain_store_errors(self.uri):
            if len(name) == 32:
                try:
                    return [self._client.get_run(name)]
                except MlflowException as error:
                    if not is_unknown(error):
                        raise
            return runs_beginning(self._client, self.experiment_id, name, most=SHOWN + 1)

    def tagged(self, tag: str, value: str) -> list[TrackedRun]:
        """The runs whose `tag` is `value`, or begins with it if it ends in %; with params and metrics, earliest first."""
        with explain_store_errors(self.uri):
            return rows_of(self._client, self.experiment_id, tag, value, values=True)

    def run_url(self, run_id: str) -> str:
        """The run's page, on the server or in `mlflow ui`."""
        return f"{self._page}/{run_id}"

    def runs_url(self, tag: str, value: str) -> str:
        """The page that lists the runs whose `tag` is `value`."""
        query = quote(f'tags.{tag} = "{value}"', safe="")
        return f"{self._page}?searchFilter={query}"

    def compare_url(self, run_ids: Sequence[str]) -> str:
        """The page that compares runs side by side."""
        runs, experiments = (quote(json.dumps(list(ids), separators=(",", ":"))) for ids in (run_ids, [self.experiment_id]))
        return f"{self._host}/#/compare-runs?runs={runs}&experiments={experiments}"

    def view_urls(self, view: View) -> tuple[str, str]:
        """The pages of a view's run list and of its parallel coordinates; with filter and order only, if the store refuses the view."""
        try:
            with explain_store_errors(self.uri):
                tags = self._client.get_experiment(self.experiment_id).tags
                if tags.get(TAG + view.key) != view.state:
                    self._client.set_experiment_tag(self.experiment_id, TAG + view.key, view.state)
        except (UserError, MlflowException):  # a server where the user may only read
            plain = f"{self._page}?searchFilter={quote(view.filter, safe='')}&orderByKey={quote(view.order, safe='')}&orderByAsc=true"
            return plain, f"{plain}&compareRunsMode=CHART"
        shared = f"{self._page}?viewStateShareKey={view.key}&workflowType=machine_learning"
        return shared, f"{shared}&compareRunsMode=CHART"

    @property
    def _host(self) -> str:
        return without_password(self.uri).rstrip("/") if self.uri.startswith(("http:", "https:")) else "http://127.0.0.1:5000"

    @property
    def _page(self) -> str:
        return f"{self._host}/#/experiments/{self.experiment_id}/runs"


def _in_milliseconds(points: Sequence[TimedPoint]) -> list[Point]:
    return [(name, float(value), step, milliseconds(at)) for name, value, step, at in points]


def _create_database(path: Path, artifacts: Path, experiment: str) -> None:
    store = SqlAlchemyStore(sqlite_uri(path), "mlartifacts")
    store.rename_experiment("0", experiment)  # what plain mlflow commands log into
    store.set_experiment_tag("0", ExperimentTag(*EXPERIMENT_KIND))
    store._dispose_engine()
    with closing(sqlite3.connect(path)) as connection:
        with connection:  # MLflow does not escape apostrophes in its own SQL statement for this
            connection.execute("UPDATE experiments SET artifact_location = ?", [address_of(artifacts / "0")])
        # Stored in the file, so plain mlflow commands use it too: with a write-ahead log the grid and `mlflow ui` do not wait for each
        # other, and a commit writes one contiguous piece, not scattered pages. If the disk does not support it, SQLite keeps the old mode.
        connection.execute("PRAGMA journal_mode = WAL")


def _probe(uri: str) -> None:
    """Send one short request, to detect a wrong address at once; any answer will do."""
    if uri.startswith(("http:", "https:")):
        http_request(get_default_host_creds(uri), "/health", "GET", max_retries=0, timeout=PROBE_WAIT, raise_on_status=False)
    elif (parts := urlsplit(uri)).hostname:
        try:
            socket.create_connection((parts.hostname, parts.port or 5432), timeout=PROBE_WAIT).close()
        except OSError as error:
            raise UserError(f"no answer from {without_password(uri)} ({error.strerror or error}). Is MLFLOW_TRACKING_URI right?") from None


def _user() -> str:
    if account := os.environ.get("MLFLOW_TRACKING_USERNAME"):  # in containers, everyone is the same system user
        return account
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
