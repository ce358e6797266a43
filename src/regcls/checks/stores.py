"""Checks of the stores: tracking, artifacts, stale and undelivered runs, DVC remote. They leave nothing behind."""

import os
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from regcls.checks import Finding, Place, bad, good, nearest, note
from regcls.dvc_remote import Remote, default_remote
from regcls.errors import MissingError
from regcls.files import check_links, explain_os_errors
from regcls.object_store import TIMEOUTS, Bucket, bucket_of, s3_client
from regcls.tracking.run_table import LOST_REMEDY
from regcls.tracking.store import address_of, database_of, folder_of, project_root, store_uri, without_password
from regcls.words import counted

FAST_MS = 200.0  # milliseconds per response; slower ones noticeably delay a run's many requests


def tracking(place: Place) -> Finding:
    """Whether runs can be tracked: the SQLite file, or the server, its version and our user name there."""
    from regcls.tracking.probe import OURS, ask_server, check_database

    home = project_root(place.root)
    uri = store_uri(home)
    shown = without_password(uri)
    if database := database_of(uri):
        if not database.exists():
            return note(f"{database} is not there yet: the first run creates it", "regcls setup creates it now")
        check_database(database, root=home)
        text = f"{database}, {database.stat().st_size / 1e6:.1f} MB, of MLflow {OURS}"
        if (twin := Path(quote(str(database.parent)))) != database.parent:
            return note(
                f"{text}. Its path has characters that are encoded in a URL: plain mlflow commands (not mlflow ui) leave an empty folder "
                f"{twin}, or stop if they cannot",
                "remove that folder if it is empty, or rename yours; regcls and dvc need neither",
            )
        return good(text)
    if not uri.startswith(("http:", "https:")):
        return note(f"{shown}, reached without a server: not checked further", "for a team, put mlflow server before it")
    server = ask_server(uri)
    text = f"{shown}: MLflow {server.version}{', as ' + server.user if server.user else ''}, {server.milliseconds:.0f} ms per response"
    if server.version.partition(".")[0] != OURS.partition(".")[0]:
        return bad(f"{text}; here is MLflow {OURS}", f"install MLflow {OURS} on the server, as in requirements.lock")
    if server.version != OURS:
        return note(f"{text}; here is MLflow {OURS}", "use the same version on both")
    if server.milliseconds < FAST_MS:
        return good(text)
    return note(f"{text}: slow", "use a server nearby; runs are delivered in the background")


def _experiment(place: Place) -> str:
    assert place.params is not None  # comes after `params`
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or place.params.tracking.experiment


def artifacts(place: Place) -> Finding:
    """Whether an artifact can be stored, read back and deleted in the same way as by a new run."""
    from regcls.tracking.probe import artifact_location, try_artifacts

    uri, experiment = store_uri(project_root(place.root)), _experiment(place)
    database = database_of(uri)
    location = artifact_location(uri, experiment) if not database or database.exists() else None
    if location is None:  # the default location of a server
        location = address_of(database.parent / "mlartifacts") if database else "mlflow-artifacts:/"
    if location.startswith("s3://"):
        endpoint = {"endpoint_url": url} if (url := os.environ.get("MLFLOW_S3_ENDPOINT_URL")) else {}
        return good(f"{location}: {_try_s3(location, endpoint)}")
    if location.startswith(("/", "file:")):
        folder = folder_of(location)
        if database is None and not folder.exists():
            return bad(
                f"the server lets its clients write artifacts of experiment {experiment} to {folder}, which this machine does not have",
                "start the server with --artifacts-destination, and choose a new experiment with MLFLOW_EXPERIMENT_NAME",
            )
        outcome = f"{folder} can be written{'' if folder.exists() else ', once it is created'}: {_try_folder(folder)}"
        return _lost_files(place, outcome) if database and database.exists() else good(outcome)
    return good(f"{without_password(location)} through the server: {try_artifacts(uri, location)}")


