"""Checks the tracking store and its artifacts with a few short requests, for `regcls doctor`."""

import os
import re
import socket
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import requests

from regcls.errors import UserError
from regcls.proxy import proxy_hint
from regcls.tracking.files import explain_store_errors
from regcls.tracking.store import open_database, sqlite_uri, without_password
from regcls.words import printable

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.db.utils import _get_latest_schema_revision
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from mlflow.version import VERSION

OURS = VERSION
WAIT = 6.0  # seconds for an answer
REQUESTS = 3  # to measure the response time
KNOWN_USER = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"


class Server(NamedTuple):
    """A tracking server that answers."""

    version: str  # of MLflow
    user: str  # that we log in as; empty without accounts
    milliseconds: float  # response time, the fastest of a few


def ask_server(uri: str) -> Server:
    """Check that a tracking server accepts our requests. Takes at most about `WAIT` seconds.

    Raises:
        UserError: no answer, not an MLflow server, or it rejects these credentials.
    """
    seconds = []
    for _ in range(REQUESTS):
        started = time.perf_counter()
        answer = _get(uri, "/api/2.0/mlflow/experiments/get?experiment_id=0")
        seconds.append(time.perf_counter() - started)
        _check(uri, answer)
    version = _get(uri, "/version")
    _check(uri, version)
    if not version.ok or not re.match(r"\d+\.\d+", version.text):
        raise _web_page(uri)
    credentials = get_default_host_creds(uri)
    return Server(printable(version.text.strip()[:20]), credentials.username or urlsplit(uri).username or "", 1000 * min(seconds))


def _get(uri: str, path: str) -> requests.Response:
    with explain_store_errors(uri):
        answer = http_request(get_default_host_creds(uri), path, "GET", max_retries=0, timeout=WAIT, raise_on_status=False)
    assert isinstance(answer, requests.Response)
    return answer


def _check(uri: str, answer: requests.Response) -> None:
    shown, credentials = without_password(uri), get_default_host_creds(uri)
    if answer.status_code == 401:
        if user := credentials.username or urlsplit(uri).username:
            raise UserError(f"the tracking server {shown} does not accept user {user} with this password. Check {KNOWN_USER}.")
        raise UserError(f"the tracking server {shown} asks for a user and a password. Set {KNOWN_USER}.")
    if answer.status_code == 403 and "invalid host header" in answer.text.lower():
        raise UserError(
            f"the tracking server {shown} does not accept this host name. Start it with --allowed-hosts {urlsplit(uri).netloc}."
        )
    if answer.status_code >= 500:
        raise UserError(
            f"the tracking server {shown} answers {answer.status_code}: {answer.text.strip()[:200]}. Its log says more.{proxy_hint(uri)}"
        )
    # Experiment 0 may be deleted or not accessible to us: MLflow says so in JSON.
    if "text/html" in answer.headers.get("Content-Type", "") and answer.request.path_url.partition("?")[0] != "/version":
        raise _web_page(uri)


def _web_page(uri: str) -> UserError:
    what = f"{without_password(uri)} answers, but is not an MLflow server: it sends a web page"
    return UserError(f"{what}. Check MLFLOW_TRACKING_URI.{proxy_hint(uri)}")


def check_database(database: Path, *, root: Path) -> None:
    """Check an existing SQLite store; see open_database.

    Raises:
        UserError: locked, damaged, not writable, or of another version of MLflow.
    """
    with explain_store_errors(sqlite_uri(database)):
        open_database(database, schema=_get_latest_schema_revision(), create=_never, root=root)


def _never(path: Path) -> None:
    raise UserError(f"{path} has just been removed. Start again.")


def artifact_location(uri: str, experiment: str) -> str | None:
    """Where artifacts of new runs of the experiment named `experiment` go; None if there is none yet.

    Raises:
        UserError: the store does not answer.
    """
    with explain_store_errors(uri):
        stored = MlflowClient(uri).get_experiment_by_name(experiment)
    return str(stored.artifact_location) if stored else None


def try_artifacts(uri: str, location: str) -> str:
    """Put a small file below `location` as a run does, read it back and delete it; report the time it took.

    Raises:
        UserError: one of these fails.
    """
    # One folder per machine, since it is deleted as a whole; where deletion is not allowed, the next probe reuses it.
    folder = f"{location.rstrip('/')}/regcls-check-{re.sub('[^A-Za-z0-9-]', '-', socket.gethostname())}"
    content, started = os.urandom(1024), time.perf_counter()
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        repository = get_artifact_repository(folder, tracking_uri=uri)
        with tempfile.TemporaryDirectory() as upload, tempfile.TemporaryDirectory() as download:
            (Path(upload) / "probe").write_bytes(content)
            repository.log_artifact(str(Path(upload) / "probe"))
            returned = Path(repository.download_artifacts("probe", download)).read_bytes()
        milliseconds = 1000 * (time.perf_counter() - started)
    except (MlflowException, requests.RequestException, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"artifacts cannot be stored in {without_password(location)} of {without_password(uri)}: {reason}") from error
    if returned != content:
        raise UserError(f"{without_password(uri)} returns other bytes than were stored. Check what lies between (a proxy?).")
    try:
        repository.delete_artifacts()
    except (MlflowException, requests.RequestException, OSError):
        return f"put and read 1 KiB in {milliseconds:.0f} ms; not allowed to delete it: {folder} is left behind"
    return f"put, read and deleted 1 KiB in {milliseconds:.0f} ms"
