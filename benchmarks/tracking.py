"""Cost of tracking: milliseconds per run, and seconds to read all runs into a table, in a temporary SQLite store.

    python benchmarks/tracking.py [--runs 3000]

Each run has what a run of the 1D study has: 17 parameters, about 30 tags, 33 final metrics, 2 histories of 80 epochs, weights, a data set,
and a record of where it comes from. Aim: under 50 ms a run.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from regcls.params import load_params
from regcls.provenance import lineage
from regcls.runs import RunResult
from regcls.tasks.functions.runs import FunctionSpec, all_specs
from regcls.tracking.tracker import Tracker

ROOT = Path(__file__).parents[1]


def example_result(rng: np.random.Generator, spec: FunctionSpec) -> RunResult:
    """Random numbers in the shape of a real result."""
    history = {key: list(rng.random(spec.epochs)) for key in ("train/mse/all", "val/mse/all")}
    metrics = {key: values[-1] for key, values in history.items()} | {"test/mse/all": rng.random()}
    metrics |= {f"{part}/mse/function_{function}": rng.random() for part in ("train", "val", "test") for function in range(10)}
    widths = (1, *spec.hidden, 1 + spec.classes)
    weights = {f"{k}.weight": rng.random((10, *widths[k + 1 : k - 1 if k else None : -1]), dtype=np.float32) for k in range(3)}
    return RunResult(metrics=metrics, history=history, weights=weights, started=time.time() - 1, ended=time.time())


def log_runs(tracker: Tracker, specs: Sequence[FunctionSpec], count: int) -> np.ndarray:
    """Track `count` runs; return the milliseconds of each, wall clock and processor: (2, count)."""
    origin = lineage(ROOT, "functions")
    tags = {**origin["git"], **origin["machine"], "data_md5": "0123456789abcdef"}
    rng = np.random.default_rng(0)
    milliseconds = np.empty((2, count))
    for k in track(range(count), description="runs", console=Console(stderr=True), transient=True):
        spec = replace(specs[k % len(specs)], seed=k)
        result = example_result(rng, spec)
        start = np.array([time.perf_counter(), time.process_time()])
        tracker.finish(tracker.start(spec, fingerprint=f"{k:032x}", tags=tags, lineage=origin), result)
        milliseconds[:, k] = 1000 * (np.array([time.perf_counter(), time.process_time()]) - start)
    return milliseconds


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3000, help="runs to log (3000)")
    count = parser.parse_args().runs
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # never into a real store
    specs = all_specs(load_params(ROOT / "params.yaml").datasets["functions"], "functions")
    with tempfile.TemporaryDirectory() as folder:
        tracker = Tracker(Path(folder), experiment="benchmark")
        wall, processor = log_runs(tracker, specs, count)
        seconds = {}
        readers = {"finished()": partial(tracker.finished, "functions"), "collect()": partial(tracker.collect, "functions", FunctionSpec)}
        for name, read in readers.items():
            start = time.perf_counter()
            rows = len(read())
            seconds[name] = f"{time.perf_counter() - start:.2f} s for {rows} runs"
        size = (Path(folder) / "mlflow.db").stat().st_size / 1e6
    thirds = ", ".join(f"{np.median(part):.1f}" for part in np.array_split(wall, 3))
    print(f"a run      median {np.median(wall):.1f} ms, p95 {np.quantile(wall, 0.95):.1f} ms, n {count}; median by thirds {thirds} ms")
    print(f"           of which processor {np.median(processor):.1f} ms; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name, text in seconds.items():
        print(f"{name:<10} {text}")
    print(f"mlflow.db  {size:.0f} MB")


if __name__ == "__main__":
    main()
