"""A run on faces in its own process that takes about two seconds: long enough to be interrupted halfway."""

import sys

import torch

from processes import wait_until
from regcls.params import load_params
from regcls.runs.grids import all_specs
from regcls.tasks.images.data import ImageSet
from regcls.tasks.images.runs import make_spec
from regcls.tasks.images.train import ImageJob, train_run
from regcls.training.single import LAST
from training.hooks import Hooks

EPOCHS = 16
ONE_RUN = {
    "compute": {"processes": 1},
    "imdb_wiki": {
        "training": {"epochs": EPOCHS, "milestones": [10], "width": 4, "batch_size": 16},
        "grids": {"table3": {"methods": ["reg+cls-bal"]}},
    },
}


def states(root):
    return sorted((root / ".regcls" / "checkpoints").glob("*/*/state-*.json"))


def start_training(start, root):
    return start(root, sys.executable, "-m", "regcls", "train", "imdb_wiki")


def wait_until_halfway(root, process):
    """Wait until the second epoch is done: then there is a state to fall back to."""

    def reached():
        assert process.poll() is None, (root / "output.txt").read_text()
        return any(file.name >= "state-00002" for file in states(root))

    wait_until(reached, "a state of the second epoch")


cache = {}  # cached result of the uninterrupted run


def uninterrupted_run(root, folder):
    """The result and final weights of the only run of `root`, trained in one go without a store."""
    if not cache:
        section = load_params(root / "params.yaml").datasets["imdb_wiki"]
        (spec,) = all_specs(make_spec, section, "imdb_wiki", {})
        prepared = root / "data" / "imdb_wiki" / "prepared"
        job = ImageJob(
            spec=spec, prepared=prepared, data_digest=ImageSet(prepared).digest, checkpoints=folder / "undisturbed", fingerprint="f",
            device="cpu", loaders=0, channels_last=True, compiled=False, checkpoint_minutes=10.0, shots=section.shots,
        )  # fmt: skip
        cache["result"] = train_run(job, Hooks(), print)
        cache["weights"] = torch.load(cache["result"].files[LAST], weights_only=True)["weights"]
    return cache["result"], cache["weights"]
