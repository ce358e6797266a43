import re
from dataclasses import replace
from io import StringIO

import pandas as pd
import pytest

from regcls.errors import MissingError
from regcls.params import Params, load_params
from regcls.params.single import SingleGrid
from regcls.params.types import Method
from regcls.reports.report import Report
from reports.made_up import PARAMS, with_section
from reports.made_up_faces import SEARCH, TABLE3, TABLE4, Store, small, with_grids


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


def changed(params: Params, **grids: SingleGrid) -> Report:
    return Store(with_grids(params, **grids)).report()


def test_the_archives_at_the_published_protocol_are_compared_without_reservation() -> None:
    paper = load_params(PARAMS)
    grids = {name: replace(grid, seeds=1) for name, grid in paper.datasets["imdb_wiki"].grids.items() if name.startswith("table")}
    report = Store(with_grids(paper, **grids)).report()
    html = report.files["index.html"]
    assert "not comparable" not in html
    assert "Table 3: 1 of 3 seeds" in html and "Not the paper" not in html
    assert "n = 1" in report.files["table3_differences.md"] and "1 seed." in report.answers[0]


def test_holes_are_named_and_leave_n(store: Store) -> None:
    gone = store.id_of(method="reg", seed=1, balanced_data=False)
    report = store.report(runs=store.runs[store.runs["run_id"] != gone])
    assert report.warnings == ["table3: 1 of 10 runs are holes (1 missing); see the report"]
    assert "reg: 1 of 2 seeds (missing: seed 1)" in report.files["index.html"]
    assert csv(report, "holes")["seed"].tolist() == [1]
    assert csv(report, "table3").query("source == 'ours' and method == 'reg'")["seeds"].tolist() == [1]
    assert report.metrics["runs"] == {"wanted": len(store.runs), "finished": len(store.runs) - 1, "missing": 1}


def test_a_run_without_predictions_is_a_hole_with_a_remedy(store: Store) -> None:
    gone = store.id_of(method="reg+cls", classes=10, lam=1.0, seed=1)

    def predictions(run_id: str) -> pd.DataFrame:
        if run_id == gone:
            raise MissingError("no file predictions.parquet")
        return store.tables[run_id]

    report = store.report(predictions=predictions)
    assert "1 without predictions" in report.warnings[0] and "Delete these runs in MLflow" in report.warnings[1]
    assert "reg+cls · 10 · λ 1: 1 of 2 seeds (without predictions: seed 1)" in report.files["index.html"]


def test_metrics_are_few_and_a_hole_is_none(store: Store, report: Report) -> None:
    assert set(report.metrics) == {"mae", "gap", "runs"} and set(report.metrics["gap"]["reg+cls-100"]) == {"all", "few"}
    assert report.metrics["mae"]["reg"]["all"] == pytest.approx(
        csv(report, "table3").query("source == 'ours'")["mae_all"].iloc[0], rel=1e-5
    )
    without = store.report(runs=store.runs[~((store.runs["method"] == "reg+cls-bal") & (store.runs["classes"] == 10))])
    assert without.metrics["mae"]["reg+cls-bal-10"] == {"all": None, "few": None} == without.metrics["gap"]["reg+cls-bal-10"]


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        (("reg",), "Only reg is trained"),
        (("reg+cls",), "No run of reg is finished"),
        (("reg+cls", "reg+cls-bal"), "No run of reg is finished"),
        (("reg", "reg+cls-bal"), "reg+cls-bal with 100 classes has the lower test MAE"),
    ],
)
def test_a_grid_may_lack_methods(methods: tuple[Method, ...], said: str, params: Params) -> None:
    report = changed(params, table3=replace(TABLE3, methods=methods, classes=(100,), seeds=1))
    assert report.answers[0].startswith(said)
    assert ("table3_differences.csv" in report.files) == (methods == ("reg", "reg+cls-bal"))


def test_grids_may_be_left_out_or_have_other_names(params: Params) -> None:
    report = changed(params, mine=replace(TABLE3, seeds=1), lambda_search=replace(SEARCH, seeds=0))
    assert "Trained, but not shown here: the grid mine." in report.files["index.html"]
    assert not any(name.startswith("table") for name in report.files) and report.finished == report.wanted == 5
    assert {name for name in changed(params, table4=TABLE4).files if name.endswith(".svg")} == set()


def test_several_lambdas_and_class_counts_have_a_row_each(params: Params) -> None:
    report = changed(params, table3=replace(TABLE3, methods=("reg", "reg+cls"), classes=(2, 10, 50, 100), lambdas=(0.1, 1.0), seeds=1))
    ours = csv(report, "table3").query("source == 'ours'")
    assert len(ours) == 1 + 8 and "reg+cls-50-0.1" in report.metrics["mae"]


def test_a_grid_that_waits_for_its_lambda_says_so(params: Params) -> None:
    searched = replace(TABLE3, methods=("reg", "reg+cls"), lambdas="searched")
    waiting = with_grids(params, table3=searched, lambda_search=SEARCH)
    lines = Store(waiting, found={("reg+cls", 10): 0.1}).report().warnings
    assert lines == ["table3: no λ is found yet for reg+cls · 100; these runs are neither made nor counted"]


def test_without_rare_test_images_few_is_a_dash_everywhere(params: Params) -> None:
    report = Store(with_grids(params, table3=TABLE3), few=False).report()
    assert report.answers[0].endswith("No test image is in Few.")
    assert csv(report, "table3").query("source == 'ours'")["mae_few"].isna().all()
    assert re.search(r"\| reg \|  \|  \|( [\d.]+ ± [\d.]+ \|| \*\*[^|]+\|){3} – \|", report.files["table3.md"])
    assert "Few 0 (0)" in report.files["table3.md"]
    few = csv(report, "table3_differences").query("shot == 'few'")
    assert few["gap"].isna().all() and set(few["answer"]) == {"no images"}


def test_another_data_set_of_another_range_has_no_published_values(params: Params) -> None:
    base = with_section(params, "agedb", grids={"table3": replace(TABLE3, seeds=1)})
    store = Store(base, "agedb")
    for table in store.tables.values():
        for column in ("target", "prediction"):
            table[column] = table[column] * 2.0 - 40.5
    counts = {2 * age - 41: count for age, count in store.training_counts.items()}
    report = store.report(training_counts=counts)
    assert "paper" not in report.files["index.html"] and "Published" not in report.files["table3.md"]
    drawn = csv(report, "error_by_age")
    assert drawn["age_from"].min() < 0 and drawn.query("drawn == 'line'")["age_from"].max() > 120
