import numpy as np
import pandas as pd
import pytest

from regcls.tasks.sequences import figures
from tasks.sequences.made_up_sequences import made_up_lengths


def test_videos_shown_range_from_short_to_long_across_activities() -> None:
    lengths = made_up_lengths()
    drawn = figures.drawn_videos(lengths)
    sizes = [lengths[video] for video in drawn]
    assert len(drawn) == 6 and sizes == sorted(sizes) and sizes[0] < np.quantile(list(lengths.values()), 0.2)
    assert len({video.rpartition("_")[2] for video in drawn}) == 6
    assert drawn == figures.drawn_videos(dict(reversed(lengths.items())))


def test_all_videos_are_drawn_if_fewer_than_panels() -> None:
    assert figures.drawn_videos({"b_tea": 3, "a_tea": 2}) == ["a_tea", "b_tea"]


def test_the_histograms_count_frame_indices_and_video_lengths() -> None:
    counts = figures.length_counts([1, 2, 2, 120])
    assert counts["videos"].sum() == 4 and counts["frames"].sum() == 125
    assert (counts["frames_to"] > counts["frames_from"]).all() and counts["frames_to"].iloc[-1] == 121
    few = figures.length_counts([1, 3])
    assert few["videos"].tolist() == [0, 1, 0, 1] and few["frames"].tolist() == [2, 1, 1, 0]


def test_the_figures_are_reproducible_and_label_their_lines() -> None:
    lengths = {"P03_cam01_P03_tea": 40, "P04_cam01_P04_milk": 90}
    tables = {"reg": pd.DataFrame({"video": "P03_cam01_P03_tea", "frame": range(40), "prediction": 0.5})}
    curves = figures.progress_curves(tables, list(lengths), lengths, "percent")
    notes = dict.fromkeys(lengths, "RMSE: reg 1")
    svg = figures.progress_figure(curves, notes, "percent")
    assert svg == figures.progress_figure(curves, notes, "percent")
    assert all(f"<!-- {text} -->" in svg for text in ("true", "reg", "tea, P03", "milk, P04", "progress (%)"))
    counts = figures.length_counts(list(lengths.values()))
    assert figures.lengths_figure(counts) == figures.lengths_figure(counts)


def test_the_error_of_a_video_covers_all_its_frames() -> None:
    table = pd.DataFrame({"video": ["a"] * 4 + ["b"], "frame": [0, 1, 2, 3, 0], "prediction": [0.1, 0.25, 0.5, 0.75, 9.0]})
    assert figures.video_error(table, "a", {"a": 4}, "percent") == pytest.approx(100 * 0.1 / 2)
    assert figures.video_error(table.assign(prediction=table["frame"] + 3.0), "a", {"a": 4}, "frames") == pytest.approx(3.0)


def test_a_thinned_curve_keeps_its_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "POINTS", 11)
    table = pd.DataFrame({"video": "a", "frame": range(1000), "prediction": np.arange(1000) / 2000})
    curves = figures.progress_curves({"reg": table}, ["a"], {"a": 1000}, "percent")
    true, reg = (curves[curves["method"] == method] for method in ("true", "reg"))
    assert true["frame"].iloc[[0, -1]].tolist() == [0, 999] and len(true) == len(reg) == 11
    assert true["progress"].iloc[-1] == pytest.approx(99.9) and reg["progress"].to_numpy() == pytest.approx(true["progress"].to_numpy() / 2)
    assert len(figures.progress_curves({}, ["b"], {"b": 3}, "frames")) == 3
