"""Whether the tracking store and its artifacts can be used, asked in few and short requests; for `regcls doctor`."""

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
from regcls.tracking.files import said_plainly
from regcls.tracking.store import ELSEWHERE, open_database, without_password

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
ASKED = 3  # times, for the time that an answer takes
KNOWN_USER = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"


class Server(NamedTuple):
    """A tracking server that answers us."""

    version: str  # of MLflow
    user: str  # as whom we are known; empty if it asks nobody
    milliseconds: float  # an answer, the quickest of a few


def ask_server(uri: str) -> Server:
    """Ask a tracking server who it is and whether it takes our requests. At most about `WAIT` seconds.

    Raises:
        UserError: no answer, no MLflow server, or not with these credentials.
    """
    seconds = []
    for _ in range(ASKED):
        started = time.perf_counter()
        answer = _get(uri, "/api/2.0/mlflow/experiments/get?experiment_id=0")
        seconds.append(time.perf_counter() - started)
        _check(uri, answer)
    version = _get(uri, "/version")
    _check(uri, version)
    credentials = get_default_host_creds(uri)
    return Server(version.text.strip()[:20], credentials.username or urlsplit(uri).username or "", 1000 * min(seconds))


def _get(uri: str, path: str) -> requests.Response:
    with said_plainly(uri):
        answer = http_request(get_default_host_creds(uri), path, "GET", max_retries=0, timeout=WAIT, raise_on_status=False)
    assert isinstance(answer, requests.Response)
    return answer


def _check(uri: str, answer: requests.Response) -> None:
    shown, credentials = without_password(uri), get_default_host_creds(uri)
    if answer.status_code == 401:
        given = credentials.username or urlsplit(uri).username
        if given:
            raise UserError(f"the tracking server {shown} does not take user {given} with this password. Check {KNOWN_USER}.")
        raise UserError(f"the tracking server {shown} asks for a user and a password. Set {KNOWN_USER}.")
    if answer.status_code == 403 and "host" in answer.text.lower():
        raise UserError(
            f"the tracking server {shown} does not know itself by this name. Start it with --allowed-hosts {urlsplit(uri).netloc}."
        )
    if answer.status_code >= 500:
        raise UserError(f"the tracking server {shown} answers {answer.status_code}: {answer.text.strip()[:200]}. Its log says more.")
    # Experiment 0 may be deleted, or not be ours to see: MLflow says that in JSON.
    if "text/html" in answer.headers.get("Content-Type", "") and answer.request.path_url.partition("?")[0] != "/version":
        raise UserError(f"{shown} answers, but is no MLflow server: it sends a web page. Check MLFLOW_TRACKING_URI, {ELSEWHERE}.")


def check_database(database: Path, *, is_own: bool) -> None:
    """See that an SQLite store that is there can be used; see open_database.

    Raises:
        UserError: locked, damaged, not writable, or of another version of MLflow.
    """
    uri = f"sqlite:///{database}"
    with said_plainly(uri):
        open_database(database, schema=_get_latest_schema_revision(), create=_never, is_own=is_own)


def _never(path: Path) -> None:
    raise UserError(f"{path} was removed at this moment. Start again.")


def artifact_location(uri: str, experiment: str) -> str | None:
    """Where artifacts of new runs of `experiment` go; None if there is no such experiment yet.

    Raises:
        UserError: the store does not answer.
    """
    with said_plainly(uri):
        found = MlflowClient(uri).get_experiment_by_name(experiment)
    return str(found.artifact_location) if found else None


def try_artifacts(uri: str, location: str) -> str:
    """Put a small file below `location` as a run does, read it back and delete it; say how long that took.

    Raises:
        UserError: one of these fails.
    """
    # A folder of this machine's own: it is deleted whole, and where that is not allowed, the next probe takes it again.
    folder = f"{location.rstrip('/')}/regcls-check-{re.sub('[^A-Za-z0-9-]', '-', socket.gethostname())}"
    content, started = os.urandom(1024), time.perf_counter()
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        repository = get_artifact_repository(folder, tracking_uri=uri)
        with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
            (Path(here) / "probe").write_bytes(content)
            repository.log_artifact(str(Path(here) / "probe"))
            found = Path(repository.download_artifacts("probe", there)).read_bytes()
        milliseconds = 1000 * (time.perf_counter() - started)
    except (MlflowException, requests.RequestException, OSError) as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(f"artifacts cannot be stored in {without_password(location)} of {without_password(uri)}: {said}") from error
    if found != content:
        raise UserError(f"{without_password(uri)} gives other bytes than it was given. Check what lies between (a proxy?).")
    try:
        repository.delete_artifacts()
    except (MlflowException, requests.RequestException, OSError):
        return f"put and read 1 KiB in {milliseconds:.0f} ms; not allowed to delete it: {folder} is left behind"
    return f"put, read and deleted 1 KiB in {milliseconds:.0f} ms"
