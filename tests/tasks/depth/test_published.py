"""The paper's results on depth, and how params.yaml compares with the paper's grids and values."""

from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from regcls.params import Params, load_params
from regcls.params.single import SingleGrid
from regcls.reports.protocol import reductions, unshown
from regcls.tasks.depth import published
from regcls.tasks.depth.params import Depth, DepthTraining
from regcls.tasks.depth.report import departures
from reports.made_up import PARAMS
from tasks.depth.made_up_depth import TABLE2, TABLE4, Store, with_grids


@pytest.fixture(scope="module")
def paper() -> Params:
    return load_params(PARAMS)


@pytest.fixture(scope="module")
def depth(paper: Params) -> Depth:
    found: Depth = paper.datasets["nyud2"]
    return found


def with_values(depth: Depth, section: str, **values: Any) -> Depth:
    return replace(depth, **{section: replace(getattr(depth, section), **values)})


def grids_with(depth: Depth, name: str, **values: Any) -> dict[str, SingleGrid]:
    return depth.grids | {name: replace(depth.grids.get(name, published.GRIDS["table2"]), **values)}


def other(depth: Depth, name: str = "table2", *, drawn_mask: bool = False) -> list[str]:
    return departures(depth, depth.grids[name], drawn_mask=drawn_mask)


def test_table_2_has_both_selections_and_baselines_of_one() -> None:
    table = published.table2()
    row = table.query("method == 'reg+cls-bal' and classes == 10 and shot == 'few'")
    assert row[["metric", "value", "std"]].to_numpy().tolist() == [["rmse_val", 2.077, 0.087], ["rmse_test", 2.077, 0.087]]
    assert set(table.query("method == 'lds+fds'")["metric"]) == {"rmse_test"} and len(table) == 2 * 4 + 7 * 2 * 4


def test_table_4_has_uncertain_rows_on_depth() -> None:
    table = published.table4()
    assert table[["method", "metric", "shot", "value"]].to_numpy().tolist() == [
        ["reg", "rmse_val", "all", 1.492],
        ["reg+cls", "rmse_val", "all", 1.593],
        ["reg", "rmse_test", "all", 1.442],
        ["reg+cls", "rmse_test", "all", 1.456],
    ]
    assert table["uncertain"].all()


def test_the_depth_section_matches_the_papers_runs(depth: Depth) -> None:
    ours = asdict(depth.data) | asdict(depth.training) | asdict(depth.shots)
    theirs = {name: value for name, value in published.VALUES.items() if name != "weights"}
    assert {name: ours[name] for name in theirs} == theirs and "resnet50" in depth.training.weights
    on_purpose = {"depth_resampling", "clip_colours", "validation"}  # a deviation from the release: docs/fidelity.md
    assert {field.name for field in fields(DepthTraining)} - set(theirs) == {"seeds", "huber_delta", "weights", "decay"} | on_purpose
    papers = {"reg", "reg+cls", "reg+cls-bal"}
    grids = {name: depth.grids[name] for name in published.GRIDS}
    own = {name: replace(grid, methods=tuple(method for method in grid.methods if method in papers)) for name, grid in grids.items()}
    assert own == published.GRIDS


def test_the_grids_and_values_of_nyud2_match_the_paper(depth: Depth) -> None:
    assert reductions(depth.grids, published.GRIDS) == [] == unshown(depth.grids, list(published.GRIDS))
    assert [other(depth, name) for name in published.GRIDS] == [[], []]


def test_depth_grids_are_compared_with_the_paper(depth: Depth) -> None:
    few = grids_with(depth, "table2", classes=(10, 100), seeds=2)
    assert reductions(few, published.GRIDS) == ["Table 2: 2 of 3 class counts, 2 of 3 seeds"]
    assert reductions(grids_with(depth, "table4", seeds=0), published.GRIDS) == ["Table 4: left out"]
    assert unshown(grids_with(depth, "mine"), list(published.GRIDS)) == ["mine"]


def test_depth_values_only_matter_if_a_grid_uses_them(depth: Depth) -> None:
    changed = with_values(depth, "training", batch_size=4, balanced_batch_size=6, lam={100: 7.0}, precision="float32")
    assert other(changed, "table4") == ["λ 7 instead of 1 (100 classes)", "balanced batch size 6 instead of 8"]
    lambdas = ["λ 7 instead of 0.1 (2 classes)", "λ 7 instead of 0.1 (10 classes)", "λ 7 instead of 1 (100 classes)"]
    assert other(changed) == [*lambdas, "batch size 4 instead of 16"]


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("training", {"weights": "random"}, ["random weights instead of ImageNet's"]),
        ("training", {"weights": "/data/resnet50.pth"}, []),
        ("training", {"milestones": (4,)}, ["milestones 4 instead of none"]),
        ("shots", {"many": ((0, 50),), "medium": ()}, ["other shot groups"]),
        ("data", {"source": "stand-in"}, ["generated stand-in images"]),
        ("data", {"split_seed": 1, "mask_seed": 1}, ["split seed 1 instead of 0"]),
    ],
)
def test_other_values_are_listed_once(section: str, values: dict[str, Any], expected: list[str], depth: Depth) -> None:
    assert other(with_values(depth, section, **values)) == expected


def test_drawn_test_pixels_are_noted_if_the_images_are_the_papers(depth: Depth) -> None:
    assert other(depth, drawn_mask=True) == ["another draw of test pixels, without test_balanced_mask.npy"]
    assert other(with_values(depth, "data", source="stand-in"), drawn_mask=True) == ["generated stand-in images"]


def test_a_table_on_other_data_is_not_comparable(paper: Params) -> None:
    swapped = {"table2": replace(TABLE4, seeds=1), "table4": replace(TABLE2, seeds=1)}
    report = Store(with_grids(paper, **swapped)).report()
    for name in swapped:
        assert "not comparable with ours: not on the data of this table." in report.files[f"{name}.md"]


def test_published_rows_are_below_ours_with_baselines_and_three_digits(paper: Params) -> None:
    report = Store(with_grids(paper, table2=replace(TABLE2, seeds=1), table4=replace(TABLE4, seeds=1))).report()
    by_name = {section.name: section.table for section in report.sections}
    rows = {(row[0].text, row[1].text): [cell.text for cell in row[3:]] for row in by_name["table2"].rows[5:]}
    assert rows["reg+cls", "100"][:8] == [
        "1.536 ± 0.090",
        "0.569 ± 0.018",
        "0.966 ± 0.041",
        "2.222 ± 0.146",
        "1.488 ± 0.028",
        "0.578 ± 0.015",
        "0.971 ± 0.049",
        "2.141 ± 0.045",
    ]
    assert rows["lds+fds", ""][:9] == [*["–"] * 4, "1.338", "0.670", "0.851", "1.880", "–"]
    reg = next(row for row in by_name["table4"].rows[2:] if row[0].text == "reg†")
    assert [cell.text for cell in reg[3:11]] == ["1.492 ± 0.042", "–", "–", "–", "1.442 ± 0.077", "–", "–", "–"]
    assert any(note.startswith("†") for note in by_name["table4"].notes)