def _try_s3(url: str, settings: dict[str, Any]) -> str:
    name, prefix = bucket_of(url)
    with closing(s3_client(timeouts=TIMEOUTS, **settings)) as client:
        bucket = Bucket(client=client, name=name, prefix=prefix)
        bucket.reach()
        return f"{bucket.round_trip()} at {bucket.endpoint}"


def _lost_files(place: Place, outcome: str) -> Finding:
    from regcls.tracking.tracker import Tracker

    assert place.params is not None
    lost = Tracker(place.root, experiment=place.params.tracking.experiment).without_files()
    if not lost:
        return good(outcome)
    home = next(iter(lost.values())).parents[1]
    return note(
        f"{outcome}; but {counted(len(lost), 'finished run has', 'finished runs have')} no files in {home}",
        LOST_REMEDY,
    )


def _try_folder(folder: Path) -> str:
    content = os.urandom(1024)
    check_links(folder)
    with explain_os_errors(folder), tempfile.TemporaryFile(dir=nearest(folder)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        assert file.read() == content
    return "put, read and deleted 1 KiB"


def stale_runs(place: Place) -> Finding:
    """Runs that MLflow shows as RUNNING although their process has ended."""
    from regcls.tracking.probe import artifact_location
    from regcls.tracking.tracker import Tracker

    uri, experiment = store_uri(project_root(place.root)), _experiment(place)
    database = database_of(uri)
    if (database and not database.exists()) or artifact_location(uri, experiment) is None:  # a Tracker would create it
        return good(f"none: there is no experiment {experiment} yet")
    assert place.params is not None
    tracker = Tracker(place.root, experiment=place.params.tracking.experiment)
    stale = {dataset: runs for dataset in place.params.datasets if (runs := tracker.stale(dataset))}
    if not stale:
        return good("none")
    count = sum(map(len, stale.values()))
    first = ", ".join(run[:8] for run in next(iter(stale.values()))[:3])
    return note(
        f"{count} {'run is' if count == 1 else 'runs are'} RUNNING though the process has ended ({first}{' …' if count > 3 else ''})",
        " and ".join(f"regcls train {dataset}" for dataset in stale) + " marks them KILLED and resumes from their checkpoints",
    )


def undelivered(place: Place) -> Finding:
    """Runs that are not delivered to the tracking server yet."""
    from regcls.tracking.journal import undelivered_count

    count = undelivered_count(project_root(place.root))
    if not count:
        return good("none")
    return bad(f"{count} {'run waits' if count == 1 else 'runs wait'} in .regcls/journal for the tracking server", "regcls sync")


def dvc_remote(place: Place) -> Finding:
    """Whether the remote of `dvc push` and `dvc pull` can be reached and written."""
    try:
        remote = default_remote(place.root)
    except MissingError as error:
        return note(*str(error).split(". ", 1))
    shown = f"{remote.name}: {without_password(remote.url)}"
    if remote.url.startswith("s3://"):
        return good(f"{shown}: {_try_s3(remote.url, remote.s3_settings())}")
    if "://" not in remote.url:
        folder = Path(remote.url)
        if not folder.exists() and not folder.parent.exists():
            return bad(f"{shown}: there is no such folder", "mount its disk, or choose another remote: dvc remote add -d NAME URL")
        return good(f"{shown}: {_try_folder(folder)}")
    return _try_other(place.root, remote, shown)


def _try_other(root: Path, remote: Remote, shown: str) -> Finding:
    """Check ssh, gs, azure, https … with DVC itself: whether the remote answers, and has data."""
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]
    from dvc.repo import Repo  # type: ignore[import-untyped]

    try:
        with Repo(str(root)) as repo:
            exists = repo.cloud.get_remote(remote.name).fs.exists(remote.url)
    except (DvcException, OSError) as error:
        return bad(
            f"{shown}: {' '.join(str(error).split())[:200]}", f"dvc push -v says more; its settings: dvc remote modify {remote.name}"
        )
    return good(f"{shown} answers; {'there is data' if exists else 'still empty'} (writing is not tested)")
