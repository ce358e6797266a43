"""How much a panel of Figure 3 varies with its random peaks (or regions): the same panel with many other seeds.

    python benchmarks/peaks.py --setting clean --sampling moderate [--classes 16] [--seeds 16] [--first 100]

Five repetitions share five peaks, so two studies with other seeds agree no better than five draws do. Prints the mean test
MSE of reg and reg+cls over `seeds` repetitions (ten functions each), their standard deviation over repetitions, and the
standard error that a study of five repetitions has from it, beside the released value.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from regcls.classes import class_ranges
from regcls.data.splits import Split
from regcls.params import load_params, parse_options
from regcls.progress import progress
from regcls.tasks.functions import published
from regcls.tasks.functions.networks import recipe
from regcls.tasks.functions.params import FunctionOptions, Functions, Sampling
from regcls.tasks.functions.prepare import SineSum, draw
from regcls.tasks.functions.runs import single_spec
from regcls.training.ensemble import train
from regcls.training.ensemble_data import Network

# isort: split
import torch

TOGETHER = 50  # networks


def network(study: Functions, options: FunctionOptions, seed: int, function: int, classes: int) -> Network:
    """reg (C = 0) or reg+cls on data and initial weights from `seed`, tested on its uniform set."""
    spec, f = single_spec(study, "functions", options), SineSum(*study.data.functions[function])
    drawn = draw(study.data, spec.setting, spec.noise, f, seed)

    def sample(sampling: Sampling, split: Split) -> tuple[np.ndarray, np.ndarray]:
        x, y = drawn[sampling].x[split], drawn[sampling].y[split]
        return x[None].astype(np.float32), y.astype(np.float32)

    x, y = sample(spec.sampling, "train")
    ranges = class_ranges(classes, y, balanced=False) if classes else None
    lam = spec.lam if classes and spec.lam else 1.0
    return Network(x=x, y=y, classes=ranges, lam=lam, seed=seed, evaluate={"test": sample("uniform", "test")})


def errors_by_seed(study: Functions, options: FunctionOptions, seeds: Sequence[int], classes: int) -> np.ndarray:
    """(seeds, functions) test MSE."""
    functions = range(len(study.data.functions))
    groups = defaultdict(list)  # networks with equal numbers of batches train together
    for place in np.ndindex(len(seeds), len(functions)):
        net = network(study, options, seeds[place[0]], place[1], classes)
        groups[net.y.size // study.training.batch_size].append((place, net))
    errors = np.full((len(seeds), len(functions)), np.nan)
    with progress(errors.size, f"C = {classes}") as advance:
        for members in groups.values():
            for start in range(0, len(members), TOGETHER):
                places, nets = zip(*members[start : start + TOGETHER], strict=True)
                for place, trained in zip(places, train(nets, recipe(single_spec(study, "functions", options))), strict=True):
                    errors[place] = trained.evaluated["test"][-1]
                advance(len(nets))
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", default="clean")
    parser.add_argument("--sampling", default="moderate")
    parser.add_argument("--classes", default="16")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--first", type=int, default=100, help="the first of the seeds")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    study = load_params(Path(__file__).parent.parent / "params.yaml").datasets["functions"]
    options = parse_options(
        "functions", {"setting": given.setting, "sampling": given.sampling, "classes": given.classes, "method": "reg+cls"}
    )
    released = published.released().query("setting == @given.setting and sampling == @given.sampling")
    for classes, method in ((0, "reg"), (int(given.classes), "reg+cls")):
        means = errors_by_seed(study, options, range(given.first, given.first + given.seeds), classes).mean(1)
        deviation = means.std(ddof=1)
        value = released.loc[released.method == method, "published"].mean()
        print(f"{given.setting} {given.sampling} {method}: mean {means.mean():.3f}, standard deviation over {given.seeds} repetitions "
              f"{deviation:.3f}, standard error of five {deviation / 5**0.5:.3f}; released {value:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
