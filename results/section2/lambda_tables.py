"""The weight λ of Eq. 4: the best one, the trend, and the wins by λ."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from classes_tables import BALANCED, HOLM, UNIFORM, by_method, data, gap_text, outcomes, row_cells, versus

from regcls.reports.picking import records
from regcls.reports.stats import holm
from regcls.reports.tables import Table, number, p_value, signed
from regcls.tasks.functions.collected import PANEL, in_order


def shares_by_lambda_table(networks: pd.DataFrame) -> Table:
    """The shares of Table 1 by λ."""
    keys = ["setting", "noise", "method"]
    others = outcomes(networks)
    others["kind"] = np.where(others["sampling"] == "uniform", "uniform", "imbalanced")
    shares_of = others.groupby([*keys, "kind", "lam"], sort=False)["won"].mean().unstack("lam").sort_index(axis=1)
    lambdas = [f"lambda_{lam:g}" for lam in shares_of.columns]
    frame = in_order(shares_of.set_axis(lambdas, axis=1).reset_index())
    rows = [row_cells((data(row), row["kind"], row["method"], *(number(row[name], 1) for name in lambdas)), 3) for row in records(frame)]
    return Table(
        name="table1_lambda",
        caption="Table 1 by λ: share (%) of networks with MSE(method) < MSE(reg), over functions, class counts, repetitions and samplings.",
        columns=("data", "sampling", "method", *(f"λ {lam:g}" for lam in shares_of.columns)),
        rows=tuple(rows),
        frame=frame,
        notes=("Validation MSE, as in Table 1. Imbalanced: mild, moderate and severe. Not tested.",),
    )


def best_of(means: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The rows of `means` with the lowest mean, one per `keys`."""
    best: pd.DataFrame = means.sort_values("val_mse", kind="stable").drop_duplicates(list(keys))
    return best


def best_lambdas(networks: pd.DataFrame) -> pd.DataFrame:
    """For each panel, method and class count, the λ with the lowest mean validation MSE, and how many λ have a lower one than reg."""
    keys = [*PANEL, "method", "classes"]
    means = networks.groupby([*keys, "lam"], dropna=False, sort=False)["val_mse"].mean().reset_index()
    reg = means.loc[means["method"] == "reg", [*PANEL, "val_mse"]].rename(columns={"val_mse": "reg"})
    others = means[means["method"] != "reg"].merge(reg, on=PANEL)
    others["below"] = others["val_mse"] < others["reg"]
    counts = others.groupby(keys, sort=False)["below"].agg(lambdas_below_reg="sum", lambdas="size").reset_index()
    best = best_of(others, keys).rename(columns={"lam": "best_lambda"}).drop(columns="below")
    return in_order(best.merge(counts, on=keys))


def chosen_on_others(networks: pd.DataFrame) -> pd.DataFrame:
    """Test MSE of reg and of a method whose λ, for each class count, has the lowest validation MSE in the other repetitions."""
    keys = [*PANEL, "method", "classes"]
    means = networks.groupby([*keys, "lam", "repetition"], dropna=False, sort=False)[["val_mse", "test_mse"]].mean().reset_index()
    parts = []
    for repetition in sorted(means["repetition"].unique()):
        others = means[means["repetition"] != repetition].groupby([*keys, "lam"], dropna=False, sort=False)["val_mse"].mean().reset_index()
        chosen = best_of(others, keys)[[*keys, "lam"]]
        parts.append(means[means["repetition"] == repetition].merge(chosen, on=[*keys, "lam"]))
    return by_method(pd.concat(parts), "test_mse")


