from dataclasses import asdict, fields

import pytest

from regcls.params import load_params
from regcls.reports import published
from regcls.tasks.depth.params import DepthTraining
from regcls.tasks.functions.params import FunctionTraining
from regcls.tasks.images.params import ImageTraining
from regcls.tasks.sequences.params import SequenceTraining
from reports.made_up import PARAMS


def test_the_released_values_of_figure_3_are_there() -> None:
    table = published.released()
    assert len(table) == 120
    row = table.query("setting == 'noisy' and sampling == 'severe' and classes == 256 and method == 'reg+cls'")
    assert row["published"].tolist() == [0.2163] and row["noise"].tolist() == [0.1]


def test_their_means_are_over_the_class_counts_asked_for() -> None:
    means = published.released_means([4, 16]).query("setting == 'clean' and sampling == 'severe'")
    assert means["reg"].tolist() == pytest.approx([(0.3929 + 0.3921) / 2])
    assert means["reg+cls"].tolist() == pytest.approx([(0.2618 + 0.2655) / 2])


def test_table_1_is_there_and_marked_uncertain() -> None:
    row = published.table1().query("setting == 'noisy' and sampling == 'mild' and method == 'reg+cls-bal'")
    assert row["published"].tolist() == [62.42] and row["uncertain"].tolist() == [True]


def test_the_functions_of_params_yaml_are_what_the_paper_ran() -> None:
    functions = load_params(PARAMS).datasets["functions"]
    ours = asdict(functions.data) | asdict(functions.training)
    theirs = published.PAPER_VALUES | published.PAPER_SEEDS
    assert {name: ours[name] for name in theirs} == theirs
    assert {field.name for field in fields(FunctionTraining)} - set(theirs) == {"precision"}
    assert {name: functions.grids[name] for name in published.PAPER_GRIDS} == published.PAPER_GRIDS


def test_table_3_is_there_with_baselines_and_gaps_where_none_is_printed() -> None:
    table = published.table3()
    row = table.query("method == 'reg+cls-bal' and classes == 100 and metric == 'mse' and shot == 'few'")
    assert (row["value"].tolist(), row["std"].tolist()) == ([925.65], [21.96])
    assert set(published.BASELINES) <= set(table["method"]) and table.query("method == 'focal-r'")["std"].isna().all()
    assert table.query("method == 'bmse-gai' and metric == 'mse'").empty


def test_table_4_has_the_rows_on_faces_alone() -> None:
    table = published.table4()
    assert table[["method", "classes", "metric", "value"]].to_numpy().tolist() == [
        ["reg", 0, "mae", 7.74],
        ["reg+cls", 100, "mae", 7.71],
        ["reg", 0, "mse", 131.03],
        ["reg+cls", 100, "mse", 131.27],
    ]


def test_the_faces_of_params_yaml_are_what_the_paper_ran() -> None:
    faces = load_params(PARAMS).datasets["imdb_wiki"]
    ours = asdict(faces.data) | asdict(faces.training) | asdict(faces.shots)
    theirs = published.PAPER_FACE_VALUES
    assert {name: ours[name] for name in theirs} == theirs
    assert {field.name for field in fields(ImageTraining)} - set(theirs) == {"seeds", "huber_delta"}
    assert {name: faces.grids[name] for name in published.PAPER_FACE_GRIDS} == published.PAPER_FACE_GRIDS


def test_table_5_and_the_later_re_run_are_there_in_percent() -> None:
    row = published.table5().query("method == 'reg+cls' and unit == 'frames' and split == 's4'")
    assert row[["classes", "rmse", "std"]].to_numpy().tolist() == [[100, 809.76, 595.37]]
    again = published.released_breakfast().query("method == 'reg+cls' and split == 's2'")
    assert again[["unit", "rmse", "std"]].to_numpy().tolist() == [["percent", pytest.approx(26.3), pytest.approx(0.7)]]
    assert list(published.table5()) == list(published.released_breakfast()) and not published.table5().isna().any(axis=None)


def test_the_videos_of_params_yaml_are_what_the_paper_ran() -> None:
    video = load_params(PARAMS).datasets["breakfast"]
    ours = asdict(video.data) | asdict(video.training)
    theirs = published.PAPER_VIDEO_VALUES
    assert {name: ours[name] for name in theirs} == theirs
    assert {field.name for field in fields(SequenceTraining)} - set(theirs) == {"precision", "seeds"}
    assert {name: video.grids[name] for name in published.PAPER_VIDEO_GRIDS} == published.PAPER_VIDEO_GRIDS


def test_table_2_has_both_selections_and_baselines_of_one() -> None:
    table = published.table2()
    row = table.query("method == 'reg+cls-bal' and classes == 10 and shot == 'few'")
    assert row[["metric", "value", "std"]].to_numpy().tolist() == [["rmse_val", 2.077, 0.087], ["rmse_test", 2.077, 0.087]]
    assert set(table.query("method == 'lds+fds'")["metric"]) == {"rmse_test"} and len(table) == 2 * 4 + 7 * 2 * 4


def test_table_4_has_rows_on_depth_that_are_uncertain() -> None:
    table = published.table4_depth()
    assert table[["method", "metric", "shot", "value"]].to_numpy().tolist() == [
        ["reg", "rmse_val", "all", 1.492],
        ["reg+cls", "rmse_val", "all", 1.593],
        ["reg", "rmse_test", "all", 1.442],
        ["reg+cls", "rmse_test", "all", 1.456],
    ]
    assert table["uncertain"].all()


def test_the_depth_of_params_yaml_is_what_the_paper_ran() -> None:
    depth = load_params(PARAMS).datasets["nyud2"]
    ours = asdict(depth.data) | asdict(depth.training) | asdict(depth.shots)
    theirs = {name: value for name, value in published.PAPER_DEPTH_VALUES.items() if name != "weights"}
    assert {name: ours[name] for name in theirs} == theirs and "resnet50" in depth.training.weights
    on_purpose = {"depth_resampling", "clip_colours", "validation"}  # otherwise than released: docs/fidelity.md
    assert {field.name for field in fields(DepthTraining)} - set(theirs) == {"seeds", "huber_delta", "weights", "decay"} | on_purpose
    assert {name: depth.grids[name] for name in published.PAPER_DEPTH_GRIDS} == published.PAPER_DEPTH_GRIDS
