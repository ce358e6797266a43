"""The published numbers, to stand beside measured ones: facts from the paper and from the authors' released run logs."""

from functools import cache
from importlib.resources import files
from io import StringIO

import pandas as pd

# The noise level of the released noisy data (Figures 3 and 4, Table 1).
RELEASED_NOISE = 0.1

# What the captions of the figures say was run: class counts, values of λ (1: the one found on the validation sets), repetitions.
PAPER_GRIDS = {"figure3": (5, 1, 5), "figure4": (5, 8, 3), "figure5": (5, 1, 5)}


@cache
def _table(name: str) -> pd.DataFrame:
    return pd.read_csv(StringIO((files("regcls.reports") / "published" / name).read_text(encoding="utf-8")))


def _with_noise(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(noise=table["setting"].map(lambda setting: RELEASED_NOISE if setting == "noisy" else 0.0))


def released() -> pd.DataFrame:
    """Figure 3 as numbers: setting, noise, sampling, method, classes, published (test MSE, mean over 10 functions × 5 repetitions).

    The authors trained reg anew for each class count, so it has as many values as reg+cls.
    """
    wide = _with_noise(_table("released_1d.csv")).rename(columns={"reg_mse": "reg", "reg_cls_mse": "reg+cls"})
    keys = ["setting", "noise", "sampling", "classes"]
    return wide.melt(id_vars=keys, value_vars=["reg", "reg+cls"], var_name="method", value_name="published")


def released_means(classes: list[int]) -> pd.DataFrame:
    """Means of `released` over those of `classes` that it has: setting, noise, sampling, reg, reg+cls."""
    table = released()
    chosen = table[table["classes"].isin(classes)]
    means = chosen.groupby(["setting", "noise", "sampling", "method"], sort=False)["published"].mean()
    return means.unstack("method").reset_index()


def table1() -> pd.DataFrame:
    """Table 1: setting, noise, sampling, method (reg+cls-bal for balanced classes), published (%), uncertain (bool)."""
    table = _with_noise(_table("table1.csv"))
    table["method"] = table["classes"].map({"imbalanced": "reg+cls", "balanced": "reg+cls-bal"})
    table["uncertain"] = table["uncertain"].astype(bool)
    return table.rename(columns={"percent_reg_cls_wins": "published"})[["setting", "noise", "sampling", "method", "published", "uncertain"]]
