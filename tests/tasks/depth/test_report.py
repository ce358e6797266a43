import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from regcls.errors import MissingError
from regcls.metrics import SHOTS
from regcls.params import Params, load_params
from regcls.params.single import SingleGrid
from regcls.params.types import Method
from regcls.reports.report import Report
from regcls.tasks.depth import report as depth_report
from regcls.tasks.depth.sums import BUCKETS
from reports.made_up import PARAMS, csv, row_of, with_section
from tasks.depth.made_up_depth import SEARCH, TABLE2, TABLE4, MadeUpRooms, Store, levels, prints, small, with_grids


@pytest.fixture(scope="module")
def params() -> Params:
    return small()


@pytest.fixture(scope="module")
def store(params: Params) -> Store:
    return Store(params)


@pytest.fixture(scope="module")
def report(store: Store) -> Report:
    return store.report()


def ours(report: Report, name: str = "table2") -> pd.DataFrame:
    return csv(report, name).query("source == 'ours'")


def changed(params: Params, **grids: SingleGrid) -> Report:
    return Store(with_grids(params, **grids)).report()


def test_the_two_selections_are_distinguished(report: Report) -> None:
    for text in ("RMSE-val: model selected on validation", "RMSE-test: model selected on test (as earlier work; optimistic)"):
        assert text in report.files["index.html"] and text in report.files["table2.md"]
    table = ours(report)
    assert (table["rmse_test_all"] < table["rmse_val_all"]).all()  # as they were made up


def sums_by_seed(store: Store, selection: str = "val", **where: Any) -> list[pd.DataFrame]:
    """Sums by seed of a cell of Table 2."""
    ids = [store.id_of(seed=seed, balanced_data=False, **where) for seed in (0, 1)]
    return [store.tables[run_id].query(f"selection == '{selection}'") for run_id in ids]


def in_group(store: Store, shot: str) -> list[int]:
    return [bucket for bucket in range(BUCKETS) if shot in ("all", store.shots[bucket])]


def share(table: pd.DataFrame, column: str) -> float:
    """A column's sum per pixel."""
    return math.fsum(table[column]) / math.fsum(table["n"])


HUNDRED = {"method": "reg+cls", "classes": 100, "lam": 1.0}


@pytest.mark.parametrize("shot", SHOTS)
@pytest.mark.parametrize("selection", ["val", "test"])
def test_errors_are_recomputed_from_sums_not_tracked_metrics(selection: str, shot: str, store: Store, report: Report) -> None:
    assert (store.runs["test/rmse/few"] == 99.0).all()
    tables = [table[table["bucket"].isin(in_group(store, shot))] for table in sums_by_seed(store, selection, **HUNDRED)]
    by_hand = {f"rmse_{selection}_{shot}": [math.sqrt(share(table, "squared")) for table in tables]}
    if selection == "val":
        shown = {"mae": "absolute", "abs_rel": "relative", "log10": "log10", "delta1": "delta1", "delta2": "delta2", "delta3": "delta3"}
        by_hand |= {f"{name}_val_{shot}": [share(table, column) for table in tables] for name, column in shown.items()}
    rows = [
        row_of(table, method="reg+cls", classes=100) for table in (ours(report), csv(report, "table2_mae"), csv(report, "table2_delta"))
    ]
    for name, by_seed in by_hand.items():
        (found,) = (row for row in rows if name in row)
        assert (found[name], found[f"{name}_std"]) == pytest.approx((np.mean(by_seed), np.std(by_seed, ddof=1)), rel=1e-6), name


def test_a_table_has_exactly_the_errors_that_it_shows(report: Report) -> None:
    columns = {
        name: {column.removesuffix("_few") for column in csv(report, name) if column.endswith("_few")}
        for name in ("table2", "table2_mae", "table2_delta")
    }
    assert columns == {
        "table2": {"rmse_val", "rmse_test"},
        "table2_mae": {"mae_val", "abs_rel_val", "log10_val"},
        "table2_delta": {"delta1_val", "delta2_val", "delta3_val"},
    }


def test_the_highest_share_and_the_lowest_error_are_best(report: Report) -> None:
    for name, best in (("table2_mae", min), ("table2_delta", max)):
        lines = [line.split("|")[4].strip() for line in report.files[f"{name}.md"].splitlines() if line.startswith("| reg")]
        (bold,) = (text for text in lines if text.startswith("**"))
        assert bold.strip("*").split(" ")[0] == best(text.strip("*").split(" ")[0] for text in lines)
    assert "the lowest mean" in report.files["table2_mae.md"] and "the highest mean" in report.files["table2_delta.md"]


