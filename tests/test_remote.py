"""A team's data and results on real servers: a DVC remote on S3 and a tracking server, shared by two clones; and large artifacts."""

import random
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient

from regcls.tracking.files import RunFiles
from s3_server import S3Server
from servers import TrackingServer
from test_dvc import call  # noqa: F401  # a fixture

PART = 5 << 20  # bytes: the least that S3 takes, but for the last part


@pytest.fixture(scope="module", autouse=True)
def environment(tracking_server: TrackingServer, s3_server: S3Server):
    """The environment of each team member, set before `call` copies it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (tracking_server.environment | s3_server.environment).items():
            patch.setenv(name, value)
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "remote")
        yield


@pytest.fixture(scope="module")
def team(call, s3_server):  # noqa: F811
    """A project with a default remote, reproduced, committed and pushed."""
    params = yaml.safe_load((call.cwd / "params.yaml").read_text())
    params["datasets"] = ["functions"]
    (call.cwd / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    call.dvc("remote", "add", "--quiet", "--default", "team", "s3://boot/dvc")
    call.dvc("remote", "modify", "--quiet", "team", "endpointurl", s3_server.endpoint)
    call.dvc("repro", "--quiet")
    call("git", "add", "--all")
    call("git", "commit", "--quiet", "--message", "Results, and where the data is")
    call.dvc("push", "--quiet")
    return call


@pytest.fixture(scope="module")
def clone(team, tmp_path_factory):
    """Call a command in a colleague's clone after `dvc pull`."""
    root = tmp_path_factory.mktemp("elsewhere") / "clone"
    team("git", "clone", "--quiet", str(team.cwd), str(root))
    commands = team.at(root)
    commands.dvc("pull", "--quiet")
    return commands


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.slow
def test_after_a_pull_there_is_nothing_to_reproduce(team, clone):
    output = clone.dvc("repro")
    assert re.findall("Running stage '(.+?)'", output) == ["inputs"]  # which finds that nothing changed
    assert contents(clone.cwd / "reports") == contents(team.cwd / "reports")


@pytest.mark.slow
def test_a_report_rebuilt_from_the_server_differs_only_in_its_origin(clone):
    before = contents(clone.cwd / "reports")
    shutil.rmtree(clone.cwd / "reports")
    clone("env", "PYTHONPATH=src", "python", "-m", "regcls", "compare")
    again = contents(clone.cwd / "reports")
    for pages in (before, again):
        for name in ("index.html", "functions/index.html"):
            pages[name], places = re.subn(rb"<dt>git_commit</dt>.*?</dl>", b"", pages[name])
            assert places == 1
    assert again == before


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of two and a half S3 parts."""
    file = tmp_path / "state.safetensors"
    file.write_bytes(random.Random(0).randbytes(5 * PART // 2))
    return file


@pytest.mark.parametrize(
    ("location", "settings", "parts"),
    [
        ("mlflow-artifacts:/large", {}, 2),  # through the server, which forwards it in pieces of 8 MiB
        ("mlflow-artifacts:/large", {"MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true"}, 3),  # pieces straight to S3, as the server signs them
        ("s3://boot/large", {}, 2),  # with the client's own credentials
    ],
    ids=["proxied", "signed", "direct"],
)
def test_large_files_reach_s3_in_parts_and_come_back_intact(
    location: str,
    settings: dict[str, str],
    parts: int,
    large: Path,
    make_server: Callable[..., TrackingServer],
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = {"MLFLOW_S3_ENDPOINT_URL": s3_server.endpoint}
    server = make_server(artifacts="s3://boot/proxied", environment=s3_server.environment | endpoint)
    lowered = {f"MLFLOW_MULTIPART_UPLOAD_{name}": str(PART) for name in ("MINIMUM_FILE_SIZE", "CHUNK_SIZE")}  # from 500 and 10 MB
    for name, value in (settings | lowered | (endpoint if location.startswith("s3:") else {})).items():
        monkeypatch.setenv(name, value)
    client = MlflowClient(server.uri)
    run = client.create_run(client.create_experiment("large", artifact_location=location)).info
    files = RunFiles(client, server.uri)
    files.log(run.run_id, {large.name: large})
    assert files.fetch(run.run_id, large.name, tmp_path / "back").read_bytes() == large.read_bytes()
    with closing(s3_server.client()) as s3:
        prefix = "large" if location.startswith("s3:") else "proxied/large"
        (stored,) = s3.list_objects_v2(Bucket="boot", Prefix=f"{prefix}/{run.run_id}")["Contents"]
    assert stored["ETag"].endswith(f'-{parts}"')  # the number of parts, in S3's notation
