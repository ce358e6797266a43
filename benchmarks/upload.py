"""How much uploading a run's state slows training, and how soon a tracking server has everything after an outage.

    python benchmarks/upload.py [--megabytes 280] [--rounds 5] [--runs 300]

A server is started on loopback; it shares the machine with the training, which a real one does not. In turn, in one process: steps of a
ResNet-18 (width 16, 64 pixels, batch 32, one thread) alone, and steps while a state is uploaded, until the server has it. 280 MB is the
state of a ResNet-50 with Adam. Then the server is killed, `--runs` runs of the 1D study's shape are tracked, and it is brought back.
Aim: under 2 % of the step time, at a state every five epochs.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import requests
import torch
from rich.console import Console
from rich.progress import track

from regcls.models.predictor import build, scaled
from regcls.params import load_params
from regcls.tasks.functions.runs import FunctionSpec, all_specs
from regcls.tracking import courier
from regcls.tracking.tracker import Tracker
from tracking import example_result

ROOT = Path(__file__).parents[1]


@contextmanager
def server(folder: Path, port: int) -> Iterator[None]:
    """A tracking server over SQLite, running within the block."""
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        while True:
            try:
                requests.get(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except requests.RequestException:
                time.sleep(0.1)
        yield
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def stepper() -> Callable[[], None]:
    """One training step."""
    torch.set_num_threads(1)
    network = build("resnet18", width=16, classes=0)
    optimizer = torch.optim.Adam(network.parameters())
    images, targets = scaled(torch.randint(0, 256, (32, 64, 64, 3), dtype=torch.uint8)), torch.rand(32) * 100

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.l1_loss(network(images)[0], targets).backward()
        optimizer.step()

    return step


def timed(step: Callable[[], None], more: Callable[[int], bool]) -> tuple[float, int]:
    """Seconds of as many steps as `more` wants, and their number."""
    count, started = 0, time.perf_counter()
    while more(count):
        step()
        count += 1
    return time.perf_counter() - started, count


def a_spec() -> FunctionSpec:
    """A run of the 1D study."""
    return all_specs(load_params(ROOT / "params.yaml").datasets["functions"], "functions")[0]


def uploads(tracker: Tracker, file: Path, rounds: int) -> None:
    """Print how much an upload slows training."""
    step, run = stepper(), tracker.start(a_spec(), fingerprint="f", tags={})
    tracker.deliver()
    timed(step, lambda count: count < 20)
    alone, beside, costs, lasted = [], [], [], []
    for number in track(range(rounds), description="uploads", console=Console(stderr=True), transient=True):
        seconds, count = timed(step, lambda count: count < 100)
        alone.append(seconds / count)
        tracker.log_state(run, {"state.pt": file}, slot=number % 2)
        seconds, count = timed(step, lambda count: bool(tracker._sender.undelivered()) or count == 0)
        beside.append(seconds / count)
        lasted.append(seconds)
        costs.append(seconds - count * alone[-1])
    tracker.end(run)
    tracker.deliver()
    ratio = [100 * (b / a - 1) for a, b in zip(alone, beside, strict=True)]
    print(f"a step alone                 {spread(alone, 1000)} ms")
    print(f"a step during an upload      {spread(ratio)} % longer; {file.stat().st_size / 1e6:.0f} MB last {spread(lasted)} s")
    print(f"a state costs the training   {spread(costs)} s, which is 2 % of {50 * statistics.median(costs):.0f} s")


def recovery(tracker: Tracker, folder: Path, port: int, runs: int) -> None:
    """Print how long a server needs to receive everything after an outage."""
    spec, rng = a_spec(), np.random.default_rng(0)
    started = time.perf_counter()
    for number in range(runs):
        tracker.finish(tracker.start(spec, fingerprint=str(number), tags={}), example_result(rng, spec))
    expected = f"{1000 * (time.perf_counter() - started) / runs:.1f} ms a run for the training"
    with server(folder, port):
        started = time.perf_counter()
        while tracker._courier and tracker._courier.deliver(patience=60.0):
            pass
        seconds = time.perf_counter() - started
        assert len(tracker.finished("functions")) == runs + 1
    print(f"{runs} runs without a server   {expected}; delivered {seconds:.1f} s after it was back, {1000 * seconds / runs:.0f} ms a run")


def spread(values: list[float], scale: float = 1.0) -> str:
    """Median (least to greatest)."""
    return f"{scale * statistics.median(values):.2f} ({scale * min(values):.2f} to {scale * max(values):.2f})"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=280, help="of a state (280)")
    parser.add_argument("--rounds", type=int, default=5, help="uploads (5)")
    parser.add_argument("--runs", type=int, default=300, help="tracked while the server is away (300)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as probe:
        folder, port = Path(name), probe.getsockname()[1]
        probe.close()
        (folder / "state.pt").write_bytes(os.urandom(options.megabytes * 1_000_000))
        os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
        courier.LONGEST_PAUSE = 2.0
        with server(folder, port):
            tracker = Tracker(folder / "project", experiment="benchmark")
            uploads(tracker, folder / "state.pt", options.rounds)
        recovery(tracker, folder, port, options.runs)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
