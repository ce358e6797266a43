"""The project's runs in MLflow: writing them, and reading them back.

Without MLFLOW_TRACKING_URI the store is mlflow.db and mlartifacts/ in the project's root, where `mlflow ui` looks when started there.
"""

import getpass
import json
import logging
import math
import os
import re
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from safetensors.numpy import save
from sqlalchemy import Select, insert, select
from sqlalchemy.exc import IntegrityError

from regcls import files
from regcls.errors import UserError
from regcls.provenance import process_identity
from regcls.runs import RunResult, RunSpec
from regcls.tracking.files import RunFiles, said_plainly
from regcls.tracking.run_table import MACHINE, Row, run_table
from regcls.tracking.store import (
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
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")  # half a minute, enough for a server to restart (MLflow: four minutes)

from mlflow.entities import Dataset, DatasetInput, ExperimentTag, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _get_latest_schema_revision
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.rest_utils import http_request
from mlflow.utils.uri import is_local_uri

for _name, _level in (("alembic", logging.WARNING), ("mlflow.store.db.utils", logging.CRITICAL)):
    logging.getLogger(_name).setLevel(_level)  # what goes wrong there comes as an exception as well

EXPERIMENT_KIND = ("mlflow.experimentKind", "custom_model_development")  # `mlflow ui` opens on runs, not on language-model traces
PROBE_WAIT = 5.0  # seconds for the first answer of a tracking server
PAGE = 500  # runs a request to a server: about 3 s
WEIGHTS = "weights.safetensors"
DATA_DIGEST_TAG = "data_digest"  # the caller's tag that tells one version of a data set from another
READ_TAGS = ("fingerprint", "mlflow.parentRunId", "regcls.host", "regcls.root", "regcls.process", *MACHINE)
RANDOM_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # what `mlflow run` calls a run without --run-name


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
        self._artifacts: dict[str, str] = {}  # run id -> where its artifacts go
        with said_plainly(self.uri):
            if database := database_of(self.uri):
                artifacts, schema = database.parent / "mlartifacts", _get_latest_schema_revision()
                open_database(database, schema=schema, create=lambda aside: _create_database(aside, artifacts, experiment))
            elif self.uri.startswith(("http:", "https:")):
                _probe(self.uri)
            self._client = MlflowClient(self.uri)
            self._store = self._client._tracking_client.store
            self._in_sqlite = database is not None
            self.files = RunFiles(self._client, self.uri)
            self.experiment_id = self._find_experiment(experiment)

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
            return self._create_experiment(name, str(database.parent / "mlartifacts" / re.sub(r"[^\w.-]", "_", name)))

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

    def start(self, spec: RunSpec, *, fingerprint: str, tags: Mapping[str, str], adopt: bool = False) -> str:
        """Begin a run, with its parameters, tags and data set, and return its id.

        `adopt` continues the run that `mlflow run` has begun for this process, if there is one; otherwise that one becomes the parent.
        """
        tags = {**tags, **self._own_tags(spec, fingerprint, tags)}
        params = spec.params()
        with said_plainly(self.uri), self._one_transaction() as session:
            if adopt and self.adopted_run:
                run_id = self.adopted_run
                run = self._client.get_run(run_id)
                if RANDOM_NAME.fullmatch(run.info.run_name or ""):
                    self._client.update_run(run_id, name=spec.name)
                # A parameter never changes in MLflow, and `mlflow run` has logged each -P as it was typed: "1e2" for 100.0.
                params = {key: value for key, value in params.items() if key not in run.data.params}
                tags = {key: value for key, value in tags.items() if not (key.startswith("mlflow.") and key in run.data.tags)}
                self._client.log_batch(run_id, params=_params(params), tags=[RunTag(key, value) for key, value in tags.items()])
            else:
                if self.adopted_run:
                    tags["mlflow.parentRunId"] = self.adopted_run
                run = self._client.create_run(self.experiment_id, tags=tags, run_name=spec.name)
                run_id = str(run.info.run_id)
                if session:  # log_batch would commit in between
                    session.execute(insert(SqlParam), [{"run_uuid": run_id, "key": key, "value": value} for key, value in params.items()])
                else:
                    self._client.log_batch(run_id, params=_params(params))
            self._log_dataset(run_id, spec, tags.get(DATA_DIGEST_TAG, "unknown"))
        self._artifacts[run_id] = str(run.info.artifact_uri)
        return run_id

    def _own_tags(self, spec: RunSpec, fingerprint: str, tags: Mapping[str, str]) -> dict[str, str]:
        own = {
            **spec.tags(),
            "fingerprint": fingerprint,
            **self._process_tags(),
            "mlflow.user": _user(),
            "mlflow.source.name": " ".join(["regcls", *sys.argv[1:]])[:500],
            "mlflow.source.type": "LOCAL",
        }
        if tags.get("git_commit", "unknown") != "unknown":
            own["mlflow.source.git.commit"] = tags["git_commit"]
        return own

    def _process_tags(self) -> dict[str, str]:
        """Whose a run is while it is made."""
        process = process_identity(os.getpid()) or ""
        return {"regcls.host": socket.gethostname(), "regcls.root": str(self.root), "regcls.process": process}

    def _log_dataset(self, run_id: str, spec: RunSpec, digest: str) -> None:
        source = json.dumps({"uri": f"data/{spec.dataset}/prepared"})
        dataset = DatasetInput(Dataset(spec.data_name, digest[:36], "local", source), [InputTag("mlflow.data.context", "training")])
        try:
            self._client.log_inputs(run_id, [dataset])
        except MlflowException:
            if self._in_sqlite:
                raise
            self._client.log_inputs(run_id, [dataset])  # two clients met a new data set at the same moment; now it is there

    def finish(self, run_id: str, result: RunResult) -> None:
        """Log what a run has left behind and mark it FINISHED, in this order: a FINISHED run is whole. Logging it again changes nothing."""
        points, ended = _points(result), _milliseconds(result.ended)
        with said_plainly(self.uri):
            self._log_weights(run_id, result.weights)
            if not self._insert_metrics(run_id, points, ended):
                # A server, or a run that has values already: equal points are dropped.
                self._client.log_batch(run_id, metrics=points)
                self._client.set_terminated(run_id, "FINISHED", end_time=ended)
        self._artifacts.pop(run_id, None)

    def _log_weights(self, run_id: str, weights: Mapping[str, np.ndarray]) -> None:
        content = save({name: np.ascontiguousarray(value) for name, value in weights.items()})
        where = self._artifacts.get(run_id) or str(self._client.get_run(run_id).info.artifact_uri)
        if is_local_uri(where):  # without the detour over a temporary file that log_artifact needs
            files.write_atomically(Path(local_file_uri_to_path(where)) / WEIGHTS, lambda aside: aside.write_bytes(content))
            return
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / WEIGHTS).write_bytes(content)
            self._client.log_artifact(run_id, str(Path(folder) / WEIGHTS))

    def _insert_metrics(self, run_id: str, points: list[Metric], ended: int) -> bool:
        """Finish a run that has no metrics yet, in one transaction; False if that is not possible."""
        if not self._in_sqlite:
            return False
        # log_batch builds two ORM objects a value and asks for each key's latest one first: half of a run's whole cost. Without earlier
        # values the same rows can be inserted as they are.
        rows = []
        for point in points:
            is_nan, value = self._store.sanitize_metric_value(point.value)
            row = {"run_uuid": run_id, "key": point.key, "value": value, "timestamp": point.timestamp, "step": point.step}
            rows.append({**row, "is_nan": is_nan})
        try:
            with self._one_transaction() as session:
                session.execute(insert(SqlMetric), rows)
                session.execute(insert(SqlLatestMetric), list({row["key"]: row for row in rows}.values()))  # the last step of each
                self._client.set_terminated(run_id, "FINISHED", end_time=ended)
        except MlflowException as error:
            if isinstance(error.__cause__, IntegrityError):
                return False
            raise
        return True

    @contextmanager
    def _one_transaction(self) -> Iterator[Any]:
        """Let all calls of the client share one session, if the store is an SQLite file: all or nothing, and one wait for the disk.

        Otherwise each call has a session and a commit of its own, seven a run, and a commit is what takes long on a busy machine.
        """
        if not self._in_sqlite:
            yield None
            return
        session_maker = self._store.ManagedSessionMaker
        try:
            with session_maker(read_only=False) as session:
                self._store.ManagedSessionMaker = lambda read_only=True: nullcontext(session)
                yield session
        finally:
            self._store.ManagedSessionMaker = session_maker

    def resume(self, run_id: str, fingerprint: str) -> bool:
        """Open a run again that was interrupted, if it is still there and is the one of `fingerprint`; not one that finished or failed."""
        with said_plainly(self.uri):
            try:
                run = self._client.get_run(run_id)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise
            ours = run.info.experiment_id == self.experiment_id and run.info.lifecycle_stage == "active"
            if not ours or run.data.tags.get("fingerprint") != fingerprint or run.info.status in ("FINISHED", "FAILED"):
                return False
            self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in self._process_tags().items()])
            if "stopped" in run.data.tags:
                self._client.delete_tag(run_id, "stopped")
            self._client.update_run(run_id, status="RUNNING")
        return True

    def log_metrics(self, run_id: str, points: Sequence[tuple[str, float, int, float]]) -> None:
        """Log (name, value, step, Unix seconds). Logging equal points again changes nothing."""
        with said_plainly(self.uri):
            self._client.log_batch(run_id, metrics=[Metric(name, value, _milliseconds(at), step) for name, value, step, at in points])

    def end(self, run_id: str) -> None:
        """Mark a run FINISHED: all that it leaves behind is logged."""
        with said_plainly(self.uri):
            self._client.set_terminated(run_id, "FINISHED")

    def stop(self, run_id: str, *, status: Literal["KILLED", "FAILED"], reason: str) -> None:
        """End a run that will not finish; the tag `stopped` says why."""
        with said_plainly(self.uri):
            self._client.set_tag(run_id, "stopped", reason)
            self._client.set_terminated(run_id, status)
        self._artifacts.pop(run_id, None)

    def reconcile(self, dataset: str) -> list[str]:
        """Mark as KILLED the runs of a data set whose process died without a word, and return their ids. The caller holds the grid's lock.

        Left alone: the adopted run, one whose process lives (`regcls run` beside the grid), and on a server what other hosts or folders do.
        """
        with said_plainly(self.uri):
            rows = self._rows(dataset, status="RUNNING")
        stale = [row.run_id for row in rows if row.run_id != self.adopted_run and self._is_stale(row.tags)]
        for run_id in stale:
            self.stop(run_id, status="KILLED", reason="its process ended without finishing it; found when the next one started")
        return stale

    def _is_stale(self, tags: Mapping[str, str]) -> bool:
        host, process = tags.get("regcls.host"), tags.get("regcls.process", "")
        if host is None:  # not ours
            return False
        here = host == socket.gethostname()
        # In the project's own store every run is this folder's, even if a container with another host name made it.
        if not self._is_own and not (here and tags.get("regcls.root") == str(self.root)):
            return False
        pid = int(process.partition("-")[0] or 0)
        return not here or pid == os.getpid() or process_identity(pid) != process

    def finished(self, dataset: str) -> dict[str, str]:
        """Fingerprint -> id of the FINISHED runs of a data set, the earliest of several."""
        with said_plainly(self.uri):
            rows = self._rows(dataset, status="FINISHED")
        found: dict[str, str] = {}
        for row in rows:
            if "fingerprint" in row.tags:
                found.setdefault(row.tags["fingerprint"], row.run_id)
        return found

    def collect(self, dataset: str, kind: type[RunSpec]) -> pd.DataFrame:
        """All runs of a data set, whatever their status, the earliest first: see run_table. `kind`: what their specs are."""
        with said_plainly(self.uri):
            rows = self._rows(dataset, values=True)
        return run_table(rows, kind)

    def metrics(self, run_id: str) -> dict[str, float]:
        """The last value of each metric of a run."""
        with said_plainly(self.uri):
            return dict(self._client.get_run(run_id).data.metrics)

    def run_of(self, text: str) -> tuple[str, dict[str, str]]:
        """The id and the params of the run with the id `text`, or the only one of this experiment whose id begins with it.

        Raises:
            UserError: there is none, or several.
        """
        with said_plainly(self.uri):
            if re.fullmatch("[0-9a-f]{32}", text):
                try:
                    found = [self._client.get_run(text)]
                except MlflowException as error:
                    if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                        raise
                    found = []
            else:
                found = [run for run in self._all_runs() if run.info.run_id.startswith(text)]
        if len(found) != 1:
            how_many = "no run" if not found else f"{len(found)} runs"
            raise UserError(f"{how_many} in {without_password(self.uri)} with an id that begins with {text!r}. `mlflow ui` shows the ids.")
        return str(found[0].info.run_id), dict(found[0].data.params)

    def _all_runs(self) -> Iterator[Run]:
        token: str | None = None
        while True:
            runs = self._client.search_runs([self.experiment_id], max_results=PAGE, page_token=token)
            yield from runs
            token = runs.token
            if not token:
                return

    def run_url(self, run_id: str) -> str:
        """The run's page: on the server, or where `mlflow ui` shows it."""
        host = without_password(self.uri).rstrip("/") if self.uri.startswith(("http:", "https:")) else "http://127.0.0.1:5000"
        return f"{host}/#/experiments/{self.experiment_id}/runs/{run_id}"

    def _rows(self, dataset: str, *, status: str | None = None, values: bool = False) -> list[Row]:
        """The runs of a data set, the earliest first; `values`: with params and metrics."""
        if isinstance(self._store, SqlAlchemyStore):
            return self._rows_from_database(dataset, status, values)
        return sorted(self._rows_from_server(dataset, status), key=lambda row: (row.started, row.run_id))

    def _rows_from_database(self, dataset: str, status: str | None, values: bool) -> list[Row]:
        # search_runs takes 2 ms a run, for objects that nothing here needs: ten seconds for 5000 runs.
        wanted: Select[tuple[str]] = (
            select(SqlRun.run_uuid)
            .join(SqlTag, SqlTag.run_uuid == SqlRun.run_uuid)
            .where(SqlTag.key == "dataset", SqlTag.value == dataset)
            .where(SqlRun.experiment_id == int(self.experiment_id), SqlRun.lifecycle_stage == "active")
        )
        if status:
            wanted = wanted.where(SqlRun.status == status)
        with self._store.ManagedSessionMaker() as session:
            columns = (SqlRun.run_uuid, SqlRun.name, SqlRun.status, SqlRun.start_time, SqlRun.end_time)
            runs = session.execute(select(*columns).where(SqlRun.run_uuid.in_(wanted)).order_by(SqlRun.start_time, SqlRun.run_uuid))
            rows = {
                run_id: Row(run_id=run_id, name=name, status=status, started=started, ended=ended, tags={}, params={}, metrics={})
                for run_id, name, status, started, ended in runs
            }
            tags = select(SqlTag.run_uuid, SqlTag.key, SqlTag.value).where(SqlTag.key.in_(READ_TAGS), SqlTag.run_uuid.in_(wanted))
            for run_id, key, text in session.execute(tags):
                rows[run_id].tags[key] = text
            if values:
                params = select(SqlParam.run_uuid, SqlParam.key, SqlParam.value).where(SqlParam.run_uuid.in_(wanted))
                for run_id, key, text in session.execute(params):
                    rows[run_id].params[key] = text
                latest = select(SqlLatestMetric.run_uuid, SqlLatestMetric.key, SqlLatestMetric.value, SqlLatestMetric.is_nan)
                for run_id, key, value, is_nan in session.execute(latest.where(SqlLatestMetric.run_uuid.in_(wanted))):
                    rows[run_id].metrics[key] = math.nan if is_nan else value
        return list(rows.values())

    def _rows_from_server(self, dataset: str, status: str | None) -> Iterator[Row]:
        asked = f"tags.dataset = '{dataset}'" + (f" and attributes.status = '{status}'" if status else "")
        token: str | None = None
        while True:
            runs = self._client.search_runs([self.experiment_id], asked, max_results=PAGE, page_token=token)
            yield from map(_row, runs)
            token = runs.token
            if not token:
                return


