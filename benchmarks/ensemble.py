"""Seconds per network in the ensemble engine, compared with the machine's limit and with training one network at a time.

    python benchmarks/ensemble.py [--epochs 2] [--rounds 3] [--batches 8] [--device cpu]

A row is one number of classes C, on the clean, severely imbalanced data of the paper. `engine`: what 80 epochs of one network
cost, trained side by side with others in one process with one thread. `limit`: the share of it that the bare matrix products
and exponentials of its shapes take. `one by one`: a reg and reg+cls pair the usual way, with autograd, a DataLoader over single
samples, float64. All are timed in turn, `rounds` times, and scaled to 80 epochs; figures are medians. The last lines project Figure 3.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from regcls.classes import ClassRanges, class_ranges
from regcls.losses import reg_cls
from regcls.params import load_params
from regcls.progress import progress
from regcls.tasks.functions.networks import recipe
from regcls.tasks.functions.params import FunctionOptions, Sampling
from regcls.tasks.functions.prepare import SineSum, draw
from regcls.tasks.functions.runs import FunctionSpec, single_spec
from regcls.training.ensemble import train  # first, since it sets MKL's mode before torch is loaded
from regcls.training.ensemble_data import Network
from regcls.training.ensemble_study import most_together

# isort: split
import torch
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset

from regcls.models.mlp import MLP

PARAMS = load_params(Path(__file__).parent.parent / "params.yaml")
STUDY = PARAMS.datasets["functions"]
SPEC = single_spec(STUDY, "functions", FunctionOptions(setting="clean", sampling="severe", method="reg+cls"))
CLASSES = (0, 4, 16, 64, 256, 1024)
PROBLEMS = 600  # data sets of Figure 3: 12 panels × 10 functions × 5 repetitions


@cache
def sets(sampling: Sampling, function: int, repetition: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    data = STUDY.data
    f, seed = SineSum(*data.functions[function]), data.data_seeds[repetition]
    sample = draw(replace(data, samplings=(sampling,)), "clean", 0.0, f, seed)[sampling]
    return {split: (sample.x[split][None].astype(np.float32), sample.y[split].astype(np.float32)) for split in sample.x}


def network(index: int, classes: int) -> Network:
    """A network with C classes on the index-th data set: functions in turn, then repetitions."""
    function, repetition = index % 10, index // 10 % 5
    x, y = sets("severe", function, repetition)["train"]
    ranges = class_ranges(classes, y, balanced=False) if classes else None
    evaluate = {split: sets("uniform", function, repetition)[split] for split in ("val", "test")}
    return Network(x=x, y=y, classes=ranges, lam=100.0 if classes else 1.0, seed=STUDY.training.seeds[repetition], evaluate=evaluate)


def engine(nets: Sequence[Network], spec: FunctionSpec, epochs: int, device: str) -> float:
    """Seconds per network: one epoch with set-up and test, the other 79 extrapolated from `epochs` more."""
    ends: list[float] = []  # of the epochs

    def mark() -> None:
        _synchronize(device)
        ends.append(time.perf_counter())

    started = time.perf_counter()
    train(nets, replace(recipe(spec), epochs=1 + epochs), device=device, every_epoch=("val",), on_epoch=mark)
    later = ends[-1] - ends[0]
    return (time.perf_counter() - started - later + (spec.epochs - 1) * later / epochs) / len(nets)


def limit(together: int, classes: int, spec: FunctionSpec, steps: int, device: str) -> float:
    """Seconds per network for nothing but the three products of each layer and the exponential of the logits."""
    h1, h2 = spec.hidden
    shapes = [(h1, 2), (h2, h1 + 1), (1 + classes, h2 + 1)]
    layers = [
        [torch.randn(together, *shape, device=device) for shape in ((o, i), (i, spec.batch_size), (o, spec.batch_size))] for o, i in shapes
    ]
    room = [[torch.empty_like(tensor) for tensor in layer] for layer in layers]
    logits = torch.randn(together, classes, spec.batch_size, device=device)

    def step() -> None:
        for (w, a, g), (dw, da, z) in zip(layers, room, strict=True):
            torch.bmm(w, a, out=z)
            torch.bmm(g, a.mT, out=dw)
            torch.bmm(w.mT, g, out=da)
        torch.exp2(logits, out=room[-1][2][:, 1:])

    step()
    _synchronize(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    _synchronize(device)
    return (time.perf_counter() - started) / steps * _batches(spec) * spec.epochs / together


class Samples(Dataset[tuple[torch.Tensor, ...]]):
    """One sample at a time, like a typical data set class."""

    def __init__(self, x: np.ndarray, y: np.ndarray, classes: ClassRanges) -> None:
        self.x, self.y, self.labels = x.T.astype(np.float64), y.astype(np.float64), classes.labels(y)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        return torch.from_numpy(self.x[index]), torch.tensor(self.y[index]), torch.tensor(self.labels[index])


def one_by_one(classes: int, spec: FunctionSpec, batches: int) -> float:
    """Seconds for typical code for reg and reg+cls (C = 0: reg alone), validated each epoch, extrapolated from `batches` batches."""
    net = network(0, max(classes, 1))
    data = Samples(net.x, net.y, net.classes)
    models = [MLP(1, spec.hidden).double(), *([MLP(1, spec.hidden, classes).double()] if classes else [])]
    optimizers = [torch.optim.Adam(model.parameters(), lr=spec.learning_rate, weight_decay=spec.weight_decay) for model in models]
    started = time.perf_counter()
    for batch, (x, y, labels) in enumerate(DataLoader(data, batch_size=spec.batch_size, shuffle=True, drop_last=True), start=1):
        for model, optimizer in zip(models, optimizers, strict=True):
            with_classes = model.classifier is not None
            loss = reg_cls(model(x), y, model.classifier(model.features(x)), labels, lam=net.lam) if with_classes else mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        if batch == batches:
            break
    training = (time.perf_counter() - started) / batch * _batches(spec)
    x, y = net.evaluate["val"]
    started = time.perf_counter()
    for batch, (xs, ys, _) in enumerate(DataLoader(Samples(x, y, net.classes), batch_size=spec.batch_size), start=1):
        with torch.no_grad():
            for model in models:
                mse_loss(model(xs), ys).item()
        if batch == batches:
            break
    return (training + (time.perf_counter() - started) / batch * (y.size / spec.batch_size)) * spec.epochs


def _batches(spec: FunctionSpec) -> int:
    return sets("severe", 0, 0)["train"][1].size // spec.batch_size


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2, help="timed epochs of the engine")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of everything")
    parser.add_argument("--batches", type=int, default=8, help="timed batches of one by one")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    together = {classes: min(most_together(classes, recipe(SPEC), options.device, inputs=1), PROBLEMS) for classes in CLASSES}
    nets = {classes: [network(index, classes) for index in range(count)] for classes, count in together.items()}
    seconds: dict[int, list[tuple[float, float, float]]] = {classes: [] for classes in CLASSES}
    with progress(options.rounds * len(CLASSES), "timing") as advance:
        for _ in range(options.rounds):
            for classes in CLASSES:
                fast = engine(nets[classes], SPEC, options.epochs, options.device)
                bare = limit(together[classes], classes, SPEC, 100, options.device)
                seconds[classes].append((fast, bare, one_by_one(classes, SPEC, options.batches)))
                advance(1, f"C = {classes}")
    table = Table(
        "C",
        "side by side",
        "engine, s a network (min to max)",
        "networks/s",
        "limit",
        "one by one, s a pair",
        "times faster",
        title=f"{options.device}, n = {options.rounds}",
    )
    median = {classes: [statistics.median(column) for column in zip(*rows, strict=True)] for classes, rows in seconds.items()}
    for classes, (fast, bare, slow) in median.items():
        spread = [row[0] for row in seconds[classes]]
        pair = fast + (median[0][0] if classes else 0.0)
        table.add_row(
            str(classes),
            str(together[classes]),
            f"{fast:.3f} ({min(spread):.3f} to {max(spread):.3f})",
            f"{1 / fast:.2f}",
            f"{bare / fast:.0%}",
            f"{slow:.0f}",
            f"{slow / pair:.0f}",
        )
    Console(width=140).print(table)
    cores = 1 if options.device == "cuda" else PARAMS.compute.process_count
    ours = PROBLEMS * sum(row[0] for row in median.values()) / cores
    theirs = PROBLEMS * sum(row[2] for classes, row in median.items() if classes)
    print(f"Figure 3, uniform classes ({PROBLEMS} reg and {PROBLEMS * (len(CLASSES) - 1)} reg+cls networks): "
          f"{ours / 60:.0f} min on {cores} processes here, "
          f"{theirs / 3600:.0f} h one by one, in one process: {theirs / ours:.0f} times")  # fmt: skip


if __name__ == "__main__":
    main()
