"""Published settings and results of the paper and its release in the 1D study."""

from typing import Any

import pandas as pd

from regcls.reports.published import published_table
from regcls.tasks.functions.params import FunctionGrid

# The noise level of the released noisy data (Figures 3 and 4, Table 1).
RELEASED_NOISE = 0.1

# Grids, data and training values, named as in params.yaml. Precision is left out: the released values come from float64, and differences
# to float32 are far smaller than their spread.
_EACH: dict[str, Any] = {
    "samplings": ("uniform", "mild", "moderate", "severe"),
    "methods": ("reg", "reg+cls", "reg+cls-bal"),
    "classes": (4, 16, 64, 256, 1024),
}
GRIDS = {
    "figure3": FunctionGrid(settings=("clean", "noisy", "ood"), noise=(0.1,), lambdas="default", repetitions=5, **_EACH),
    "figure4": FunctionGrid(
        settings=("clean", "noisy"), noise=(0.1,), lambdas=tuple(10.0**n for n in range(-3, 5)), repetitions=3, **_EACH
    ),
    "figure5": FunctionGrid(settings=("noisy",), noise=(0.05, 0.1, 0.5), lambdas="default", repetitions=5, **_EACH),
}
VALUES: dict[str, Any] = {
    "functions": (
        *((0.8444218515250481, 22), (0.04048437818077755, 25), (0.48592769656281265, 18), (0.9677999949201714, 20)),
        *((0.5833820394550312, 15), (0.5046868558173903, 18), (0.1397457849666789, 12), (0.6183689966753316, 17)),
        *((0.9872592010330129, 26), (0.9827854760376531, 28)),
    ),
    "samples": 60000,
    "peak_width": {"mild": 0.3, "moderate": 0.1, "severe": 0.03},
    "peak_share": "released",
    "hidden": (6, 15),
    "epochs": 80,
    "batch_size": 256,
    "optimizer": "adam",
    "weight_decay": 0.001,
    "scale": 1.0,
    "learning_rate": {"clean": 0.001, "noisy": 0.01, "ood": 0.0001},
    "lam": {"clean": 100.0, "noisy": 1000.0, "ood": 10000.0},
    "rounding": "ceil",
}
# One per repetition; other seeds give another draw of the same study.
SEEDS = {"data_seeds": (2732, 9845, 3264, 4859, 9225), "seeds": (0, 421, 8125, 2481, 849)}


def _with_noise(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(noise=table["setting"].map(lambda setting: RELEASED_NOISE if setting == "noisy" else 0.0))


def released() -> pd.DataFrame:
    """Figure 3 as numbers: setting, noise, sampling, method, classes, published (test MSE, mean over 10 functions × 5 repetitions).

    The authors retrained reg for each class count, so it has as many values as reg+cls.
    """
    wide = _with_noise(published_table(__package__, "released_1d.csv")).rename(columns={"reg_mse": "reg", "reg_cls_mse": "reg+cls"})
    keys = ["setting", "noise", "sampling", "classes"]
    return wide.melt(id_vars=keys, value_vars=["reg", "reg+cls"], var_name="method", value_name="published")


def released_means(classes: list[int]) -> pd.DataFrame:
    """Means of `released` over `classes`, as far as it has them: setting, noise, sampling, reg, reg+cls."""
    table = released()
    means = table[table["classes"].isin(classes)].groupby(["setting", "noise", "sampling", "method"], sort=False)["published"].mean()
    return means.unstack("method").reset_index()


def table1() -> pd.DataFrame:
    """Table 1: setting, noise, sampling, method (reg+cls-bal for balanced classes), published (%), uncertain (bool)."""
    table = _with_noise(published_table(__package__, "table1.csv"))
    table["method"] = table["classes"].map({"imbalanced": "reg+cls", "balanced": "reg+cls-bal"})
    table["uncertain"] = table["uncertain"].astype(bool)
    return table.rename(columns={"percent_reg_cls_wins": "published"})[["setting", "noise", "sampling", "method", "published", "uncertain"]]
