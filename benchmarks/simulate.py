"""30 000 runs on 1, 8 and 64 GPUs, simulated with measured costs of tracking: how long they take, and what saturates first.

    python benchmarks/simulate.py [--gpus 1 8 64] [--runs 30000] [--hours 5] [--small-seconds 0.11] [--workers 4] [--drivers 1] …

A GPU trains one run at a time. What the run's node has sent passes the network to the driver, whose main thread writes the result to the
journal; then the GPU starts its next run. States and results wait in the journal for the driver's only courier, which sends one after the
other, each through a worker of the server into the object store. A state that still waits is dropped when the next but one comes (there are
two slots), or when its run ends. All runs of a kind take equally long, and none fails. No GPU has been
measured: the time of a run is an assumption, on which the runs per hour that a station can take do not depend.
"""

import argparse
import heapq
import math
from argparse import Namespace
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

HOUR = 3600.0
UNITS = {"years": 365 * 24 * HOUR, "days": 24 * HOUR, "hours": HOUR, "min": 60.0, "s": 1.0}
EPOCHS = 90  # of a run of Table 3
STATIONS = ("courier", "main thread", "server", "object store", "network")


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a result or a state costs. Seconds and MB."""

    requests: int = 0
    courier: float = 0.0  # busy, with one request after the other
    main: float = 0.0  # of the driver's main thread
    server: float = 0.0  # of a core, for mlflow server
    size: float = 0.0  # into the object store
    journal: float = 0.0  # on the driver's disk, as long as it waits


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Measured: medians of `python benchmarks/traffic.py --runs 50 --rounds 3` on two cores that all share; docs/scale.md has the runs."""

    # A run of section 2; a run of Table 3 (best.pt 95 MB, last.pt 285, model 103, predictions 0.3) without states; one of these (380 MB).
    small: Load = Load(requests=8, courier=0.096, main=0.0033, server=0.060, size=0.055, journal=0.082)
    image: Load = Load(requests=118, courier=6.5, main=1.77, server=2.72, size=484, journal=484)
    state: Load = Load(requests=5, courier=3.12, main=0.0035, server=1.17, size=380, journal=380)
    nagle: float = 0.033  # seconds that a request waits for a delayed acknowledgement: `small` without uvloop less that with it, by request
    password: float = 0.13  # seconds of a core to check a password: `small` with `--accounts hashed` less that without, by request
    # Assumed:
    objects: float = 1250.0  # MB/s into the object store: 10 Gbit/s
    network: float = 1250.0  # MB/s into each driver
    checkpoint: float = 600.0  # seconds between states from a node to its driver: compute.checkpoint_minutes


