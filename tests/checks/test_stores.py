"""Checks of result stores on real servers: they report usability and remedies, and leave the stores unchanged."""

import os
import shutil
import socket
import sqlite3
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import mlflow
import pytest
import requests
from mlflow.tracking import MlflowClient

from network import free_port, refusing_proxy
from regcls.checks import Place, stores
from regcls.errors import UserError
from regcls.params import load_params
from regcls.pipeline.doctor import PATIENCE, outcome_of
from regcls.proxy import proxy_hint
from regcls.tracking import probe
from regcls.tracking.tracker import Tracker
from servers import PASSWORD, black_hole
from tracked import RESULT, SPEC, TAGS


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """The environment of the doctor's processes, without settings of this machine."""
    for name in [*os.environ]:
        if name.startswith("AWS_") or name in ("MLFLOW_S3_ENDPOINT_URL", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            monkeypatch.delenv(name)
    for name, value in PATIENCE.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def place(make_project):
    root = make_project()
    return Place(root=root, params=load_params(root / "params.yaml"))


@pytest.fixture
def run_check(place):
    """Run a check; its outcome as text: "good: …", "bad: … -> …"."""

    def run_check(check):
        outcome = outcome_of(check, place)
        return f"{outcome.state}: {outcome.text} -> {outcome.remedy}"

    return run_check


def files(folder):
    return sorted(path.relative_to(folder) for path in Path(folder).rglob("*"))


# The tracking store


def test_a_fresh_project_passes_and_is_left_untouched(place, run_check):
    before = files(place.root)
    assert run_check(stores.tracking).startswith(f"note: {place.root}/mlflow.db is not there yet")
    assert run_check(stores.artifacts).startswith(f"good: {place.root}/mlartifacts can be written, once it is created")
    assert run_check(stores.stale_runs).startswith("good: none")
    assert run_check(stores.undelivered).startswith("good: none")
    assert files(place.root) == before


def test_a_usable_sqlite_store_is_reported_with_its_size(place, run_check):
    Tracker(place.root, experiment="regcls")
    before = files(place.root)
    assert run_check(stores.tracking).startswith(f"good: {place.root}/mlflow.db, 1.0 MB, of MLflow ")
    assert run_check(stores.artifacts).startswith(f"good: {place.root}/mlartifacts")
    assert [path for path in files(place.root) if ".db-" not in path.name] == [path for path in before if ".db-" not in path.name]


def test_lost_files_of_finished_runs_are_noted_with_what_makes_them_again(place, run_check):
    tracker = Tracker(place.root, experiment="regcls")
    tracker.finish(tracker.start(SPEC, fingerprint="f", tags=TAGS), RESULT)
    assert run_check(stores.artifacts).startswith("good: ")
    shutil.rmtree(place.root / "mlartifacts")
    outcome = run_check(stores.artifacts)
    assert (
        outcome.startswith("note: ")
        and f"1 finished run has no files in {place.root}/mlartifacts/0 -> mount their disk or put them back there" in outcome
    )
    assert outcome.endswith("to train these runs again, first: regcls delete --lost")


def test_artifacts_on_a_disk_that_is_not_mounted_are_bad(place, run_check):
    (place.root / "mlartifacts").symlink_to("/not/mounted")
    assert run_check(stores.artifacts).startswith(f"bad: {place.root}/mlartifacts links to /not/mounted, which does not exist")


@pytest.mark.parametrize("name", ["my project", "50%20", "é"])
def test_paths_that_plain_mlflow_commands_mistake_are_noted(make_project, tmp_path, name):
    root = make_project(folder=tmp_path / name)
    place = Place(root=root, params=load_params(root / "params.yaml"))
    Tracker(root, experiment="regcls")
    assert outcome_of(stores.tracking, place).state == "note" and f"{quote(str(root))}," in outcome_of(stores.tracking, place).text
    assert os.listdir(tmp_path) == [name]


def test_a_file_that_is_not_a_store_is_bad(place, run_check):
    (place.root / "mlflow.db").write_text("not SQLite at all" * 100)
    assert "is no SQLite database: overwritten or damaged -> Move it away" in run_check(stores.tracking)
    (place.root / "mlflow.db").unlink()
    with closing(sqlite3.connect(place.root / "mlflow.db")) as connection:
        connection.execute("CREATE TABLE other (x)")
    assert run_check(stores.tracking).startswith(f"bad: {place.root}/mlflow.db is an SQLite file, but not an MLflow store")


def test_a_server_is_reported_with_its_version_and_response_time(tracking_server, run_check, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_server.uri)
    monkeypatch.setattr(stores, "FAST_MS", 10_000)
    assert run_check(stores.tracking).startswith(f"good: {tracking_server.uri}: MLflow {mlflow.__version__}, ")
    monkeypatch.setattr(stores, "FAST_MS", 0)
    assert "ms per response: slow" in run_check(stores.tracking)


@pytest.mark.parametrize(("version", "state"), [("3.0.1", "note"), ("4.1.0", "bad")])
def test_another_server_version_is_noted_and_another_major_version_is_bad(tracking_server, run_check, monkeypatch, version, state):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_server.uri)
    monkeypatch.setattr(probe, "OURS", version)
    assert run_check(stores.tracking).startswith(f"{state}: ") and f"here is MLflow {version}" in run_check(stores.tracking)


