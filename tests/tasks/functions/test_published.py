"""Results of the paper and its release on functions, and how params.yaml compares with their grids and values."""

from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from regcls.params import load_params
from regcls.reports.protocol import reductions, unshown
from regcls.tasks.functions import published
from regcls.tasks.functions.params import Functions, FunctionTraining
from regcls.tasks.functions.report import departures, not_comparable
from reports.made_up import PARAMS, with_section
from tasks.functions.made_up_functions import Store, small


@pytest.fixture(scope="module")
def functions() -> Functions:
    found: Functions = load_params(PARAMS).datasets["functions"]
    return found


def with_grid(functions: Functions, name: str, **values: Any) -> Functions:
    return replace(functions, grids=functions.grids | {name: replace(functions.grids.get(name, published.GRIDS["figure3"]), **values)})


def with_training(functions: Functions, **values: Any) -> Functions:
    return replace(functions, training=replace(functions.training, **values))


def test_the_released_values_of_figure_3_are_available() -> None:
    table = published.released()
    assert len(table) == 120
    row = table.query("setting == 'noisy' and sampling == 'severe' and classes == 256 and method == 'reg+cls'")
    assert row["published"].tolist() == [0.2163] and row["noise"].tolist() == [0.1]


def test_released_means_are_over_the_requested_class_counts() -> None:
    means = published.released_means([4, 16]).query("setting == 'clean' and sampling == 'severe'")
    assert means["reg"].tolist() == pytest.approx([(0.3929 + 0.3921) / 2])
    assert means["reg+cls"].tolist() == pytest.approx([(0.2618 + 0.2655) / 2])


def test_table_1_is_available_and_marked_uncertain() -> None:
    row = published.table1().query("setting == 'noisy' and sampling == 'mild' and method == 'reg+cls-bal'")
    assert row["published"].tolist() == [62.42] and row["uncertain"].tolist() == [True]


def test_the_functions_section_matches_the_papers_runs(functions: Functions) -> None:
    ours = asdict(functions.data) | asdict(functions.training)
    theirs = published.VALUES | published.SEEDS
    assert {name: ours[name] for name in theirs} == theirs
    assert {field.name for field in fields(FunctionTraining)} - set(theirs) == {"precision"}
    assert {name: functions.grids[name] for name in published.GRIDS} == published.GRIDS


def test_the_grids_and_values_of_functions_match_the_paper(functions: Functions) -> None:
    assert reductions(functions.grids, published.GRIDS) == [] == unshown(functions.grids, list(published.GRIDS))
    for name in published.GRIDS:
        assert departures(functions, functions.grids[name]) == [] and not_comparable(functions, name) == ""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"classes": (4, 64)}, "2 of 5 class counts"),
        ({"classes": (5, 16, 17, 64, 256)}, "class counts 5, 16, 17, 64, 256 instead of 4, 16, 64, 256, 1024"),
        ({"classes": (1024, 256, 64, 16, 4)}, None),
        ({"samplings": ("uniform", "mild")}, "2 of 4 samplings"),
        ({"settings": ("clean",)}, "1 of 3 settings"),
        ({"methods": ("reg", "reg+cls")}, "2 of 3 methods"),
        ({"noise": (0.5,)}, "noise levels 0.5 instead of 0.1"),
        ({"lambdas": (1.0, 10.0)}, "values of λ 1, 10 instead of those found on the validation sets"),
        ({"repetitions": 2}, "2 of 5 repetitions"),
        ({"repetitions": 6}, "6 instead of 5 repetitions"),
    ],
)
def test_grid_values_are_compared_ignoring_their_number(values: dict[str, Any], expected: str | None, functions: Functions) -> None:
    assert reductions(with_grid(functions, "figure3", **values).grids, published.GRIDS) == ([f"Figure 3: {expected}"] if expected else [])


def test_missing_grids_and_grids_without_a_figure_are_listed(functions: Functions) -> None:
    few = {"mine": published.GRIDS["figure3"]}
    assert reductions(few, published.GRIDS) == [f"Figure {n}: left out" for n in (3, 4, 5)]
    assert unshown(few, list(published.GRIDS)) == ["mine"]


def test_other_seeds_are_listed_on_the_page() -> None:
    params = small()
    training = replace(params.datasets["functions"].training, seeds=(1, 2, 3, 4, 5))
    assert "; other seeds." in Store(with_section(params, "functions", training=training)).report().extent[1]


def test_other_training_values_are_listed_if_a_grid_uses_them(functions: Functions) -> None:
    rates = replace(functions.training.learning_rate, ood=0.1)
    other = with_training(functions, epochs=2, hidden=(6, 20), learning_rate=rates, lam=replace(functions.training.lam, clean=7.0))
    figure3 = "hidden 6, 20 instead of 6, 15, epochs 2 instead of 80, learning rate 0.1 instead of 0.0001 (ood), λ 7 instead of 100 (clean)"
    assert not_comparable(other, "figure3") == f"Not comparable with the released values: {figure3}."
    assert departures(other, other.grids["figure4"]) == ["hidden 6, 20 instead of 6, 15", "epochs 2 instead of 80"]


def test_fewer_class_counts_affect_table_1_but_not_figure_3(functions: Functions) -> None:
    few = with_grid(with_grid(functions, "figure3", classes=(4, 64)), "figure4", classes=(4, 64))
    assert not_comparable(few, "figure3") == ""
    assert not_comparable(few, "figure4") == "Not comparable with the printed values: 2 of 5 class counts."
    assert "class counts 5 instead" in not_comparable(with_grid(functions, "figure3", classes=(5,)), "figure3")


def test_another_precision_is_no_departure(functions: Functions) -> None:
    assert not_comparable(with_training(functions, precision="float64"), "figure3") == ""


def test_without_published_values_nothing_is_compared(functions: Functions) -> None:
    assert not_comparable(replace(with_training(functions, epochs=2), published=None), "figure3") == ""
