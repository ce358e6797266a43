from dataclasses import asdict, fields

import pytest

from regcls.params import SyntheticTraining, load_params
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
