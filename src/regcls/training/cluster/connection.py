"""The main process's side of a Ray cluster: what it has, who may train what, and pools of workers on it."""

import atexit
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from itertools import count as counter
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regcls.errors import UserError
from regcls.processes import companion
from regcls.progress import say
from regcls.training.cluster.travel import Travel
from regcls.training.loop import StoppedError

if TYPE_CHECKING:
    from regcls.training.cluster.bridge import Node

CLAIM_SECONDS = 2.0  # between attempts
CONNECT_SECONDS = 90.0
LOSSES = 3  # of a call's workers without a new state, until it is given up
FORWARDED = ("AWS_", "DVC_", "GOOGLE_", "AZURE_")  # environment variables with which a node pulls data


@cache
def connect(address: str, root: Path) -> "Cluster":
    """The connection of this process to the cluster at `address`, for the project in `root`.

    Raises:
        UserError: Ray is not installed, nothing answers, or versions differ.
    """
    return Cluster(address, root)


class Cluster:
    """A connection, which lasts until the process ends."""

    def __init__(self, address: str, root: Path) -> None:
        """Raises as `connect` does."""
        if find_spec("ray") is None:
            raise UserError("compute.engine = ray, but Ray is not installed. Install requirements.lock here and on all nodes.")
        from regcls.training.cluster.bridge import serve

        self.address, self.home = address, root / ".regcls"
        say(f"connecting to the Ray cluster at {address}")
        self._pipe, theirs = get_context("spawn").Pipe()
        process = companion(serve, theirs, address, self.home / "ray.log")
        atexit.register(process.kill)
        theirs.close()
        kind, answer = self.receive(CONNECT_SECONDS) or ("refused", f"no answer of Ray within {CONNECT_SECONDS:.0f} s")
        if kind == "refused":
            process.kill()
            raise UserError(
                f"cannot use the Ray cluster at compute.address = {address}: {answer}. Run this on a node of the cluster, with the "
                "versions of Ray and Python that it has; `ray status` there shows whether it runs."
            )
        self.nodes: list[Node] = answer

    def send(self, *request: Any) -> None:
        """Send a request to the bridge: see its `serve`."""
        try:
            self._pipe.send(request)
        except OSError:
            raise self._lost() from None

    def receive(self, seconds: float | None) -> tuple[Any, ...] | None:
        """The next message of the bridge; None if there is none within `seconds`.

        Raises:
            UserError: the bridge has ended.
        """
        try:
            return self._pipe.recv() if self._pipe.poll(seconds) else None
        except (EOFError, OSError):
            raise self._lost() from None

    def _lost(self) -> UserError:
        return UserError(
            f"the connection to the Ray cluster at {self.address} is lost: its head or this node has stopped ({self.home / 'ray.log'}). "
            "Finished runs are kept; start again when the cluster is back."
        )

    @contextmanager
    def claim(self, what: str, *, on_wait: Callable[[], None]) -> Iterator[None]:
        """Be the only process of the cluster in a block for `what`; calls `on_wait` once if another one is."""
        waits = False
        while not self._has_claimed(what):
            if not waits:
                on_wait()
            waits = True
            time.sleep(CLAIM_SECONDS)
        try:
            yield
        finally:
            with suppress(UserError):
                self.send("release", what)

    def _has_claimed(self, what: str) -> bool:
        self.send("claim", what)
        while (message := self.receive(None)) is None or message[0] != "claimed":  # the rest of an earlier pool
            pass
        return bool(message[1])


@dataclass
class _Call:
    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: Future[Any] = field(default_factory=Future)
    losses: int = 0


class NodePool:
    """Workers on the nodes: a `places.Pool`. A call whose worker is lost is made again, with the files as they are then."""

    _numbers = counter()  # of pools and calls

    def __init__(
        self, cluster: Cluster, count: int, *, cpus: int, gpus: int, set_up: Callable[..., object], arguments: Sequence[Any]
    ) -> None:
        self._cluster, self._number, self._stopping = cluster, next(self._numbers), False
        self._travel, self._calls = Travel(cluster.home), dict[int, _Call]()
        # Without paths, which name other files there.
        environment = {name: value for name, value in os.environ.items() if name.startswith(FORWARDED) and not value.startswith("/")}
        cluster.send("open", self._number, count, cpus, gpus, (cpus, self._travel.dumps((set_up, tuple(arguments))), environment))

    def submit(self, function: Callable[..., Any], *arguments: Any, name: str) -> "Future[Any]":
        """Have a worker call a function; `name` says in messages what it does."""
        call = _Call(name, function, arguments)
        number = next(self._numbers)
        self._calls[number] = call
        self._send(number)
        return call.future

    def _send(self, number: int) -> None:
        call = self._calls[number]
        self._cluster.send("call", number, self._travel.dumps((call.function, call.arguments)))

    def ask_to_stop(self) -> None:
        """Ask all functions to stop."""
        self._stopping = True
        self._cluster.send("stop")

    def events(self) -> Iterator[tuple[Any, ...]]:
        """What the functions have reported since the last call; sets the futures of those that have returned.

        Raises:
            UserError: the cluster cannot go on.
        """
        while message := self._cluster.receive(0):
            kind, number, *content = message
            if number == self._number:
                yield from getattr(self, f"_on_{kind}")(*content) or ()

    def close(self) -> None:
        """End the workers, whatever they do."""
        with suppress(UserError):
            self._cluster.send("close")

    def _on_event(self, number: int, content: bytes) -> list[tuple[Any, ...]]:
        event = self._travel.loads(content)
        if event[0] == "on_state":
            self._calls[number].losses = 0
        return [event]

    def _on_done(self, number: int, content: bytes) -> None:
        future = self._calls.pop(number).future
        returned, value = self._travel.loads(content)
        if returned:
            future.set_result(value)
        else:
            future.set_exception(value)

    def _on_stopped(self, number: int) -> None:
        self._calls.pop(number).future.set_exception(StoppedError())

    def _on_lost(self, number: int, host: str) -> None:
        call = self._calls[number]
        call.losses += 1
        if self._stopping:
            self._on_stopped(number)
        elif call.losses == LOSSES:
            error = UserError(
                f"{call.name}: three processes that trained it were lost, the last one on {host}, perhaps because memory ran out. "
                "Use a smaller batch_size, or fewer compute.processes; Ray's logs on the node say more."
            )
            self._calls.pop(number).future.set_exception(error)
        else:
            say(f"{call.name}: the process on {host} is lost; another one goes on, from the last state that it has sent, if any")
            self._send(number)

    def _on_ready(self, host: str, torch: str) -> None:
        if torch != (here := metadata.version("torch").partition("+")[0]):
            raise UserError(f"{host} has PyTorch {torch}, and this machine {here}. Install requirements.lock on all nodes.")

    def _on_say(self, text: str) -> None:
        say(text)

    def _on_failed(self, reason: str) -> None:
        raise UserError(f"the Ray cluster at {self._cluster.address} cannot go on: {reason}. Finished runs are kept.")
