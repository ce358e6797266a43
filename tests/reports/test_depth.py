from dataclasses import replace
from io import StringIO

import numpy as np
import pandas as pd
import pytest

from regcls.errors import MissingError
from regcls.params import Params, load_params
from regcls.params.single import SingleGrid
from regcls.params.types import Method
from regcls.reports.report import Report
from regcls.tasks.depth.params import DepthShots
from reports.made_up import PARAMS, with_section
from reports.made_up_depth import SEARCH, TABLE2, TABLE4, Store, small, with_grids


@pytest.fixture(scope="module")
def params() -> Params:
    return small()


@pytest.fixture(scope="module")
def store(params: Params) -> Store:
    return Store(params)


@pytest.fixture(scope="module")
def report(store: Store) -> Report:
    return store.report()


def csv(report: Report, name: str) -> pd.DataFrame:
    return pd.read_csv(StringIO(report.files[f"{name}.csv"]))


def ours(report: Report, name: str = "table2") -> pd.DataFrame:
    return csv(report, name).query("source == 'ours'")


def changed(params: Params, **grids: SingleGrid) -> Report:
    return Store(with_grids(params, **grids)).report()


def test_the_two_selections_are_told_apart(report: Report) -> None:
    for text in ("RMSE-val: model selected on validation", "RMSE-test: model selected on test (as earlier work; optimistic)"):
        assert text in report.files["index.html"] and text in report.files["table2.md"]
    table = ours(report)
    assert (table["rmse_test_all"] < table["rmse_val_all"]).all()  # as they were made up


def test_the_archive_at_the_published_protocol_is_compared_without_reservation() -> None:
    paper = load_params(PARAMS)
    grids = {name: replace(grid, seeds=1) for name, grid in paper.datasets["nyud2"].grids.items() if name.startswith("table")}
    store = Store(with_grids(paper, **grids))
    report = store.report()
    html = report.files["index.html"]
    assert "not comparable" not in html
    assert "Table 2: 1 of 3 seeds" in html and "Not the paper" not in html
    assert "n = 1" in report.files["table2_differences.md"] and "1 seed." in report.answers[0]
    assert "not comparable with ours: another draw of test pixels" in store.report(drawn_mask=True).files["table2.md"]


def test_other_shot_groups_need_no_other_runs(store: Store, report: Report) -> None:
    shots = DepthShots(many=((0, 49),), medium=((50, 59),))
    other = Store(with_section(store.params, "nyud2", shots=shots))
    other.tables, other.runs, other.fingerprints = store.tables, store.runs, store.fingerprints
    found = other.report()
    by_seed = []
    for seed in (0, 1):
        table = store.tables[store.id_of(method="reg", seed=seed, balanced_data=False)].query("selection == 'val' and bucket < 50")
        by_seed.append(np.sqrt(table["squared"].sum() / table["n"].sum()))
    assert ours(found).query("method == 'reg'")["rmse_val_many"].tolist() == pytest.approx([np.mean(by_seed)])
    assert ours(found)["rmse_val_all"].tolist() == ours(report)["rmse_val_all"].tolist()
    assert "Many: 0–49; Med.: 50–59; Few: the rest" in found.files["table2.md"] and "other shot groups" in found.files["table2.md"]


def test_holes_are_named_and_leave_n(store: Store) -> None:
    gone = store.id_of(method="reg", seed=1, balanced_data=False)
    report = store.report(runs=store.runs[store.runs["run_id"] != gone])
    assert report.warnings == ["table2: 1 of 10 runs are holes (1 missing); see the report"]
    assert "reg: 1 of 2 seeds (missing: seed 1)" in report.files["index.html"]
    assert csv(report, "holes")["seed"].tolist() == [1]
    assert ours(report).query("method == 'reg'")["seeds"].tolist() == [1]
    assert report.metrics["runs"] == {"wanted": len(store.runs), "finished": len(store.runs) - 1, "missing": 1}


def test_a_run_without_sums_is_a_hole_with_a_remedy(store: Store) -> None:
    gone = store.id_of(method="reg+cls", classes=10, lam=0.1, seed=1)

    def sums(run_id: str) -> pd.DataFrame:
        if run_id == gone:
            raise MissingError("no file sums.parquet")
        return store.tables[run_id]

    report = store.report(sums=sums)
    assert "1 without sums" in report.warnings[0] and "sums.parquet is gone. Delete these runs in MLflow" in report.warnings[1]
    assert "reg+cls · 10 · λ 0.1: 1 of 2 seeds (without sums: seed 1)" in report.files["index.html"]


