"""The paper's results on age from faces, and how params.yaml compares with the paper's grids and values."""

from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from regcls.params import Params, load_params
from regcls.params.shots import DensityShots
from regcls.params.single import SingleGrid
from regcls.reports.protocol import reductions, unshown
from regcls.reports.shot_subject import BASELINES
from regcls.tasks.images import published
from regcls.tasks.images.params import Images, ImageTraining
from regcls.tasks.images.report import departures
from reports.made_up import PARAMS, with_section
from tasks.images.made_up_images import TABLE3, TABLE4, Store, with_grids


@pytest.fixture(scope="module")
def paper() -> Params:
    return load_params(PARAMS)


@pytest.fixture(scope="module")
def images(paper: Params) -> Images:
    found: Images = paper.datasets["imdb_wiki"]
    return found


def with_values(images: Images, section: str, **values: Any) -> Images:
    return replace(images, **{section: replace(getattr(images, section), **values)})


def grids_with(images: Images, name: str, **values: Any) -> dict[str, SingleGrid]:
    return images.grids | {name: replace(images.grids.get(name, published.GRIDS["table3"]), **values)}


def test_table_3_is_available_with_baselines_and_blanks() -> None:
    table = published.table3()
    row = table.query("method == 'reg+cls-bal' and classes == 100 and metric == 'mse' and shot == 'few'")
    assert (row["value"].tolist(), row["std"].tolist()) == ([925.65], [21.96])
    assert set(BASELINES) <= set(table["method"]) and table.query("method == 'focal-r'")["std"].isna().all()
    assert table.query("method == 'bmse-gai' and metric == 'mse'").empty


def test_table_4_has_only_the_rows_on_faces() -> None:
    table = published.table4()
    assert table[["method", "classes", "metric", "value"]].to_numpy().tolist() == [
        ["reg", 0, "mae", 7.74],
        ["reg+cls", 100, "mae", 7.71],
        ["reg", 0, "mse", 131.03],
        ["reg+cls", 100, "mse", 131.27],
    ]


def test_the_faces_section_matches_the_papers_runs(images: Images) -> None:
    ours = asdict(images.data) | asdict(images.training) | asdict(images.shots)
    theirs = published.VALUES
    assert {name: ours[name] for name in theirs} == theirs and images.shots.by == "integer"
    assert {field.name for field in fields(ImageTraining)} - set(theirs) == {"seeds", "huber_delta"}
    papers = {"reg", "reg+cls", "reg+cls-bal"}
    grids = {name: images.grids[name] for name in published.GRIDS}
    own = {name: replace(grid, methods=tuple(method for method in grid.methods if method in papers)) for name, grid in grids.items()}
    assert own == published.GRIDS


def test_the_grids_and_values_of_imdb_wiki_match_the_paper(images: Images) -> None:
    assert reductions(images.grids, published.GRIDS) == [] == unshown(images.grids, list(published.GRIDS))
    assert [departures(images, images.grids[name]) for name in published.GRIDS] == [[], []]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"classes": (10, 100)}, "2 of 3 class counts"),
        ({"methods": ("reg", "reg+cls")}, "2 of 3 methods"),
        ({"seeds": 2}, "2 of 3 seeds"),
        ({"lambdas": "searched"}, "values of λ of our own search instead of those found on the validation sets"),
        ({"balanced_data": True}, "balanced data yes instead of no"),
        ({"seeds": 0}, "left out"),
    ],
)
def test_face_grids_are_compared_with_the_paper(values: dict[str, Any], expected: str, images: Images) -> None:
    assert reductions(grids_with(images, "table3", **values), published.GRIDS) == [f"Table 3: {expected}"]


def test_part_of_table_3_is_comparable_but_other_data_are_not(images: Images) -> None:
    table3 = images.grids["table3"]
    assert departures(images, replace(table3, classes=(100,), seeds=1)) == []
    assert departures(images, replace(table3, lambdas="searched")) == ["λ from our own search"]
    stand_in = with_values(images, "data", source="stand-in", size=64, split_seed=1)
    assert departures(stand_in, table3) == ["generated stand-in images", "size 64 instead of 224", "split seed 1 instead of 666"]


def test_a_table_on_other_data_is_not_comparable(paper: Params) -> None:
    swapped = {"table3": replace(TABLE4, seeds=1), "table4": replace(TABLE3, seeds=1)}
    report = Store(with_grids(paper, **swapped)).report()
    for name in swapped:
        assert "not comparable with ours: not on the data of this table." in report.files[f"{name}.md"]


def test_face_values_only_matter_if_a_grid_uses_them(images: Images) -> None:
    other = with_values(images, "training", balanced_learning_rate=0.5, lam={100: 7.0})
    assert departures(other, other.grids["table4"]) == ["λ 7 instead of 0.1 (100 classes)", "balanced learning rate 0.5 instead of 0.0001"]
    assert departures(other, other.grids["table3"]) == [
        f"λ 7 instead of {lam} ({classes} classes)" for classes, lam in ((2, 1), (10, 1), (100, 0.1))
    ]
    assert departures(with_values(images, "training", precision="float32"), other.grids["table3"]) == []


def test_rounding_only_matters_for_balanced_classes(images: Images) -> None:
    other, table3 = with_values(images, "training", rounding="ceil"), images.grids["table3"]
    assert departures(other, table3) == departures(other, images.grids["table4"]) == ["rounding ceil instead of round"]
    assert departures(other, replace(table3, methods=("reg", "reg+cls"))) == []


def test_face_grids_without_a_table_are_listed(images: Images) -> None:
    assert unshown(grids_with(images, "mine"), list(published.GRIDS)) == ["mine"]
    assert unshown(grids_with(images, "mine", seeds=0), list(published.GRIDS)) == []


def test_published_rows_are_below_ours(paper: Params) -> None:
    report = Store(with_grids(paper, table3=replace(TABLE3, seeds=1), table4=replace(TABLE4, seeds=1))).report()
    by_name = {section.name: section.table for section in report.sections}
    rows = {(row[0].text, row[1].text): [cell.text for cell in row[3:]] for row in by_name["table3"].rows[5:]}
    assert rows["reg+cls", "100"][:4] == ["7.61 ± 0.02", "6.90 ± 0.03", "13.46 ± 0.44", "25.04 ± 0.82"]
    assert rows["bmse-gai", ""] == ["8.12", "7.58", "12.27", "23.05", *["–"] * 4, "–", ""]
    assert by_name["table3"].frame.query("source == 'published' and method == 'reg'")["mse_few"].tolist() == [1017.59]
    reg = next(row for row in by_name["table4"].rows[2:] if row[0].text == "reg")
    assert [cell.text for cell in reg[3:11]] == ["7.74 ± 0.04", "–", "–", "–", "131.03 ± 1.44", "–", "–", "–"]
    assert "The paper's reg+cls on balanced data has equalised classes, so it is called reg+cls-bal here." in by_name["table4"].notes


@pytest.mark.parametrize("shots", [{"many_above": 50}, DensityShots(by="density", bins=100, many_above=1.0, few_below=0.2)], ids=["other limits", "density"])  # fmt: skip
def test_other_shot_groups_are_not_comparable_with_the_paper(shots: Any, images: Images, paper: Params) -> None:
    other = replace(images, shots=replace(images.shots, **shots) if isinstance(shots, dict) else shots)
    assert any("many above" in line for line in departures(other, images.grids["table3"]))
    one = with_section(with_grids(paper, table3=replace(TABLE3, seeds=1)), "imdb_wiki", shots=other.shots)
    assert "Published, not comparable with ours" in Store(one).report().files["table3.md"]
