"""Published settings and results of the paper and its release on depth."""

from typing import Any

import pandas as pd

from regcls.params.single import SingleGrid
from regcls.reports.published import by_shot, published_table

# Grids, data and training values, named as in params.yaml (section 3.2). The paper does not say which ImageNet weights it uses. There is
# no decay, since there are no milestones. depth_resampling, clip_colours and validation are left out: they differ from the release on
# purpose.
GRIDS = {
    "table2": SingleGrid(methods=("reg", "reg+cls", "reg+cls-bal"), classes=(2, 10, 100), balanced_data=False, lambdas="default", seeds=3),
    "table4": SingleGrid(methods=("reg", "reg+cls-bal"), classes=(100,), balanced_data=True, lambdas="default", seeds=3),
}
VALUES: dict[str, Any] = {
    "source": "raw",
    "short_side": 240,
    "crop": (228, 304),
    "validation_share": 0.2,
    "split_seed": 0,
    "model": "resnet50",
    "width": 64,
    "weights": "ImageNet",
    "align_corners": True,
    "class_range": (0.0, 10.0),
    "loss": "mse",
    "loss_scaling": "released",
    "rounding": "round",
    "lam": {2: 0.1, 10: 0.1, 100: 1.0},
    "optimizer": "adam",
    "learning_rate": 0.0001,
    "weight_decay": 0.0001,
    "epochs": 5,
    "milestones": (),
    "batch_size": 16,
    "accumulate": 2,
    "balanced_batch_size": 8,
    "balanced_accumulate": 4,
    "precision": "float32",
    "flip": 0.5,
    "rotate": 5.0,
    "lighting": 0.1,
    "jitter": 0.4,
    "balanced_bins": 100,
    "many": ((9, 45), (47, 47), (49, 49)),
    "medium": ((7, 8), (46, 46), (48, 48), (50, 56), (58, 58), (60, 61), (63, 63)),
}
COUNTS = {"training images": 50688, "test images": 654}  # after preparation


def table2() -> pd.DataFrame:
    """Table 2: method, classes (0: none), metric, shot, value, std, uncertain.

    The metrics are rmse_val and rmse_test: RMSE (m) of the model selected on validation or on test.
    """
    return _depth_table(published_table(__package__, "table2.csv").rename(columns={"rmse": "value"}).assign(metric="rmse", uncertain=0))


def table4() -> pd.DataFrame:
    """The NYUD2 rows of Table 4, which has no shot groups, in the columns of `table2`."""
    table = published_table(__package__, "table4.csv")
    return _depth_table(table.assign(shot="all"))


def _depth_table(table: pd.DataFrame) -> pd.DataFrame:
    return by_shot(table.assign(metric=table["metric"] + "_" + table["model_selected_on"]))
