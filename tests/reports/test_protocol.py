from dataclasses import replace
from typing import Any

import pytest

from regcls.params import Params, load_params
from regcls.reports.protocol import (
    departures,
    depth_not_comparable,
    face_departures,
    face_reductions,
    faces_not_comparable,
    faces_unshown,
    not_comparable,
    other_data,
    reductions,
    unshown,
    video_reductions,
    videos_not_comparable,
    videos_unshown,
)
from regcls.reports.published import PAPER_FACE_GRIDS, PAPER_GRIDS
from regcls.tasks.functions.params import Functions
from regcls.tasks.images.params import Images
from regcls.tasks.sequences.params import Sequences
from reports.made_up import PARAMS


@pytest.fixture(scope="module")
def paper() -> Params:
    return load_params(PARAMS)


@pytest.fixture(scope="module")
def functions(paper: Params) -> Functions:
    found: Functions = paper.datasets["functions"]
    return found


def with_grid(functions: Functions, name: str, **values: Any) -> Functions:
    return replace(functions, grids=functions.grids | {name: replace(functions.grids.get(name, PAPER_GRIDS["figure3"]), **values)})


def with_training(functions: Functions, **values: Any) -> Functions:
    return replace(functions, training=replace(functions.training, **values))


def test_the_grids_and_values_of_functions_are_the_papers(functions: Functions) -> None:
    assert reductions(functions) == [] == unshown(functions)
    for name in PAPER_GRIDS:
        assert departures(functions, functions.grids[name]) == [] and not_comparable(functions, name) == ""


@pytest.mark.parametrize(
    ("values", "said"),
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
def test_the_values_of_a_grid_are_compared_and_not_their_number(values: dict[str, Any], said: str | None, functions: Functions) -> None:
    assert reductions(with_grid(functions, "figure3", **values)) == ([f"Figure 3: {said}"] if said else [])


def test_a_missing_grid_other_seeds_and_a_grid_without_figure_are_named(functions: Functions) -> None:
    few = replace(functions, grids={"mine": PAPER_GRIDS["figure3"]})
    assert reductions(with_training(few, seeds=(1, 2, 3, 4, 5))) == [*(f"Figure {n}: left out" for n in (3, 4, 5)), "other seeds"]
    assert unshown(few) == ["mine"]


def test_other_training_values_are_named_where_the_grid_uses_them(functions: Functions) -> None:
    rates = replace(functions.training.learning_rate, ood=0.1)
    other = with_training(functions, epochs=2, hidden=(6, 20), learning_rate=rates, lam=replace(functions.training.lam, clean=7.0))
    figure3 = "hidden 6, 20 instead of 6, 15, epochs 2 instead of 80, learning rate 0.1 instead of 0.0001 (ood), λ 7 instead of 100 (clean)"
    assert not_comparable(other, "figure3") == f"Not comparable with the released values: {figure3}."
    assert departures(other, other.grids["figure4"]) == ["hidden 6, 20 instead of 6, 15", "epochs 2 instead of 80"]


def test_fewer_class_counts_harm_the_shares_of_table_1_but_not_figure_3(functions: Functions) -> None:
    few = with_grid(with_grid(functions, "figure3", classes=(4, 64)), "figure4", classes=(4, 64))
    assert not_comparable(few, "figure3") == ""
    assert not_comparable(few, "figure4") == "Not comparable with the printed values: 2 of 5 class counts."
    assert "class counts 5 instead" in not_comparable(with_grid(functions, "figure3", classes=(5,)), "figure3")


def test_precision_alone_is_no_departure(functions: Functions) -> None:
    assert not_comparable(with_training(functions, precision="float64"), "figure3") == ""


def with_faces(params: Params, section: str, **values: Any) -> Images:
    faces = params.datasets["imdb_wiki"]
    return replace(faces, **{section: replace(getattr(faces, section), **values)})


def with_face_grid(params: Params, name: str, **values: Any) -> Images:
    faces = params.datasets["imdb_wiki"]
    return replace(faces, grids=faces.grids | {name: replace(faces.grids.get(name, PAPER_FACE_GRIDS["table3"]), **values)})


def test_the_grids_and_values_of_imdb_wiki_are_the_papers(paper: Params) -> None:
    faces = paper.datasets["imdb_wiki"]
    assert face_reductions(faces) == [] == faces_unshown(faces)
    assert [faces_not_comparable(faces, name) for name in PAPER_FACE_GRIDS] == ["", ""]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"classes": (10, 100)}, "2 of 3 class counts"),
        ({"methods": ("reg", "reg+cls")}, "2 of 3 methods"),
        ({"seeds": 2}, "2 of 3 seeds"),
        ({"lambdas": "searched"}, "values of λ of our own search instead of those found on the validation sets"),
        ({"balanced_data": True}, "balanced data yes instead of no"),
        ({"seeds": 0}, "left out"),
    ],
)
def test_a_grid_on_faces_is_compared_with_the_papers(values: dict[str, Any], said: str, paper: Params) -> None:
    assert face_reductions(with_face_grid(paper, "table3", **values)) == [f"Table 3: {said}"]


