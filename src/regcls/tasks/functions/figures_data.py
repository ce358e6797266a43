"""Figures 1 and 2: the 1D data."""

from itertools import pairwise
from typing import Protocol, get_args

import matplotlib
import numpy as np
import pandas as pd

from regcls.data.splits import Split
from regcls.reports.drawing import grid_of_axes, style, to_svg
from regcls.tasks.functions.params import Sampling

BANDS = 4  # gray bands, for as many classes, as in the paper
BINS = 100  # of y, for density and log-counts
POINTS = 2000  # maximum per split in Figure 1; more would hide each other
SPLIT_LOOKS: dict[Split, tuple[str, str]] = {
    "train": ("#1f4e79", "training"),
    "val": ("#7fa8c9", "validation"),
    "test": ("#d97706", "test"),
}


class FunctionSets(Protocol):
    """The prepared 1D data."""

    def get(self, data: str, sampling: Sampling, function: int, repetition: int, split: Split, /) -> tuple[np.ndarray, np.ndarray]:
        """x and y of one split, (N,) float32 each; `data`: see runs.data_key."""
        ...


def settings_points(sets: FunctionSets, data_keys: list[str]) -> pd.DataFrame:
    """The points of Figure 1, of function 0 (repetition 0, uniform sampling): data, split, x, y.

    Training samples, and for ood, where the splits differ, all three splits.
    """
    drawn: list[tuple[str, Split]] = [(key, split) for key in data_keys for split in (get_args(Split) if key == "ood" else ("train",))]
    parts = []
    for key, split in drawn:
        x, y = sets.get(key, "uniform", 0, 0, split)
        indices = _thinned(y)
        parts.append(pd.DataFrame({"data": key, "split": split, "x": x[indices], "y": y[indices]}))
    return pd.concat(parts, ignore_index=True)


def _thinned(y: np.ndarray) -> np.ndarray:
    """Indices of at most POINTS evenly spaced points, including the extremes of y, which determine the bands."""
    if len(y) <= POINTS:
        return np.arange(len(y))
    evenly = np.linspace(0, len(y) - 1, POINTS - 2).round().astype(int)
    return np.unique([*evenly, y.argmin(), y.argmax()])


def settings_figure(points: pd.DataFrame) -> str:
    """Figure 1, from `settings_points`: each setting, with its range of y in 4 classes."""
    data_keys = points["data"].unique().tolist()
    with style():
        figure, axes = grid_of_axes(1, len(data_keys), width=3.4, height=2.1, head=0.6)
        for ax, key in zip(axes[0], data_keys, strict=True):
            panel = points[points["data"] == key]
            _bands(ax.axhspan, panel.loc[panel["split"] == "train", "y"].to_numpy())
            splits: list[Split] = panel["split"].unique().tolist()
            for split in splits:
                colour, label = SPLIT_LOOKS[split]
                part = panel[panel["split"] == split]
                ax.scatter(part["x"], part["y"], s=4, c=colour, linewidths=0, rasterized=True)
                ax.plot([], [], "o", color=colour, label=label)
            if key.startswith("noisy") and "clean" in data_keys:
                line = points[points["data"] == "clean"].sort_values("x", kind="stable")
                ax.plot(line["x"], line["y"], color="#c62828", linewidth=1.0, label="without noise")
            ax.set_title(key, loc="left")
            ax.set_xlabel("x")
            ax.set_xticks([-1, -0.5, 0, 0.5, 1])
            ax.grid(False)
            if len(splits) > 1 or key.startswith("noisy"):
                ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.08), ncols=3, fontsize=8, handletextpad=0.2, columnspacing=0.8)
        axes[0, 0].set_ylabel("y")
        return to_svg(figure)


def samplings_counts(sets: FunctionSets, data_key: str, samplings: list[Sampling]) -> pd.DataFrame:
    """The histograms of Figure 2, of y of function 0 (repetition 0, training data): sampling, bin_low, bin_high, count."""
    values = [sets.get(data_key, sampling, 0, 0, "train")[1] for sampling in samplings]
    edges = np.linspace(min(y.min() for y in values), max(y.max() for y in values), BINS + 1)
    bins = {"bin_low": edges[:-1], "bin_high": edges[1:]}
    parts = [
        pd.DataFrame({"sampling": name} | bins | {"count": np.histogram(y, edges)[0]}) for name, y in zip(samplings, values, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def samplings_figure(sets: FunctionSets, data_key: str, counts: pd.DataFrame) -> str:
    """Figure 2: training data of function 0 under each sampling (darker: denser in y), with log-scale `samplings_counts` below."""
    samplings: list[Sampling] = counts["sampling"].unique().tolist()
    with style():
        figure, axes = grid_of_axes(2, len(samplings), width=2.5, height=1.5, head=0.3)
        top = int(counts["count"].max())
        for column, sampling in enumerate(samplings):
            histogram = counts[counts["sampling"] == sampling]
            edges, count = np.append(histogram["bin_low"], histogram["bin_high"].iloc[-1]), histogram["count"].to_numpy()
            x, y = sets.get(data_key, sampling, 0, 0, "train")
            above, below = axes[:, column]
            density = count[np.clip(np.searchsorted(edges, y, side="right") - 1, 0, BINS - 1)]
            order = np.argsort(density, kind="stable")  # densest on top
            _bands(above.axhspan, y)
            norm = matplotlib.colors.LogNorm(vmin=0.2, vmax=top)  # from below 1, so that the sparsest points are visible
            above.scatter(x[order], y[order], s=4, c=density[order], cmap="Blues", norm=norm, linewidths=0, rasterized=True)
            above.set_title(sampling, loc="left")
            above.set_xlabel("x")
            _bands(below.axvspan, y)
            below.stairs(count, edges, fill=True, color="#1f4e79", baseline=0.5)
            below.set_yscale("log")
            below.set_ylim(0.5, top * 1.6)
            below.set_xlabel("f(x)")
            above.grid(False)
            below.grid(False)
        axes[0, 0].set_ylabel("f(x)")
        axes[1, 0].set_ylabel("training samples")
        return to_svg(figure)


def _bands(span, y: np.ndarray) -> None:  # type: ignore[no-untyped-def]  # axhspan or axvspan, whose stubs differ
    edges = np.linspace(y.min(), y.max(), BANDS + 1)
    for band, (low, high) in enumerate(pairwise(edges)):
        span(low, high, color=str(0.96 - 0.05 * band), linewidth=0, zorder=0)