COST = Costs()


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of run."""

    name: str
    train: float  # seconds on a GPU
    node: float  # MB from the node to the driver, with all states
    result: Load
    state: Load = Load()
    states: int = 0  # that are sent, evenly spaced

    def seconds(self, drivers: int, workers: int, states: float) -> dict[str, float]:
        """Station -> how long a run keeps it busy that sends so many states."""
        names = ("courier", "main", "server", "size")
        courier, main, server, size = (getattr(self.result, name) + states * getattr(self.state, name) for name in names)
        busy = (courier / drivers, main / drivers, server / workers, size / COST.objects, self.node / COST.network / drivers)
        return dict(zip(STATIONS, busy, strict=True))


def kinds(options: Namespace) -> list[Kind]:
    """The two kinds of runs."""
    work = options.accounts * COST.password  # more for each request
    wait, train = work + options.no_uvloop * COST.nagle, options.hours * HOUR
    small, image, state = (
        replace(load, courier=load.courier + load.requests * wait, server=load.server + load.requests * work)
        for load in (COST.small, COST.image, COST.state)
    )
    states, node = (EPOCHS - 1) // options.state_epochs, image.size + state.size * train / COST.checkpoint
    return [
        Kind(name="ten small networks", train=options.small_seconds, node=small.size, result=small),
        Kind(name="ResNet-50", train=train, node=node, result=image, state=state, states=states),
    ]


def served(free: list[float], now: float, seconds: float) -> float:
    """When one who comes at `now` is done, at servers that are free from `free` on, a heap; calls are in the order of `now`."""
    end = max(now, free[0]) + seconds
    heapq.heapreplace(free, end)
    return end


class Outcome(NamedTuple):
    """Of a simulation."""

    trained: float  # seconds until the last run is trained and in the journal
    delivered: float  # … and at the server
    busy: dict[str, float]  # shares: of `trained` for GPUs, main thread and network, of `delivered` for the others
    backlog: int  # runs that wait when the last is trained
    journal: float  # MB, the most that waited
    sent: float  # MB into the object store


def simulate(kind: Kind, runs: int, gpus: int, *, drivers: int = 1, workers: int = 4) -> Outcome:
    """Train `runs` runs. Driver d has the GPUs d, d + drivers … Part 0 of a run is its result; its states count from 1."""
    networks, mains = ([[0.0] for _ in range(drivers)] for _ in range(2))
    server, store = [0.0] * workers, [0.0]
    queues, idle = [deque[tuple[int, int]]() for _ in range(drivers)], [True] * drivers
    waiting = set[tuple[int, int]]()  # (run, part): of `queues`, without those that were dropped
    events = list[tuple[float, int, str, int, int]]()  # seconds, GPU, what, run, part
    started = backlog = left = states = 0
    now = trained = journal = most = 0.0

    def begin(gpu: int) -> None:
        nonlocal started
        heapq.heappush(events, (now + kind.train, gpu, "trained", started, 0))
        for state in range(1, kind.states + 1):
            heapq.heappush(events, (now + kind.train * state / (kind.states + 1), gpu, "waits", started, state))
        started += 1

    for gpu in range(min(gpus, runs)):
        begin(gpu)
    while events:
        now, gpu, what, run, part = heapq.heappop(events)
        driver, load = gpu % drivers, kind.state if part else kind.result
        if what == "trained":
            logged = served(mains[driver], served(networks[driver], now, kind.node / COST.network), kind.result.main)
            heapq.heappush(events, (logged, gpu, "waits", run, 0))
        elif what == "waits":
            queues[driver].append((run, part))
            waiting.add((run, part))
            journal += load.journal
            outdated = {(run, state) for state in ([part - 2] if part else range(1, kind.states + 1))} & waiting
            waiting -= outdated
            journal -= len(outdated) * kind.state.journal
            most = max(most, journal)
            if not part:
                trained, backlog, left = now, backlog + 1, backlog + 1
                if started < runs:
                    begin(gpu)
        else:
            idle[driver] = True
            journal -= load.journal
            states, backlog = states + bool(part), backlog - (not part)
        while idle[driver] and queues[driver]:
            following = queues[driver].popleft()
            if following in waiting:
                waiting.remove(following)
                idle[driver], load = False, kind.state if following[1] else kind.result
                ends = (now + load.courier, served(server, now, load.server), served(store, now, load.size / COST.objects))
                heapq.heappush(events, (max(ends), driver, "sent", *following))
    needed = kind.seconds(drivers, workers, states / runs)
    busy = {name: runs * needed[name] / (trained if name in ("main thread", "network") else now) for name in STATIONS}
    sent = runs * kind.result.size + states * kind.state.size
    return Outcome(trained, now, {"GPUs": runs * kind.train / gpus / trained, **busy}, left, most, sent)


def three(value: float) -> str:
    """A number with three digits."""
    if 0 < value < 1e-3:
        return "< 0.001"
    digits = 2 - math.floor(math.log10(value)) if value else 0
    return f"{round(value, digits):,.{max(0, digits)}f}".replace(",", " ") if value < 1e6 else "> 1 million"


def lasting(seconds: float) -> str:
    """Seconds in the largest unit that fits."""
    return next(f"{three(seconds / unit)} {name}" for name, unit in UNITS.items() if seconds >= unit or unit == 1)


def outcomes(options: Namespace) -> Iterator[list[str]]:
    """The head of the first table, then a row for each simulation."""
    yield ["runs", "GPUs", "trained after", "delivered after another", "GPUs busy", *STATIONS,
           "undelivered then", "journal, GB", "sent to S3, GB", "stays there, GB"]  # fmt: skip
    cases = [(kind, gpus) for kind in kinds(options) for gpus in options.gpus]
    for kind, gpus in track(cases, description="simulating", console=Console(stderr=True), transient=True):
        out = simulate(kind, options.runs, gpus, drivers=options.drivers, workers=options.workers)
        times = (out.trained, out.delivered - out.trained)
        sizes = (out.journal / 1e3, out.sent / 1e3, options.runs * kind.result.size / 1e3)
        shares = [f"{100 * share:.0f} %" if share >= 0.01 else "< 1 %" for share in out.busy.values()]
        yield [kind.name, f"{gpus}", *map(lasting, times), *shares, f"{out.backlog:,}".replace(",", " "), *map(three, sizes)]


def limits(options: Namespace) -> Iterator[list[str]]:
    """At which rate, and with how many GPUs, each station saturates."""
    yield ["saturates at", *STATIONS]
    for kind in kinds(options):
        rates = [HOUR / seconds for seconds in kind.seconds(options.drivers, options.workers, kind.states).values()]
        yield [f"{kind.name}, runs an hour", *map(three, rates)]
        yield [f"… GPUs, if a run takes {lasting(kind.train)}", *(three(rate * kind.train / HOUR) for rate in rates)]


def changes(options: Namespace) -> Iterator[list[str]]:
    """What changes raise the first limit to."""
    tried: dict[str, dict[str, object]] = {
        "as above": {},
        "accounts, every password checked": {"accounts": True},
        "the server without uvloop": {"no_uvloop": True},
        "`state_epochs: 20`": {"state_epochs": 20},
        "4 drivers": {"drivers": 4},
        "the last two together": {"state_epochs": 20, "drivers": 4},
    }
    yield ["change", *(f"{kind.name}, runs an hour" for kind in kinds(options))]
    for name, values in tried.items():
        changed = Namespace(**{**vars(options), **values})
        needed = [kind.seconds(changed.drivers, changed.workers, kind.states) for kind in kinds(changed)]
        yield [name, *(f"{three(HOUR / max(seconds.values()))} ({max(seconds, key=seconds.__getitem__)})" for seconds in needed)]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table for docs/scale.md."""
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join([f"| {' | '.join(head)} |", f"|{'|'.join(rule)}|", *(f"| {' | '.join(row)} |" for row in body)])


def parsed(arguments: Sequence[str] | None = None) -> Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    for name, default, text in (
        ("runs", 30_000, "of each kind"),
        ("hours", 5.0, "of a run of ResNet-50 on a GPU; assumed"),
        ("small-seconds", 0.11, "of a run of ten small networks on a GPU; assumed"),
        ("state-epochs", 5, "tracking.state_epochs"),
        ("workers", 4, "of mlflow server, with a core each"),
        ("drivers", 1, "processes that track, each with its share of the GPUs"),
    ):
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} ({default})")
    parser.add_argument("--no-uvloop", action="store_true", help="the server uses asyncio's own event loop")
    parser.add_argument("--accounts", action="store_true", help="the server checks the password with every request")
    return parser.parse_args(arguments)


def main() -> None:
    """Print the tables."""
    options = parsed()
    for make in (outcomes, limits, changes):
        print(markdown(list(make(options))), end="\n\n")


if __name__ == "__main__":
    main()
