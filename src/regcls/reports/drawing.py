"""The style of all figures, and the figure of test error by target over a histogram of the training data. Same input, same bytes."""

import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from regcls.metrics import SHOTS, Shot, ShotGroups
from regcls.reports.measured import method_name
from regcls.reports.picking import records

# The paper's colours: reg red, reg+cls green, balanced classes lime. Markers and dashes distinguish them without colour.
LINES: dict[str, dict[str, Any]] = {
    "reg": {"color": "#c62828", "marker": "", "linestyle": "-"},
    "reg+cls": {"color": "#1b7837", "marker": "o", "linestyle": "-"},
    "reg+cls-bal": {"color": "#8cbf26", "marker": "^", "linestyle": "--"},
}
# For methods that the paper does not have; their lines are dash-dotted.
OTHERS = ("#1f4e79", "#d97706", "#6a3d9a", "#0f766e", "#a16207", "#9d174d")
OTHER_MARKERS = ("d", "v", "p", "X", "P", "D")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "regcls",
    "font.size": 9.0,
    "axes.titlesize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.markersize": 3.5,
    "lines.linewidth": 1.5,
}


@contextmanager
def style() -> Iterator[None]:
    """Our settings on top of matplotlib's defaults, ignoring the user's matplotlibrc."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def to_svg(figure: Figure) -> str:
    """The figure as SVG without a date, so that equal figures give equal files."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, dpi=150)
    return buffer.getvalue()


def grid_of_axes(rows: int, columns: int, *, width: float, height: float, head: float) -> tuple[Figure, np.ndarray]:
    """A figure and its (rows, columns) axes. In inches: `width` and `height` of a panel, and `head`, the space for a legend above.

    Margins are fixed: all panels are alike, and a layout engine takes as long as the drawing itself.
    """
    left, right, bottom, between, under = 0.62, 0.12, 0.48, 0.18, 0.58
    size = (left + right + columns * width + (columns - 1) * between, head + bottom + rows * height + (rows - 1) * under)
    figure = Figure(figsize=size)
    figure.subplots_adjust(left / size[0], bottom / size[1], 1 - right / size[0], 1 - head / size[1], between / width, under / height)
    return figure, figure.subplots(rows, columns, squeeze=False, sharey="row")


def look_of(method: str) -> dict[str, Any]:
    """Colour, marker and line style of a method; for methods that the paper does not have, derived from the name."""
    if method in LINES:
        return LINES[method]
    marker, color = divmod(zlib.crc32(method.encode()), len(OTHERS))
    return {"color": OTHERS[color], "marker": OTHER_MARKERS[marker % len(OTHER_MARKERS)], "linestyle": "-."}


def shades(levels: Sequence[Any]) -> dict[Any, Any]:
    """A colour for each of ordered levels, from dark to light."""
    return dict(zip(levels, colormaps["viridis"](np.linspace(0.0, 0.85, len(levels))), strict=True))


BARS = 200  # most bars of the histogram
GREYS: dict[Shot, str] = {"many": "#bcc3ca", "medium": "#d3d8dd", "few": "#e8ebee"}


def error_by_target(
    lines: pd.DataFrame, histogram: pd.DataFrame, *, target: str, error: str, counted: str, each: str, limits: Mapping[str, float]
) -> str:
    """Error by target, shaded ± std over seeds, over a histogram of the training data on a log axis of its own.

    `lines`: method, classes, weight, start, end, error, std. `histogram`: start, end, count, shot. `target` and `error`: axis labels with
    units. `counted` and `each`: what the histogram counts, and its bin (“training images of each age”). `limits`: name -> count to mark
    with a line.
    """
    with style():
        figure = Figure(figsize=(11.0, 4.3))
        figure.subplots_adjust(0.05, 0.115, 0.94, 0.85)
        back = figure.add_subplot()
        front = back.twinx()
        _bars(back, histogram)
        _lines(front, lines)
        _limits(back, front, limits)
        # The bars use the right axis, which lies behind.
        back.yaxis.set_label_position("right")
        back.yaxis.tick_right()
        front.yaxis.set_label_position("left")
        front.yaxis.tick_left()
        front.patch.set_visible(False)
        back.set_xlabel(target)
        back.set_ylabel(f"{counted} of {each}", color="#59636e")
        front.set_ylabel(error)
        patches = [Patch(color=GREYS[shot], label=f"{shot} {counted}") for shot in SHOTS if (histogram["shot"] == shot).any()]
        handles, labels = front.get_legend_handles_labels()
        handles, labels = [*handles, *patches], [*labels, *(str(patch.get_label()) for patch in patches)]
        figure.legend(handles, labels, loc="upper center", ncols=3, columnspacing=1.4)
        return to_svg(figure)


