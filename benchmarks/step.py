"""Cost of a training step, and whether the feed keeps up: images/s end to end, from prepared data on disk.

    python benchmarks/step.py                                          # on the CPU: the small network of the generated portraits
    python benchmarks/step.py --device cuda --model resnet50 --width 64 --size 224 --batch 128    # the paper's, on a GPU

Each line trains for `--steps` steps after a warm-up, all in one process, in turn and `--rounds` times; medians (least to greatest).
`tensor`: the same step fed again and again with one batch that lies on the device. `feed`: through the training loop with its
checkpoints, finite checks and loaders. Aim: feed at least 95 % of tensor on a GPU; waiting for data under 2 % of the time.
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

from regcls.models.predictor import build, scaled
from regcls.training.augment import for_faces
from regcls.training.checkpoint import Checkpoints
from regcls.training.device import Device
from regcls.training.feed import AugmentedBatches, batches_of, order, stream
from regcls.training.loop import Epoch, Recipe, train

WARM_UP = 3  # steps


class Steps:
    """A task of `steps` batches: see loop.Task."""

    selections: Mapping[str, str] = {"val": "val_mae"}

    def __init__(self, file: Path, options: argparse.Namespace, *, channels_last: bool, steps: int) -> None:
        self.options, self.channels_last, self.batches = options, channels_last, steps
        self.count = len(np.load(file, mmap_mode="r"))
        self.made = AugmentedBatches({"image": file}, np.arange(self.count), partial(for_faces, pad=16, flip=0.5, seed=0))
        self.targets = torch.rand(self.count, device=options.device) * 100

    def feed(self, epoch: int, batch: int) -> Iterator[Any]:
        """Batches of the prepared images."""
        cuts = [cut for cut in batches_of(self.count, self.options.batch) if cut.stop - cut.start == self.options.batch]
        shuffled = order(self.count, seed=0, epoch=0)
        keys = ((0, shuffled[cuts[index % len(cuts)]]) for index in range(self.batches))
        return stream(self.made, keys, loaders=self.options.loaders, pinned=self.options.device == "cuda")

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
        """Stop the clock: all steps are done, since their losses were read, and no checkpoint is written yet."""
        self.ended = time.perf_counter()
        return {"val_mae": 0.0}


class FromTensor(Steps):
    """The same steps with one batch on the device."""

    def feed(self, epoch: int, batch: int) -> Iterator[Any]:
        """Yield that batch again and again."""
        samples = np.arange(self.options.batch)
        pixels = self.made[0, samples][1]["image"].to(self.options.device)
        return (((0, samples), {"image": pixels}) for _ in range(self.batches))


class Clock:
    """Seconds of the steps after the warm-up."""

    def __init__(self, device: Device) -> None:
        self.device, self.steps, self.samples, self.began = device, 0, 0, 0.0

    def batch(self, samples: int, note: str) -> None:
        """After each step."""
        self.steps += 1
        if self.device == "cuda" and self.steps == WARM_UP:
            torch.cuda.synchronize()
        if self.steps == WARM_UP:
            self.began = time.perf_counter()
        elif self.steps > WARM_UP:
            self.samples += samples

    def epoch(self, epoch: Epoch) -> None:
        """Do nothing."""


def run(task: Steps, options: argparse.Namespace, precision: str, compiled: bool) -> tuple[float, float]:
    """Images/s, and the share of time that the loop waited for data."""
    torch.manual_seed(0)
    network = build(options.model, width=options.width, classes=0).to(options.device)
    if task.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe = Recipe(
        epochs=1, optimizer="adam", learning_rate=1e-4, milestones=(), decay=1.0, weight_decay=0.0, accumulate=1, precision=precision
    )
    clock = Clock(options.device)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), fingerprint="benchmark")
        how = {"device": options.device, "compiled": compiled, "checkpoints": checkpoints, "checkpoint_minutes": 60.0}
        trained = train(network, task, recipe, hooks=clock, say=lambda text: None, **how)
    seconds = task.ended - clock.began
    return clock.samples / seconds, trained.waiting / seconds


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
        file = Path(folder) / "images.npy"
        shape = (max(options.batch * 8, 2048), options.size, options.size, 3)
        images = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
        images[:] = np.random.default_rng(0).integers(0, 256, shape[1:], dtype=np.uint8)
        images.flush()
        for _ in range(options.rounds):
            for precision, channels_last, compiled in kinds:
                name = f"{precision}{', channels last' * channels_last}{', compiled' * compiled}"
                for how, kind in (("tensor", FromTensor), ("feed", Steps)):
                    task = kind(file, options, channels_last=channels_last, steps=options.steps + WARM_UP)
                    found.setdefault((name, how), []).append(run(task, options, precision, compiled))
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
