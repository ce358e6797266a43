from types import SimpleNamespace
from typing import Any

import pytest

from regcls.reports import protocol

PAPER: dict[str, Any] = {"methods": ("reg", "reg+cls"), "classes": (2, 10, 100), "lambdas": "default", "balanced_data": False, "seeds": 3}


def grid(**values: Any) -> SimpleNamespace:
    return SimpleNamespace(**(PAPER | values))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {}),
        ({"classes": (100, 10, 2)}, {}),
        ({"classes": (10, 100)}, {"classes": "2 of 3 class counts"}),
        ({"classes": (10, 20)}, {"classes": "class counts 10, 20 instead of 2, 10, 100"}),
        ({"classes": (2, 10, 100, 200)}, {"classes": "class counts 2, 10, 100, 200 instead of 2, 10, 100"}),
        ({"seeds": 2}, {"seeds": "2 of 3 seeds"}),
        ({"seeds": 4}, {"seeds": "4 instead of 3 seeds"}),
        ({"balanced_data": True}, {"balanced_data": "balanced data yes instead of no"}),
        ({"lambdas": (0.1, 1.0)}, {"lambdas": "values of λ 0.1, 1 instead of those found on the validation sets"}),
        ({"methods": ("reg",), "seeds": 1}, {"methods": "1 of 2 methods", "seeds": "1 of 3 seeds"}),
    ],
)
def test_values_of_an_axis_are_compared_ignoring_count_and_order(values: dict[str, Any], expected: dict[str, str]) -> None:
    assert protocol.by_axis(grid(**values), grid()) == expected


def test_only_axes_of_the_paper_are_compared() -> None:
    assert protocol.by_axis(grid(units=("frames",)), grid()) == {}


@pytest.mark.parametrize(("setting", "expected"), [("clean", {}), ("noisy", {"noise": "noise levels 0.5 instead of 0.1"})])
def test_noise_levels_only_matter_for_noisy_data(setting: str, expected: dict[str, str]) -> None:
    assert protocol.by_axis(grid(settings=(setting,), noise=(0.5,)), grid(settings=(setting,), noise=(0.1,))) == expected


def test_each_grid_that_differs_from_the_paper_has_a_line() -> None:
    papers = {name: grid() for name in ("figure3", "table2", "table4", "table5")}
    ours = {"figure3": grid(classes=(2, 10), seeds=2), "table2": grid(), "table4": grid(seeds=0), "mine": grid(seeds=1)}
    assert protocol.reductions(ours, papers) == ["Figure 3: 2 of 3 class counts, 2 of 3 seeds", "Table 4: left out", "Table 5: left out"]


def test_grids_trained_but_not_shown_are_named_except_the_search() -> None:
    ours = {"table2": grid(), "mine": grid(), "another": grid(seeds=0), "lambda_search": grid(), "figure": SimpleNamespace(repetitions=2)}
    assert protocol.unshown(ours, ["table2"]) == ["mine", "figure"]


def test_used_values_that_differ_from_the_paper_are_listed_with_both() -> None:
    ours = {"epochs": 10, "learning_rate": 0.001, "hidden": (6, 15), "milestones": (4,), "pad": 4, "nesterov": True, "mine": 1}
    paper = {"nesterov": False, "milestones": (), "epochs": 90, "learning_rate": 0.01, "hidden": (6, 15), "pad": 8}
    expected = [
        "nesterov yes instead of no",
        "milestones 4 instead of none",
        "epochs 10 instead of 90",
        "learning rate 0.001 instead of 0.01",
    ]
    assert protocol.departures(ours, paper, unused=["pad"]) == expected


def test_some_differences_are_put_in_words_once_each() -> None:
    say: dict[str, protocol.Say] = {name: lambda here, there: ["other shot groups"] for name in ("many", "few")}
    ours, paper = {"few": 1, "many": 2, "source": "raw"}, {"many": 100, "few": 20, "source": "raw"}
    assert protocol.departures(ours, paper, say=say) == ["other shot groups"]
    assert protocol.departures(ours, paper, say={"many": lambda here, there: []}) == ["few 1 instead of 20"]
    assert protocol.departures(paper, paper, say=say) == []


def test_values_by_key_only_count_if_used_and_known_to_the_paper() -> None:
    ours, paper = {"clean": 7.0, "noisy": 1000.0, "ood": 5.0, "mine": 1.0}, {"ood": 1e4, "clean": 100.0, "noisy": 1000.0}
    say = protocol.by_key("λ", ("clean", "noisy", "mine"))
    assert say(ours, paper) == ["λ 7 instead of 100 (clean)"]
    assert protocol.by_key("λ", ())(ours, paper) == []
    assert protocol.departures({"lam": ours}, {"lam": paper}, say={"lam": say}) == ["λ 7 instead of 100 (clean)"]


@pytest.mark.parametrize(
    ("lambdas", "expected"),
    [("default", []), ("searched", ["λ from our own search"]), ((0.1, 10.0), ["λ 0.1, 10 instead of the paper's"])],
)
def test_lambdas_other_than_the_papers_are_listed(lambdas: Any, expected: list[str]) -> None:
    assert protocol.other_lambdas(lambdas) == expected


def test_sample_counts_within_the_tolerance_of_prepare_are_no_difference() -> None:
    paper = {"videos": 1712, "activities": 10}
    assert protocol.other_counts({"videos": 300, "activities": 9}, paper) == ["300 instead of 1712 videos", "9 instead of 10 activities"]
    assert protocol.other_counts({"videos": 1700, "activities": 10}, paper) == []
    assert protocol.other_counts({"videos": 300}, {}) == []


def test_the_page_header_lists_departures_from_the_paper() -> None:
    reduced, changed = ["Table 3: 2 of 3 seeds", "Table 4: left out"], ["epochs 10 instead of 90", "λ from our own search"]
    assert protocol.paper_differences("printed", reduced=reduced, changed=changed, without=["mine"]) == [
        "Different from the paper – Table 3: 2 of 3 seeds; Table 4: left out.",
        "Not the paper's data or training values: epochs 10 instead of 90, λ from our own search.",
        "Trained, but not shown here: the grid mine.",
    ]
    in_full = "The paper's grids in full, with its training values."
    assert protocol.paper_differences("printed", reduced=[], changed=[], without=[]) == [in_full]
    for some in ({"reduced": reduced, "changed": []}, {"reduced": [], "changed": changed}):
        assert in_full not in protocol.paper_differences("printed", without=[], **some)


def test_without_published_values_the_header_does_not_mention_the_paper() -> None:
    without = ["one", "two"]
    assert protocol.paper_differences(None, reduced=["Table 3: left out"], changed=["epochs 10"], without=without) == [
        "Trained, but not shown here: the grids one, two."
    ]
    assert protocol.paper_differences(None, reduced=[], changed=[], without=[]) == []
