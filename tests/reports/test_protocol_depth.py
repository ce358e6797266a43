from dataclasses import replace
from typing import Any

import pytest

from regcls.params import Params, load_params
from regcls.reports.protocol import depth_departures, depth_not_comparable, depth_reductions, depth_unshown
from regcls.reports.published import PAPER_DEPTH_GRIDS
from regcls.tasks.depth.params import Depth
from reports.made_up import PARAMS


@pytest.fixture(scope="module")
def paper() -> Params:
    return load_params(PARAMS)


def with_values(params: Params, section: str, **values: Any) -> Depth:
    return replace(params.datasets["nyud2"], **{section: replace(getattr(params.datasets["nyud2"], section), **values)})


def with_grid(params: Params, name: str, **values: Any) -> Depth:
    grids = params.datasets["nyud2"].grids
    return replace(params.datasets["nyud2"], grids=grids | {name: replace(grids.get(name, PAPER_DEPTH_GRIDS["table2"]), **values)})


def test_the_grids_and_values_of_nyud2_are_the_papers(paper: Params) -> None:
    assert depth_reductions(paper.datasets["nyud2"]) == [] == depth_unshown(paper.datasets["nyud2"])
    assert [depth_not_comparable(paper.datasets["nyud2"], name, drawn_mask=False) for name in PAPER_DEPTH_GRIDS] == ["", ""]


def test_a_grid_on_depth_is_compared_with_the_papers(paper: Params) -> None:
    assert depth_reductions(with_grid(paper, "table2", classes=(10, 100), seeds=2)) == ["Table 2: 2 of 3 class counts, 2 of 3 seeds"]
    assert depth_reductions(with_grid(paper, "table4", seeds=0)) == ["Table 4: left out"]
    assert depth_unshown(with_grid(paper, "mine")) == ["mine"]


def test_values_on_depth_count_where_the_grid_uses_them(paper: Params) -> None:
    other = with_values(paper, "training", batch_size=4, balanced_batch_size=6, lam={100: 7.0}, precision="float32")
    assert depth_departures(other, other.grids["table4"], drawn_mask=False) == [
        "λ 7 instead of 1 (100 classes)",
        "balanced batch size 6 instead of 8",
    ]
    lambdas = ["λ 7 instead of 0.1 (2 classes)", "λ 7 instead of 0.1 (10 classes)", "λ 7 instead of 1 (100 classes)"]
    assert depth_departures(other, other.grids["table2"], drawn_mask=False) == [*lambdas, "batch size 4 instead of 16"]


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        ("training", {"weights": "random"}, "random weights instead of ImageNet's"),
        ("training", {"weights": "/data/resnet50.pth"}, ""),
        ("training", {"milestones": (4,)}, "milestones 4 instead of none"),
        ("shots", {"many": ((0, 50),), "medium": ()}, "other shot groups"),
        ("data", {"source": "stand-in", "split_seed": 1}, "generated stand-in images"),
        ("data", {"split_seed": 1, "mask_seed": 1}, "split seed 1 instead of 0"),
    ],
)
def test_other_values_are_named_once(section: str, values: dict[str, Any], said: str, paper: Params) -> None:
    assert depth_not_comparable(with_values(paper, section, **values), "table2", drawn_mask=False) == said


def test_test_pixels_that_were_drawn_are_said_to_be_where_the_images_are_the_papers(paper: Params) -> None:
    said = "another draw of test pixels, without test_balanced_mask.npy"
    assert depth_not_comparable(paper.datasets["nyud2"], "table2", drawn_mask=True) == said
    stand_in = with_values(paper, "data", source="stand-in")
    assert depth_not_comparable(stand_in, "table2", drawn_mask=True) == "generated stand-in images"
    assert (
        depth_not_comparable(with_grid(paper, "table2", balanced_data=True), "table2", drawn_mask=False) == "not on the data of this table"
    )
