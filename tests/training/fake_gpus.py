"""GPUs that the machine does not have: the scheduler places runs on them, and each worker process notes what it sees and trains on the CPU."""

import os
import time
from collections import defaultdict
from dataclasses import replace
from functools import partial
from itertools import pairwise
from multiprocessing import parent_process
from pathlib import Path

from regcls.tasks.images.train import train_run
from regcls.training import device, ensemble_worker, single_worker
from regcls.training.device import VISIBLE, Gpu


def plug_in(monkeypatch, *ids, memory=8e10):
    """Make GPUs of these ids the visible ones."""
    monkeypatch.setattr(device, "visible_gpus", lambda: [Gpu(id=gpu, memory=memory) for gpu in ids])


def name():
    return f"Fake {os.environ[VISIBLE]}"


if parent_process():  # only in workers, which import this module with train_images
    single_worker.gpu_name = name


def seen(file):
    """GPU -> (process, start and end in seconds) of what was trained on it, earliest first."""
    found = defaultdict(list)
    for line in file.read_text().splitlines():
        gpu, *numbers = line.split()
        found[gpu].append(tuple(map(float, numbers)))
    return {gpu: sorted(entries, key=lambda entry: entry[1]) for gpu, entries in found.items()}


def assert_one_at_a_time(entries):
    """On one GPU: by one process."""
    assert len({process for process, _, _ in entries}) == 1
    assert all(end <= start for (_, _, end), (_, start, _) in pairwise(entries))


def noted(file, train, *arguments, **options):
    started = time.time()
    try:
        return train(*arguments, **options)
    finally:
        with file.open("a") as lines:
            lines.write(f"{os.environ.get(VISIBLE)} {os.getpid()} {started} {time.time()}\n")


def train_images(job, hooks, say):
    """train_run of images; notes are in seen.txt next to the project's data."""
    assert (job.device, job.loaders) == ("cuda", 1)
    return noted(job.prepared.parents[2] / "seen.txt", train_run, replace(job, device="cpu", loaders=0), hooks, say)


class OnFakeGpus:
    """Wraps a kind of networks."""

    def __init__(self, kind, file: Path):
        self.kind, self.file = kind, file

    def __getattr__(self, name):
        return getattr(self.kind, name)

    def reopened(self):
        return partial(_reopen, self.kind.reopened(), self.file)


def _reopen(how, file):
    train = ensemble_worker.train

    def on_cpu(*arguments, device, **options):
        assert device == "cuda"
        return noted(file, train, *arguments, device="cpu", **options)

    ensemble_worker.train, ensemble_worker.gpu_name = on_cpu, name
    return how()
