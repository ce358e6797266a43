"""Cost of a training step, and whether the feed keeps up: images/s end to end, from prepared data on disk.

    python benchmarks/step.py                                          # on the CPU: the small network of the generated portraits
    python benchmarks/step.py --device cuda --model resnet50 --width 64 --size 224 --batch 128    # the paper's, on a GPU

Each line trains for `--steps` steps after a warm-up, all in one process, in turn and `--rounds` times; medians (least to greatest).
`tensor`: the same step fed again and again with one batch that lies on the device. `feed`: through the training loop with its
checkpoints, finite checks and loaders; the batches that these prepare before the first step are part of the warm-up. Aim: feed at least
95 % of tensor on a GPU; waiting for data under 2 % of the time.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from regcls.models.predictor import build, scaled
from regcls.training.augment import for_faces
from regcls.training.checkpoint import Checkpoints
from regcls.training.device import Device
from regcls.training.feed import AHEAD, AugmentedBatches, batches_of, order, stream
from regcls.training.loop import Epoch, Recipe, train

WARM_UP = 3  # steps


def waited_for(batches: Iterator[Any], waits: list[float]) -> Iterator[Any]:
    """The batches; appends the seconds spent waiting for each."""
    while True:
        before = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        waits.append(time.perf_counter() - before)
        yield batch


class Clock:
    """Images/s of rounds of `steps` steps each, after a warm-up: hooks of the loop."""

    def __init__(self, device: Device, *, warm_up: int, steps: int) -> None:
        self.device, self.warm_up, self.steps = device, warm_up, steps
        self.speeds: list[float] = []  # of each round
        self.first = self.seconds = 0.0  # until the end of the first step; of all rounds
        self.count = self.samples = 0
        self.created = self.began = time.perf_counter()

    def batch(self, samples: int, note: str) -> None:
        """After each step."""
        self.count += 1
        self.samples += samples
        done = self.count - self.warm_up
        if self.count > 1 and (done < 0 or done % self.steps):
            return
        if self.device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.count == 1:
            self.first = now - self.created
        if done > 0:
            self.speeds.append(self.samples / (now - self.began))
            self.seconds += now - self.began
        self.began, self.samples = now, 0

    def epoch(self, epoch: Epoch) -> None:
        """Do nothing."""


class Steps:
    """A task of `rounds` times `options.steps` batches, and those of the warm-up: see loop.Task."""

    selections: Mapping[str, str] = {"val": "val_mae"}

    def __init__(self, file: Path, options: argparse.Namespace, *, channels_last: bool, rounds: int = 1) -> None:
        self.options, self.channels_last = options, channels_last
        self.warm_up = self.warm_up_steps()
        self.batches = self.warm_up + rounds * options.steps
        self.waits: list[float] = []  # seconds, for each batch
        self.count = len(np.load(file, mmap_mode="r"))
        self.made = AugmentedBatches({"image": file}, np.arange(self.count), partial(for_faces, pad=16, flip=0.5, seed=0))
        self.targets = torch.rand(self.count, device=options.device) * 100

    def warm_up_steps(self) -> int:
        """Those that the loaders have ready when the first step begins would hide that they are too slow."""
        return WARM_UP + AHEAD * max(1, self.options.loaders)

    def feed(self, epoch: int, batch: int) -> Iterator[Any]:
        """Batches of the prepared images."""
        cuts = [cut for cut in batches_of(self.count, self.options.batch) if cut.stop - cut.start == self.options.batch]
        shuffled = order(self.count, seed=0, epoch=0)
        keys = ((0, shuffled[cuts[index % len(cuts)]]) for index in range(self.batches))
        batches = stream(self.made, keys, loaders=self.options.loaders, pinned=self.options.device == "cuda")
        return waited_for(batches, self.waits)

    def losses(self, network: torch.nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        """Mean absolute error."""
        (_, samples), arrays = batch
        images = scaled(arrays["image"].to(self.options.device, non_blocking=True))
        predictions = network(images if self.channels_last else images.contiguous())[0]
        places = torch.as_tensor(samples).to(self.options.device)
        return {"loss": torch.nn.functional.l1_loss(predictions, self.targets[places])}

    def describe(self, batch: Any) -> dict[str, Any]:
        """Return nothing: random targets do not diverge in a few steps."""
        return {}

    def size(self, batch: Any) -> int:
        """B."""
        return len(batch[0][1])

    def after_epoch(self, network: torch.nn.Module) -> None:
        """Do nothing."""

    def validate(self, network: torch.nn.Module) -> dict[str, float]:
        """A placeholder."""
        return {"val_mae": 0.0}


class FromTensor(Steps):
    """The same steps with one batch on the device."""

    def warm_up_steps(self) -> int:
        """Nothing is prepared ahead."""
        return WARM_UP

    def feed(self, epoch: int, batch: int) -> Iterator[Any]:
        """Yield that batch again and again."""
        samples = np.arange(self.options.batch)
        pixels = self.made[0, samples][1]["image"].to(self.options.device)
        return waited_for((((0, samples), {"image": pixels}) for _ in range(self.batches)), self.waits)


def write_random(folder: Path, options: argparse.Namespace) -> Path:
    """A file of prepared images, enough for eight batches."""
    file = folder / "images.npy"
    shape = (max(options.batch * 8, 2048), options.size, options.size, 3)
    images = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    images[:] = np.random.default_rng(0).integers(0, 256, shape[1:], dtype=np.uint8)
    images.flush()
    return file


def multiplications(options: argparse.Namespace) -> int:
    """Floating-point operations of a training step in matrix products and convolutions, for one image."""
    network = build(options.model, width=options.width, classes=0).to(options.device)
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(2, 3, options.size, options.size, device=options.device))[0].sum().backward()
    return int(counter.get_total_flops()) // 2


def run(task: Steps, options: argparse.Namespace, precision: str, compiled: bool) -> tuple[Clock, float]:
    """The stopped clock, and the share of time that the loop waited for data."""
    torch.manual_seed(0)
    network = build(options.model, width=options.width, classes=0).to(options.device)
    if task.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe = Recipe(
        epochs=1, optimizer="adam", learning_rate=1e-4, milestones=(), decay=1.0, weight_decay=0.0, accumulate=1, precision=precision
    )
    clock = Clock(options.device, warm_up=task.warm_up, steps=options.steps)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), fingerprint="benchmark")
        how = {"device": options.device, "compiled": compiled, "checkpoints": checkpoints, "checkpoint_minutes": 60.0}
        train(network, task, recipe, hooks=clock, say=lambda text: None, **how)
    return clock, sum(task.waits[clock.warm_up :]) / clock.seconds


def feed_alone(task: Steps) -> list[float]:
    """Images/s that the feed could deliver at most, for each round."""
    clock = Clock("cpu", warm_up=task.warm_up, steps=task.options.steps)
    for batch in task.feed(0, 0):
        clock.batch(task.size(batch), "")
    return clock.speeds


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", default="resnet18", help="resnet18 | resnet34 | resnet50")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loaders", type=int, help="processes that make batches (CPU: 0, a thread; GPU: one a core, at most 8)")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    options = parser.parse_args()
    if options.loaders is None:
        options.loaders = 0 if options.device == "cpu" else min(8, len(os.sched_getaffinity(0)))
    kinds = [("float32", False, False), ("float32", True, False), ("bf16", True, False)] + [("bf16", True, True)] * options.compile
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = write_random(Path(folder), options)
        for _ in range(options.rounds):
            for precision, channels_last, compiled in kinds:
                name = f"{precision}{', channels last' * channels_last}{', compiled' * compiled}"
                for how, kind in (("tensor", FromTensor), ("feed", Steps)):
                    clock, waiting = run(kind(file, options, channels_last=channels_last), options, precision, compiled)
                    found.setdefault((name, how), []).append((clock.speeds[0], waiting))
    table = Table(title=f"{options.model}, width {options.width}, {options.size} px, batch {options.batch}, {options.device}")
    for column in ("", "tensor, images/s", "feed, images/s", "feed / tensor", "waiting"):
        table.add_column(column, justify="left" if not column else "right")
    for name in dict.fromkeys(name for name, _ in found):
        tensor, feed = (sorted(speed for speed, _ in found[name, how]) for how in ("tensor", "feed"))
        shares = [fed[0] / bare[0] for fed, bare in zip(found[name, "feed"], found[name, "tensor"], strict=True)]
        speeds = (f"{statistics.median(each):.0f} ({each[0]:.0f} to {each[-1]:.0f})" for each in (tensor, feed))
        waiting = statistics.median(share for _, share in found[name, "feed"])
        table.add_row(name, *speeds, f"{statistics.median(shares):.0%}", f"{waiting:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