def test_a_login_failure_names_the_variables_to_set(make_server, run_check, monkeypatch):
    server = make_server(auth=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert run_check(stores.tracking) == (
        f"bad: the tracking server {server.uri} asks for a user and a password -> "
        "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
    )
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a guess")
    assert "does not accept user admin with this password -> Check MLFLOW_TRACKING_USERNAME" in run_check(stores.tracking)
    assert "a guess" not in run_check(stores.tracking)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    assert f"MLflow {mlflow.__version__}, as admin, " in run_check(stores.tracking)
    assert "put, read and deleted 1 KiB" in run_check(stores.artifacts)


def test_a_server_that_rejects_its_host_name_is_recognised(tracking_server, run_check, monkeypatch):
    monkeypatch.setattr(probe, "_get", lambda uri, path: forbidden())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert "does not accept this host name -> Start it with --allowed-hosts mlflow:5000." in run_check(stores.tracking)


def forbidden():
    answer = requests.Response()
    answer.status_code, answer._content = 403, b"Invalid Host header - possible DNS rebinding attack detected"
    return answer


def test_an_unreachable_server_is_bad(run_check, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hush@127.0.0.1:9")
    outcome = run_check(stores.tracking)
    assert outcome.startswith("bad: no answer from the tracking server http://127.0.0.1:9") and "hush" not in outcome


def test_a_server_that_never_answers_times_out(run_check, monkeypatch):
    monkeypatch.setattr(probe, "WAIT", 0.5)
    with black_hole() as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        started = time.monotonic()
        assert run_check(stores.tracking).startswith(f"bad: no answer from the tracking server {uri}")
    assert time.monotonic() - started < 3


def test_a_web_page_is_not_taken_for_a_tracking_server(run_check, monkeypatch, web_page):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", web_page)
    assert "is not an MLflow server: it sends a web page -> Check MLFLOW_TRACKING_URI" in run_check(stores.tracking)


@pytest.fixture
def web_page():
    """The URL of a web page."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>nothing here</html>")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def proxy(monkeypatch):
    """A proxy that refuses all requests, in the environment under a name; returns a function that sets it, with further variables."""
    with refusing_proxy() as url:

        def set_proxy(name, **environment):
            for variable in (*PROXIES, *map(str.upper, PROXIES)):
                monkeypatch.delenv(variable, raising=False)
            for variable, value in {name: url, **environment}.items():
                monkeypatch.setenv(variable, value)
            return url

        yield set_proxy


@pytest.mark.parametrize("name", ["http_proxy", "ALL_PROXY"])
def test_a_proxy_before_a_server_on_this_machine_is_named(place, run_check, monkeypatch, proxy, name):
    url = proxy(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    hint = f"A proxy is set, {url}: to reach 127.0.0.1 without it, export NO_PROXY=127.0.0.1,localhost"
    outcome = run_check(stores.tracking)
    assert outcome.startswith("bad: ") and "is not an MLflow server: it sends a web page" in outcome and hint in outcome
    with pytest.raises(UserError, match="is not an MLflow server: it sends a web page") as caught:
        Tracker(place.root, experiment="regcls")
    assert hint in str(caught.value) and "<html" not in str(caught.value)


def test_a_server_behind_a_proxy_is_reached_once_no_proxy_names_it(tracking_server, run_check, monkeypatch, proxy):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_server.uri)
    proxy("http_proxy")
    value = run_check(stores.tracking).partition("export NO_PROXY=")[2]
    proxy("http_proxy", NO_PROXY=value)
    assert f"{tracking_server.uri}: MLflow {mlflow.__version__}" in run_check(stores.tracking)


def test_hosts_without_proxy_stay_without_it(monkeypatch, proxy):
    url = proxy("http_proxy", no_proxy=".local")
    assert proxy_hint("http://mlflow.local:5000") == proxy_hint("https://elsewhere") == ""
    proxy("http_proxy", no_proxy="10.0.0.0/8")
    assert proxy_hint("http://10.1.2.3:5000") == ""
    proxy("http_proxy", no_proxy=".local, a.de")
    hosts = ".local,a.de,127.0.0.1,localhost,mlflow"
    assert proxy_hint("http://me:hush@mlflow:5000") == f" A proxy is set, {url}: to reach mlflow without it, export no_proxy={hosts}"


def test_a_web_page_is_not_taken_for_a_version(run_check, monkeypatch, web_page):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", web_page)
    get = probe._get

    def only_version(uri, path):
        answer = get(uri, path)
        if path != "/version":
            answer.status_code, answer.headers["Content-Type"] = 200, "application/json"
        return answer

    monkeypatch.setattr(probe, "_get", only_version)
    assert "is not an MLflow server: it sends a web page -> Check MLFLOW_TRACKING_URI" in run_check(stores.tracking)


def test_a_proxy_before_s3_on_this_machine_is_named(run_check, remote, proxy):
    url = proxy("http_proxy")
    remote("url = s3://boot/dvc", f"endpointurl = http://127.0.0.1:{free_port()}", "access_key_id = a", "secret_access_key = b")
    outcome = run_check(stores.dvc_remote)
    assert (
        "is not S3: it sends a web page" in outcome and f"A proxy is set, {url}: " in outcome and "NO_PROXY=127.0.0.1,localhost" in outcome
    )


@pytest.mark.parametrize("uri", ["./mlruns", "file://{}/mlruns", "{}/mlruns", "mlruns"])
def test_a_folder_as_store_is_refused_with_the_way_to_move_its_runs(place, run_check, monkeypatch, tmp_path, uri):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(tmp_path))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    new = f"sqlite:///{tmp_path}/mlruns.db"
    outcome = run_check(stores.tracking)
    assert outcome.startswith(
        f"bad: MLFLOW_TRACKING_URI={uri.format(tmp_path)} is a folder, but runs are tracked in an SQLite file or on a"
    )
    assert f"mlflow migrate-filestore --source '{tmp_path}/mlruns' --target '{new}', and set it to that" in outcome
    with pytest.raises(UserError, match="is a folder"):
        Tracker(place.root, experiment="regcls")
    (tmp_path / "mlruns.db").touch()  # which the command would overwrite
    assert "migrate" not in run_check(stores.tracking)


# Artifacts


def test_artifacts_proxied_by_a_server_are_tested_without_leaving_files(make_server, place, run_check, monkeypatch):
    server = make_server()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert "mlflow-artifacts:/ through the server: put, read and deleted 1 KiB" in run_check(stores.artifacts)
    assert MlflowClient(server.uri).search_experiments()[0].name == "Default"  # none was created
    number = MlflowClient(server.uri).create_experiment("regcls")
    kept = Path(server.artifacts) / number / "kept"
    kept.parent.mkdir(parents=True)
    kept.write_text("of a run")
    assert f"mlflow-artifacts:/{number} through the server: put, read and deleted 1 KiB" in run_check(stores.artifacts)
    assert files(server.artifacts) == [Path(number), Path(number) / "kept"]


def test_a_server_that_cannot_store_artifacts_is_bad(make_server, run_check, monkeypatch):
    server = make_server(
        artifacts="s3://boot/team",
        environment={
            "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_MAX_ATTEMPTS": "1",
        },
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert run_check(stores.artifacts).startswith(f"bad: artifacts cannot be stored in mlflow-artifacts:/ of {server.uri}: ")


def test_artifacts_that_a_server_stores_in_s3_are_tested_too(make_server, s3_server, run_check, monkeypatch):
    server = make_server(artifacts="s3://boot/team", environment={"MLFLOW_S3_ENDPOINT_URL": s3_server.endpoint, **s3_server.environment})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert "put, read and deleted 1 KiB" in run_check(stores.artifacts)
    with closing(s3_server.client()) as client:
        assert "Contents" not in client.list_objects_v2(Bucket="boot", Prefix="team/")


def test_artifacts_stored_directly_in_s3_are_tested_there(place, s3_server, run_check, monkeypatch):
    Tracker(place.root, experiment="regcls")
    MlflowClient(f"sqlite:///{place.root}/mlflow.db").create_experiment("direct", artifact_location="s3://boot/direct")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "direct")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3_server.endpoint)
    assert run_check(stores.artifacts).startswith("bad: s3://boot/direct: Unable to locate credentials -> Check AWS_ACCESS_KEY_ID")
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    assert "good: s3://boot/direct: put, get and delete of 1 KiB" in run_check(stores.artifacts)


def test_artifacts_on_a_server_disk_that_we_cannot_reach_are_bad(make_server, run_check, monkeypatch, tmp_path):
    server = make_server()
    MlflowClient(server.uri).create_experiment("regcls", artifact_location=str(tmp_path / "elsewhere"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert f"to {tmp_path}/elsewhere, which this machine does not have -> start the server with --artifacts-destination" in run_check(
        stores.artifacts
    )
    assert not (tmp_path / "elsewhere").exists()


# Runs left behind


def test_a_run_whose_process_died_is_reported_and_left_alone(place, run_check):
    tracker = Tracker(place.root, experiment="regcls")
    client = MlflowClient(tracker.uri)
    dead = {"regcls.host": socket.gethostname(), "regcls.root": str(place.root), "regcls.process": "1-1"}  # no process started that early
    run = client.create_run(tracker.experiment_id, tags={"dataset": "agedb", **dead}).info.run_id
    assert run_check(stores.stale_runs) == (
        f"note: 1 run is RUNNING though the process has ended ({run[:8]}) -> "
        "regcls train agedb marks them KILLED and resumes from their checkpoints"
    )
    assert client.get_run(run).info.status == "RUNNING"


def test_dead_runs_of_several_data_sets_are_counted_together(place, run_check):
    tracker = Tracker(place.root, experiment="regcls")
    client = MlflowClient(tracker.uri)
    dead = {"regcls.host": socket.gethostname(), "regcls.root": str(place.root), "regcls.process": "1-1"}
    for dataset in ("rooms", "breakfast", "rooms"):
        client.create_run(tracker.experiment_id, tags={"dataset": dataset, **dead})
    outcome = run_check(stores.stale_runs)
    assert outcome.startswith("note: 3 runs are RUNNING") and "-> regcls train rooms and regcls train breakfast marks them" in outcome


def test_runs_waiting_for_the_server_are_bad(run_check, monkeypatch):
    from regcls.tracking import journal

    monkeypatch.setattr(journal, "undelivered_count", lambda root: 3)
    assert run_check(stores.undelivered) == "bad: 3 runs wait in .regcls/journal for the tracking server -> regcls sync"


# The DVC remote


@pytest.fixture
def remote(place):
    """Write the configuration of the default remote."""

    def write(*lines):
        (place.root / ".dvc").mkdir(exist_ok=True)
        (place.root / ".dvc" / "config").write_text("\n".join(["[core]", "remote = team", "['remote \"team\"']", *lines]))

    return write


def test_a_missing_remote_is_not_a_fault(place, run_check, remote):
    assert run_check(stores.dvc_remote).startswith("note: ") and "not a DVC project" in run_check(stores.dvc_remote)
    remote("url = /tmp")
    (place.root / ".dvc" / "config").write_text("")
    assert run_check(stores.dvc_remote) == (
        "note: no default remote -> To share data: dvc remote add -d NAME s3://bucket/prefix (or a folder)"
    )


def test_a_folder_remote_is_tested_and_an_unmounted_disk_is_bad(run_check, remote, tmp_path):
    remote(f"url = {tmp_path}/store")
    assert "store: put, read and deleted 1 KiB" in run_check(stores.dvc_remote)
    assert not (tmp_path / "store").exists()
    remote(f"url = {tmp_path}/unmounted/store")
    assert "there is no such folder -> mount its disk" in run_check(stores.dvc_remote)


def test_an_s3_remote_is_tested_with_its_own_credentials(s3_server, run_check, remote):
    access = s3_server.environment
    lines = [
        "url = s3://boot/dvc",
        f"endpointurl = {s3_server.endpoint}",
        f"access_key_id = {access['AWS_ACCESS_KEY_ID']}",
        "region = us-east-1",
    ]
    remote(*lines, f"secret_access_key = {access['AWS_SECRET_ACCESS_KEY']}")
    assert "good: team: s3://boot/dvc: put, get and delete of 1 KiB" in run_check(stores.dvc_remote)
    remote(*lines, "secret_access_key = hush")
    assert "the secret key does not belong to the access key" in run_check(stores.dvc_remote) and "hush" not in run_check(stores.dvc_remote)


def test_other_kinds_of_remote_are_queried_through_dvc(place, run_check, remote):
    remote("url = ssh://nobody:hush@127.0.0.1:9/data")
    outcome = run_check(stores.dvc_remote)
    assert outcome.startswith("bad: team: ssh://127.0.0.1:9/data: ") and "hush" not in outcome
