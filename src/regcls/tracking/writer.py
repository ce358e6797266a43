"""Writes runs to MLflow. All calls are idempotent, so that those whose answer was lost can be repeated."""

import json
import math
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import requests
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri
from safetensors.numpy import save
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from regcls import files
from regcls.processes import is_living
from regcls.runs import RunResult
from regcls.tracking.files import STATE, RunFiles

WEIGHTS = "weights.safetensors"
JOURNAL_TAG = "regcls.journal"  # the run's name in the journal, to find it if the answer to its creation was lost
ALIVE_TAG = "regcls.alive"  # Unix seconds, renewed while the run's process lives
DIED = "its process ended without finishing it; found when the next one started"
RUN_ID = re.compile("[0-9a-f]{32}")
RANDOM_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # name that `mlflow run` gives a run without --run-name
FINAL_REFUSALS = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}

Point = tuple[str, float, int, int]  # name, value, step, Unix milliseconds


def is_temporary(error: Exception) -> bool:
    """Whether the same call may succeed later: the call is valid, but the server or object store is unavailable or refuses it for now."""
    if "error code 403" in str(error):  # a permission that is missing but may be granted: `regcls sync` retries
        return False
    if isinstance(error, MlflowException) and "API request" not in str(error):  # from MLflow itself, not a proxy's 404
        return error.error_code not in FINAL_REFUSALS
    # requests' own errors are OSErrors
    return isinstance(error, MlflowException | SQLAlchemyError | sqlite3.Error | BotoCoreError | ClientError | OSError)


def is_unknown(error: MlflowException) -> bool:
    """Whether the server says that there is no such run. To users who may not see it, a server with accounts says "permission denied"."""
    return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE") or "error code 403" in str(error)


def is_no_answer(error: Exception) -> bool:
    """Whether the server did not answer, so that other calls would fail too."""
    return isinstance(error, requests.ConnectionError | requests.Timeout) or "failed with exception" in str(error)


