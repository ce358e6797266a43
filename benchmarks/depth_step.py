"""Speed of training a depth network: images/s, peak memory and share of time spent waiting for data, by class count.

    python benchmarks/depth_step.py                   # on the CPU: the small network and images of the generated rooms
    python benchmarks/depth_step.py --device cuda --dataset nyud2 --steps 60    # on a GPU: ResNet-50, 320×240 cropped to 304×228

Random prepared images on the disk go through the real feed, task and loop, in a process for each line, one after the other and `--rounds`
times; medians (least to greatest) of the steps after the warm-up. C = 0 is reg, the others are reg+cls-bal with a new draw for every
pixel. Peak memory: of a GPU what PyTorch has allocated, on the CPU the whole process (RSS). Where a line does not wait for data, the
loaders keep up.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from step import Clock, waited_for

from regcls.data.store import write_prepared
from regcls.params import load_params
from regcls.tasks.depth.data import DepthSet
from regcls.tasks.depth.params import Depth
from regcls.tasks.depth.runs import make_spec
from regcls.tasks.depth.train import DepthJob, DepthObjective
from regcls.training.checkpoint import Checkpoints
from regcls.training.feed import AHEAD
from regcls.training.loop import Recipe, train

PARAMS = Path(__file__).parents[1] / "params.yaml"
WARM_UP = 5  # steps


def write_random(depth: Depth, folder: Path, images: int) -> None:
    """Write prepared images and depth maps of random numbers."""
    rng, (height, width), short = np.random.default_rng(0), depth.data.crop, depth.data.short_side
    shape, tested = (images, short, short * 4 // 3), (2, height, width)
    levels = rng.integers(0, 256, shape, dtype=np.uint8)
    arrays = {
        "train_images": rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
        "train_depth": levels,
        "train_levels": np.stack([np.bincount(one.ravel(), minlength=256) for one in levels]).astype(np.uint32),
        "test_images": rng.integers(0, 256, (*tested, 3), dtype=np.uint8),
        "test_depth": rng.integers(700, 10_000, tested, dtype=np.uint16),
        "test_mask": np.ones(tested, dtype=np.bool_),
    }
    table = pd.DataFrame({"split": ["train"] * (images - 2) + ["val"] * 2 + ["test"] * 2, "row": [*range(images), 0, 1]})
    write_prepared(folder, arrays=arrays, table=table.assign(path="", depth_path="", scene=""), made_from={"crop": [height, width]})


def batches(options: argparse.Namespace, rounds: int = 1) -> int:
    """Of the warm-up, which uses up what the loaders have ready when the first step begins, and of `rounds` rounds."""
    return warm_up(options) + rounds * options.steps


def warm_up(options: argparse.Namespace) -> int:
    """Steps of the warm-up."""
    return WARM_UP + AHEAD * max(1, options.loaders)


class Steps(DepthObjective):
    """Training without validation that counts the seconds spent waiting for each batch."""

    def __init__(self, job: DepthJob, images: DepthSet) -> None:
        super().__init__(job, images)
        self.waits: list[float] = []

    def feed(self, epoch: int, batch: int) -> Any:
        """The batches."""
        return waited_for(super().feed(epoch, batch), self.waits)

    def validate(self, network: torch.nn.Module) -> dict[str, float]:
        """A placeholder."""
        return dict.fromkeys(self.selections.values(), 0.0)


def measure(options: argparse.Namespace, folder: Path, rounds: int = 1) -> dict[str, Any]:
    """One line, in this process: images/s of each round, share of time spent waiting for data, peak memory in GB."""
    if options.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    depth = load_params(PARAMS).datasets[options.dataset]
    data = DepthSet(folder)
    classes = options.classes[0]
    method: Any = "reg+cls-bal" if classes else "reg"
    spec = make_spec(depth, options.dataset, method=method, classes=classes, lam=1.0, balanced_data=False, seed=0)
    spec = replace(spec, precision=options.precision[0], epochs=1, milestones=(), accumulate=1)
    spec = replace(spec, batch_size=options.batch or spec.batch_size)
    job = DepthJob(
        spec=spec,
        prepared=folder,
        data_digest=data.digest,
        checkpoints=folder / "checkpoints",
        fingerprint="benchmark",
        device=options.device,
        loaders=options.loaders,
        channels_last=True,
        compiled=options.compile,
        checkpoint_minutes=60.0,
        weights_folder=folder,
        shots=depth.shots,
        unit=depth.data.unit,
    )
    task, clock = Steps(job, data), Clock(job.device, warm_up=warm_up(options), steps=options.steps)
    task.batches = batches(options, rounds)
    with tempfile.TemporaryDirectory() as checkpoints:
        how = {"device": job.device, "compiled": job.compiled, "checkpoint_minutes": 60.0, "hooks": clock, "say": lambda text: None}
        kept = Checkpoints(Path(checkpoints), fingerprint="benchmark")
        train(task.network(None), task, Recipe.of(spec), checkpoints=kept, **how)
    memory = torch.cuda.max_memory_allocated() if job.device == "cuda" else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"speeds": clock.speeds, "waiting": sum(task.waits[clock.warm_up :]) / clock.seconds, "memory": memory / 1e9}


def in_a_process(options: argparse.Namespace, folder: Path, classes: int, precision: str) -> dict[str, Any]:
    """Measure in a new process, so that its peak memory is its own."""
    settings = {name: getattr(options, name) for name in ("device", "dataset", "steps", "loaders", "batch")}
    words = [word for name, value in settings.items() if value is not None for word in (f"--{name}", str(value))]
    words += ["--classes", str(classes), "--precision", precision, "--measured", str(folder)] + ["--compile"] * options.compile
    result = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dataset", choices=["rooms", "nyud2"], default="rooms", help="whose network and size of images (rooms)")
    parser.add_argument("--classes", type=int, nargs="+", default=[0, 10, 100])
    parser.add_argument("--precision", nargs="+", default=["float32", "bf16"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, help="images (that of the data set)")
    parser.add_argument("--loaders", type=int, help="processes that make batches (CPU: 0, a thread; GPU: 8)")
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    parser.add_argument("--measured", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loaders is None:
        options.loaders = 0 if options.device == "cpu" else 8
    if options.measured:
        print(json.dumps(measure(options, options.measured)))
        return
    depth, found = load_params(PARAMS).datasets[options.dataset], dict[tuple[str, int], list[dict[str, Any]]]()
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / options.dataset / "prepared"
        write_random(depth, folder, (options.batch or depth.training.batch_size) * batches(options) + 2)
        for _ in range(options.rounds):
            for precision in options.precision:
                for classes in options.classes:
                    found.setdefault((precision, classes), []).append(in_a_process(options, folder, classes, precision))
    table = Table(
        title=f"{options.device}, {depth.training.model}, width {depth.training.width}, crop {depth.data.crop[1]}×{depth.data.crop[0]}, "
        f"batch {options.batch or depth.training.batch_size}, {options.steps} steps × {options.rounds}, {options.loaders} loaders"
    )
    for column in ("", "C", "images/s", "peak memory, GB", "waiting for data"):
        table.add_column(column, justify="right" if column else "left")
    for (precision, classes), rounds in found.items():
        speed = sorted(one["speeds"][0] for one in rounds)
        memory, waiting = (statistics.median(one[name] for one in rounds) for name in ("memory", "waiting"))
        shown = f"{statistics.median(speed):.1f} ({speed[0]:.1f} to {speed[-1]:.1f})"
        table.add_row(precision, str(classes), shown, f"{memory:.2f}", f"{waiting:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
