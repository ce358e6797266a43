"""Published settings and results of the paper and its release on video progress."""

from typing import Any

import pandas as pd

from regcls.reports.published import published_table
from regcls.tasks.sequences.params import SequenceGrid

# Grids, data and training values, named as in params.yaml (section 3.3); precision is left out.
GRIDS = {
    "table5": SequenceGrid(
        methods=("random", "kukleva", "reg", "reg+cls", "reg+cls-bal"),
        classes=(100,),
        units=("percent", "frames"),
        splits=("s1", "s2", "s3", "s4"),
        lambdas="default",
        seeds=3,
    ),
}
VALUES: dict[str, Any] = {
    "source": "raw",
    "test_persons": {"s1": (3, 15), "s2": (16, 28), "s3": (29, 41), "s4": (42, 54)},
    "hidden": (40, 20),
    "activation": "relu",
    "lam": {"percent": 100.0, "frames": 10.0},
    "rounding": "round",
    "optimizer": "adam",
    "learning_rate": 0.001,
    "weight_decay": 0.0001,
    "epochs": 40,
    "milestones": (30,),
    "decay": 0.1,
    "batch_size": 40,
}
COUNTS = {"videos": 1712, "activities": 10}  # after preparation


def table5() -> pd.DataFrame:
    """Table 5: method, classes (0: none), unit, split, rmse (percent of the video, or frames), std (over the 10 activities)."""
    return _video_table(published_table(__package__, "table5.csv"))


def released_breakfast() -> pd.DataFrame:
    """The authors' later re-run (learning rate 1e-4, λ = 1e-3) in the columns of `table5`, in percent only."""
    table = published_table(__package__, "released_breakfast.csv")
    return _video_table(table.assign(unit="percent", rmse=100 * table["rmse"], std=100 * table["std"]))


def _video_table(table: pd.DataFrame) -> pd.DataFrame:
    table = table.assign(classes=table["classes"].fillna(0).astype(int))
    return table[["method", "classes", "unit", "split", "rmse", "std"]].reset_index(drop=True)