def test_the_gap_is_between_the_means_over_seeds(store: Store, report: Report) -> None:
    reg, other = (
        np.mean([math.sqrt(share(table[table["bucket"].isin(in_group(store, "few"))], "squared")) for table in sums_by_seed(store, **cell)])
        for cell in ({"method": "reg"}, HUNDRED)
    )
    found = row_of(csv(report, "table2_differences"), method="reg+cls", classes=100, shot="few")
    assert (found["error"], found["reg"], found["other"]) == ("rmse_val", pytest.approx(reg, rel=1e-6), pytest.approx(other, rel=1e-6))
    assert found["gap"] == pytest.approx(reg - other, rel=1e-5) and found["images"] == 12


def test_sums_are_collected_by_image_and_group(store: Store) -> None:
    table = sums_by_seed(store, method="reg")[0]
    images = np.unique(table["image"])
    found = depth_report.by_image(table, images, store.params.datasets["nyud2"].shots.groups([]))
    assert found.shape == (12, 4, 2)
    for index, image in enumerate(images):
        for group, shot in enumerate(SHOTS):
            own = table[(table["image"] == image) & table["bucket"].isin(in_group(store, shot))]
            assert found[index, group].tolist() == pytest.approx([math.fsum(own["n"]), math.fsum(own["squared"])])


def test_the_error_by_depth_is_averaged_over_seeds_per_bucket(store: Store, report: Report) -> None:
    tables = [table.query("bucket == 31") for table in sums_by_seed(store, method="reg")]
    by_seed = [math.sqrt(share(table, "squared")) for table in tables]
    found = row_of(csv(report, "error_by_depth").query("drawn == 'line'"), method="reg", depth_from=3.1)
    assert (found["rmse"], found["std"]) == pytest.approx((np.mean(by_seed), np.std(by_seed, ddof=1)), rel=1e-6)
    assert (found["pixels"], found["depth_to"], found["seeds"]) == (tables[0]["n"].sum(), 3.2, 2)


def test_the_figure_has_every_bucket_with_its_group_and_labels_its_lines(store: Store, report: Report) -> None:
    bars = csv(report, "error_by_depth").query("drawn == 'bar'")
    assert bars["shot"].tolist() == store.shots.tolist() and bars["training_pixels"].sum() == levels()[1:].sum()
    for text in ("reg", "reg+cls with 100 classes", "many training pixels", "few training pixels", "test RMSE (m)", "depth (m)"):
        assert f"<!-- {text} -->" in report.files["error_by_depth.svg"]


def test_data_without_measured_training_pixels_still_have_a_figure(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MadeUpRooms, "levels", lambda rooms, split: np.zeros(256, np.int64))
    assert "<!-- reg -->" in store.report().files["error_by_depth.svg"]


def test_the_sizes_of_the_groups_are_counted_in_pixels_and_images(store: Store, report: Report) -> None:
    table = sums_by_seed(store, method="reg")[0]
    few = table[table["bucket"].isin(in_group(store, "few"))]
    expected = f"Few {int(few['n'].sum()):,} ({few['image'].nunique()})"
    assert expected in report.files["table2.md"] and f"All {int(table['n'].sum()):,} (12)" in report.files["table2.md"]
    shown = next(section.table for section in report.sections if section.name == "table2")
    assert shown is not None and shown.under[6] == f"{int(few['n'].sum()):,} px\n{few['image'].nunique()} images"
    assert "Many: 9–45, 47, 49; Med.: 7–8, 46, 48, 50–56, 58, 60–61, 63; Few: the rest." in report.files["table2.md"]


@pytest.mark.usefixtures("undrawn")
def test_sums_of_search_runs_are_not_read(store: Store) -> None:
    read: list[str] = []

    def sums(run_id: str) -> pd.DataFrame:
        read.append(run_id)
        return store.tables[run_id]

    assert store.report(kept=store.kept(sums=sums)).warnings == []
    unread = store.runs[~store.runs["run_id"].isin(read)]
    assert unread[["classes", "lam"]].to_numpy().tolist() == [[10, 1.0], [10, 10.0], [100, 0.1], [100, 10.0]]


