"""Speed of the published networks on video progress: many at once in the ensemble engine, or one at a time in a PyTorch loop.

    python benchmarks/video.py [--frames 120000] [--rounds 3] [--device cpu]

Made-up frames of 64 features in the published sizes: 64 → 40 → 20 → 1, batches of 40, Adam, `frames` of them in training for each of two
activities. A row is one method. `engine`: microseconds a network and step, side by side with as many as the study puts together, in
one process with one thread; the first epoch. `two processes`: the same in two at once. `plain`: one network
with autograd and torch.optim, batches taken by index from the shuffled frames, on one thread. All are timed in turn, `rounds` times;
medians, and least to most. The last lines project Table 5, and give the memory of a call.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from regcls.classes import equalised, uniform_ranges
from regcls.params import load_params
from regcls.progress import progress
from regcls.tasks.sequences.runs import make_spec
from regcls.training.ensemble import Recipe, train  # first, since it sets MKL's mode before torch is loaded
from regcls.training.ensemble_data import Network, padded_to
from regcls.training.ensemble_study import most_together

# isort: split
import torch
from torch.nn.functional import mse_loss

from regcls.losses import class_loss
from regcls.models.mlp import MLP

BREAKFAST = load_params(Path(__file__).parent.parent / "params.yaml").datasets["breakfast"]
METHODS = ("reg", "kukleva", "reg+cls", "reg+cls-bal")
INPUTS, TEST_SHARE, PLAIN_STEPS = 64, 3, 400
FRAMES_IN_ALL, ACTIVITIES = 3_600_000, 10
Frames = tuple[np.ndarray, np.ndarray]


def recipe(method: str) -> Recipe:
    """One epoch of the published training."""
    spec = make_spec(BREAKFAST, "breakfast", method=method, classes=100, lam=None, unit="percent", split="s1", seed=0)  # type: ignore[arg-type]
    h1, h2 = spec.hidden
    initialisation = "normal" if spec.activation == "sigmoid" else "pytorch"
    return Recipe(hidden=(h1, h2), activation=spec.activation, initialisation=initialisation, loss_over_batch="sum", drop_last=False,
                  epochs=1, batch_size=spec.batch_size, optimizer=spec.optimizer, learning_rate=spec.learning_rate, milestones=(),
                  decay=1.0, weight_decay=spec.weight_decay, precision=spec.precision)  # fmt: skip


def activity(seed: int, frames: int) -> tuple[Frames, Frames]:
    """x (64, N) and progress y (N,), for training and testing."""
    random = np.random.default_rng(seed)
    y = random.random(frames + frames // TEST_SHARE)
    x = random.standard_normal((len(y), INPUTS), dtype=np.float32) + y[:, None].astype(np.float32)
    return (x[:frames].T, y[:frames]), (x[frames:].T, y[frames:])


def networks(method: str, activities: Sequence[tuple[Frames, Frames]], count: int) -> list[Network]:
    """`count` networks, alternating between activities; two share a seed each, like the two units."""
    nets = []
    for index in range(count):
        (x, y), test = activities[index * len(activities) // count]
        ranges = uniform_ranges(100, 0, 1) if "cls" in method else None
        rows = padded_to(len(ranges), BREAKFAST.training.batch_size) if ranges else 0
        ranges = equalised(ranges, y) if ranges and method == "reg+cls-bal" else ranges
        nets.append(Network(x=x, y=y, classes=ranges, padded_to=rows, lam=100.0, seed=index // 2, evaluate={"test": test}))
    return nets


def engine(method: str, frames: int, device: str) -> tuple[float, int]:
    """Microseconds per network and step, including tests, and how many networks trained together."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    activities = [activity(seed, frames) for seed in (0, 1)]
    together = min(most_together(100 if "cls" in method else 0, recipe(method), device, inputs=INPUTS), 240)
    nets = networks(method, activities, together)
    train([replace(n, x=n.x[:, :4000], y=n.y[:4000]) for n in nets], recipe(method), device=device)  # warm up
    started = time.perf_counter()
    train(nets, recipe(method), device=device, predict=("test",))
    return (time.perf_counter() - started) / (len(nets) * (frames // recipe(method).batch_size)) * 1e6, len(nets)


def plain(method: str, frames: int, steps: int = PLAIN_STEPS) -> float:
    """Microseconds per step of one network."""
    torch.set_num_threads(1)
    (x, y), _ = activity(0, frames)
    how, net = recipe(method), networks(method, [((x, y), (x, y))], 1)[0]
    inputs, targets = torch.from_numpy(x.T), torch.from_numpy(y).float()
    model = MLP(INPUTS, how.hidden, net.outputs, activation=how.activation)
    optimizer = torch.optim.Adam(model.parameters(), lr=how.learning_rate, weight_decay=how.weight_decay)
    labels = torch.from_numpy(net.classes.labels(y)) if net.classes else None
    keep = torch.from_numpy(net.classes.keep).float() if net.classes and net.classes.keep.min() < 1 else None
    order = torch.randperm(frames)
    for step in range(steps + 50):
        if step == 50:
            started = time.perf_counter()
        batch = order[step * how.batch_size : (step + 1) * how.batch_size]
        features = model.features(inputs[batch])
        loss = net.lam * mse_loss(model.regressor(features).squeeze(-1), targets[batch], reduction="sum")
        if labels is not None:
            mine = labels[batch]
            kept = None if keep is None else torch.rand(len(batch)) < keep[mine]
            loss = loss + class_loss(model.classifier(features), mine, kept)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - started) / steps * 1e6


def table5_runs() -> int:
    """Runs of one method."""
    grid = BREAKFAST.grids["table5"]
    return len(grid.units) * len(grid.splits) * grid.seeds


def table5_seconds(us: Iterable[float]) -> float:
    """Training for Table 5, from the microseconds per network and step of each trained method."""
    steps = FRAMES_IN_ALL * 3 // 4 // BREAKFAST.training.batch_size * BREAKFAST.training.epochs  # of one run's ten networks
    return sum(us) * table5_runs() * steps / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=120_000, help="training frames of an activity; published: about 270 000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    rows: dict[str, list[tuple[float, float, float]]] = {method: [] for method in METHODS}
    together = dict.fromkeys(METHODS, 0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool, progress(options.rounds * len(METHODS), "timing") as advance:
        for _ in range(options.rounds):
            for method in METHODS:
                one, together[method] = engine(method, options.frames, options.device)
                both = [one] * 2
                if options.device == "cpu":
                    both = [f.result()[0] for f in [pool.submit(engine, method, options.frames, "cpu") for _ in range(2)]]
                rows[method].append((one, 1 / sum(1 / us for us in both), plain(method, options.frames)))
                advance(1, method)
    table = Table("method", "side by side", "engine, µs", "two processes, µs", "plain, µs", "times faster", "with two processes",
                  title=f"a network and step; {options.device}, {options.frames} frames, n = {options.rounds}")  # fmt: skip
    medians = {method: [statistics.median(column) for column in zip(*found, strict=True)] for method, found in rows.items()}
    for method, found in rows.items():
        spreads = [f"{m:.0f} ({min(c):.0f} to {max(c):.0f})" for m, c in zip(medians[method], zip(*found, strict=True), strict=True)]
        one, two, slow = medians[method]
        table.add_row(method, str(together[method]), *spreads, f"{slow / one:.1f}", f"{slow / two:.1f}")
    Console(width=140).print(table)
    ours, theirs = map(table5_seconds, list(zip(*medians.values(), strict=True))[1:])
    print(f"Table 5, {table5_runs() * len(METHODS) * ACTIVITIES} trained networks: {ours / 60:.0f} min here, "
          f"{theirs / 3600:.1f} h one at a time: {theirs / ours:.0f} times")  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    memory = 2 * options.frames * (1 + 1 / TEST_SHARE) * INPUTS * 4 / 1024
    print(f"memory of the largest call, two activities ({memory / 1024:.0f} MiB of features): {peak / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
