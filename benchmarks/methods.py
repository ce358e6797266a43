"""The time that training takes with each method, compared with reg: image networks, and small networks side by side in the engine.

    python benchmarks/methods.py --rounds 5

Images: the network of `portraits` through the trainer of the product, in which fds also passes over the training images after an epoch.
Engine: networks of a generated table of 3 000 rows and 8 columns (64 and 32 hidden units, batches of 64). In each round every method is
timed once, in turn; a ratio is to reg of the same round, and its median over the rounds is shown (least to greatest). Aim: 1.3, but for
fds, bmse-bmc and ranksim, which compare samples or pass over the data once more.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from regcls.methods import missing_need
from regcls.params import Params, load_params
from regcls.pipeline.prepare import prepare
from regcls.tasks import task_params
from regcls.tasks.images.runs import make_spec as image_spec
from regcls.tasks.images.task import TASK as IMAGES
from regcls.tasks.planning import asked_for
from regcls.tasks.table.networks import TableNetworks
from regcls.tasks.table.runs import make_spec as table_spec
from regcls.tasks.task import Session, open_data
from regcls.tracking.tracker import Tracker
from regcls.training import single_study
from regcls.training.ensemble import train
from regcls.training.ensemble_networks import Member

ROOT = Path(__file__).parents[1]
CLASSES, TOGETHER = 50, 20


def image_timer(params: Params, root: Path) -> Callable[[str], float]:
    """Seconds per training image of a method."""
    data = open_data(params, root, "portraits", verify=False)
    session = Session(params=params, root=root, dataset="portraits", tracker=Tracker(root, experiment="benchmark"))
    section = params.datasets["portraits"]
    study = IMAGES._study(data, session, adopt=False)

    def seconds(method: str) -> float:
        spec = image_spec(section, "portraits", method=method, classes=CLASSES, lam=1.0, balanced_data=False, seed=0)
        return single_study.seconds_per_sample(replace(spec, epochs=2, milestones=()), study)

    return seconds


def engine_timer(params: Params, root: Path) -> Callable[[str], float]:
    """Seconds of TOGETHER networks and two epochs of a method."""
    section, networks = params.datasets["generated"], TableNetworks(open_data(params, root, "generated", verify=False), "generated")

    def seconds(method: str) -> float:
        specs = [table_spec(section, "generated", method=method, classes=CLASSES, lam=1.0, seed=seed) for seed in range(TOGETHER)]
        members = [Member(spec=replace(spec, epochs=2, milestones=(), decay=1.0), part=networks.parts[0]) for spec in specs]
        loaded, recipe = networks.networks(members), networks.recipe(members[0].spec)
        train(loaded[:1], replace(recipe, epochs=1))
        started = time.perf_counter()
        train(loaded, recipe)
        return time.perf_counter() - started

    return seconds


def prepared(root: Path) -> Params:
    """The parameters of a project in `root` with portraits and a generated table, both prepared; one process with one thread."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 8))
    raw = root / "data" / "generated" / "raw"
    raw.mkdir(parents=True)
    pd.DataFrame(x).assign(y=np.exp(x[:, 0]) + x[:, 1]).to_csv(raw / "generated.csv", index=False)
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["generated"] = {"like": "diabetes", "data": {"source": "raw", "file": "generated.csv", "target": "y"}}
    tree["compute"] |= {"device": "cpu", "processes": os.cpu_count()}
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    params = load_params(root / "params.yaml")
    for dataset in ("portraits", "generated"):
        prepare(params, root, dataset)
    return params


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    methods = ["reg", *asked_for(["all"], "images"), "lds+fds"]
    with TemporaryDirectory() as folder:
        params = prepared(Path(folder))
        timers = {"images": image_timer(params, Path(folder)), "engine": engine_timer(params, Path(folder))}
        usable = {"images": methods, "engine": [name for name in methods if missing_need(name, task_params("table").provides) is None]}
        timings = {(trainer, name): list[float]() for trainer, names in usable.items() for name in names}
        for _ in track(range(options.rounds), "measuring"):
            for (trainer, name), seconds in timings.items():
                seconds.append(timers[trainer](name))
    table = Table(title=f"time in that of reg, median of {options.rounds} rounds (least to greatest)")
    for column in ("method", *timers):
        table.add_column(column)
    for name in methods:
        ratios = {
            trainer: [own / reg for own, reg in zip(timings[trainer, name], timings[trainer, "reg"], strict=True)]
            for trainer in timers
            if (trainer, name) in timings
        }
        cells = [f"{statistics.median(r):.2f} ({min(r):.2f} to {max(r):.2f})" if (r := ratios.get(trainer)) else "–" for trainer in timers]
        table.add_row(name, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