def _row(run: Run) -> Row:
    info, data = run.info, run.data
    return Row(
        run_id=info.run_id,
        name=info.run_name,
        status=info.status,
        started=info.start_time,
        ended=info.end_time,
        tags=data.tags,
        params=data.params,
        metrics=data.metrics,
    )


def _params(params: Mapping[str, str]) -> list[Param]:
    return [Param(key, value) for key, value in params.items()]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _points(result: RunResult) -> list[Metric]:
    """The history, one step an epoch, its times spread evenly over the run; then, at the last epoch, the final metrics that it lacks."""
    points = []
    for key, values in result.history.items():
        an_epoch = (result.ended - result.started) / max(len(values), 1)
        points += [Metric(key, float(value), _milliseconds(result.started + step * an_epoch), step) for step, value in enumerate(values, 1)]
    last = max(map(len, result.history.values()), default=0)
    final = {key: value for key, value in result.metrics.items() if len(result.history.get(key, ())) == 0}
    return points + [Metric(key, float(value), _milliseconds(result.ended), last) for key, value in final.items()]


def _create_database(path: Path, artifacts: Path, experiment: str) -> None:
    store = SqlAlchemyStore(sqlite_uri(path), str(artifacts))
    store.rename_experiment("0", experiment)  # what plain mlflow commands log into
    store.set_experiment_tag("0", ExperimentTag(*EXPERIMENT_KIND))
    store._dispose_engine()
    with closing(sqlite3.connect(path)) as connection:
        # Kept in the file, also for plain mlflow commands: with a write-ahead log the grid and `mlflow ui` do not wait for each other, and
        # a commit writes one piece of disk, not pages here and there. Where the disk cannot do it, SQLite leaves the mode as it is.
        connection.execute("PRAGMA journal_mode = WAL")


def _probe(uri: str) -> None:
    """One short request, so that a wrong address is known at once; any answer will do."""
    http_request(get_default_host_creds(uri), "/health", "GET", max_retries=0, timeout=PROBE_WAIT, raise_on_status=False)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
