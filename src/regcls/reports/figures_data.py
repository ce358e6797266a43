"""Figures 1 and 2: what the 1D data look like."""

from itertools import pairwise
from typing import Literal, Protocol

import matplotlib
import numpy as np

from regcls.params import Sampling
from regcls.reports.figures import grid_of_axes, style, to_svg

BANDS = 4  # classes that the gray shading shows, as in the paper
BINS = 100  # of y, for density and log-counts
Split = Literal["train", "val", "test"]
SPLIT_LOOKS: dict[Split, tuple[str, str]] = {
    "train": ("#1f4e79", "training"),
    "val": ("#7fa8c9", "validation"),
    "test": ("#d97706", "test"),
}


class SyntheticSets(Protocol):
    """The prepared 1D data."""

    def get(self, data: str, sampling: Sampling, function: int, repetition: int, split: Split, /) -> tuple[np.ndarray, np.ndarray]:
        """x and y of one split, 1-D float32; `data` as in runs.data_key."""
        ...


def settings_figure(sets: SyntheticSets, data_keys: list[str]) -> str:
    """Figure 1: function 0 in every setting, with its range of y in 4 classes; for ood, where they lie apart, all three splits."""
    with style():
        figure, axes = grid_of_axes(1, len(data_keys), width=3.4, height=2.1, head=0.6)
        for here, key in zip(axes[0], data_keys, strict=True):
            _bands(here.axhspan, sets.get(key, "uniform", 0, 0, "train")[1])
            splits: tuple[Split, ...] = ("train", "val", "test") if key == "ood" else ("train",)
            for split in splits:
                colour, label = SPLIT_LOOKS[split]
                here.scatter(
                    *sets.get(key, "uniform", 0, 0, split), s=2 if key.startswith("noisy") else 4, c=colour, linewidths=0, rasterized=True
                )
                here.plot([], [], "o", color=colour, label=label)
            if key.startswith("noisy") and "clean" in data_keys:
                line_x, line_y = sets.get("clean", "uniform", 0, 0, "train")
                order = np.argsort(line_x)
                here.plot(line_x[order], line_y[order], color="#c62828", linewidth=1.0, label="without noise")
            here.set_title(key, loc="left")
            here.set_xlabel("x")
            here.set_xticks([-1, -0.5, 0, 0.5, 1])
            here.grid(False)
            if len(splits) > 1 or key.startswith("noisy"):
                here.legend(loc="lower center", bbox_to_anchor=(0.5, 1.08), ncols=3, fontsize=8, handletextpad=0.2, columnspacing=0.8)
        axes[0, 0].set_ylabel("y")
        return to_svg(figure)


def samplings_figure(sets: SyntheticSets, data_key: str, samplings: list[Sampling]) -> str:
    """Figure 2: training data of function 0 under each sampling (darker: denser in y), and below them the log-counts of y."""
    with style():
        figure, axes = grid_of_axes(2, len(samplings), width=2.5, height=1.5, head=0.3)
        data = [sets.get(data_key, sampling, 0, 0, "train") for sampling in samplings]
        edges = np.linspace(min(y.min() for _, y in data), max(y.max() for _, y in data), BINS + 1)
        counts = [np.histogram(y, edges)[0] for _, y in data]
        top = max(count.max() for count in counts)
        for column, (sampling, (x, y), count) in enumerate(zip(samplings, data, counts, strict=True)):
            above, below = axes[:, column]
            density = count[np.clip(np.searchsorted(edges, y, side="right") - 1, 0, BINS - 1)]
            order = np.argsort(density, kind="stable")  # the densest on top
            _bands(above.axhspan, y)
            norm = matplotlib.colors.LogNorm(vmin=0.2, vmax=top)  # from below 1, so that the sparsest points are still seen
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