def test_the_search_uses_the_validation_rmse(store: Store, report: Report) -> None:
    found = csv(report, "lambda_search").set_index(["classes", "lambda"])["val/rmse/all"]
    of_run = store.runs[~store.runs["balanced_data"] & (store.runs["seed"] == 0)].set_index(["method", "classes", "lam"])["val/rmse/all"]
    lines = [line.split("|")[3:6] for line in report.files["lambda_search.md"].splitlines() if line.startswith("| reg+cls")]
    for classes, cells in zip((10, 100), lines, strict=True):
        assert found[classes].tolist() == pytest.approx([of_run["reg+cls", classes, lam] for lam in (0.1, 1.0, 10.0)])
        assert [cell.strip().startswith("**") for cell in cells].index(True) == found[classes].argmin()


@pytest.mark.usefixtures("undrawn")
def test_the_papers_data_and_protocol_are_compared_without_caveats() -> None:
    paper = load_params(PARAMS)
    grids = {name: replace(grid, seeds=1) for name, grid in paper.datasets["nyud2"].grids.items() if name.startswith("table")}
    store = Store(with_grids(paper, **grids))
    report = store.report()
    html = report.files["index.html"]
    assert "not comparable" not in html
    assert "Table 2: 1 of 3 seeds" in html and "Not the paper" not in html
    assert "n = 1" in report.files["table2_differences.md"] and "1 seed." in report.answers[0]
    assert "not comparable with ours: another draw of test pixels" in store.report(data=store.rooms(has_drawn_mask=True)).files["table2.md"]


@pytest.mark.usefixtures("undrawn")
def test_fewer_images_are_noted_wherever_published_values_are_shown() -> None:
    paper = load_params(PARAMS)
    store = Store(with_grids(paper, table2=replace(TABLE2, seeds=1)))
    report = store.report(data=store.rooms(tested=20))
    assert report.other_data == ["20 instead of 654 test images"]
    assert "not comparable with ours: 20 instead of 654 test images." in report.files["table2.md"]
    assert "Not the paper's data or training values: 20 instead of 654 test images." in report.extent


@pytest.mark.usefixtures("undrawn")
def test_other_shot_groups_need_no_new_runs(store: Store, report: Report) -> None:
    other = with_section(store.params, "nyud2", shots=replace(store.params.datasets["nyud2"].shots, many=((0, 49),), medium=((50, 59),)))
    assert prints(other, {}) == store.fingerprints
    found = store.report(params=other)
    by_seed = [math.sqrt(share(table.query("bucket < 50"), "squared")) for table in sums_by_seed(store, method="reg")]
    assert found.warnings == [] and found.finished == len(store.runs)
    assert ours(found).query("method == 'reg'")["rmse_val_many"].tolist() == pytest.approx([np.mean(by_seed)])
    assert ours(found)["rmse_val_all"].tolist() == ours(report)["rmse_val_all"].tolist()
    assert "Many: 0–49; Med.: 50–59; Few: the rest" in found.files["table2.md"] and "other shot groups" in found.files["table2.md"]


@pytest.mark.usefixtures("undrawn")
def test_missing_runs_are_listed_and_reduce_n(store: Store) -> None:
    gone = store.id_of(method="reg", seed=1, balanced_data=False)
    report = store.report(runs=store.runs[store.runs["run_id"] != gone])
    assert report.warnings == ["table2: 1 of 10 runs are holes (1 missing); see the report"]
    assert "reg: 1 of 2 seeds (missing: seed 1)" in report.files["index.html"]
    assert csv(report, "holes")["seed"].tolist() == [1]
    assert ours(report).query("method == 'reg'")["seeds"].tolist() == [1]
    assert report.metrics["runs"] == {"wanted": len(store.runs), "finished": len(store.runs) - 1, "missing": 1}


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_sums_counts_as_missing_with_a_remedy(store: Store) -> None:
    gone = store.id_of(method="reg+cls", classes=10, lam=0.1, seed=1)

    def sums(run_id: str) -> pd.DataFrame:
        if run_id == gone:
            raise MissingError("no file sums.parquet")
        return store.tables[run_id]

    report = store.report(kept=store.kept(sums=sums))
    assert (
        "1 without sums" in report.warnings[0]
        and "without sums (sums.parquet). To train them again, first: regcls delete 0" in report.warnings[1]
    )
    assert "reg+cls · 10 · λ 0.1: 1 of 2 seeds (without sums: seed 1)" in report.files["index.html"]