@pytest.mark.parametrize("spoil", [lambda table: table.assign(squared=np.nan), lambda table: table[table["selection"] == "val"]])
def test_a_run_whose_sums_give_no_error_is_a_hole(spoil: object, store: Store) -> None:
    bad = store.id_of(method="reg+cls-bal", classes=10, seed=1)
    report = store.report(sums=lambda run_id: spoil(store.tables[run_id]) if run_id == bad else store.tables[run_id])  # type: ignore[operator]
    assert report.warnings == ["table2: 1 of 10 runs are holes (1 without a finite error); see the report"]


def test_metrics_are_few_and_a_hole_is_none(store: Store, report: Report) -> None:
    assert set(report.metrics) == {"rmse_val", "gap", "runs"} and set(report.metrics["gap"]["reg+cls-100"]) == {"all", "few"}
    assert report.metrics["rmse_val"]["reg"]["all"] == pytest.approx(ours(report)["rmse_val_all"].iloc[0], rel=1e-5)
    without = store.report(runs=store.runs[~((store.runs["method"] == "reg+cls-bal") & (store.runs["classes"] == 10))])
    assert without.metrics["rmse_val"]["reg+cls-bal-10"] == {"all": None, "few": None} == without.metrics["gap"]["reg+cls-bal-10"]


def test_the_first_screen_has_the_numbers_of_the_headline(report: Report) -> None:
    line = report.line
    assert line is not None and (line.measured, line.n) == ("RMSE (m)", "2 seeds, over 12 test images") and line.few is not None
    assert f"{line.overall.other:.3f} m against {line.overall.reg:.3f} of reg" in report.answers[0]
    assert f"{line.few.other:.3f} against {line.few.reg:.3f}" in report.answers[0]


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        (("reg",), "Only reg is trained"),
        (("reg+cls",), "No run of reg is finished"),
        (("reg+cls", "reg+cls-bal"), "No run of reg is finished"),
        (("reg", "reg+cls-bal"), "reg+cls-bal with 100 classes has the lower test RMSE"),
    ],
)
def test_a_grid_may_lack_methods(methods: tuple[Method, ...], said: str, params: Params) -> None:
    report = changed(params, table2=replace(TABLE2, methods=methods, classes=(100,), seeds=1))
    assert report.answers[0].startswith(said) and report.line is None
    assert ("table2_differences.csv" in report.files) == (methods == ("reg", "reg+cls-bal"))
    assert csv(report, "examples")["method"].nunique() == len({method == "reg" for method in methods})  # reg, and the best of the others


def test_grids_may_be_left_out_or_have_other_names(params: Params) -> None:
    report = changed(params, mine=replace(TABLE2, seeds=1), lambda_search=replace(SEARCH, seeds=0))
    assert "Trained, but not shown here: the grid mine." in report.files["index.html"]
    assert not any(name.startswith("table") for name in report.files) and report.finished == report.wanted == 5
    assert {name for name in changed(params, table4=TABLE4).files if name.endswith(".svg")} == set()


def test_several_lambdas_have_a_row_each(params: Params) -> None:
    report = changed(params, table2=replace(TABLE2, methods=("reg", "reg+cls"), classes=(2, 100), lambdas=(0.1, 1.0), seeds=1))
    assert len(ours(report)) == 1 + 4 and "reg+cls-2-0.1" in report.metrics["rmse_val"]


def test_a_grid_that_waits_for_its_lambda_says_so(params: Params) -> None:
    searched = replace(TABLE2, methods=("reg", "reg+cls"), lambdas="searched")
    waiting = with_grids(params, table2=searched, lambda_search=SEARCH)
    lines = Store(waiting, found={("reg+cls", 10): 0.1}).report().warnings
    assert lines == ["table2: no λ is found yet for reg+cls · 100; these runs are neither made nor counted"]


def test_without_rare_test_pixels_few_is_a_dash_everywhere(params: Params) -> None:
    report = Store(with_grids(params, table2=TABLE2), few=False).report()
    assert report.answers[0].endswith("No test pixel is in Few.")
    assert ours(report)["rmse_val_few"].isna().all() and "no images" in report.files["table2_differences.md"]


def test_examples_that_are_gone_are_said_to_be_and_leave_the_rest(store: Store) -> None:
    def examples(run_id: str) -> dict[str, np.ndarray]:
        raise MissingError(f"run {run_id} has no file examples.npz")

    report = store.report(examples=examples)
    assert report.warnings[0].startswith("no sheet of examples: run ") and "examples.svg" not in report.files
    assert "error_by_depth.svg" in report.files


def test_examples_are_of_a_seed_that_both_networks_have(store: Store) -> None:
    gone = store.id_of(method="reg", seed=0, balanced_data=False)
    found = csv(store.report(runs=store.runs[store.runs["run_id"] != gone]), "examples")
    assert set(found["seed"]) == {1} and len(found) == 2 * 2
    by_id = store.runs.set_index("run_id").loc[found["run_id"]]
    assert by_id["seed"].tolist() == [1] * 4 and by_id["method"].tolist()[0] == "reg"
