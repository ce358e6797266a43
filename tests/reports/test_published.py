import pytest

from regcls.reports import published


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
