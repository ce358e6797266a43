"""The legend of the figures of the 1D study; for their content, see test_report.py."""

import numpy as np
import pytest

from regcls.reports.drawing import grid_of_axes, style
from regcls.tasks.functions import figures

PAPER = ["reg", "reg+cls", "reg+cls-bal"]
RELEASED = [f"{name}, released, not comparable" for name in PAPER]
OTHERS = ["focal-r", "focal-r(beta=0.5,gamma=2)", "focal-r+cls", "focal-r+cls-bal"]


@pytest.mark.parametrize("columns", [1, 2, 4])
@pytest.mark.parametrize("labels", [PAPER, PAPER + OTHERS, PAPER + RELEASED, PAPER + OTHERS + RELEASED])
def test_the_legend_fits_above_the_panels_without_shrinking_them(labels: list[str], columns: int) -> None:
    with style():
        figure, axes = grid_of_axes(2, columns, width=2.5, height=1.55, head=0.62)
        axes[0, 0].set_title("clean, uniform", loc="left")
        for label in labels:
            axes[0, 0].plot([1, 2], [1, 2], label=label)
        figures.legend(figure, axes)
        figure.draw_without_rendering()
        inches = figure.dpi
        legend, title = (part.get_window_extent() for part in (figure.legends[0], axes[0, 0]._left_title))
        width, height = figure.get_size_inches() * inches
        panels = [box.get_position().size * figure.get_size_inches() for box in axes.flat]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == labels
    assert 0 <= legend.x0 < legend.x1 <= width and title.y1 < legend.y0 < legend.y1 <= height
    np.testing.assert_allclose(panels, [[2.5, 1.55]] * (2 * columns), atol=1e-9)