def test_fewer_rows_of_table_3_can_still_be_compared_but_other_data_cannot(paper: Params) -> None:
    assert faces_not_comparable(with_face_grid(paper, "table3", classes=(100,), seeds=1), "table3") == ""
    assert faces_not_comparable(with_face_grid(paper, "table3", lambdas="searched"), "table3") == "λ from our own search"
    assert faces_not_comparable(with_face_grid(paper, "table3", balanced_data=True), "table3") == "not on the data of this table"
    stand_in = with_faces(paper, "data", source="stand-in", size=64, split_seed=1)
    assert faces_not_comparable(stand_in, "table3") == "generated stand-in images, size 64 instead of 224"


def test_values_on_faces_count_where_the_grid_uses_them(paper: Params) -> None:
    other = with_faces(paper, "training", balanced_learning_rate=0.5, lam={100: 7.0})
    assert face_departures(other, other.grids["table4"]) == [
        "λ 7 instead of 0.1 (100 classes)",
        "balanced learning rate 0.5 instead of 0.0001",
    ]
    assert face_departures(other, other.grids["table3"]) == [
        f"λ 7 instead of {lam} ({classes} classes)" for classes, lam in ((2, 1), (10, 1), (100, 0.1))
    ]
    assert face_departures(with_faces(paper, "training", precision="float32"), other.grids["table3"]) == []


def test_a_grid_on_faces_without_a_table_is_named(paper: Params) -> None:
    assert faces_unshown(with_face_grid(paper, "mine")) == ["mine"]
    assert faces_unshown(with_face_grid(paper, "mine", seeds=0)) == []


def with_video_grid(params: Params, name: str = "table5", **values: Any) -> Sequences:
    grids = params.datasets["breakfast"].grids
    return replace(params.datasets["breakfast"], grids=grids | {name: replace(grids["table5"], **values)})


def test_the_grids_and_values_of_breakfast_are_the_papers(paper: Params) -> None:
    assert video_reductions(paper.datasets["breakfast"]) == [] == videos_unshown(paper.datasets["breakfast"])
    assert [videos_not_comparable(paper.datasets["breakfast"], unit) for unit in ("percent", "frames")] == ["", ""]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"splits": ("s1", "s3")}, "2 of 4 splits"),
        ({"units": ("frames",)}, "1 of 2 units"),
        ({"methods": ("reg", "reg+cls")}, "2 of 5 methods"),
        ({"seeds": 2}, "2 of 3 seeds"),
        ({"seeds": 0}, "left out"),
    ],
)
def test_the_grid_on_videos_is_compared_with_the_papers(values: dict[str, Any], said: str, paper: Params) -> None:
    assert video_reductions(with_video_grid(paper, **values)) == [f"Table 5: {said}"]


def test_values_on_videos_count_where_the_unit_and_the_splits_use_them(paper: Params) -> None:
    video = with_video_grid(paper, splits=("s1", "s2"))
    persons = video.data.test_persons | {"s2": (16, 20), "s4": (1, 2)}
    lam = replace(video.training.lam, frames=7.0)
    other = replace(
        video, data=replace(video.data, test_persons=persons), training=replace(video.training, lam=lam, epochs=3, precision="float64")
    )
    assert videos_not_comparable(other, "percent") == "other test persons (s2), epochs 3 instead of 40"
    assert "λ 7 instead of 10 (frames)" in videos_not_comparable(other, "frames")
    assert videos_not_comparable(with_video_grid(paper, lambdas="searched"), "frames") == "λ from our own search"


def test_other_data_in_the_place_of_the_papers_are_not_comparable(paper: Params) -> None:
    data = other_data("breakfast", {"videos": 300, "activities": 9}, source="raw")
    assert videos_not_comparable(paper.datasets["breakfast"], "percent", data) == "300 instead of 1712 videos, 9 instead of 10 activities"
    data = other_data("nyud2", {"training images": 50688, "test images": 20}, source="raw")
    assert depth_not_comparable(paper.datasets["nyud2"], "table2", data, drawn_mask=False) == "20 instead of 654 test images"
    data = other_data("imdb_wiki", {"images": 1000}, source="raw")
    assert faces_not_comparable(paper.datasets["imdb_wiki"], "table3", data) == "1000 instead of 213553 images"


@pytest.mark.parametrize(
    ("published", "videos", "source"), [("breakfast", 1700, "raw"), ("breakfast", 116, "stand-in"), (None, 116, "raw")]
)
def test_no_other_data_are_the_papers_as_far_as_preparing_takes_them_stand_ins_and_those_that_the_paper_has_not(
    published: str | None, videos: int, source: str
) -> None:
    assert other_data(published, {"videos": videos, "activities": 10}, source=source) == []


def test_a_grid_on_videos_without_a_table_is_named(paper: Params) -> None:
    assert videos_unshown(with_video_grid(paper, "mine")) == ["mine"]
