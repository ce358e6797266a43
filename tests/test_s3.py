"""`regcls s3 check` on a real S3 server and on others, and how the project's bucket is found."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore import auth
from botocore.exceptions import ClientError

from conftest import ROOT
from regcls import object_store
from regcls.dvc_remote import default_remote
from regcls.errors import MissingError, UserError
from regcls.object_store import Bucket, bucket_of, s3_client
from regcls.pipeline.s3 import check


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No settings of this machine: proxy, credentials, endpoint or destination."""
    monkeypatch.setenv("NO_PROXY", "*")
    for name in [*os.environ]:
        if name.startswith("AWS_") or name in ("MLFLOW_S3_ENDPOINT_URL", "MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_DEFAULT_ARTIFACT_ROOT"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


def keys(s3, bucket):
    return [found["Key"] for found in s3.list_objects_v2(Bucket=bucket).get("Contents", ())]


def uploads(s3, bucket):
    return s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])


@pytest.fixture
def bucket(s3):
    """Bucket(clock=…) of the running server, below a prefix."""
    with closing(s3_client(timeouts=(2, 5))) as client:
        yield lambda **given: Bucket(**{"client": client, "name": "boot", "prefix": "team/"} | given)


@pytest.mark.parametrize("url", ["s3://boot", "s3://boot/team/art"])
def test_a_usable_bucket_passes_every_step_and_is_left_unchanged(s3, tmp_path, capsys, url):
    before = keys(s3, "boot")
    check(tmp_path, url, create=False)
    output = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in output] == [
        ["ok", "access"],
        ["ok", os.environ["AWS_ENDPOINT_URL"]],
        ["ok", "put,"],
        ["ok", "upload"],
    ]
    assert "regcls-secret" not in str(output)
    assert (keys(s3, "boot"), uploads(s3, "boot")) == (before, [])


def test_a_missing_bucket_is_created_on_request_only(s3, tmp_path, capsys):
    with pytest.raises(UserError, match=r"no bucket newborn at http://127.* regcls s3 check s3://newborn/data --create"):
        check(tmp_path, "s3://newborn/data", create=False)
    check(tmp_path, "s3://newborn/data", create=True)
    assert "bucket newborn created" in capsys.readouterr().out
    assert keys(s3, "newborn") == []
    check(tmp_path, "s3://newborn/data", create=True)  # it may exist already
    assert "created" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": "other"}, r"s3://boot: the access key is unknown \(AWS_ACCESS_KEY_ID\) \(at http://127"),
        ({"AWS_SECRET_ACCESS_KEY": "other"}, r"the secret key does not belong to the access key \(AWS_SECRET_ACCESS_KEY\)"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "no credentials for http://127.* Check AWS_ACCESS_KEY_ID"),
        ({"AWS_PROFILE": "other"}, r"profile \(other\) could not be found"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, "Invalid endpoint: nonsense"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, r"cannot reach http://127.0.0.1:9: Connection refused"),
        ({"AWS_ENDPOINT_URL": "http://no-such-host.invalid"}, r"cannot reach http://no-such-host.invalid: "),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, dict) else None,
)
def test_access_problems_give_one_clear_message(s3, tmp_path, monkeypatch, environment, message):
    for name, value in environment.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message) as error:
        check(tmp_path, "s3://boot", create=True)
    assert "other" not in str(error.value) or "AWS_PROFILE" in environment


@pytest.mark.parametrize("name", ["a b", "UPPER"])
def test_an_invalid_bucket_name_is_reported(s3, tmp_path, name):
    with pytest.raises(UserError, match=name):
        check(tmp_path, f"s3://{name}", create=False)


@pytest.mark.parametrize("url", ["boot", "s3:/boot", "https://boot", "s3://"])
def test_only_an_s3_url_names_a_bucket(url):
    with pytest.raises(UserError, match="write s3://bucket"):
        bucket_of(url)


