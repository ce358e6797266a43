"""A run on faces that takes about two seconds, in a process of its own, so that there is a middle to be interrupted in."""

import sys

import torch

from processes import until
from regcls.params import load_params
from regcls.runs.grids import all_specs
from regcls.tasks.images.data import ImageSet
from regcls.tasks.images.runs import make_spec
from regcls.tasks.images.train import ImageJob, train_run
from regcls.training.single import LAST

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


def wait_for_the_middle(root, process):
    """Until the second epoch is through: then there is a state to fall back to."""

    def reached():
        assert process.poll() is None, (root / "output.txt").read_text()
        return any(file.name >= "state-00002" for file in states(root))

    until(reached, "a state of the second epoch")


class Silent:
    def batch(self, samples, note):
        pass

    def epoch(self, epoch):
        pass


made = {}  # what an undisturbed run gives, once


def undisturbed_run(root, folder):
    """The result of the only run of `root`, trained without any store and in one go, and the weights at its end."""
    if not made:
        section = load_params(root / "params.yaml").datasets["imdb_wiki"]
        (spec,) = all_specs(make_spec, section, "imdb_wiki", {})
        prepared = root / "data" / "imdb_wiki" / "prepared"
        job = ImageJob(
            spec=spec, prepared=prepared, data_digest=ImageSet(prepared).digest, checkpoints=folder / "undisturbed", fingerprint="f",
            device="cpu", loaders=0, channels_last=True, compiled=False, checkpoint_minutes=10.0, shots=section.shots,
        )  # fmt: skip
        made["result"] = train_run(job, Silent(), print)
        made["weights"] = torch.load(made["result"].files[LAST], weights_only=True)["weights"]
    return made["result"], made["weights"]
