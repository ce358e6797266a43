"""What a run costs the tracking server, the database, the object store, and the thread of the driver that delivers it.

    python benchmarks/traffic.py [--workers 4] [--accounts none|hashed|cached] [--no-uvloop] [--runs 100] [--rounds 3]

The services of compose.yaml run on loopback, with tests/servers.py and tests/s3_server.py: `mlflow server` over PostgreSQL (which does
not wait for its disk here) and SeaweedFS. Through regcls's Tracker go: runs of section 2 (ten networks, 80 epochs); runs of Table 3
without their states (ResNet-50, 90 epochs, each delivered before the next; best and last checkpoint, predictions, model), with random
weights and numbers; and states of such a run. benchmarks/simulate.py computes with these figures. Needs PostgreSQL and uvloop.
"""

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import requests
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from regcls.metrics import evaluate
from regcls.models.predictor import Predictor, build
from regcls.params import load_params
from regcls.provenance import lineage
from regcls.runs.grids import all_specs
from regcls.tasks.functions.runs import FunctionSpec
from regcls.tasks.functions.runs import all_specs as all_function_specs
from regcls.tasks.images.runs import ImageSpec, make_spec
from regcls.tracking.courier import Courier
from regcls.tracking.tracker import Tracker
from regcls.training.checkpoint import Checkpoints
from regcls.training.single import BEST, LAST
from tracking import example_result

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
TESTED = 11_022  # test images of IMDB-WIKI-DIR
OTHERS = ("mlflow server, ms of a core", "PostgreSQL, ms of a core", "SeaweedFS, ms of a core")
FIGURES = ("requests", "MB up", "courier, ms", "courier, ms of a core", "main thread, ms", *OTHERS)


