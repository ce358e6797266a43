"""The process that speaks with Ray for the main process: connects, starts a worker at each place, passes calls, events and results on."""

import os
import signal
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import regcls
from regcls.training.cluster.node import Event, actor

NAMESPACE = "regcls"
CONNECT_SECONDS = 10.0
RESOURCE_SECONDS = 20.0  # after which it is mentioned that no worker is there yet
ANSWER_SECONDS = 120.0  # without an answer of a worker, after which it counts as lost
ATTEMPTS = 3  # to start a worker


@dataclass(frozen=True)
class Node:
    """A living node of the cluster."""

    name: str
    cpus: int
    gpus: int


def serve(pipe: Connection, address: str, log: Path) -> None:
    """Connect, and carry out the main process's requests: (name of a method of _Bridge, arguments).

    The first answer is ("nodes", nodes), or ("refused", reason).
    """
    os.setsid()  # signals to the main process's group are not for this process
    log.parent.mkdir(parents=True, exist_ok=True)
    for stream in (1, 2):  # Ray's own messages
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), stream)
    try:
        answer: tuple[str, Any] = "nodes", connect(address)
    except Exception as error:
        answer = "refused", " ".join(str(error).split())[:500]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Ray has replaced the handler
    pipe.send(answer)
    bridge = _Bridge(pipe)
    while True:
        name, *arguments = pipe.recv()
        getattr(bridge, name)(*arguments)


def connect(address: str) -> list[Node]:
    """Connect this process to the cluster; its living nodes.

    Raises:
        Exception: no answer, or a node of other versions of Ray or Python.
    """
    host, _, port = address.rpartition(":")
    if port.isdecimal():  # Ray itself would try for minutes
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        except OSError as error:
            raise ConnectionError(f"no answer ({error.strerror or error})") from None
    package = str(Path(regcls.__file__).parent)
    ray.init(
        address,
        namespace=NAMESPACE,
        runtime_env={"py_modules": [package], "excludes": ["__pycache__"]},
        log_to_driver=False,
        configure_logging=False,
    )
    return nodes()


def nodes() -> list[Node]:
    """The living nodes."""
    rows: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    found = [(row["NodeManagerHostname"], row["Resources"]) for row in rows if row["Alive"]]
    return [Node(name, int(resources.get("CPU", 0)), int(resources.get("GPU", 0))) for name, resources in found]


class _Claim:
    """An actor on this node whose name only one process of the cluster can have; Ray ends it with the process that has made it."""


class _Bridge:
    """Carries out requests. What a pool sends is (kind, the pool's number, …)."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._sending = pipe, threading.Lock()
        self._claims: dict[str, Any] = {}
        self._pool: _Pool | None = None

    def send(self, *message: Any) -> None:
        with self._sending, suppress(BrokenPipeError):  # the main process has ended, and this one will
            self._pipe.send(message)

    def claim(self, what: str) -> None:
        """Answer with whether nobody else of the cluster has claimed this."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        claim = ray.remote(num_cpus=0, max_restarts=-1)(_Claim).options(name=what, scheduling_strategy=here)
        try:
            self._claims[what] = claim.remote()
        except ValueError:  # the name is taken
            self.send("claimed", False)
            return
        self.send("claimed", True)

    def release(self, what: str) -> None:
        ray.kill(self._claims.pop(what))

    def open(self, number: int, count: int, cpus: int, gpus: int, arguments: tuple[Any, ...]) -> None:
        """Start a pool of `count` workers with so many CPUs and GPUs each; `arguments`: of Worker."""
        self._pool = _Pool(self, number, count, cpus, gpus, arguments)

    def call(self, number: int, content: bytes) -> None:
        """Have a worker of the pool call a function; `number` identifies the call."""
        assert self._pool
        self._pool.calls.put((number, content))

    def stop(self) -> None:
        """Ask all workers to stop, and give back the calls that no worker has."""
        assert self._pool
        self._pool.stop()

    def close(self) -> None:
        """End the pool's workers, whatever they do."""
        assert self._pool
        self._pool.close()


class _Pool:
    """Workers, with a thread of this process for each."""

    def __init__(self, bridge: _Bridge, number: int, count: int, cpus: int, gpus: int, arguments: tuple[Any, ...]) -> None:
        self.calls: SimpleQueue[tuple[int, bytes]] = SimpleQueue()
        self._bridge, self._number, self._cpus, self._gpus, self._arguments = bridge, number, cpus, gpus, arguments
        self._actor = actor().options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy="SPREAD")
        self._workers: set[Any] = set()
        self._ready = self._mentioned = self._stopping = self._closed = False
        self._threads, self._counting = count, threading.Lock()
        for _ in range(count):
            threading.Thread(target=self._work, daemon=True).start()

    def stop(self) -> None:
        self._stopping = True
        with suppress(Exception):
            while True:
                self._send("stopped", self.calls.get_nowait()[0])

    def close(self) -> None:
        self._closed = True
        for worker in list(self._workers):
            ray.kill(worker)

    def _send(self, kind: str, *content: Any) -> None:
        self._bridge.send(kind, self._number, *content)

    def _work(self) -> None:
        """Keep a worker, and give it calls; if it is lost, start another."""
        failures, reason = 0, ""
        while not self._closed and failures < ATTEMPTS:
            worker: Any = None
            try:
                worker = self._actor.remote(*self._arguments)
                self._workers.add(worker)
                host, torch = self._wait_for(worker)
                self._send("ready", host, torch)
                failures, self._ready = 0, True
                while not self._closed:
                    number, content = self.calls.get()
                    try:
                        self._pass_on(worker, number, content)
                    except RayError:  # the worker or its node is lost, or the result with it
                        self._send("lost", number, host)
                        raise
            except Exception as error:
                failures, reason = failures + 1, " ".join(str(error).split())[:500]
            finally:
                self._workers.discard(worker)
                with suppress(Exception):
                    ray.kill(worker)  # if the pool was closed while it started, or it does not answer
        with self._counting:
            self._threads -= 1
        if not self._closed:
            text = f"a worker does not start: {reason}"
            self._send("say", f"{text}; the others go on") if self._threads else self._send("failed", text)

    def _wait_for(self, worker: Any) -> tuple[str, str]:
        """Wait until the worker has a place and is there."""
        hello = worker.hello.remote()
        while not ray.wait([hello], timeout=RESOURCE_SECONDS)[0]:
            if not any(node.cpus >= self._cpus and node.gpus >= self._gpus for node in nodes()):
                self._send("failed", "no node is left that could train")
            elif not self._ready and not self._mentioned:
                self._mentioned = True
                self._send("say", "no worker is there yet: all that the cluster has is in use, or its nodes are slow")
        answer: tuple[str, str] = ray.get(hello)
        return answer

    def _pass_on(self, worker: Any, number: int, content: bytes) -> None:
        """Have the worker make a call, and send what it reports and returns."""
        result = worker.call.remote(content)
        while not ray.wait([result], timeout=0)[0]:
            self._forward(number, ray.get(worker.events.remote(self._stopping), timeout=ANSWER_SECONDS))
        events, outcome = ray.get(result)
        self._forward(number, events)
        self._send("done", number, outcome)

    def _forward(self, number: int, events: list[Event]) -> None:
        for kind, content in events:
            self._send(kind, *((number, content) if kind == "event" else (content,)))
