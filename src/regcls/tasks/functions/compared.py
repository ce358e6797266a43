"""Means, spreads and tests of the 1D study.

The unit of replication is the repetition, whose functions share initial weights and the position of the peak.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from regcls.reports.stats import holm, one_sample, paired
from regcls.tasks.functions.collected import CELL, PANEL, in_order

Metric = str  # train_mse, val_mse or test_mse

COUNTS = ("classes", "n", "runs", "networks", "repetitions", "samplings")
TEXTS = ("setting", "sampling", "kind", "counts", "method")


def by_repetition(networks: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Means over functions, in columns CELL, repetition, `metric`."""
    return networks.groupby([*CELL, "repetition"], dropna=False, sort=False)[metric].mean().reset_index()


def cells(networks: pd.DataFrame, wanted: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Means and spreads, a row per requested cell, including empty ones.

    Columns: CELL; mean and std over all networks; std_repetitions and se, of the means by repetition (se = std_repetitions / √repetitions);
    networks, repetitions and repetitions_wanted (counts). Standard deviations have n − 1 in the denominator; NaN if n < 2.
    """
    grouped = networks.groupby(CELL, dropna=False, sort=False)[metric]
    over_networks = grouped.agg(mean="mean", std="std", networks="size").reset_index()
    over_repetitions = by_repetition(networks, metric).groupby(CELL, dropna=False, sort=False)[metric]
    repetitions = over_repetitions.agg(std_repetitions="std", repetitions="size").reset_index()
    requested = wanted.groupby(CELL, dropna=False, sort=False).size().reset_index(name="repetitions_wanted")
    table = requested.merge(over_networks, on=CELL, how="left").merge(repetitions, on=CELL, how="left")
    table[["networks", "repetitions"]] = table[["networks", "repetitions"]].fillna(0).astype(int)
    table["se"] = table["std_repetitions"] / np.sqrt(table["repetitions"].where(table["repetitions"] > 0))
    return in_order(table)


def _paired_with_reg(networks: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Means of the other methods and reg, a row per (cell, repetition) that both have: CELL, repetition, `metric`, reg."""
    means = by_repetition(networks, metric)
    reg = means[means["method"] == "reg"].rename(columns={metric: "reg"})[[*PANEL, "repetition", "reg"]]
    return means[means["method"] != "reg"].merge(reg, on=[*PANEL, "repetition"], how="inner")


def against_reg(networks: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Tests against reg, a row per cell of another method: CELL, the fields of `Paired`, and p_holm, adjusted over all rows."""
    rows = [
        dict(zip(CELL, key, strict=True)) | asdict(paired(cell["reg"].tolist(), cell[metric].tolist()))
        for key, cell in _paired_with_reg(networks, metric).groupby(CELL, dropna=False, sort=False)
    ]
    return _adjusted(_table(rows, [*CELL, "n", "gap", "low", "high", "p"]))


def gaps(networks: pd.DataFrame, metric: Metric, *, by_lambda: bool = False) -> pd.DataFrame:
    """The gap of Figure 3: the mean over class counts, functions and repetitions of MSE(reg) − MSE(method).

    A row per (panel, method), or with `by_lambda` per (panel, method, λ). Columns: PANEL, method, lam; reg and other, the two means, with
    their standard errors over repetitions, reg_se and other_se; runs (of the method); the fields of `Paired`, whose test is over
    repetitions, each averaged over class counts; absolute_gap, as printed in the paper: the mean over class counts of
    |MSE(reg) − MSE(method)|, each MSE averaged over functions and repetitions; p_holm, adjusted over the panels of the method, or with
    `by_lambda` over all rows.
    """
    keys, rows = [*PANEL, "method", *(["lam"] if by_lambda else [])], []
    for key, group in _paired_with_reg(networks, metric).groupby(keys, dropna=False, sort=False):
        means = group.groupby("repetition", sort=True)[["reg", metric]].mean()
        test = paired(means["reg"].tolist(), means[metric].tolist())
        by_classes = group.groupby("classes")[["reg", metric]].mean()
        absolute = float((by_classes["reg"] - by_classes[metric]).abs().mean())
        sides = {"reg": means["reg"].mean(), "reg_se": means["reg"].sem(), "other": means[metric].mean(), "other_se": means[metric].sem()}
        rows.append(dict(zip(keys, key, strict=True)) | sides | {"runs": len(group), "absolute_gap": absolute} | asdict(test))
    table = _table(rows, [*keys, "reg", "reg_se", "other", "other_se", "runs", "absolute_gap", "n", "gap", "low", "high", "p"])
    if by_lambda:
        return in_order(_adjusted(table))
    parts = [_adjusted(part) for _, part in table.groupby("method", sort=False)]
    return in_order(pd.concat(parts)) if parts else _adjusted(table)


def by_setting(networks: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Differences to reg by setting, each averaged over class counts and samplings: a row per (setting, noise, kind, method).

    kind: `imbalanced` (mean over all imbalanced samplings) or `uniform`. Columns: these; counts (class counts, as text); samplings (their
    number); reg and other, the two means; the fields of `Paired`, whose test is over the repetitions that have all samplings; p_holm,
    adjusted over all rows.
    """
    pairs = _paired_with_reg(networks, metric)
    pairs["kind"] = np.where(pairs["sampling"] == "uniform", "uniform", "imbalanced")
    keys, rows = ["setting", "noise", "kind", "method"], []
    for key, group in pairs.groupby(keys, sort=False):
        by_sampling = group.groupby(["repetition", "sampling"])[["reg", metric]].mean().unstack("sampling").dropna()
        means = by_sampling.T.groupby(level=0).mean().T  # over samplings
        counts = {
            "counts": ", ".join(str(count or "") for count in sorted(group["classes"].unique())),
            "samplings": group["sampling"].nunique(),
        }
        sides = {"reg": means["reg"].mean(), "other": means[metric].mean()}
        rows.append(dict(zip(keys, key, strict=True)) | counts | sides | asdict(paired(means["reg"].tolist(), means[metric].tolist())))
    return in_order(_adjusted(_table(rows, [*keys, "counts", "samplings", "reg", "other", "n", "gap", "low", "high", "p"])))


def _adjusted(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(p_holm=holm(table["p"].tolist()))


def _table(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    """A table with column types even if it is empty, so that it can be merged."""
    table = pd.DataFrame(rows, columns=columns)
    numbers = {name: int if name in COUNTS else float for name in columns if name not in TEXTS}
    return table.astype(numbers)


def best_classes(cells_val: pd.DataFrame) -> pd.DataFrame:
    """For each panel and method except reg, CELL of the class count (and λ) with the lowest mean validation MSE.

    Only cells with the most repetitions compete: a mean over fewer is not comparable.
    """
    others = cells_val[(cells_val["classes"] > 0) & (cells_val["repetitions"] > 0)]
    fullest = others.groupby([*PANEL, "method"], sort=False)["repetitions"].transform("max")
    ranked = others[others["repetitions"] == fullest].sort_values("mean", kind="stable")
    return in_order(ranked.drop_duplicates([*PANEL, "method"], keep="first"))[CELL]


def win_shares(networks: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Table 1: the share (%) of networks whose MSE is below that of the reg network of the same function and repetition.

    Columns: PANEL, method; share (of all networks, over functions, classes, λ and repetitions); std (of the shares by repetition; NaN for
    one repetition); networks and repetitions (counts); low, high and p of a one-sample t-test of the shares by repetition against 50 %;
    p_holm, adjusted over all rows.
    """
    reg = networks[networks["method"] == "reg"][[*PANEL, "repetition", "function", metric]].rename(columns={metric: "reg"})
    pairs = networks[networks["classes"] > 0].merge(reg, on=[*PANEL, "repetition", "function"], how="inner")
    pairs["won"] = 100.0 * (pairs[metric] < pairs["reg"])
    rows = []
    for key, cell in pairs.groupby([*PANEL, "method"], sort=False):
        shares = cell.groupby("repetition", sort=True)["won"].mean()
        low, high, p = one_sample(shares.to_numpy(), against=50.0)
        row = {"share": cell["won"].mean(), "std": shares.std(), "networks": len(cell), "repetitions": len(shares)}
        rows.append(dict(zip([*PANEL, "method"], key, strict=True)) | row | {"low": low, "high": high, "p": p})
    columns = [*PANEL, "method", "share", "std", "networks", "repetitions", "low", "high", "p"]
    return in_order(_adjusted(_table(rows, columns)))
