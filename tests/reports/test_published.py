from dataclasses import asdict, fields

import pytest

from regcls.params import load_params
from regcls.params.faces import FaceTraining
from regcls.params.synthetic import SyntheticTraining
from regcls.reports import published
from reports.conftest import PARAMS


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


def test_params_yaml_at_paper_scale_is_what_the_paper_ran() -> None:
    synthetic = load_params(PARAMS, scale="paper").synthetic
    ours = asdict(synthetic.data) | asdict(synthetic.training)
    theirs = published.PAPER_VALUES | published.PAPER_SEEDS
    assert {name: ours[name] for name in theirs} == theirs
    assert {field.name for field in fields(SyntheticTraining)} - set(theirs) == {"precision"}
    assert {name: synthetic.grids[name] for name in published.PAPER_GRIDS} == published.PAPER_GRIDS


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


def test_the_faces_of_params_yaml_at_paper_scale_are_what_the_paper_ran() -> None:
    faces = load_params(PARAMS, scale="paper").imdb_wiki
    ours = asdict(faces.data) | asdict(faces.training) | asdict(faces.shots)
    theirs = published.PAPER_FACE_VALUES
    assert {name: ours[name] for name in theirs} == theirs
    assert {field.name for field in fields(FaceTraining)} - set(theirs) == {"precision", "seeds", "huber_delta"}
    assert {name: faces.grids[name] for name in published.PAPER_FACE_GRIDS} == published.PAPER_FACE_GRIDS
