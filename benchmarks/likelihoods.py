"""What it costs to measure L_extra and likelihoods after each epoch (training/likelihoods.py), by number of classes C.

    python benchmarks/likelihoods.py [--epochs 4] [--rounds 5]

Time of training with validation, on the clean, severely imbalanced data of the paper, with measurements in that without, in turn in one
process with one thread: median of the rounds (least to greatest).
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

from ensemble import CLASSES, SPEC, network

from regcls.progress import progress
from regcls.tasks.functions.networks import recipe
from regcls.training.ensemble import Recipe, train
from regcls.training.ensemble_data import Network
from regcls.training.ensemble_study import most_together

# isort: split
import torch


def seconds(nets: Sequence[Network], how: Recipe, epochs: int) -> float:
    """Seconds for the epochs after the first, so without set-up and tests."""
    times: list[float] = []
    train(nets, replace(how, epochs=1 + epochs), every_epoch=("val",), on_epoch=lambda: times.append(time.perf_counter()))
    return times[-1] - times[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4, help="timed epochs")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    plain = recipe(SPEC)
    measured = replace(plain, likelihoods=("train", "test"))
    with progress(len(CLASSES) * options.rounds, "timing") as advance:
        for classes in CLASSES:
            nets = [network(index, classes) for index in range(most_together(classes, plain, "cpu", inputs=1))]
            ratios = []
            for _ in range(options.rounds):
                before = seconds(nets, plain, options.epochs)
                ratios.append(seconds(nets, measured, options.epochs) / before)
                advance(1, f"C = {classes}")
            print(f"C = {classes}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
