import numpy as np
import pandas as pd

from regcls.reports import video_figures
from regcls.reports.video_stats import progress_curves
from reports.made_up_video import made_up_lengths


def test_videos_are_drawn_from_short_to_long_and_of_different_activities() -> None:
    lengths = made_up_lengths()
    drawn = video_figures.drawn_videos(lengths)
    sizes = [lengths[video] for video in drawn]
    assert len(drawn) == 6 and sizes == sorted(sizes) and sizes[0] < np.quantile(list(lengths.values()), 0.2)
    assert len({video.rpartition("_")[2] for video in drawn}) == 6
    assert drawn == video_figures.drawn_videos(dict(reversed(lengths.items())))


def test_fewer_videos_than_panels_are_all_drawn() -> None:
    assert video_figures.drawn_videos({"b_tea": 3, "a_tea": 2}) == ["a_tea", "b_tea"]


def test_frames_are_counted_by_their_number_and_videos_by_their_length() -> None:
    counts = video_figures.length_counts([1, 2, 2, 120])
    assert counts["videos"].sum() == 4 and counts["frames"].sum() == 125
    assert (counts["frames_to"] > counts["frames_from"]).all() and counts["frames_to"].iloc[-1] == 121
    few = video_figures.length_counts([1, 3])
    assert few["videos"].tolist() == [0, 1, 0, 1] and few["frames"].tolist() == [2, 1, 1, 0]


def test_the_figures_are_the_same_every_time_and_name_their_lines() -> None:
    lengths = {"P03_cam01_P03_tea": 40, "P04_cam01_P04_milk": 90}
    tables = {"reg": pd.DataFrame({"video": "P03_cam01_P03_tea", "frame": range(40), "prediction": 0.5})}
    curves = progress_curves(tables, list(lengths), lengths, "percent", points=20)
    notes = dict.fromkeys(lengths, "RMSE: reg 1")
    svg = video_figures.progress_figure(curves, notes, "percent")
    assert svg == video_figures.progress_figure(curves, notes, "percent")
    assert all(f"<!-- {text} -->" in svg for text in ("true", "reg", "tea, P03", "milk, P04", "progress (%)"))
    counts = video_figures.length_counts(list(lengths.values()))
    assert video_figures.lengths_figure(counts) == video_figures.lengths_figure(counts)
