"""The figure on faces: test error by age, with the training images of each age behind it. Same input, same bytes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from regcls.metrics import SHOTS, Shot, shot_of
from regcls.params.faces import ShotLimits
from regcls.reports.faces_collect import method_name
from regcls.reports.figures import LINES, style, to_svg
from regcls.reports.picking import records

GREYS: dict[Shot, str] = {"many": "#bcc3ca", "medium": "#d3d8dd", "few": "#e8ebee"}


def training_histogram(counts: Mapping[int, int], limits: ShotLimits) -> pd.DataFrame:
    """Training images by integer age, ages without any included: age, training_images, shot."""
    ages = np.arange(min(counts), max(counts) + 1)
    shots = shot_of(ages, counts, many_above=limits.many_above, few_below=limits.few_below)
    return pd.DataFrame({"age": ages, "training_images": [counts.get(age, 0) for age in ages.tolist()], "shot": shots})


def error_by_age(lines: pd.DataFrame, histogram: pd.DataFrame, limits: ShotLimits) -> str:
    """Test MAE by age (`faces_stats.error_by_age`), shaded ± std over seeds, over `training_histogram` on a log axis of its own."""
    with style():
        figure = Figure(figsize=(11.0, 4.3))
        figure.subplots_adjust(0.05, 0.115, 0.94, 0.85)
        back = figure.add_subplot()
        front = back.twinx()
        _bars(back, histogram)
        _lines(front, lines)
        _limits(back, front, limits)
        # The right axis is that of the bars, and lies behind.
        back.yaxis.set_label_position("right")
        back.yaxis.tick_right()
        front.yaxis.set_label_position("left")
        front.yaxis.tick_left()
        front.patch.set_visible(False)
        back.set_xlabel("age (years)")
        back.set_ylabel("training images of an age", color="#59636e")
        front.set_ylabel("test MAE (years)")
        shown = [Patch(color=GREYS[shot], label=f"{shot} training images") for shot in SHOTS if (histogram["shot"] == shot).any()]
        handles, labels = front.get_legend_handles_labels()
        handles, labels = [*handles, *shown], [*labels, *(str(patch.get_label()) for patch in shown)]
        figure.legend(handles, labels, loc="upper center", ncols=3, columnspacing=1.4)
        return to_svg(figure)


def _bars(axes: Axes, histogram: pd.DataFrame) -> None:
    for shot, part in histogram.groupby("shot", sort=False):
        axes.bar(part["age"] + 0.5, part["training_images"], width=1.0, color=GREYS[_shot(shot)], linewidth=0)
    top = histogram["training_images"].max()
    axes.set_yscale("log")
    axes.set_ylim(0.7, top * 2)
    axes.grid(False)


def _limits(back: Axes, front: Axes, limits: ShotLimits) -> None:
    """Where many and few begin, on the axis of the bars."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
    for value, name in ((limits.many_above, "many: above"), (limits.few_below, "few: below")):
        if 1 <= value <= back.get_ylim()[1]:
            back.axhline(value, color="#8a949e", linewidth=0.8, linestyle=(0, (2, 2)))
            # Among the lines, so that they do not hide it.
            where: dict[str, Any] = {"transform": back.get_yaxis_transform(), "ha": "right", "va": "center", "zorder": 5}
            front.text(0.995, value, f"{name} {value}", fontsize=7.5, color="#59636e", bbox=box, **where)


def _shot(name: Any) -> Shot:
    return next(shot for shot in SHOTS if shot == name)


def _lines(axes: Axes, lines: pd.DataFrame) -> None:
    for _, line in lines.groupby(["method", "classes", "lam"], dropna=False, sort=False):
        row = records(line)[0]
        look = LINES[row["method"]]
        middle = (line["age_from"] + line["age_to"]) / 2
        axes.plot(middle, line["mae"], label=method_name(row), **{**look, "marker": look["marker"] or "s"})
        spread = line["std"].fillna(0.0)
        axes.fill_between(middle, line["mae"] - spread, line["mae"] + spread, color=look["color"], alpha=0.16, linewidth=0)
    axes.set_ylim(bottom=0)
