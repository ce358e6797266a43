"""Figures 3, 4 and 5 as SVG, from frames of `compared.cells`. Same input, same bytes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regcls.methods import has_classes
from regcls.reports.drawing import grid_of_axes, look_of, shades, style, to_svg
from regcls.reports.picking import records
from regcls.tasks.functions.collected import PANEL, data_name, in_order

LEGEND_LINE = 0.205  # inches


def mse_by_classes(
    cells: pd.DataFrame, *, gaps: pd.DataFrame | None = None, published: pd.DataFrame | None = None, released: str = "released"
) -> str:
    """Figures 3 and 5: test MSE by number of classes; rows: setting and noise; columns: sampling.

    `gaps` (`compared.gaps`): printed above each panel. `published` (`published.released`): added as dotted lines, labelled `released`.
    """
    with style():
        panels, rows, columns = layout(cells)
        counts = sorted(cells.loc[cells["classes"] > 0, "classes"].unique())
        figure, axes = grid_of_axes(len(rows), len(columns), width=2.5, height=1.55, head=0.62)
        for (setting, noise, sampling), panel in panels:
            ax = axes[rows.index((setting, noise)), columns.index(sampling)]
            _methods_by_classes(ax, panel, counts)
            if published is not None:
                _dotted(ax, _at(published, setting, noise, sampling), counts, released)
            ax.set_xscale("log", base=2)
            ax.set_xticks(counts or [1], list(map(str, counts)) or [""], minor=False)
            ax.minorticks_off()
            ax.set_xlim(min(counts, default=1) / 1.35, max(counts, default=1) * 1.35)
            gap = "" if gaps is None else _gap_text(_at(gaps, setting, noise, sampling))
            _titles(ax, f"{data_name(setting, noise)}, {sampling}", gap, panel)
        outer_labels(axes, "number of classes", "test MSE")
        legend(figure, axes)
        return to_svg(figure)


def mse_by_lambda(cells: pd.DataFrame) -> str:
    """Figure 4: validation MSE by λ, a line per number of classes; rows: setting × (uniform, balanced classes); columns: sampling."""
    with style():
        panels, data, columns = layout(cells)
        methods = in_order(cells[cells["classes"] > 0])["method"].unique().tolist() or ["reg"]
        rows = [(*setting_and_noise, method) for setting_and_noise in data for method in methods]
        counts = sorted(cells.loc[cells["classes"] > 0, "classes"].unique())
        colours = shades(counts)
        figure, axes = grid_of_axes(len(rows), len(columns), width=2.5, height=1.45, head=0.62)
        for (setting, noise, sampling), panel in panels:
            for method in methods:
                ax = axes[rows.index((setting, noise, method)), columns.index(sampling)]
                shown = panel[panel["method"].isin(["reg", method])]
                _classes_by_lambda(ax, shown, colours)
                kind = {"reg": "", "reg+cls": "uniform classes", "reg+cls-bal": "balanced classes"}.get(method, method)
                _titles(ax, f"{data_name(setting, noise)}, {sampling}", kind, shown)
        outer_labels(axes, "λ", "validation MSE")
        legend(figure, axes)
        return to_svg(figure)


def layout(cells: pd.DataFrame) -> tuple[list[tuple[tuple[Any, ...], pd.DataFrame]], list[tuple[str, float]], list[str]]:
    """The panels, their rows (setting, noise) and columns (samplings), in the paper's order."""
    ordered = in_order(cells)
    panels = list(ordered.groupby(PANEL, sort=False))
    rows = list(ordered[["setting", "noise"]].drop_duplicates().itertuples(index=False, name=None))
    first = in_order(ordered[["sampling"]].drop_duplicates())
    return panels, rows, first["sampling"].tolist()


def _at(table: pd.DataFrame, setting: str, noise: float, sampling: str) -> pd.DataFrame:
    return table[(table["setting"] == setting) & np.isclose(table["noise"], noise) & (table["sampling"] == sampling)]


def _methods_by_classes(axes: Axes, panel: pd.DataFrame, counts: Sequence[int]) -> None:
    several = panel.groupby("method")["lam"].nunique().max() > 1
    key: Any  # pandas-stubs know it as a tuple of Hashable
    for key, line in panel.groupby(["method", "lam"], dropna=False, sort=False):
        method, lam = key
        points = line[line["repetitions"] > 0]
        look = look_of(method)
        if not has_classes(method):
            _horizontal(axes, points, "std", look, method)
            continue
        axes.plot(points["classes"], points["mean"], label=f"{method}, λ {lam:g}" if several and lam > 0 else method, **look)
        _shade(axes, points["classes"], points["mean"], points["std"], look["color"], alpha=0.14)


def _horizontal(axes: Axes, points: pd.DataFrame, spread: str, look: Mapping[str, Any], label: str) -> None:
    """Draw a horizontal line for what is trained once for all values of the horizontal axis."""
    for row in records(points):
        axes.axhline(row["mean"], label=label, color=look["color"], linestyle=look["linestyle"])
        axes.axhspan(row["mean"] - row[spread], row["mean"] + row[spread], color=look["color"], alpha=0.10, linewidth=0)