class Meter:
    """Counts what this process sends, how long its courier is busy, and the processor time of others."""

    def __init__(self, tracker: Tracker, others: list[int]) -> None:
        """`others`: process ids, with all descendants."""
        self.tracker, self._others = tracker, others
        self.requests, self.megabytes, self.busy, self.waited = 0, 0.0, 0.0, 0.0
        send, deliver, wait = requests.Session.send, Courier._deliver, Tracker.deliver

        def counting(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            self.requests += 1
            self.megabytes += int(request.headers.get("Content-Length") or 0) / 1e6
            return send(session, request, **options)

        def timed(courier: Courier, run: Any) -> None:
            started = time.perf_counter()
            try:
                deliver(courier, run)
            finally:
                self.busy += time.perf_counter() - started

        def waiting(tracker: Tracker) -> None:
            started = time.perf_counter()
            wait(tracker)
            self.waited += time.perf_counter() - started

        requests.Session.send, Courier._deliver, Tracker.deliver = counting, timed, waiting  # type: ignore[method-assign]

    def read(self) -> list[float]:
        """Requests, MB, and seconds: the courier busy, and on a core; the main thread without waiting; each of the others on a core."""
        thread = self.tracker._sender._thread.native_id
        [own] = [of.user_time + of.system_time for of in psutil.Process().threads() if of.id == thread]
        return [self.requests, self.megabytes, self.busy, own, time.perf_counter() - self.waited, *map(core_seconds, self._others)]

    def cost(self, work: Callable[[], None], count: int) -> list[float]:
        """FIGURES of one of the `count` runs or states that `work` logs."""
        before = self.read()
        work()
        self.tracker.deliver()
        sent, megabytes, *seconds = ((b - a) / count for a, b in zip(before, self.read(), strict=True))
        return [sent, megabytes, *(1000 * value for value in seconds)]


def core_seconds(pid: int) -> float:
    """Processor time of a process and all its descendants, also of those that have ended."""
    process = psutil.Process(pid)
    times = [child.cpu_times() for child in (process, *process.children(recursive=True))]
    ended = process.cpu_times()
    return float(sum(of.user + of.system for of in times) + ended.children_user + ended.children_system)


@contextmanager
def services(folder: Path, workers: int, accounts: str, loop: str) -> Iterator[tuple[dict[str, str], list[int]]]:
    """The environment of a client, and the process ids of mlflow server, database and object store."""
    import s3_server
    from nursery import Nursery
    from servers import Postgres, TrackingServer, postgres_binaries

    for name in ("postgres", "s3"):
        (folder / name).mkdir()
    folder.chmod(0o755)  # PostgreSQL does not run as root
    nursery = Nursery(folder)
    database = Postgres(folder / "postgres", postgres_binaries() or sys.exit("needs PostgreSQL: apt-get install postgresql"), nursery)
    store = database.make_store("traffic")
    objects, weed = s3_server._start(folder / "s3")
    s3_server._wait(objects, weed, folder / "s3" / "log")
    environment = {**objects.environment, "MLFLOW_S3_ENDPOINT_URL": objects.endpoint}
    server = TrackingServer(
        folder / "server", nursery, store=store, artifacts="s3://mlflow", environment=environment, auth=accounts != "none", command=True,
        options=(f"--workers={workers}", f"--uvicorn-opts=--loop={loop}"),
    )  # fmt: skip
    if accounts == "cached":
        with (server.folder / "auth.ini").open("a") as file:
            file.write("auth_cache_ttl_seconds = 60\n")
    try:
        server.start()
        assert server._pid
        yield server.environment, [server._pid, database._process.pid, weed.pid]
    finally:
        server.stop()
        s3_server._end(weed)
        database.stop()
        nursery.close()


@cache
def small_spec() -> tuple[FunctionSpec, dict[str, Any]]:
    """A run of section 2, and its provenance."""
    return all_function_specs(load_params(ROOT / "params.yaml").datasets["functions"], "functions")[0], lineage(ROOT, "functions")


def small_runs(tracker: Tracker, count: int) -> None:
    """Runs of section 2."""
    (spec, origin), rng = small_spec(), np.random.default_rng(0)
    for seed in range(count):
        run = tracker.start(replace(spec, seed=seed), fingerprint=f"{seed:032x}", tags={}, lineage=origin)
        tracker.finish(run, example_result(rng, spec))


class ImageRun:
    """A run of Table 3, with random numbers."""

    def __init__(self, folder: Path) -> None:
        section = load_params(ROOT / "params.yaml").datasets["imdb_wiki"]
        self.spec: ImageSpec = next(spec for spec in all_specs(make_spec, section, "imdb_wiki", {}) if spec.classes == 100)
        self.folder, self.rng, self.origin = folder, np.random.default_rng(0), lineage(ROOT, "imdb_wiki")
        network = build(self.spec.model, width=self.spec.width, classes=100)
        optimizer = torch.optim.Adam(network.parameters())
        for parameter in network.parameters():
            parameter.grad = torch.rand_like(parameter)
        optimizer.step()
        self.predictor = Predictor(network)
        self.checkpoints = Checkpoints(folder / "checkpoints", fingerprint="f")
        self.checkpoints.save_best(network.state_dict(), epoch=1)
        content = {"weights": network.state_dict(), "optimizer": optimizer.state_dict(), "best": {"val": {"epoch": 1}}}
        self.checkpoints.save(content, epoch=2, batch=0)
        targets = self.rng.integers(0, 100, TESTED)
        errors = dict(evaluate(targets + self.rng.random(TESTED), targets, np.resize(["many", "medium", "few"], TESTED)))
        self.errors = [f"val/{name}" for name in errors if not name.startswith("n/")]
        paths = [f"imdb_crop/{k % 100:02d}/nm{k:07d}_rm{k * 7:010d}_1960-1-1_2010.jpg" for k in range(TESTED)]
        self.table = pd.DataFrame({"row": np.arange(TESTED), "path": paths, "target": targets, "prediction": self.rng.random(TESTED)})

    def epoch_points(self, epoch: int) -> list[tuple[str, float, int, float]]:
        """Points of an epoch."""
        names = [*self.errors, "val/accuracy/all", "train/loss", "train/reg", "train/cls", "train/accuracy", "learning_rate"]
        return [(f"epochs/{name}", float(self.rng.random()), epoch, time.time()) for name in names]

    def log(self, tracker: Tracker, seed: int) -> None:
        """A run without states, as training/single_study.py logs it."""
        run = tracker.start(replace(self.spec, seed=seed), fingerprint=f"{seed:032x}", tags={}, lineage=self.origin)
        history = []
        for epoch in range(1, self.spec.epochs + 1):
            history += self.epoch_points(epoch)
            tracker.log_metrics(run, history[-len(self.errors) - 6 :])
            tracker.deliver()
        final = [(name.removeprefix("epochs/"), value, epoch, at) for name, value, epoch, at in self.epoch_points(self.spec.epochs)]
        tracker.log_metrics(run, history + final)
        tracker.log_tags(run, {"shots": "many: more than 100"})
        tracker.log_files(run, {BEST: self.checkpoints.best_file(1), LAST: self.checkpoints.last_file()})
        tracker.log_table(run, "predictions.parquet", self.table)
        tracker.log_model(run, self.predictor, example=np.zeros((2, 224, 224, 3), np.uint8), points=final, step=1)
        tracker.end(run)
        tracker.deliver()

    def log_states(self, tracker: Tracker, count: int) -> None:
        """States, each delivered before the next."""
        run = tracker.start(replace(self.spec, seed=1_000), fingerprint="5" * 32, tags={})
        for number in range(count):
            tracker.log_state(run, self.checkpoints.newest(), slot=number % 2)
            tracker.deliver()


def journal_kilobytes(tracker: Tracker, server: int, count: int = 10) -> float:
    """kB on the disk for a small run that is not delivered: the server is frozen for a moment."""
    os.killpg(server, signal.SIGSTOP)
    try:
        small_runs(tracker, count)
        files = (tracker.root / ".regcls" / "journal").rglob("*")
        return sum(file.stat().st_blocks * 512 for file in files) / count / 1000
    finally:
        os.killpg(server, signal.SIGCONT)


def measure(options: Namespace, folder: Path) -> dict[str, list[list[float]]]:
    """Name -> FIGURES of each round."""
    image, found = ImageRun(folder), dict[str, list[list[float]]]()
    with services(folder, options.workers, options.accounts, "asyncio" if options.no_uvloop else "uvloop") as (environment, pids):
        os.environ.update(environment)
        tracker = Tracker(folder / "project", experiment="traffic")
        meter = Meter(tracker, pids)
        print(f"journal of an undelivered run of ten small networks: {journal_kilobytes(tracker, pids[0]):.0f} kB")
        image.log(tracker, 999)  # warm up: PyTorch traces the network
        for number in track(range(options.rounds), description="rounds", console=Console(stderr=True), transient=True):
            works = {
                "a run of ten small networks": (partial(small_runs, tracker, options.runs), options.runs),
                "a run of ResNet-50, without states": (partial(image.log, tracker, number), 1),
                "a state of it": (partial(image.log_states, tracker, 4), 4),
            }
            for name, (work, count) in works.items():
                found.setdefault(name, []).append(meter.cost(work, count))
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4, help="of mlflow server (4, its default)")
    parser.add_argument(
        "--accounts",
        choices=["none", "hashed", "cached"],
        default="none",
        help="passwords: none, checked with each request, or once a minute",
    )
    parser.add_argument("--no-uvloop", action="store_true", help="the server uses asyncio's own event loop")
    parser.add_argument("--runs", type=int, default=100, help="small runs a round (100)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the services too
    with tempfile.TemporaryDirectory(prefix="regcls-traffic-") as name:
        found = measure(options, Path(name))
    title = f"{options.workers} workers, accounts: {options.accounts}; median (least to greatest), n = {options.rounds}"
    table = Table("", *found, title=title)
    columns = [
        [f"{statistics.median(c):.4g} ({min(c):.4g} to {max(c):.4g})" for c in zip(*rounds, strict=True)] for rounds in found.values()
    ]
    for cells in zip(FIGURES, *columns, strict=True):
        table.add_row(*cells)
    Console(width=140).print(table)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