class Writer:
    """Writes runs through one MLflow client, from one thread. Methods raise MLflow's own exceptions; see `is_temporary`."""

    def __init__(self, client: MlflowClient, run_files: RunFiles, experiment_id: str, *, in_sqlite: bool) -> None:
        self._client, self._files, self._experiment_id, self._in_sqlite = client, run_files, experiment_id, in_sqlite
        self._store = client._tracking_client.store
        self._artifacts: dict[str, str] = {}  # run id -> artifact URI
        self._logged: dict[str, dict[str, set[int]]] = {}  # id of a resumed run -> metric -> logged steps

    def start(self, content: Mapping[str, Any], *, requested: str | None = None) -> str:
        """Begin a run, and return its id. `content`: see Tracker.start. `requested`: its name in the journal, if it may exist already."""
        if (earlier := content["continues"]) and (run_id := self._resume(earlier, content)):
            return run_id
        with self._one_transaction() as session:
            if content["adopts"]:
                run = self._adopt(content["adopts"], content)
            elif requested and (run_id := self._find(requested)):
                run = self._client.get_run(run_id)
                self._reopen(run)
                self._client.log_batch(run_id, params=_params(content))
            else:
                run = self._create(content, session)
            self._log_dataset(run.info.run_id, content["data"])
        self._artifacts[run.info.run_id] = str(run.info.artifact_uri)
        return str(run.info.run_id)

    def _create(self, content: Mapping[str, Any], session: Any) -> Run:
        run = self._client.create_run(self._experiment_id, start_time=content["started"], tags=content["tags"], run_name=content["name"])
        if session:  # log_batch would commit too early
            rows = [{"run_uuid": run.info.run_id, "key": key, "value": value} for key, value in content["params"].items()]
            session.execute(insert(SqlParam), rows)
        else:
            self._client.log_batch(run.info.run_id, params=_params(content))
        return run

    def _find(self, name: str) -> str | None:
        """The id of the run with this name in a journal."""
        runs = self._client.search_runs([self._experiment_id], f"tags.`{JOURNAL_TAG}` = '{name}'", max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def _adopt(self, run_id: str, content: Mapping[str, Any]) -> Run:
        run = self._client.get_run(run_id)
        if RANDOM_NAME.fullmatch(run.info.run_name or ""):
            self._client.update_run(run_id, name=content["name"])
        # MLflow's parameters are immutable, and `mlflow run` has logged each -P as typed: "1e2" for 100.0.
        params = [param for param in _params(content) if param.key not in run.data.params]
        tags = {key: value for key, value in content["tags"].items() if not (key.startswith("mlflow.") and key in run.data.tags)}
        self._client.log_batch(run_id, params=params, tags=[RunTag(key, value) for key, value in tags.items()])
        return run

    def _resume(self, earlier: str, content: Mapping[str, Any]) -> str | None:
        """Reopen the interrupted run `earlier` (id or journal name) if it exists, has this fingerprint, and has not finished or failed."""
        run_id = earlier if RUN_ID.fullmatch(earlier) else self._find(earlier)
        if run_id is None:
            return None
        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if is_unknown(error):
                return None
            raise
        run_id, tags = str(run.info.run_id), run.data.tags
        ours = run.info.experiment_id == self._experiment_id and run.info.lifecycle_stage == "active"
        if not ours or tags.get("fingerprint") != content["tags"]["fingerprint"] or run.info.status in ("FINISHED", "FAILED"):
            return None
        if run.info.status == "RUNNING" and tags.get(JOURNAL_TAG) not in (None, earlier, content["tags"].get(JOURNAL_TAG)):
            return None  # another process has resumed it first
        if run.info.status == "RUNNING" and _is_trained_in_original(tags, content["tags"]):
            return None
        process = {key: value for key, value in content["tags"].items() if key.startswith("regcls.")}
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in process.items()])
        self._reopen(run)
        return run_id

    def _reopen(self, run: Run) -> None:
        """Continue a run that another process began: mark it RUNNING, and remember its logged steps.

        A run that resumes from an earlier state repeats some of these steps, at other times.
        """
        run_id = run.info.run_id
        self._logged[run_id] = {key: {point.step for point in self._client.get_metric_history(run_id, key)} for key in run.data.metrics}
        if run.info.status in ("FINISHED", "FAILED"):  # fully delivered, but the answer to its end was lost
            return
        if "stopped" in run.data.tags:
            self._client.delete_tag(run_id, "stopped")
        self._client.update_run(run_id, status="RUNNING")

    def reclaim(self, run_id: str, name: str) -> bool:
        """Continue a run after a long silence, or of an ended process; False if a process with another journal has taken it over."""
        run = self._client.get_run(run_id)
        if run.data.tags.get(JOURNAL_TAG) != name:
            return False
        self._reopen(run)
        return True

    def end_if_running(self, run_id: str) -> None:
        """Mark a run KILLED whose process ended without an `end` event."""
        if self._client.get_run(run_id).info.status == "RUNNING":
            self.end(run_id, "KILLED", reason=DIED, at=milliseconds(time.time()))

    def _log_dataset(self, run_id: str, data: Mapping[str, str]) -> None:
        source = json.dumps({"uri": f"data/{data['dataset']}/prepared"})
        dataset = DatasetInput(Dataset(data["name"], data["digest"][:36], "local", source), [InputTag("mlflow.data.context", "training")])
        try:
            self._client.log_inputs(run_id, [dataset])
        except MlflowException:
            if self._in_sqlite:
                raise
            self._client.log_inputs(run_id, [dataset])  # two clients tried to create a new data set at once; now it exists

    def log(self, run_id: str, kind: str, content: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        """Log an event of Tracker: `metrics`, `tags`, `files`, `model`, `end` or `finish`."""
        match kind:
            case "metrics":
                self.log_metrics(run_id, content["points"])
            case "tags":
                self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in content["tags"].items()])
            case "files":
                self._files.log(run_id, files)
            case "model":
                self._files.log_model(run_id, files, points=content["points"], step=content["step"])
            case "end":
                self.end(run_id, content["status"], reason=content["reason"], at=content["at"])
            case "finish":
                self._files.log(run_id, files)
                self.log_metrics(run_id, content["points"])
                self._client.set_terminated(run_id, "FINISHED", end_time=content["at"])
            case _:
                raise AssertionError(kind)

    def log_metrics(self, run_id: str, points: Sequence[Point]) -> None:
        """Log points of steps that are not logged yet."""
        logged = self._logged.get(run_id, {})
        new = [Metric(name, value, at, step) for name, value, step, at in points if step not in logged.get(name, ())]
        if new:
            self._client.log_batch(run_id, metrics=new)

    def end(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"], *, reason: str | None, at: int) -> None:
        """End a run; the tag `stopped` says why one did not finish."""
        if status == "FINISHED":
            self._files.delete(run_id, STATE)
        if reason is not None:
            self._client.set_tag(run_id, "stopped", reason)
        self._client.set_terminated(run_id, status, end_time=at)
        self.forget(run_id)

    def forget(self, run_id: str) -> None:
        """Drop cached data of an ended run."""
        self._artifacts.pop(run_id, None)
        self._logged.pop(run_id, None)

    def beat(self, run_id: str, now: float) -> None:
        """Log a heartbeat of the run's process; `now` in Unix seconds."""
        self._client.set_tag(run_id, ALIVE_TAG, str(int(now)))

    def finish(self, run_id: str, result: RunResult) -> None:
        """Log the result of a run of many small networks, then mark it FINISHED: a FINISHED run is complete."""
        points, ended = points_of(result), milliseconds(result.ended)
        self._log_weights(run_id, weights_of(result))
        if not self._insert_metrics(run_id, points, ended):
            self.log_metrics(run_id, points)  # the run has values already; MLflow drops equal points
            self.end(run_id, "FINISHED", reason=None, at=ended)
        self.forget(run_id)

    def log_shared(self, run_id: str, path: str, file: Path) -> None:
        """Store a file that several runs share; it must never be written to, since it is linked on the same disk."""
        if (folder := self._local_folder(run_id)) is None:
            self._files.log(run_id, {path: file})
            return
        with files.explain_os_errors(folder / path):
            (folder / path).unlink(missing_ok=True)  # from the process that began the run
            files.link_or_copy(file, folder / path)

    def _log_weights(self, run_id: str, content: bytes) -> None:
        if folder := self._local_folder(run_id):
            files.write_atomically(folder / WEIGHTS, lambda aside: aside.write_bytes(content))
        else:
            self._files.log_bytes(run_id, WEIGHTS, content)

    def _local_folder(self, run_id: str) -> Path | None:
        """The artifact folder of a run if it is on this machine: writing there takes 1 ms, log_artifact 15 ms."""
        uri = self._artifacts.get(run_id) or str(self._client.get_run(run_id).info.artifact_uri)
        return Path(local_file_uri_to_path(uri)) if is_local_uri(uri) else None

    def _insert_metrics(self, run_id: str, points: list[Point], ended: int) -> bool:
        """Finish a run without metrics in one transaction; False if it has metrics already."""
        # log_batch builds two ORM objects per value and first queries each key's latest value: half of the whole cost of a run. Without
        # earlier values the same rows can be inserted directly.
        rows = []
        for name, number, step, at in points:
            is_nan, value = self._store.sanitize_metric_value(number)
            rows.append({"run_uuid": run_id, "key": name, "value": value, "timestamp": at, "step": step, "is_nan": is_nan})
        try:
            with self._one_transaction() as session:
                session.execute(insert(SqlMetric), rows)
                session.execute(insert(SqlLatestMetric), list({row["key"]: row for row in rows}.values()))  # the last step of each metric
                self._client.set_terminated(run_id, "FINISHED", end_time=ended)
        except MlflowException as error:
            if isinstance(error.__cause__, IntegrityError):
                return False
            raise
        return True

    @contextmanager
    def _one_transaction(self) -> Iterator[Any]:
        """Let all calls of the client share one session, if the store is an SQLite file: all or nothing, and one wait for the disk.

        Otherwise each call has its own session and commit, seven per run, and commits are slow on a busy machine.
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


def _is_trained_in_original(tags: Mapping[str, str], own: Mapping[str, str]) -> bool:
    """Whether a live process trains the run in another folder of this machine, of which this project is a copy."""
    same_host, same_root = (tags.get(name) == own.get(name) for name in ("regcls.host", "regcls.root"))
    return same_host and not same_root and is_living(tags.get("regcls.process", ""))


def _params(content: Mapping[str, Any]) -> list[Param]:
    return [Param(key, value) for key, value in content["params"].items()]


def weights_of(result: RunResult) -> bytes:
    """The weights as the content of a safetensors file."""
    return save({name: np.ascontiguousarray(value) for name, value in result.weights.items()})


def points_of(result: RunResult) -> list[Point]:
    """The history, one step per epoch with times spread evenly over the run; then, at the last epoch, final metrics without a history."""
    points: list[Point] = []
    for key, values in result.history.items():
        epoch_seconds = (result.ended - result.started) / max(len(values), 1)
        points += [(key, float(value), step, milliseconds(result.started + step * epoch_seconds)) for step, value in enumerate(values, 1)]
    last = max(map(len, result.history.values()), default=0)
    final = {key: value for key, value in result.metrics.items() if len(result.history.get(key, ())) == 0}
    return points + [(key, float(value), last, milliseconds(result.ended)) for key, value in final.items()]


def milliseconds(seconds: float) -> int:
    """Unix seconds -> Unix milliseconds, as in MLflow; 0 if not finite."""
    return round(seconds * 1000) if math.isfinite(seconds) else 0