def _shade(axes: Axes, x: "pd.Series[float]", mean: "pd.Series[float]", std: "pd.Series[float]", colour: Any, *, alpha: float) -> None:
    axes.fill_between(x, mean - std, mean + std, color=colour, alpha=alpha, linewidth=0)


def _dotted(axes: Axes, published: pd.DataFrame, counts: Sequence[int], released: str) -> None:
    for method, line in published[published["classes"].isin(counts)].groupby("method", sort=False):
        colour = look_of(str(method))["color"]
        axes.plot(line["classes"], line["published"], ":", color=colour, linewidth=1.8, label=f"{method}, {released}")


def _classes_by_lambda(axes: Axes, panel: pd.DataFrame, colours: dict[int, Any]) -> None:
    key: Any
    for key, line in panel.groupby(["method", "classes"], sort=False):
        method, classes = key
        points = line[line["repetitions"] > 0]
        if method == "reg":
            _horizontal(axes, points, "std_repetitions", look_of(method), method)
            continue
        if line["lam"].isna().all():  # it has no λ either
            look = {"color": colours[classes], "linestyle": "-"}
            _horizontal(axes, points, "std_repetitions", look, f"{classes} classes")
            continue
        look = {"marker": "o", "markersize": 2.5, "linewidth": 1.2, "color": colours[classes]}
        axes.plot(points["lam"], points["mean"], label=f"{classes} classes", **look)
        _shade(axes, points["lam"], points["mean"], points["std_repetitions"], colours[classes], alpha=0.10)
    axes.set_xscale("log")
    lambdas = panel["lam"].dropna()
    if len(lambdas):
        axes.set_xlim(lambdas.min() / 2, lambdas.max() * 2)


def _gap_text(gaps: pd.DataFrame) -> str:
    gap = gaps.loc[gaps["method"] == "reg+cls", "gap"]
    return "" if gap.empty else f"gap {gap.iloc[0]:+.3f}".replace("-", "−")


def _titles(axes: Axes, left: str, right: str, panel: pd.DataFrame) -> None:
    axes.set_title(left, loc="left")
    axes.set_title(right, loc="right", color="#555555")
    finished, wanted = panel["repetitions"], panel["repetitions_wanted"]
    if (finished < wanted).any():
        few, many = finished.min(), finished.max()
        n = "no runs" if many == 0 else f"holes: n = {few if few == many else f'{few} to {many}'} of {wanted.max()}"
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
        axes.text(0.02, 0.06, n, transform=axes.transAxes, fontsize=7.5, color="#b45309", bbox=box, zorder=5)


def outer_labels(axes: np.ndarray, x: str, y: str) -> None:
    """Label the axes at the left and at the bottom of a figure."""
    for row in axes:
        row[0].set_ylabel(y)
    for ax in axes[-1]:
        ax.set_xlabel(x)


def legend(figure: Figure, axes: np.ndarray) -> None:
    """One legend above all panels; the figure grows if it takes several lines."""
    entries: dict[str, Any] = {}
    for ax in axes.flat:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if not entries:
        return
    width, height = figure.get_size_inches()
    columns = next((n for n in range(min(7, len(entries)), 1, -1) if _legend_width(list(entries), n) <= width), 1)
    figure.legend(list(entries.values()), list(entries), loc="upper center", ncols=columns)
    more = LEGEND_LINE * max(0, -(-len(entries) // columns) - 1)  # `head` has space for one line
    figure.set_figheight(height + more)
    figure.subplots_adjust(
        bottom=figure.subplotpars.bottom * height / (height + more), top=figure.subplotpars.top * height / (height + more)
    )


def _legend_width(labels: Sequence[str], columns: int) -> float:
    """Approximate width in inches."""
    return sum(0.6 + 0.075 * max(map(len, column)) for column in np.array_split(labels, columns))


def points(cells: pd.DataFrame, value: str, *, repeat_reg: bool) -> pd.DataFrame:
    """The points of a figure, one per row, with the mean in column `value`; `repeat_reg`: repeat reg for each class count."""
    reg, others = cells[cells["classes"] == 0], cells[cells["classes"] > 0]
    if repeat_reg:
        counts = others[["classes"]].drop_duplicates()
        reg = reg.drop(columns="classes").merge(counts, how="cross")
    table = in_order(pd.concat([reg, others], ignore_index=True)).rename(columns={"mean": value, "lam": "lambda"})
    panel = [f"{data_name(setting, noise)}, {sampling}" for setting, noise, sampling in table[PANEL].itertuples(index=False, name=None)]
    front = ["panel", *PANEL, "method", "classes", "lambda"]
    return table.assign(panel=panel)[[*front, *(column for column in table.columns if column not in front)]]