def _bars(axes: Axes, histogram: pd.DataFrame) -> None:
    for shot, part in histogram.groupby("shot", sort=False):
        colour = GREYS[next(name for name in SHOTS if name == shot)]
        axes.bar(part["start"], part["count"], width=part["end"] - part["start"], align="edge", color=colour, linewidth=0)
    axes.set_ylim(0.7, max(1, histogram["count"].max()) * 2)
    axes.set_yscale("log")
    axes.grid(False)


def _limits(back: Axes, front: Axes, limits: Mapping[str, float]) -> None:
    """Draw the limits on the axis of the bars."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
    for name, value in limits.items():
        if 1 <= value <= back.get_ylim()[1]:
            back.axhline(value, color="#8a949e", linewidth=0.8, linestyle=(0, (2, 2)))
            # On the front axes, so that the error lines do not hide the label.
            placement: dict[str, Any] = {"transform": back.get_yaxis_transform(), "ha": "right", "va": "center", "zorder": 5}
            front.text(0.995, value, f"{name} {value:g}", fontsize=7.5, color="#59636e", bbox=box, **placement)


def _lines(axes: Axes, lines: pd.DataFrame) -> None:
    for _, line in lines.groupby(["method", "classes", "weight"], sort=False):
        row = records(line)[0]
        look = look_of(row["method"])
        middle = (line["start"] + line["end"]) / 2
        every = 1 + len(line) // 40  # more markers would hide the line
        axes.plot(middle, line["error"], label=method_name(row), markevery=every, **{**look, "marker": look["marker"] or "s"})
        spread = line["std"].fillna(0.0)
        axes.fill_between(middle, line["error"] - spread, line["error"] + spread, color=look["color"], alpha=0.16, linewidth=0)
    axes.set_ylim(bottom=0)


def bins_of(targets: np.ndarray, *, whole: bool) -> np.ndarray:
    """Bin edges of the figure: 5 or 1 wide for whole-number targets of a moderate range, else about 30 bins over their range."""
    low, high = float(targets.min()), float(targets.max())
    width = 5.0 if high - low >= 24 else 1.0
    if not whole or high - low > 40 * width:
        step = 10.0 ** np.floor(np.log10(max(high - low, 1e-12) / 30))
        width = next(times * step for times in (1, 2, 5, 10) if high - low <= 40 * times * step)
    return np.arange(np.floor(low / width), np.floor(high / width) + 2) * width


def bin_count(groups: ShotGroups) -> int:
    """The number of bins from the first to the last with training samples."""
    return max(groups.counts) - min(groups.counts) + 1


def histogram(groups: ShotGroups) -> pd.DataFrame:
    """Training samples by bin of the shot groups, merged into at most BARS bars: start, end, count, shot (that of the fullest bin)."""
    first, together = min(groups.counts), -(-bin_count(groups) // BARS)
    counts = np.zeros(-(-bin_count(groups) // together), dtype=int)
    fullest = np.zeros_like(counts)
    for index, count in groups.counts.items():
        counts[(index - first) // together] += count
        fullest[(index - first) // together] = max(fullest[(index - first) // together], count)
    start = groups.low + groups.width * (first + together * np.arange(len(counts)))
    shot = groups.shot_of_counts(fullest)
    return pd.DataFrame({"start": start, "end": start + groups.width * together, "count": counts, "shot": shot})