def best_lambda_table(networks: pd.DataFrame) -> Table:
    """The best λ of each panel and class count, and what remains of its advantage if λ is chosen on other repetitions."""
    best, test = best_lambdas(networks), chosen_on_others(networks)
    parts = []
    for method in (UNIFORM, BALANCED):
        means = test.groupby(PANEL, sort=False)[["reg", method]].mean().set_axis(["test_reg", "test_method"], axis=1).reset_index()
        parts.append(versus(test, PANEL, "test", ("reg", method)).assign(method=method).merge(means, on=PANEL))
    tests = pd.concat(parts)
    tests["test_p_holm"] = holm(tests["test_p"].tolist())
    below = best.groupby([*PANEL, "method"], sort=False)[["lambdas_below_reg", "lambdas"]].sum().reset_index()
    frame = in_order(below.merge(tests, on=[*PANEL, "method"]))
    counts = sorted(best["classes"].unique())
    lambdas = best.set_index([*PANEL, "method", "classes"])
    rows = []
    for row in records(frame):
        cells = [lambdas.loc[(*(row[key] for key in PANEL), row["method"], count)] for count in counts]
        texts = [f"{cell['best_lambda']:g}: {number(cell['val_mse'], 3)}" for cell in cells]
        reg, own = number(cells[0]["reg"], 3), number(row["test_method"], 3)
        share = f"{row['lambdas_below_reg']} of {row['lambdas']}"
        tested = (number(row["test_reg"], 3), own, gap_text(row, "test"), p_value(row["test_p_holm"]))
        rows.append(row_cells((data(row), row["sampling"], row["method"], reg, *texts, share, *tested), 3))
    return Table(
        name="best_lambda",
        caption="Figure 4: the best λ of each class count with its validation MSE, and the test MSE with λ chosen on other repetitions.",
        columns=(
            *("data", "sampling", "method", "reg (validation)", *(f"{count} classes" for count in counts), "below reg"),
            *("reg (test)", "method (test)", "Δ (95 % interval)", "p (Holm)"),
        ),
        rows=tuple(rows),
        frame=frame,
        notes=(
            "Best λ: of eight, that with the lowest mean validation MSE, so its lead over reg is too good. Below reg: pairs of λ and class "
            "count whose mean validation MSE is below reg's. best_lambda_classes.csv has them for each class count.",
            "Test: for each repetition and class count, the λ with the lowest validation MSE in the other two repetitions; mean over class "
            "counts. Δ = MSE(reg) − MSE(method), above 0 the method helps.",
            HOLM.format(tests=len(frame), n=int(frame["test_n"].max())),
        ),
    )


def lambda_means_table(networks: pd.DataFrame) -> Table:
    """Validation MSE by λ over all class counts, and whether it falls as λ grows."""
    keys = [*PANEL, "method"]
    means = networks.groupby([*keys, "lam"], dropna=False, sort=False)["val_mse"].mean().unstack("lam")
    others = means.drop(index="reg", level="method").dropna(axis=1, how="all").sort_index(axis=1)
    reg = networks[networks["method"] == "reg"].groupby(PANEL)["val_mse"].mean().rename("reg").reset_index()
    values = others.to_numpy()
    others["falls"] = (np.diff(values, axis=1) < 0).sum(axis=1)
    others["rank_correlation"] = [float(np.corrcoef(np.arange(len(row)), row.argsort().argsort())[0, 1]) for row in values]
    others["best"] = [others.columns[place] for place in values.argmin(axis=1)]
    others["range_from_10"] = np.ptp(values[:, others.columns[: values.shape[1]] >= 10], axis=1)
    frame = in_order(others.reset_index().merge(reg, on=PANEL))
    lambdas = [name for name in frame.columns if isinstance(name, float)]
    rows = []
    for row, own in zip(records(frame), frame[lambdas].to_numpy(), strict=True):
        texts = [number(value, 3) for value in (row["reg"], *own)]
        order = (f"{row['best']:g}", f"{row['falls']} of {len(lambdas) - 1}", signed(row["rank_correlation"], 2))
        order = (*order, number(row["range_from_10"], 3))
        rows.append(row_cells((data(row), row["sampling"], row["method"], *texts, *order), 3))
    return Table(
        name="lambda",
        caption="Figure 4 over all class counts: validation MSE by λ, the mean over functions, repetitions and class counts.",
        columns=(
            "data",
            "sampling",
            "method",
            "reg",
            *(f"λ {lam:g}" for lam in lambdas),
            "best λ",
            "falls",
            "rank correlation",
            "range, λ ≥ 10",
        ),
        rows=tuple(rows),
        frame=frame.rename(columns={lam: f"lambda_{lam:g}" for lam in lambdas}),
        notes=(
            "Falls: steps to the next larger λ at which the MSE falls. Rank correlation: Spearman's, of λ and MSE; −1: the MSE falls with "
            "every step. Range: largest − smallest MSE from λ 10 on.",
        ),
    )