FORGERIES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "NaN": (lambda table: table.assign(squared=np.nan), "without a finite error"),
    "one selection": (lambda table: table[table["selection"] == "val"], "with sums of other pixels"),
    "missing image": (lambda table: table[table["image"] != 5], "with sums of other pixels"),
    "double row": (lambda table: pd.concat([table, table.iloc[:1]]), "with sums of other pixels"),
    "no column": (lambda table: table.drop(columns="squared"), "with damaged sums"),
    "text": (lambda table: table.assign(squared="many"), "with damaged sums"),
    "negative": (lambda table: table.assign(squared=-table["squared"]), "with damaged sums"),
    "bucket beyond the last": (lambda table: table.assign(bucket=table["bucket"] + 100), "with damaged sums"),
    "bucket before the first": (lambda table: table.assign(bucket=table["bucket"] - 100), "with damaged sums"),
    "image beyond the last": (lambda table: pd.concat([table, table.iloc[:1].assign(image=700)]), "with damaged sums"),
    "smaller errors": (lambda table: table.assign(squared=table["squared"] / 2), "with sums that contradict test/rmse/all"),
    "smaller errors selected on test": (
        lambda table: table.assign(squared=table["squared"] / np.where(table["selection"] == "test", 2, 1)),
        "with sums that contradict selected_on_test/test/rmse/all",
    ),
}


@pytest.fixture(scope="module")
def forged(store: Store) -> str:
    """The run whose sums are forged."""
    return store.id_of(method="reg+cls-bal", classes=10, seed=1)


@pytest.fixture(scope="module")
def without(store: Store, forged: str) -> Report:
    """The report without that run."""
    return store.report(runs=store.runs[store.runs["run_id"] != forged])


@pytest.mark.parametrize("name", FORGERIES)
def test_sums_that_do_not_fit_data_and_metrics_are_named_and_left_out(
    name: str, store: Store, forged: str, without: Report, undrawn: None
) -> None:
    forge, reason = FORGERIES[name]
    report = store.report(kept=store.kept(sums=lambda run_id: forge(store.tables[run_id]) if run_id == forged else store.tables[run_id]))
    assert report.warnings[0] == f"table2: 1 of 10 runs are holes (1 {reason}); see the report"
    assert report.files["table2.csv"] == without.files["table2.csv"]


@pytest.mark.usefixtures("undrawn")
def test_metrics_are_few_and_missing_cells_are_none(store: Store, report: Report) -> None:
    assert set(report.metrics) == {"rmse_val", "gap", "runs"} and set(report.metrics["gap"]["reg+cls-100"]) == {"all", "few"}
    assert report.metrics["rmse_val"]["reg"]["all"] == pytest.approx(ours(report)["rmse_val_all"].iloc[0], rel=1e-5)
    without = store.report(runs=store.runs[~((store.runs["method"] == "reg+cls-bal") & (store.runs["classes"] == 10))])
    assert without.metrics["rmse_val"]["reg+cls-bal-10"] == {"all": None, "few": None} == without.metrics["gap"]["reg+cls-bal-10"]


def test_the_summary_has_the_numbers_of_the_headline(report: Report) -> None:
    (line,) = report.lines
    assert line is not None and (line.measured, line.n) == ("RMSE (m)", "2 seeds × 12 test images") and line.few is not None
    assert f"{line.overall.other:.3f} m against {line.overall.reg:.3f} of reg" in report.answers[0]
    assert f"{line.few.other:.3f} against {line.few.reg:.3f}" in report.answers[0]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (("reg",), "Only reg is trained"),
        (("reg+cls",), "No run of reg is finished"),
        (("focal-r",), "No run of reg is finished"),
        (("reg", "focal-r"), "focal-r. It has the "),
        (("reg+cls", "reg+cls-bal"), "No run of reg is finished"),
        (("reg", "reg+cls-bal"), "reg+cls-bal with 100 classes, λ "),
    ],
)
def test_a_grid_may_lack_methods(methods: tuple[Method, ...], expected: str, params: Params) -> None:
    report = changed(params, table2=replace(TABLE2, methods=methods, classes=(100,), seeds=1))
    assert report.answers[0].startswith(expected) and not report.lines
    assert ("table2_differences.csv" in report.files) == (methods[0] == "reg" and len(methods) > 1)
    assert csv(report, "examples")["method"].nunique() == len({method == "reg" for method in methods})  # reg, and the best of the others


