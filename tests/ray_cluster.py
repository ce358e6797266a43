"""A real Ray cluster on loopback: a head without CPUs, and nodes as processes, to start and to kill. It ends with the tests."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from network import free_port
from nursery import die_with_parent

DEADLINE = 120.0  # seconds that a node may take to start
COMMON = (
    "--block",
    "--node-ip-address",
    "127.0.0.1",
    "--min-worker-port",
    "0",
    "--max-worker-port",
    "0",
    "--object-store-memory",
    "200000000",
)
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_gcs_rpc_server_reconnect_timeout_s": "10"}


class RayCluster:
    """A cluster with its head; nodes are added, and have names of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, port = folder, free_port()
        self.address = f"127.0.0.1:{port}"
        self._processes: dict[str, psutil.Popen] = {}
        self._start(
            "head", "--head", "--port", str(port), "--num-cpus", "0", "--include-dashboard", "false", "--temp-dir", str(folder / "r")
        )

    def add(self, name: str, cpus: int = 1) -> None:
        """Start a node, and wait until it belongs to the cluster."""
        self._start(name, "--address", self.address, "--num-cpus", str(cpus))

    def kill(self, name: str) -> None:
        """Kill all processes of a node, as when its machine loses power."""
        process = self._processes.pop(name)
        for each in [process, *process.children(recursive=True)]:
            each.kill()
        process.wait()

    def trains(self, name: str) -> bool:
        """Whether a worker has its place on the node."""
        return any(command.startswith("ray::Worker") for command in self._commands(name))

    def close(self) -> None:
        """Kill all nodes."""
        for name in list(self._processes):
            self.kill(name)

    def _commands(self, name: str) -> Iterator[str]:
        for process in self._processes[name].children(recursive=True):
            with suppress(psutil.Error):  # it has just ended
                yield " ".join(process.cmdline())

    def _start(self, name: str, *options: str) -> None:
        file = self.folder / f"{name}.log"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, *COMMON]
        environment = {**os.environ, **ENVIRONMENT, "REGCLS_SCRATCH": str(self.folder / name)}
        with file.open("wb") as log:
            self._processes[name] = psutil.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, preexec_fn=die_with_parent)
        end = time.monotonic() + DEADLINE
        while "Ray runtime started" not in file.read_text():
            assert self._processes[name].poll() is None and time.monotonic() < end, f"no node {name}:\n{file.read_text()[-2000:]}"
            time.sleep(0.1)


@contextmanager
def running(*nodes: str) -> Iterator[RayCluster]:
    """A cluster with nodes of one CPU each; in /tmp, since the paths of Ray's sockets must be short."""
    pytest.importorskip("ray", reason="needs Ray, as in requirements.lock")
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    cluster = RayCluster(folder)
    try:
        for name in nodes:
            cluster.add(name)
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)