def test_the_prefix_of_a_url_ends_in_one_slash():
    assert [bucket_of(f"s3://b{path}") for path in ("", "/", "/a", "/a/b/")] == [("b", ""), ("b", ""), ("b", "a/"), ("b", "a/b/")]


def test_a_wrong_clock_is_reported_with_the_minutes(bucket):
    with pytest.raises(UserError, match=r"differ by (59|60) minutes; S3 refuses more than 15. Set the clock"):
        bucket(clock=lambda: time.time() - 3600).reach()
    assert re.search(r"differ by [012] s,", bucket().reach())  # the server reports its clock in whole seconds


def test_s3s_own_error_for_a_wrong_clock_is_recognised(bucket, monkeypatch):
    wrong = (datetime.now(UTC) + timedelta(hours=2)).replace(tzinfo=None)
    monkeypatch.setattr(auth, "get_current_datetime", lambda remove_tzinfo=True: wrong)  # what a request is signed with
    with pytest.raises(UserError, match="clocks? .*differ"):
        bucket(clock=lambda: wrong.replace(tzinfo=UTC).timestamp()).reach()


class Refusing:
    """A client that is refused one call: SeaweedFS's permissions are fixed when it starts."""

    def __init__(self, client, refused):
        self._client, self._refused = client, refused

    def __getattr__(self, name):
        return self.refuse if name == self._refused else getattr(self._client, name)

    def refuse(self, **_):
        answer = {
            "Error": {"Code": "AccessDenied", "Message": "Access Denied."},
            "ResponseMetadata": {"HTTPHeaders": {"content-type": "application/xml"}},
        }

        raise ClientError(answer, self._refused)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("list_objects_v2", "may not list the bucket"),
        ("put_object", r"may not write below s3://boot/team \(at"),
        ("get_object", "may not read below s3://boot/team"),
        ("create_multipart_upload", "may not upload in parts"),
        ("upload_part", "may not upload in parts"),
        ("complete_multipart_upload", "may not upload in parts"),
    ],
)
def test_missing_permissions_are_reported_and_nothing_is_left_behind(s3, bucket, monkeypatch, call, message):
    monkeypatch.setattr(object_store, "PART_BYTES", 1024)
    before = keys(s3, "boot")
    limited = bucket(client=Refusing(bucket().client, call))
    with pytest.raises(UserError, match=f"s3://boot/team: these credentials {message}"):
        for step in (limited.reach, limited.round_trip, limited.multipart):
            step()
    assert (keys(s3, "boot"), uploads(s3, "boot")) == (before, [])


def test_objects_that_cannot_be_deleted_are_reported(s3, bucket):
    with pytest.raises(UserError, match=r"may not delete: s3://boot/team/regcls-check-\w{16} is left behind") as error:
        bucket(client=Refusing(bucket().client, "delete_object")).round_trip()
    s3.delete_object(Bucket="boot", Key=str(error.value).partition("s3://boot/")[2].partition("delete: s3://boot/")[2].partition(" ")[0])
    assert not [key for key in keys(s3, "boot") if "regcls-check" in key]