def test_another_loss_appears_in_tables_figures_and_answers_by_name(params: Params) -> None:
    methods = ("focal-r(beta=1)+cls", "focal-r", "reg+cls", "reg")
    report = changed(params, table2=replace(TABLE2, methods=methods, classes=(100,)))
    cells = [("reg", 0), ("reg+cls", 100), ("focal-r", 0), ("focal-r(beta=1)+cls", 100)]
    assert [*ours(report)[["method", "classes"]].itertuples(index=False, name=None)] == cells
    differences = csv(report, "table2_differences")
    assert [*dict.fromkeys(differences["method"])] == ["reg+cls", "focal-r", "focal-r(beta=1)+cls"]
    assert differences["gap"].tolist() == pytest.approx((differences["reg"] - differences["other"]).tolist(), abs=1e-4)
    assert "| focal-r |  |  |" in report.files["table2.md"] and "| focal-r(beta=1)+cls | 100 |" in report.files["table2_differences.md"]
    for name in ("reg", "reg+cls with 100 classes", "focal-r", "focal-r(beta=1)+cls with 100 classes"):
        assert f"<!-- {name} -->" in report.files["error_by_depth.svg"]
    expected = ["reg+cls with 100 classes, λ", "focal-r. It has", "focal-r(beta=1)+cls with 100 classes, λ"]
    assert all(line.startswith(start) for line, start in zip(report.answers, expected, strict=False))
    assert "several class counts" not in report.answers[-1] and report.lines and report.lines[0].method == "reg+cls · 100"
    assert {"focal-r", "focal-r(beta=1)+cls-100"} <= next(iter(report.metrics.values())).keys() & report.metrics["gap"].keys()


def test_grids_may_be_omitted_or_renamed(params: Params) -> None:
    report = changed(params, mine=replace(TABLE2, seeds=1), lambda_search=replace(SEARCH, seeds=0))
    page = report.files["index.html"]
    assert "Trained, but not shown" not in page and "mine: RMSE by shot group" in page and "mine.csv" in report.files
    assert not any(name.startswith("table") for name in report.files) and report.finished == report.wanted == 5
    assert {name for name in changed(params, table4=TABLE4).files if name.endswith(".svg")} == {"error_by_depth.svg", "examples.svg"}


@pytest.mark.usefixtures("undrawn")
def test_several_lambdas_have_a_row_each(params: Params) -> None:
    report = changed(params, table2=replace(TABLE2, methods=("reg", "reg+cls"), classes=(2, 100), lambdas=(0.1, 1.0), seeds=1))
    assert len(ours(report)) == 1 + 4 and "reg+cls-2-0.1" in report.metrics["rmse_val"]


@pytest.mark.usefixtures("undrawn")
def test_a_grid_waiting_for_its_lambda_says_so(params: Params) -> None:
    searched = replace(TABLE2, methods=("reg", "reg+cls"), lambdas="searched")
    waiting = with_grids(params, table2=searched, lambda_search=SEARCH)
    lines = Store(waiting, found={("reg+cls", 10): 0.1}).report().warnings
    assert lines == ["table2: no λ found yet for reg+cls · 100; these runs are neither trained nor counted"]


@pytest.mark.usefixtures("undrawn")
def test_without_few_shot_test_pixels_few_is_a_dash(params: Params) -> None:
    report = Store(with_grids(params, table2=TABLE2), few=False).report()
    assert "No test pixel is in Few." in report.answers[0]
    assert ours(report)["rmse_val_few"].isna().all() and "no images" in report.files["table2_differences.md"]


def test_missing_examples_are_reported_and_the_rest_is_kept(store: Store) -> None:
    def examples(run_id: str) -> dict[str, np.ndarray]:
        raise MissingError(f"run {run_id} has no file examples.npz")

    report = store.report(kept=store.kept(examples=examples))
    assert report.warnings[0].startswith("no sheet of examples: run ") and "examples.svg" not in report.files
    assert "error_by_depth.svg" in report.files


@pytest.mark.usefixtures("undrawn")
def test_examples_come_from_the_first_seed_of_both_networks(store: Store, report: Report) -> None:
    assert set(csv(report, "examples")["seed"]) == {0}
    gone = store.id_of(method="reg", seed=0, balanced_data=False)
    found = csv(store.report(runs=store.runs[store.runs["run_id"] != gone]), "examples")
    assert set(found["seed"]) == {1} and len(found) == 2 * 2
    by_id = store.runs.set_index("run_id").loc[found["run_id"]]
    assert by_id["seed"].tolist() == [1] * 4 and by_id["method"].tolist()[0] == "reg"
