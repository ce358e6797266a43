"""Figures on videos: progress curves of a few test videos, and lengths of the videos. Same input, same bytes."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from regcls.reports.drawing import grid_of_axes, look_of, style, to_svg
from regcls.tasks.sequences.compared import SHOWN
from regcls.tasks.sequences.params import Unit

PANELS = (0.05, 0.2, 0.4, 0.6, 0.8, 0.95)  # quantiles of the lengths of test videos to draw
COLUMNS = 3
POINTS = 300  # maximum number of points of a curve
BINS = 40  # of video lengths
GREY = "#bcc3ca"


def activity_of(video: str) -> str:
    """`P03_cam01_P03_coffee` -> `coffee`."""
    return video.rpartition("_")[2]


def drawn_videos(lengths: Mapping[str, int]) -> list[str]:
    """Short to long videos, near the quantiles in PANELS, preferably of different activities; deterministic."""
    ranked = sorted(lengths, key=lambda video: (lengths[video], video))
    drawn: list[str] = []
    for quantile in PANELS[: len(ranked)]:
        target = quantile * (len(ranked) - 1)
        nearest = sorted((name for name in ranked if name not in drawn), key=lambda name: abs(ranked.index(name) - target))
        used = {activity_of(name) for name in drawn}
        drawn.append(next((name for name in nearest[: len(ranked) // 8] if activity_of(name) not in used), nearest[0]))
    return sorted(drawn, key=ranked.index)


def progress_curves(predictions: Mapping[str, pd.DataFrame], videos: Sequence[str], lengths: Mapping[str, int], unit: Unit) -> pd.DataFrame:
    """Progress of videos over their frames: video, method (`true`: the target), frame, progress (% or frames).

    `predictions`: by method, of runs with this unit. Each curve has at most POINTS evenly spaced frames, including the first and the last.
    """
    parts = []
    for video in videos:
        frames = np.unique(np.linspace(0, lengths[video] - 1, POINTS).round().astype(int))
        whole = lengths[video] if unit == "percent" else 1
        parts.append(pd.DataFrame({"video": video, "method": "true", "frame": frames, "progress": SHOWN[unit] * frames / whole}))
        for method, table in predictions.items():
            curve = table[table["video"] == video].set_index("frame")["prediction"].reindex(frames)
            parts.append(pd.DataFrame({"video": video, "method": method, "frame": frames, "progress": SHOWN[unit] * curve.to_numpy()}))
    return pd.concat(parts, ignore_index=True)


def video_error(table: pd.DataFrame, video: str, lengths: Mapping[str, int], unit: Unit) -> float:
    """RMSE of a run's predictions over all frames of a video, in % or in frames."""
    rows = table[table["video"] == video]
    whole = lengths[video] if unit == "percent" else 1
    return float(SHOWN[unit] * np.sqrt(np.mean((rows["prediction"].to_numpy(dtype=float) - rows["frame"].to_numpy() / whole) ** 2)))


def progress_figure(curves: pd.DataFrame, notes: Mapping[str, str], unit: Unit) -> str:
    """`progress_curves`, a panel per video; `notes`: video -> text above its panel."""
    videos = list(dict.fromkeys(curves["video"]))
    with style():
        rows = -(-len(videos) // COLUMNS)
        figure, axes = grid_of_axes(rows, COLUMNS, width=3.45, height=1.7, head=0.62)
        for video, ax in zip(videos, axes.flat, strict=False):
            for method, line in curves[curves["video"] == video].groupby("method", sort=False):
                look = {"color": "#1c2126", "linestyle": (0, (4, 2))} if method == "true" else {"color": look_of(str(method))["color"]}
                ax.plot(line["frame"], line["progress"], label=method, linewidth=1.2 if method == "true" else 0.8, **look)
            ax.set_title(f"{activity_of(video)}, {video.partition('_')[0]}", loc="left")
            ax.set_title(notes[video], loc="right", color="#555555")
            ax.set_xlim(left=0)
        for ax in list(axes.flat)[len(videos) :]:
            ax.set_visible(False)
        for row in axes:
            row[0].set_ylabel("progress (%)" if unit == "percent" else "frame")
        for ax in axes[-1]:
            ax.set_xlabel("frame")
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", ncols=len(labels))
        return to_svg(figure)


def length_counts(lengths: Sequence[int]) -> pd.DataFrame:
    """Histograms over BINS equal ranges: frames_from, frames_to (exclusive), videos with such a length, and frames with such a number.

    The last column is the distribution of targets in frames: the higher a frame number, the fewer videos reach it.
    """
    longest = max(lengths)
    edges = np.unique(np.linspace(0, longest + 1, min(BINS, longest + 1) + 1).round().astype(int))
    low, high = edges[:-1], edges[1:]
    sizes = np.asarray(lengths)
    frames = (np.minimum(sizes[:, None], high) - low).clip(min=0).sum(axis=0)
    return pd.DataFrame({"frames_from": low, "frames_to": high, "videos": np.histogram(sizes, edges)[0], "frames": frames})


def lengths_figure(counts: pd.DataFrame) -> str:
    """`length_counts` as two histograms."""
    with style():
        figure = Figure(figsize=(11.0, 2.6))
        figure.subplots_adjust(0.06, 0.19, 0.985, 0.9, 0.2)
        left, right = figure.subplots(1, 2)
        width = counts["frames_to"] - counts["frames_from"]
        for ax, name, title in ((left, "videos", "videos by length"), (right, "frames", "frames by number in the video")):
            ax.bar(counts["frames_from"], counts[name], width=width, align="edge", color=GREY, edgecolor="white", linewidth=0.4)
            ax.set_title(title, loc="left")
            ax.set_ylabel(name)
            ax.set_xlabel("length (frames)" if name == "videos" else "frame")
        right.set_yscale("log")
        right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        return to_svg(figure)