@contextmanager
def answering(status, kind, body):
    """The URL of a web server that gives the same response to everything."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = answer

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [200, 404, 403])
@pytest.mark.parametrize("page", [b"<html><body>hello</body></html>", b"<!doctype html><p>hello"], ids=["wellformed", "html"])
def test_a_web_page_is_not_taken_for_s3(s3, tmp_path, monkeypatch, status, page):
    with answering(status, "text/html", page) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(UserError, match=f"{address} answers, but is not S3: .*Check AWS_ENDPOINT_URL"):
            check(tmp_path, "s3://boot", create=True)


def test_a_failing_proxy_is_distinguished_from_a_wrong_address(s3, tmp_path, monkeypatch):
    with answering(502, "text/html", b"<html>Bad Gateway</html>") as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(UserError, match=f"{address} answers 502: .*try again later"):
            check(tmp_path, "s3://boot", create=True)


def test_a_server_that_never_answers_times_out(s3, tmp_path, monkeypatch):
    monkeypatch.setattr("regcls.pipeline.s3.TIMEOUTS", (0.3, 0.3))
    with socket.create_server(("127.0.0.1", 0)) as hole:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{hole.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(UserError, match=r"does not answer. Is it the right address \(AWS_ENDPOINT_URL\)"):
            check(tmp_path, "s3://boot", create=False)
    assert time.monotonic() - started < 3
    assert sum(object_store.TIMEOUTS) < 15  # one try takes no longer


# Finding the bucket


@pytest.fixture
def dvc_project(tmp_path):
    """Make a project with these lines in .dvc/config."""

    def make(*lines):
        (tmp_path / "project" / ".dvc").mkdir(parents=True)
        (tmp_path / "project" / ".dvc" / "config").write_text("\n".join(lines))
        return tmp_path / "project"

    return make


def test_without_a_url_the_dvc_remote_is_checked_with_its_credentials(s3_server, dvc_project, capsys):
    access = s3_server.environment
    root = dvc_project("[core]", "remote = team", "['remote \"team\"']", "url = s3://boot/dvc", f"endpointurl = {s3_server.endpoint}")
    (root / ".dvc" / "config.local").write_text(
        f"['remote \"team\"']\naccess_key_id = {access['AWS_ACCESS_KEY_ID']}\nsecret_access_key = {access['AWS_SECRET_ACCESS_KEY']}\nregion = us-east-1\n"
    )
    check(root, None, create=False)
    output = capsys.readouterr()
    assert output.err == f"s3://boot/dvc at {s3_server.endpoint}\n"
    assert len(output.out.splitlines()) == 4


def test_without_a_dvc_remote_mlflows_destination_is_checked(s3, dvc_project, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", "s3://boot/artifacts")
    check(dvc_project("[core]", "remote = here", "['remote \"here\"']", "url = /mnt/data"), None, create=False)
    assert capsys.readouterr().err.startswith("s3://boot/artifacts at ")


def test_without_configuration_the_bucket_must_be_given(tmp_path):
    with pytest.raises(UserError, match="which bucket.* regcls s3 check s3://bucket"):
        check(tmp_path, None, create=False)


def test_missing_dvc_and_broken_dvc_configuration_are_distinguished(dvc_project, tmp_path):
    with pytest.raises(MissingError, match="not a DVC project"):
        default_remote(tmp_path)
    root = dvc_project("[core]", "analytics = false")
    with pytest.raises(MissingError, match="no default remote"):
        default_remote(root)
    (root / ".dvc" / "config").write_text("[core]\nremote = gone\n")
    with pytest.raises(UserError, match="remote gone is not configured"):
        default_remote(root)
    (root / ".dvc" / "config").write_text("[core\n")
    with pytest.raises(UserError, match="cannot read DVC's configuration"):
        default_remote(root)


def test_a_remote_is_shown_without_its_password(dvc_project):
    root = dvc_project("[core]", "remote = team", "['remote \"team\"']", "url = s3://boot", "secret_access_key = hush")
    assert "hush" not in repr(default_remote(root))
    assert default_remote(root).s3_settings() == {"aws_secret_access_key": "hush", "use_ssl": True}


def test_the_command_checks_a_bucket_and_fails_with_one_line(s3, make_project):
    def regcls(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-m", "regcls", "s3", "check", *arguments]
        return subprocess.run(command, cwd=root, env=environment, text=True, capture_output=True, timeout=60)

    root = make_project()
    result = regcls("s3://boot")
    assert (result.returncode, result.stdout.count("ok  ")) == (0, 4), result.stderr
    result = regcls("s3://none")
    assert (result.returncode, result.stderr.count("regcls: error: there is no bucket none")) == (2, 1)
    assert "Traceback" not in result.stderr
