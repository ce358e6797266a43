"""Published settings and results of the paper and its release on age from faces."""

from typing import Any

import pandas as pd

from regcls.params.single import SingleGrid
from regcls.reports.published import by_shot, published_table

# Grids, data and training values, named as in params.yaml (section 3.2); precision and rounding are the release's. Of seeds only the
# number is compared.
GRIDS = {
    "table3": SingleGrid(methods=("reg", "reg+cls", "reg+cls-bal"), classes=(2, 10, 100), balanced_data=False, lambdas="default", seeds=3),
    "table4": SingleGrid(methods=("reg", "reg+cls-bal"), classes=(100,), balanced_data=True, lambdas="default", seeds=3),
}
VALUES: dict[str, Any] = {
    "source": "raw",
    "size": 224,
    "min_face_score": 1.0,
    "split_seed": 666,
    "split_most": 150,
    "model": "resnet50",
    "width": 64,
    "class_range": (0.0, 100.0),
    "loss": "mae",
    "loss_scaling": "released",
    "rounding": "round",
    "lam": {2: 1.0, 10: 1.0, 100: 0.1},
    "optimizer": "adam",
    "learning_rate": 0.001,
    "balanced_learning_rate": 0.0001,
    "weight_decay": 0.0,
    "epochs": 90,
    "milestones": (60, 80),
    "decay": 0.1,
    "batch_size": 128,
    "accumulate": 1,
    "precision": "float32",
    "pad": 16,
    "targets": "raw",
    "flip": 0.5,
    "balanced_bins": 100,
    "many_above": 100,
    "few_below": 20,
}
COUNTS = {"images": 213553}  # after preparation


def table3() -> pd.DataFrame:
    """Table 3 in long form: method, classes (0: none), metric (mae, mse), shot, value, std (NaN if not printed), uncertain (bool)."""
    return by_shot(published_table(__package__, "table3.csv").assign(uncertain=0))


def table4() -> pd.DataFrame:
    """The IMDB-WIKI rows of Table 4, which has no shot groups, in the columns of `table3`."""
    table = published_table(__package__, "table4.csv")
    return by_shot(table.assign(shot="all"))
