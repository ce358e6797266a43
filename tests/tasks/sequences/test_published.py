"""Results of the paper and its release on video progress, and how params.yaml compares with their grids and values."""

from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from regcls.params import load_params
from regcls.reports.protocol import other_counts, reductions, unshown
from regcls.tasks.sequences import published
from regcls.tasks.sequences.params import Sequences, SequenceTraining
from regcls.tasks.sequences.report import departures
from reports.made_up import PARAMS


@pytest.fixture(scope="module")
def paper() -> Sequences:
    found: Sequences = load_params(PARAMS).datasets["breakfast"]
    return found


def with_grid(sequences: Sequences, name: str = "table5", **values: Any) -> Sequences:
    grids = sequences.grids
    return replace(sequences, grids=grids | {name: replace(grids["table5"], **values)})


def departures_on(sequences: Sequences, unit: str) -> list[str]:
    """Departures from Table 5 (a) or (b)."""
    return departures(sequences, replace(sequences.grids["table5"], units=(unit,)))


def test_table_5_and_the_later_rerun_are_available_in_percent() -> None:
    row = published.table5().query("method == 'reg+cls' and unit == 'frames' and split == 's4'")
    assert row[["classes", "rmse", "std"]].to_numpy().tolist() == [[100, 809.76, 595.37]]
    again = published.released_breakfast().query("method == 'reg+cls' and split == 's2'")
    assert again[["unit", "rmse", "std"]].to_numpy().tolist() == [["percent", pytest.approx(26.3), pytest.approx(0.7)]]
    assert list(published.table5()) == list(published.released_breakfast()) and not published.table5().isna().any(axis=None)


def test_the_video_section_matches_the_papers_runs(paper: Sequences) -> None:
    ours = asdict(paper.data) | asdict(paper.training)
    theirs = published.VALUES
    assert {name: ours[name] for name in theirs} == theirs
    assert {field.name for field in fields(SequenceTraining)} - set(theirs) == {"precision", "seeds"}
    assert {name: paper.grids[name] for name in published.GRIDS} == published.GRIDS


def test_the_grids_and_values_of_breakfast_match_the_paper(paper: Sequences) -> None:
    assert reductions(paper.grids, published.GRIDS) == [] == unshown(paper.grids, list(published.GRIDS))
    assert [departures_on(paper, unit) for unit in ("percent", "frames")] == [[], []]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"splits": ("s1", "s3")}, "2 of 4 splits"),
        ({"units": ("frames",)}, "1 of 2 units"),
        ({"methods": ("reg", "reg+cls")}, "2 of 5 methods"),
        ({"seeds": 2}, "2 of 3 seeds"),
        ({"seeds": 0}, "left out"),
    ],
)
def test_video_grids_are_compared_with_the_paper(values: dict[str, Any], expected: str, paper: Sequences) -> None:
    assert reductions(with_grid(paper, **values).grids, published.GRIDS) == [f"Table 5: {expected}"]


def test_video_values_only_matter_for_the_units_and_splits_in_use(paper: Sequences) -> None:
    video = with_grid(paper, splits=("s1", "s2"))
    persons = video.data.test_persons | {"s2": (16, 20), "s4": (1, 2)}
    lam = replace(video.training.lam, frames=7.0)
    other = replace(
        video, data=replace(video.data, test_persons=persons), training=replace(video.training, lam=lam, epochs=3, precision="float64")
    )
    assert departures_on(other, "percent") == ["other test persons (s2)", "epochs 3 instead of 40"]
    assert "λ 7 instead of 10 (frames)" in departures_on(other, "frames")
    assert departures_on(with_grid(paper, lambdas="searched"), "frames") == ["λ from our own search"]


def test_other_numbers_of_videos_and_activities_are_listed() -> None:
    assert other_counts({"videos": 300, "activities": 9}, published.COUNTS) == [
        "300 instead of 1712 videos",
        "9 instead of 10 activities",
    ]
    assert other_counts({"videos": 1700, "activities": 10}, published.COUNTS) == []


def test_video_grids_without_a_table_are_listed(paper: Sequences) -> None:
    assert unshown(with_grid(paper, "mine").grids, list(published.GRIDS)) == ["mine"]
