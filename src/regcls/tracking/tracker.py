"""The project's runs in MLflow: writing them, and reading them back.

Without MLFLOW_TRACKING_URI the store is mlflow.db and mlartifacts/ in the project's root, where `mlflow ui` looks when started there.
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
from collections.abc import Iterator, Mapping, Sequence
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
from regcls.tracking.run_table import RERUN_TAG, Row, run_table
from regcls.tracking.store import (
    address_of,
    database_of,
    lock_path,
    open_database,
    project_root,
    say_waiting,
    sqlite_uri,
    store_uri,
    without_password,
)

# Read by MLflow when it is imported or at each call; what the user has set stays.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a run otherwise
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")  # seconds a try (MLflow: 120)
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 15 seconds (MLflow: four minutes); what is written is tried again anyway
for _name in ("DOWNLOAD", "UPLOAD"):  # past the server, from an object store that perhaps only the server can reach
    os.environ.setdefault(f"MLFLOW_ENABLE_PROXY_MULTIPART_{_name}", "false")

from mlflow.entities import ExperimentTag, Run
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _get_latest_schema_revision
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from regcls.tracking.courier import Courier
from regcls.tracking.files import STATE, RunFiles, said_plainly, save_model
from regcls.tracking.reading import row_of, rows_of, runs_beginning
from regcls.tracking.views import TAG, View
from regcls.tracking.writer import ALIVE_TAG, DIED, WEIGHTS, Point, Writer, is_unknown, milliseconds, points_of, weights_of

for _name, _level in (("alembic", logging.WARNING), ("mlflow.store.db.utils", logging.CRITICAL)):
    logging.getLogger(_name).setLevel(_level)  # what goes wrong there comes as an exception as well

EXPERIMENT_KIND = ("mlflow.experimentKind", "custom_model_development")  # `mlflow ui` opens on runs, not on language-model traces
PROBE_WAIT = 5.0  # seconds for the first answer of a tracking server
PATIENCE = 20.0  # seconds without an answer, at the end, until what is not delivered is left in the journal
GRACE = 6.0  # seconds to deliver after SIGTERM or Ctrl-C: `docker stop` kills after ten
SILENCE = 1800.0  # seconds without a sign of life until another machine's run counts as dead
LINEAGE = "lineage.json"
SHOWN = 5  # runs, of several that could be meant
DATA_DIGEST_TAG = "data_digest"  # the caller's tag that tells one version of a data set from another


TimedPoint = tuple[str, float, int, float]  # name, value, step, Unix seconds


class Tracker:
    """The project's runs in one MLflow experiment. One process uses one Tracker, from one thread."""

    def __init__(self, root: Path, *, experiment: str) -> None:
        """Open the store, after creating it where it does not exist yet.

        Raises:
            UserError: the server does not answer, or the SQLite file is locked, damaged, not writable or of another MLflow version.
        """
        self.root = project_root(root)
        self.uri = store_uri(self.root)
        self._is_own = self.uri == sqlite_uri(self.root / "mlflow.db")
        # Popped, or each process started from here would log into the same run.
        self.adopted_run = os.environ.pop("MLFLOW_RUN_ID", None) or None
        self._courier: Courier | None = None
        self._lineage: tuple[Mapping[str, Any], Path] | None = None  # of the latest run, and its file
        with said_plainly(self.uri):
            if database := database_of(self.uri):
                artifacts, schema = database.parent / "mlartifacts", _get_latest_schema_revision()
                create = partial(_create_database, artifacts=artifacts, experiment=experiment)
                open_database(database, schema=schema, create=create, is_own=self._is_own)
            else:
                _probe(self.uri)
            self._client = MlflowClient(self.uri)
            self._is_direct = database is not None  # a file is there or not; a server comes and goes
            self.files = RunFiles(self._client, self.uri)
            self.experiment_id = self._find_experiment(experiment)
            if not self._is_direct:  # now, as long as the server is there
                self._experiment_name = str(self._client.get_experiment(self.experiment_id).name)
                if self.adopted_run:
                    self._client.get_run(self.adopted_run)
            self._writer = Writer(self._client, self.files, self.experiment_id, in_sqlite=self._is_direct)

    def _find_experiment(self, experiment: str) -> str:
        self._name_default(experiment)
        if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):  # set by `mlflow run`, also next to MLFLOW_EXPERIMENT_NAME
            return str(self._client.get_experiment(given).experiment_id)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or experiment
        if found := self._by_name(name):
            return found
        database = database_of(self.uri)
        if database is None:
            return self._create_experiment(name, None)
        with files.lock(lock_path(database), waiting=say_waiting):
            if found := self._by_name(name):
                return found
            return self._create_experiment(name, address_of(database.parent / "mlartifacts" / re.sub(r"[^\w.-]", "_", name)))

    def _name_default(self, experiment: str) -> None:
        """Where a plain mlflow command has made our store: what it logs goes to experiment 0, and ours must stand beside it."""
        if not self._is_own or self._by_name(experiment):
            return
        with files.lock(lock_path(self.root / "mlflow.db"), waiting=say_waiting):
            default = self._client.get_experiment("0")
            if (default.name, default.lifecycle_stage) == ("Default", "active"):
                self._client.rename_experiment("0", experiment)
                self._client.set_experiment_tag("0", *EXPERIMENT_KIND)

    def _by_name(self, name: str) -> str | None:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            return None
        if found.lifecycle_stage != "active":
            raise UserError(
                f"experiment {name!r} in {without_password(self.uri)} is deleted. Bring it back with "
                f"`mlflow experiments restore --experiment-id {found.experiment_id}`, or set MLFLOW_EXPERIMENT_NAME to another name."
            )
        return str(found.experiment_id)

    def _create_experiment(self, name: str, artifacts: str | None) -> str:
        try:
            return str(self._client.create_experiment(name, artifact_location=artifacts, tags=dict([EXPERIMENT_KIND])))
        except MlflowException as error:
            if error.error_code == "RESOURCE_ALREADY_EXISTS" and (found := self._by_name(name)):  # someone was quicker
                return found
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
        """Begin a run, with its parameters, tags and data set, and return its name for the other methods; its id is `run_id` of it.

        `adopt` continues the run that `mlflow run` has begun for this process, if there is one; otherwise that one becomes the parent.
        `continues`: name or id of a run that was interrupted; it is opened again if it is still there, has this fingerprint, and neither
        finished nor failed. `lineage`: what the run comes from, stored as lineage.json.
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
            with said_plainly(self.uri):
                name = self._writer.start(content)
        else:
            name = self._sender.begin(content)
        if lineage:
            self._log_lineage(name, lineage)
        return name

    def _log_lineage(self, run: str, lineage: Mapping[str, Any]) -> None:
        """As one file on this disk, whatever the number of runs: with uncommitted changes it is not small."""
        if self._lineage is None or self._lineage[0] is not lineage:
            text = json.dumps(lineage, indent=2, ensure_ascii=False) + "\n"
            file = self.root / ".regcls" / "lineage" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
            files.write_text(file, text)
            self._lineage = lineage, file
        if self._is_direct:
            with said_plainly(self.uri):
                self._writer.log_shared(run, LINEAGE, self._lineage[1])
        else:
            self.log_files(run, {LINEAGE: self._lineage[1]})

    def _own_tags(self, spec: RunSpec, fingerprint: str, tags: Mapping[str, str]) -> dict[str, str]:
        own = {
            **spec.tags(),
            "fingerprint": fingerprint,
            "regcls.host": socket.gethostname(),  # whose the run is while it is made
            "regcls.root": str(self.root),
            "regcls.process": process_identity(os.getpid()) or "",
            "mlflow.user": _user(),
            "mlflow.source.name": " ".join(["regcls", *sys.argv[1:]])[:500],
            "mlflow.source.type": "LOCAL",
        }
        if tags.get("git_commit", "unknown") != "unknown":
            own["mlflow.source.git.commit"] = tags["git_commit"]
        return own

    def _log(self, run: str, kind: str, content: Mapping[str, Any], paths: Mapping[str, Path] | None = None, *, instead: str = "") -> None:
        if self._is_direct:
            with said_plainly(self.uri):
                self._writer.log(run, kind, content, paths or {})
        else:
            self._sender.add(run, kind, content, paths or {}, instead=instead)

    def log_metrics(self, run: str, points: Sequence[TimedPoint]) -> None:
        """Log points. Logging equal ones again changes nothing."""
        self._log(run, "metrics", {"points": _in_milliseconds(points)})

    def log_tags(self, run: str, tags: Mapping[str, str]) -> None:
        """Add tags, or replace the values of those that are there."""
        self._log(run, "tags", {"tags": dict(tags)})

    def log_files(self, run: str, paths: Mapping[str, Path]) -> None:
        """Store files: path in the run -> file here, which must not be written to from now on (it may be renamed or removed).

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
        """Store what another machine would go on from: the newest of a slot, until the run is FINISHED. Raises as `log_files` does."""
        stored = {f"{STATE}/{slot}/{path}": file for path, file in paths.items()}
        self._log(run, "files", {"slot": f"{STATE}/{slot}"}, stored, instead=f"{STATE}/{slot}")

    def log_model(self, run: str, module: Any, *, example: NDArray[np.uint8], points: Sequence[TimedPoint], step: int) -> None:
        """Store a torch module (B, …) -> (B, …) as an MLflow model, with `points` as its metrics. Raises as `log_files` does."""
        with self._aside() as folder:
            save_model(module, folder, example=example)
            paths = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
            self._log(run, "model", {"points": _in_milliseconds(points), "step": step}, paths)

    def fetch_state(self, run_id: str, folder: Path) -> list[Path]:
        """Bring what `log_state` has stored into `folder`: a folder for each slot.

        Raises:
            UserError: the store does not answer.
        """
        stored = self.files.fetch_folder(run_id, STATE, folder)
        return sorted(stored.iterdir()) if stored else []

    @contextmanager
    def _aside(self) -> Iterator[Path]:
        """A path for a file or folder that is handed on."""
        home = self.root / ".regcls"  # beside the journal, so that a link is enough
        with files.explain_os_errors(home):
            home.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=home, prefix=".aside-") as folder:
                yield Path(folder) / "content"

    def finish(self, run: str, result: RunResult) -> None:
        """Log what a run of many small networks has left behind and mark it FINISHED."""
        for path, table in result.tables.items():
            self.log_table(run, path, table)
        if self._is_direct:
            with said_plainly(self.uri):
                self._writer.finish(run, result)
            return
        with self._aside() as file:
            file.write_bytes(weights_of(result))
            self._log(run, "finish", {"points": points_of(result), "at": milliseconds(result.ended)}, {WEIGHTS: file})

    def end(self, run: str) -> None:
        """Mark a run FINISHED: all that it leaves behind is logged."""
        self._log(run, "end", {"status": "FINISHED", "reason": None, "at": milliseconds(time.time())})

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
    def is_remote(self) -> bool:
        """Whether runs are told to a server, by way of the journal."""
        return not self._is_direct

    def run_id(self, run: str) -> str:
        """The id in MLflow of a run that `start` has named; empty while a server has not been told of it."""
        return run if self._is_direct else self._sender.run_id(run) or ""

    def inherit(self, *, refused: bool = False) -> int:
        """Deliver what processes that have ended left in the journal, and return how many runs that were; `refused`: these, too, once more.

        Raises:
            UserError: the server does not take it.
        """
        if self._is_direct or not (count := self._sender.inherit(refused=refused)):
            return 0
        say(f"{count} run(s) of a process that has ended were not delivered yet; that comes first")
        self.deliver()
        return count

    def deliver(self) -> None:
        """Wait until the server has been told everything.

        Raises:
            UserError: it does not take it; the message says where what is left is kept.
        """
        if self._courier is None:
            return
        if left := self._courier.deliver(patience=PATIENCE):
            reasons = "; ".join(dict.fromkeys(left.values()))
            raise UserError(
                f"{len(left)} run(s) could not be delivered to {without_password(self.uri)}: {reasons} They are kept in "
                f"{self.root / '.regcls' / 'journal'}: once that is mended, `regcls sync` delivers them."
            )

    def is_delivered(self, run: str) -> bool:
        """Whether all of a run that has ended is in the store."""
        return self._is_direct or self._sender.is_through(run)

    def deliver_shortly(self) -> None:
        """As far as it goes in a few seconds: this process has been told to end. The next one delivers the rest."""
        if self._courier is not None:
            self._courier.deliver(patience=GRACE, longest=GRACE)

    def reconcile(self, dataset: str) -> list[str]:
        """Mark as KILLED the runs of a data set whose process died without a word; their ids. The caller holds the grid's lock."""
        stale = self.stale(dataset)
        with said_plainly(self.uri):
            for run_id in stale:
                self._writer.end(run_id, "KILLED", reason=DIED, at=milliseconds(time.time()))
        return stale

    def stale(self, dataset: str) -> list[str]:
        """Ids of the runs of a data set that are RUNNING though their process has died.

        Left out: the adopted run, one whose process lives (`regcls run` beside the grid), and on a server what other hosts or folders do,
        as long as they give signs of life.
        """
        with said_plainly(self.uri):
            rows = rows_of(self._client, self.experiment_id, "dataset", dataset, status="RUNNING")
        return [row.run_id for row in rows if row.run_id != self.adopted_run and self._is_stale(row.tags)]

    def _is_stale(self, tags: Mapping[str, str]) -> bool:
        host, process = tags.get("regcls.host"), tags.get("regcls.process", "")
        if host is None:  # not ours
            return False
        here = host == socket.gethostname()
        # In the project's own store every run is this folder's, even if a container with another host name made it.
        if self._is_own or (here and tags.get("regcls.root") == str(self.root)):
            return not here or process.partition("-")[0] == str(os.getpid()) or not is_living(process)
        alive = tags.get(ALIVE_TAG, "")
        return alive.isdecimal() and time.time() - int(alive) > SILENCE

    def finished(self, dataset: str) -> dict[str, str]:
        """Fingerprint -> id of the FINISHED runs of a data set, the earliest of several."""
        found: dict[str, str] = {}
        for row in self._with_status(dataset, "FINISHED"):
            found.setdefault(row.tags["fingerprint"], row.run_id)
        return found

    def interrupted(self, dataset: str) -> dict[str, str]:
        """Fingerprint -> id of the KILLED runs of a data set, the latest of several; not of those that only repeat another."""
        return {row.tags["fingerprint"]: row.run_id for row in self._with_status(dataset, "KILLED") if RERUN_TAG not in row.tags}

    def _with_status(self, dataset: str, status: str) -> list[Row]:
        with said_plainly(self.uri):
            rows = rows_of(self._client, self.experiment_id, "dataset", dataset, status=status)
        return [row for row in rows if "fingerprint" in row.tags]

    def collect(self, dataset: str, kind: type[RunSpec]) -> pd.DataFrame:
        """All runs of a data set, whatever their status, the earliest first: see run_table. `kind`: what their specs are."""
        with said_plainly(self.uri):
            rows = rows_of(self._client, self.experiment_id, "dataset", dataset, values=True)
        return run_table(rows, kind)

    def metrics(self, run_id: str) -> dict[str, float]:
        """The last value of each metric of a run."""
        with said_plainly(self.uri):
            return dict(self._client.get_run(run_id).data.metrics)

    def find(self, text: str) -> Row:
        """The run, with all its tags, that `text` names: its id or fingerprint, the beginning of one, or the address of its page.

        Of several runs with the fingerprint it is the one that counts, the earliest FINISHED.

        Raises:
            UserError: there is none, there are several, or it is deleted.
        """
        address = re.search(r"/runs/([0-9a-f]{32})\b", text)
        name = address[1] if address else text.strip().lower()
        found = self._named(name)
        if len({run.data.tags.get("fingerprint", run.info.run_id) for run in found}) == 1 and not found[0].info.run_id.startswith(name):
            found = sorted(found, key=lambda run: run.info.status != "FINISHED")[:1]
        where = without_password(self.uri)
        if not found:
            raise UserError(f"no run in {where} with an id that begins with {text!r}. `mlflow ui` shows the ids.")
        if len(found) > 1:
            shown = "".join(f"\n{run.info.run_id} {run.info.status} {run.info.run_name}" for run in found[:SHOWN])
            many = f"more than {SHOWN}" if len(found) > SHOWN else len(found)
            raise UserError(f"{many} runs in {where} with an id that begins with {text!r}; `mlflow ui` shows the ids.{shown}")
        if found[0].info.lifecycle_stage != "active":
            raise UserError(f"run {name} in {where} is deleted. Bring it back with `mlflow runs restore --run-id {name}`.")
        return row_of(found[0])

    def _named(self, name: str) -> list[Run]:
        if not re.fullmatch("[0-9a-f]{1,32}", name):
            return []
        with said_plainly(self.uri):
            if len(name) == 32:
                try:
                    return [self._client.get_run(name)]
                except MlflowException as error:
                    if not is_unknown(error):
                        raise
            return runs_beginning(self._client, self.experiment_id, name, most=SHOWN + 1)

    def tagged(self, tag: str, value: str) -> list[Row]:
        """The runs whose `tag` is `value`, the earliest first, with params and metrics. A `value` that ends in % is a beginning."""
        with said_plainly(self.uri):
            return rows_of(self._client, self.experiment_id, tag, value, values=True)

    def run_url(self, run_id: str) -> str:
        """The run's page: on the server, or where `mlflow ui` shows it."""
        return f"{self._page}/{run_id}"

    def runs_url(self, tag: str, value: str) -> str:
        """The page that lists the runs whose `tag` is `value`."""
        asked = quote(f'tags.{tag} = "{value}"', safe="")
        return f"{self._page}?searchFilter={asked}"

    def compare_url(self, run_ids: Sequence[str]) -> str:
        """The page that compares runs side by side."""
        runs, experiments = (quote(json.dumps(list(ids), separators=(",", ":"))) for ids in (run_ids, [self.experiment_id]))
        return f"{self._host}/#/compare-runs?runs={runs}&experiments={experiments}"

    def view_urls(self, view: View) -> tuple[str, str]:
        """The list of runs as a view has it, and their parallel coordinates; filter and order alone where the store refuses the view."""
        try:
            with said_plainly(self.uri):
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
        with connection:  # MLflow itself writes it into an SQL statement, in which an apostrophe ends it
            connection.execute("UPDATE experiments SET artifact_location = ?", [address_of(artifacts / "0")])
        # Kept in the file, also for plain mlflow commands: with a write-ahead log the grid and `mlflow ui` do not wait for each other, and
        # a commit writes one piece of disk, not pages here and there. Where the disk cannot do it, SQLite leaves the mode as it is.
        connection.execute("PRAGMA journal_mode = WAL")


def _probe(uri: str) -> None:
    """One short request, so that a wrong address is known at once; any answer will do."""
    if uri.startswith(("http:", "https:")):
        http_request(get_default_host_creds(uri), "/health", "GET", max_retries=0, timeout=PROBE_WAIT, raise_on_status=False)
    elif (parts := urlsplit(uri)).hostname:
        try:
            socket.create_connection((parts.hostname, parts.port or 5432), timeout=PROBE_WAIT).close()
        except OSError as error:
            raise UserError(f"no answer from {without_password(uri)} ({error.strerror or error}). Is MLFLOW_TRACKING_URI right?") from None


def _user() -> str:
    if account := os.environ.get("MLFLOW_TRACKING_USERNAME"):  # in containers, all are the same user
        return account
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
