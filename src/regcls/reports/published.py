"""The published numbers, to stand beside measured ones: facts from the paper and from the authors' released run logs."""

from functools import cache
from importlib.resources import files
from io import StringIO
from typing import Any

import pandas as pd

from regcls.params.faces import FaceGrid
from regcls.params.synthetic import Grid

# The noise level of the released noisy data (Figures 3 and 4, Table 1).
RELEASED_NOISE = 0.1

# What the paper ran: its grids, data and training values, by their names in params.yaml. Precision is left out: the released values come
# from float64, and float32 agrees with it far within their spread.
_EACH: dict[str, Any] = {
    "samplings": ("uniform", "mild", "moderate", "severe"),
    "methods": ("reg", "reg+cls", "reg+cls-bal"),
    "classes": (4, 16, 64, 256, 1024),
}
PAPER_GRIDS = {
    "figure3": Grid(settings=("clean", "noisy", "ood"), noise=(0.1,), lambdas="default", repetitions=5, **_EACH),
    "figure4": Grid(settings=("clean", "noisy"), noise=(0.1,), lambdas=tuple(10.0**n for n in range(-3, 5)), repetitions=3, **_EACH),
    "figure5": Grid(settings=("noisy",), noise=(0.05, 0.1, 0.5), lambdas="default", repetitions=5, **_EACH),
}
PAPER_VALUES: dict[str, Any] = {
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
    "learning_rate": {"clean": 0.001, "noisy": 0.01, "ood": 0.0001},
    "lam": {"clean": 100.0, "noisy": 1000.0, "ood": 10000.0},
}
# One a repetition: others give another draw of the same study.
PAPER_SEEDS = {"data_seeds": (2732, 9845, 3264, 4859, 9225), "seeds": (0, 421, 8125, 2481, 849)}

# The same for age from faces (section 3.2). Precision is left out: the paper does not say it. Seeds are counted, not compared.
PAPER_FACES = "imdb_wiki"  # the one data set of faces in the paper
PAPER_FACE_GRIDS = {
    "table3": FaceGrid(methods=("reg", "reg+cls", "reg+cls-bal"), classes=(2, 10, 100), balanced_data=False, lambdas="default", seeds=3),
    "table4": FaceGrid(methods=("reg", "reg+cls"), classes=(100,), balanced_data=True, lambdas="default", seeds=3),
}
PAPER_FACE_VALUES: dict[str, Any] = {
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
    "pad": 16,
    "flip": 0.5,
    "balanced_bins": 100,
    "many_above": 100,
    "few_below": 20,
}
BASELINES = ("focal-r", "lds+fds", "bmse-gai")  # of other papers, as Table 3 quotes them


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


def table3() -> pd.DataFrame:
    """Table 3, long: method, classes (0: none), metric (mae, mse), shot, value, std (NaN where none is printed), uncertain (bool)."""
    return _face_table(_table("table3.csv").assign(uncertain=0))


def table4() -> pd.DataFrame:
    """The rows of Table 4 on IMDB-WIKI, which has no shot groups, in the columns of `table3`."""
    table = _table("table4.csv")
    return _face_table(table[table["dataset"] == PAPER_FACES].assign(shot="all"))


def _face_table(table: pd.DataFrame) -> pd.DataFrame:
    table = table.assign(classes=table["classes"].fillna(0).astype(int), uncertain=table["uncertain"].astype(bool))
    return table[["method", "classes", "metric", "shot", "value", "std", "uncertain"]].reset_index(drop=True)
