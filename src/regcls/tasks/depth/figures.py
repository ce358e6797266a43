"""Figures on depth: training pixels by depth, and a sheet of examples. Same input, same bytes.

Legend: E examples, H × W pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from regcls.reports.drawing import style, to_svg
from regcls.tasks.depth.params import BUCKETS, Groups, by_bucket

SHOWN = 4  # examples on the sheet
HEIGHT = 144  # maximum height of a picture in pixels, since the page embeds them all
Examples = Mapping[str, NDArray[Any]]  # rows (E,), images (E, H, W, 3), truth and prediction (E, H, W) in steps; truth 0: not measured


def training_histogram(pixels: NDArray[np.int64], groups: Groups, deepest: float) -> pd.DataFrame:
    """Training pixels by bucket: bucket, depth_from, depth_to, training_pixels, shot; `pixels` (100,), `deepest`: end of the last one."""
    bucket, per_unit = np.arange(BUCKETS), BUCKETS / deepest
    edges = {"bucket": bucket, "depth_from": bucket / per_unit, "depth_to": (bucket + 1) / per_unit}
    return pd.DataFrame(edges | {"training_pixels": pixels, "shot": by_bucket(groups)})


def errors_of_examples(examples: Mapping[str, Examples], *, per_unit: float) -> pd.DataFrame:
    """Errors of the examples in `sheet`: image (row of the test set), method, pixels (measured), rmse and mae."""
    rows = []
    for method, arrays in examples.items():
        for index in range(min(SHOWN, len(arrays["rows"]))):
            error = _error(arrays, index, per_unit)
            rmse, mae = (float("nan"),) * 2 if not error.count() else (float(np.sqrt((error**2).mean())), float(error.mean()))
            rows.append({"image": int(arrays["rows"][index]), "method": method, "pixels": int(error.count()), "rmse": rmse, "mae": mae})
    return pd.DataFrame(rows, columns=["image", "method", "pixels", "rmse", "mae"])


def _error(arrays: Examples, index: int, per_unit: float) -> "np.ma.MaskedArray[Any, np.dtype[np.float64]]":
    """Absolute error (H, W), masked where nothing is measured."""
    truth, prediction = (arrays[name][index].astype(np.float64) / per_unit for name in ("truth", "prediction"))
    return np.ma.masked_array(np.abs(prediction - truth), truth == 0)


def sheet(examples: Mapping[str, Examples], *, per_unit: float, unit: str) -> str:
    """A sheet with a row per test image; columns: image, measured depth, depth predicted by each method, and absolute error of each.

    All depths share a scale, and so do all errors, up to their 98th percentile. `per_unit`: steps of depth in a `unit`.
    """
    methods, first, in_unit = list(examples), next(iter(examples.values())), f" ({unit})" if unit else ""
    shown = range(min(SHOWN, len(first["rows"])))
    errors = {method: [_error(examples[method], index, per_unit) for index in shown] for method in methods}
    deepest = max(int(arrays[name][: len(shown)].max()) for arrays in examples.values() for name in ("truth", "prediction")) / per_unit
    all_errors = np.concatenate([error.compressed() for by_image in errors.values() for error in by_image])
    worst = float(np.quantile(all_errors, 0.98)) if all_errors.size else 1.0
    depth_scale, error_scale = Normalize(0, deepest or 1.0), Normalize(0, worst or 1.0)
    with style():
        figure, axes = _grid(first["images"].shape[1:3], rows=len(shown), columns=2 + 2 * len(methods))
        for index, row in zip(shown, axes, strict=True):
            measured = first["truth"][index]
            depths = [measured, *(examples[method]["prediction"][index] for method in methods)]
            _picture(row[0], first["images"][index], f"test image {first['rows'][index]}")
            for cell, depth in zip(row[1:], depths, strict=False):
                _picture(cell, _coloured(np.ma.masked_array(depth / per_unit, (depth == 0) & (depth is measured)), depth_scale, "viridis"))
            for cell, method in zip(row[1 + len(depths) :], methods, strict=True):
                error = errors[method][index]
                text = f"RMSE {np.sqrt((error**2).mean()):.2f} {unit}".rstrip() if error.count() else "nothing measured"
                _picture(cell, _coloured(error, error_scale, "magma_r"), text)
        titles = ["image", "measured", *methods, *(f"|error|, {method}" for method in methods)]
        for cell, title in zip(axes[0], titles, strict=True):
            cell.set_title(title)
        _colour_bar(figure, axes[-1, 1 : 2 + len(methods)], depth_scale, "viridis", f"depth{in_unit}")
        _colour_bar(figure, axes[-1, 2 + len(methods) :], error_scale, "magma_r", f"absolute error{in_unit}; darker above", extend="max")
        return to_svg(figure)


def _grid(size: Sequence[int], *, rows: int, columns: int) -> tuple[Figure, NDArray[Any]]:
    """A grid of axes in the pictures' aspect ratio, with space for titles above, a text under each picture, and colour bars below."""
    width = 11.0 / columns
    height, under, head, foot = (width - 0.08) * size[0] / size[1], 0.2, 0.25, 0.55
    whole = head + rows * (height + under) + foot
    figure = Figure(figsize=(11.0, whole))
    figure.subplots_adjust(0.004, (foot + under) / whole, 0.996, 1 - head / whole, 0.08 / width, under / height)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _coloured(values: "np.ma.MaskedArray[Any, Any]", scale: Normalize, name: str) -> NDArray[np.uint8]:
    """Pixels (H, W, 3); masked values are light grey."""
    colours = colormaps[name].with_extremes(bad="#d9dde1")
    return np.asarray(colours(scale(values), bytes=True)[..., :3])


def _picture(axes: Axes, picture: NDArray[np.uint8], text: str = "") -> None:
    small = Image.fromarray(picture)
    if small.height > HEIGHT:
        small = small.resize((round(small.width * HEIGHT / small.height), HEIGHT), Image.Resampling.BILINEAR)
    axes.imshow(np.asarray(small), interpolation="none", aspect="auto")  # "none": embedded in the SVG at its own size
    axes.set_axis_off()
    axes.text(0.5, -0.03, text, transform=axes.transAxes, ha="center", va="top", fontsize=7.5, color="#59636e")


def _colour_bar(figure: Figure, above: NDArray[Any], scale: Normalize, name: str, label: str, *, extend: str = "neither") -> None:
    first, last = (axes.get_position() for axes in (above[0], above[-1]))
    height = figure.get_size_inches()[1]
    inset = 0.012  # space for the numbers at the ends of adjacent bars
    axes = figure.add_axes((first.x0 + inset, 0.38 / height, last.x1 - first.x0 - 2 * inset, 0.09 / height))
    bar = figure.colorbar(ScalarMappable(scale, name), cax=axes, orientation="horizontal", extend=extend)
    bar.set_label(label, labelpad=1)
    bar.ax.tick_params(length=2, pad=1, labelsize=7.5)
