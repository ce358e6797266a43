"""A few test images with true and predicted depth, as arrays and as a picture.

Legend: E examples, H × W pixels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from regcls.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MOST = 6
DEPTHS, ERRORS = "cividis", "Greys"  # both have monotonic lightness, also in print
NOT_MEASURED = "#f3d9d9"


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Examples from the test set."""

    rows: NDArray[np.int64]  # (E,)
    images: NDArray[np.uint8]  # (E, H, W, 3)
    truth: NDArray[np.uint16]  # (E, H, W), in the steps of the test set: millimetres for NYUD2-DIR; 0: not measured
    prediction: NDArray[np.uint16]  # (E, H, W), in the same steps


def example_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most MOST rows of a test set, evenly spaced: the same for all runs."""
    return rows[np.linspace(0, len(rows) - 1, min(MOST, len(rows))).round().astype(np.int64)]


def write_examples(examples: Examples, folder: Path, *, per_unit: float, unit: str) -> dict[str, Path]:
    """Write examples.npz and examples.png to `folder`; return name -> file. `per_unit`: steps of depth in a `unit`.

    Raises:
        UserError: the disk is full or the folder is not writable.
    """
    arrays, sheet = folder / "examples.npz", folder / "examples.png"

    def save(aside: Path) -> None:
        with aside.open("wb") as handle:
            np.savez_compressed(handle, **vars(examples))

    write_atomically(arrays, save)
    figure = _sheet(examples, per_unit, unit)
    write_atomically(sheet, lambda aside: figure.savefig(aside, format="png", dpi=110, metadata={"Software": None}))
    return {file.name: file for file in (arrays, sheet)}


def _sheet(examples: Examples, per_unit: float, unit: str) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # training alone, as in benchmarks, needs no Matplotlib
    from matplotlib.figure import Figure

    count, (height, width) = len(examples.rows), examples.truth.shape[1:]
    depths = [part.astype(np.float32) / per_unit for part in (examples.truth, examples.prediction)]
    measured = examples.truth > 0
    truth, error = (np.where(measured, part, np.nan) for part in (depths[0], np.abs(depths[1] - depths[0])))
    deepest, worst = float(np.nanmax(truth)), float(np.nanpercentile(error, 99))
    figure = Figure(figsize=(9.6, 0.8 + count * 2.25 * height / width))
    FigureCanvasAgg(figure)
    axes = figure.subplots(count, 4, squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.05})
    figure.subplots_adjust(0.005, 0.62 / figure.get_figheight(), 0.995, 1 - 0.24 / figure.get_figheight())
    for index, row in enumerate(axes):
        row[0].imshow(examples.images[index])
        depth_image = row[1].imshow(truth[index], cmap=DEPTHS, vmin=0, vmax=deepest)
        row[2].imshow(depths[1][index], cmap=DEPTHS, vmin=0, vmax=deepest)
        error_image = row[3].imshow(error[index], cmap=ERRORS, vmin=0, vmax=worst)
        for cell in row:
            cell.set(xticks=[], yticks=[], facecolor=NOT_MEASURED)
    for cell, title in zip(axes[0], ("image", "truth", "prediction", "absolute error"), strict=True):
        cell.set_title(title, fontsize=9)
    _bar(figure, depth_image, list(axes[-1][1:3]), f"depth{f' ({unit})' if unit else ''}")
    _bar(figure, error_image, [axes[-1][3]], f"error{f' ({unit})' if unit else ''}")
    return figure


def _bar(figure: "Figure", image: "AxesImage", columns: "list[Axes]", label: str) -> None:
    """Add a colour bar of `image` below `columns`."""
    boxes = [axes.get_position() for axes in columns]
    inch = 1 / figure.get_figheight()
    bar_axes = figure.add_axes((boxes[0].x0, 0.42 * inch, boxes[-1].x1 - boxes[0].x0, 0.1 * inch))
    bar = figure.colorbar(image, cax=bar_axes, orientation="horizontal", extend="neither")
    bar.ax.tick_params(labelsize=8)
    bar.set_label(f"{label}; pink: not measured" if label.startswith("error") else label, fontsize=8, labelpad=1)
