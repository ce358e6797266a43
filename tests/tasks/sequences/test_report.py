import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from regcls.params import Params, load_params
from regcls.reports.report import Report
from regcls.reports.stats import USELESS
from regcls.tasks.sequences.report import PREDICTIONS
from reports.made_up import PARAMS, csv, with_section
from tasks.sequences.made_up_sequences import SEARCH, TABLE5, Store, small, with_grids, with_training


@pytest.fixture(scope="module")
def params() -> Params:
    return small()


@pytest.fixture(scope="module")
def store(params: Params) -> Store:
    return Store(params)


@pytest.fixture(scope="module")
def report(store: Store) -> Report:
    return store.report()


def changed(params: Params, **values: Any) -> Report:
    return Store(with_grids(params, table5=replace(TABLE5, **values))).report()


@pytest.mark.usefixtures("undrawn")
def test_the_papers_data_and_protocol_are_compared_without_caveats() -> None:
    paper = load_params(PARAMS)
    store = Store(with_grids(paper, table5=paper.datasets["breakfast"].grids["table5"]))
    store.lengths |= {f"P99_cam{index}_P99_tea": 100 for index in range(1712 - len(store.lengths))}
    report = store.report()
    html = report.files["index.html"]
    assert "not comparable" not in html
    assert "The paper&#39;s grids in full" in html or "The paper's grids in full" in html


@pytest.mark.usefixtures("undrawn")
def test_fewer_videos_and_activities_than_the_papers_are_not_comparable() -> None:
    paper = load_params(PARAMS)
    report = Store(with_grids(paper, table5=paper.datasets["breakfast"].grids["table5"]), activities=("coffee", "tea")).report()
    assert "not comparable with ours: 16 instead of 1712 videos, 2 instead of 10 activities" in report.files["table5a.md"]
    assert "16 instead of 1712 videos, 2 instead of 10 activities" in report.files["index.html"]


@pytest.mark.usefixtures("undrawn")
def test_the_number_of_videos_only_matters_next_to_published_values(params: Params, report: Report) -> None:
    assert report.other_data == ["80 instead of 1712 videos"]
    assert Store(with_section(params, "breakfast", published=None)).report().other_data == []


def test_cells_are_means_over_activities_next_to_published_ones(store: Store, report: Report) -> None:
    table = csv(report, "table5a").query("method == 'reg' and split == 's1'")
    runs = store.runs[store.where(method="reg", split="s1", unit="percent")]
    by_activity = 100 * runs[[f"test/rmse/{a}" for a in store.activities]].mean()
    ours = table.query("source == 'ours'").iloc[0]
    assert (ours["rmse"], ours["rmse_std"]) == pytest.approx((by_activity.mean(), by_activity.std()), rel=1e-6)
    theirs = table.query("source != 'ours'").set_index("source")[["rmse", "rmse_batch40"]]
    assert theirs.loc["published"].tolist() == pytest.approx([32.57, math.nan], nan_ok=True), "over all frames"
    assert theirs.loc["re-run"].tolist() == pytest.approx([math.nan, 28.1], nan_ok=True), "by batches"


def test_frame_errors_are_shown_in_frames(store: Store, report: Report) -> None:
    ours = csv(report, "table5b").query("source == 'ours' and method == 'reg' and split == 's2'").iloc[0]
    runs = store.runs[store.where(method="reg", split="s2", unit="frames")]
    assert ours["rmse"] == pytest.approx(runs["test/rmse/all"].mean(), rel=1e-6)
    assert "re-run" not in set(csv(report, "table5b")["source"])


def test_the_answer_has_a_line_per_method_on_both_units(report: Report) -> None:
    first, second, caution = report.answers
    assert re.match(r"reg\+cls with 100 classes has the lower test RMSE on progress in percent: [\d.]+ % against [\d.]+ % of reg", first)
    assert "clear), mean over 10 activities × 2 splits × 2 seeds. In frames:" in first and second.startswith("reg+cls-bal")
    assert "10 tests" not in caution and "6 tests (percent) and 6 tests (frames)" in caution


def test_the_summary_is_on_percent_over_all_splits(report: Report) -> None:
    assert bool(report.lines)
    row = csv(report, "table5a_differences").query("method == 'reg+cls' and split == 'all'").iloc[0]
    assert (report.lines[0].overall.gap, report.lines[0].overall.low) == pytest.approx((row["gap"], row["low"]))
    assert (report.lines[0].measured, report.lines[0].method, report.lines[0].few) == ("RMSE (%)", "reg+cls · 100", None)
    assert report.lines[0].n.startswith("10 activities × 2 splits × 2 seeds")


@pytest.mark.usefixtures("undrawn")
def test_missing_runs_are_listed_and_reduce_n(store: Store) -> None:
    gone = store.where(method="reg", split="s1", unit="percent", seed=1)
    report = store.report(runs=store.runs[~gone])
    assert report.warnings == ["table5: 1 of 40 runs are holes (1 missing); see the report"]
    assert "percent s1 · reg: 1 of 2 seeds (missing: seed 1)" in report.files["index.html"]
    assert csv(report, "holes")[["unit", "split", "method", "seed"]].to_numpy().tolist() == [["percent", "s1", "reg", 1]]
    assert "(n = 1 of 2)" in report.files["table5a.md"] and "| 3 of 4 |" in report.files["table5a_activities.md"]
    row = csv(report, "table5a_differences").query("method == 'reg+cls' and split == 's1'").iloc[0]
    assert row["seeds"] == 1


@pytest.mark.usefixtures("undrawn")
def test_a_split_without_reg_is_left_out_of_mean_and_count(store: Store) -> None:
    report = store.report(runs=store.runs[~store.where(method="reg", split="s1")])
    table = csv(report, "table5a_differences").query("method == 'reg+cls'").set_index("split")
    assert table.loc["s1", "answer"] == "no runs" and np.isnan(table.loc["s1", "gap"])
    assert table.loc["all", "splits"] == 1 and table.loc["all", "gap"] == pytest.approx(table.loc["s2", "gap"])
    assert "× 1 split ×" in report.answers[0]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("column", ["test/rmse/tea", "test/rmse_batch40/coffee"])
def test_a_run_needs_a_finite_error_on_every_activity(column: str, store: Store) -> None:
    broken = store.runs.copy()
    broken.loc[store.where(method="reg", split="s1", unit="frames", seed=0), column] = np.nan
    assert "without a finite error" in store.report(runs=broken).warnings[0]


@pytest.mark.usefixtures("undrawn")
def test_a_search_run_needs_validation_errors(store: Store) -> None:
    broken = store.runs.copy()
    broken.loc[store.where(held_out=True, lam=10.0), "val/rmse/tea"] = np.inf
    assert store.report(runs=broken).warnings[0].startswith("lambda_search: 2 of 6 runs are holes")


def test_without_predictions_only_the_curves_are_missing(store: Store) -> None:
    def gone(run_id: str) -> pd.DataFrame:
        return store.predictions("another")

    report = store.report(kept={"predictions.parquet": gone})
    assert report.warnings == ["progress: the curves are left out, because run another has no file predictions.parquet"]
    assert "progress.svg" not in report.files and bool(report.lines)


def test_the_curves_are_thinned_test_videos_of_one_split(store: Store, report: Report) -> None:
    curves = csv(report, "progress")
    assert set(curves["method"]) == {"true", "reg", "reg+cls"} and curves["video"].str[:3].isin(["P03", "P09"]).all()
    assert curves.groupby(["video", "method"]).size().max() <= 300 and curves["video"].nunique() == 6
    run_id = store.runs[store.where(method="reg", split="s1", unit="percent", seed=0)]["run_id"].iloc[0]
    drawn = curves[curves["method"] == "reg"].iloc[100]
    predicted = store.predictions(run_id).set_index(["video", "frame"])["prediction"]
    assert drawn["progress"] == pytest.approx(100 * predicted[drawn["video"], drawn["frame"]], rel=1e-5)


@pytest.mark.usefixtures("undrawn")
def test_a_metric_changed_in_the_store_is_named_and_its_run_left_out(store: Store) -> None:
    changed = store.where(method="reg+cls", unit="percent", split="s1", seed=1, held_out=False)
    report = store.report(runs=store.runs.assign(**{"test/rmse/tea": store.runs["test/rmse/tea"].mask(changed, 0.01)}))
    assert "1 of 2 seeds (with errors by activity that contradict test/rmse/all: seed 1)" in report.files["index.html"]


@pytest.mark.parametrize(
    "forge",
    [
        lambda table: table.assign(prediction=0.5),
        lambda table: table[table["video"] != table["video"].iloc[0]],
        lambda table: table.drop(columns="frame"),
        lambda table: table.assign(video="P01_cam01_P01_tea"),
        lambda table: table.iloc[:0],
    ],
)
def test_curves_of_predictions_that_contradict_the_metrics_are_left_out(
    forge: Callable[[pd.DataFrame], pd.DataFrame], store: Store
) -> None:
    report = store.report(kept={PREDICTIONS: lambda run_id: forge(store.predictions(run_id))})
    assert "progress.svg" not in report.files
    assert any("predictions.parquet of run" in line and "contradicts its metrics" in line for line in report.warnings)


@pytest.mark.usefixtures("undrawn")
def test_metrics_are_few_and_missing_cells_are_none(store: Store, report: Report) -> None:
    assert set(report.metrics) == {"rmse", "gap", "runs"} and set(report.metrics["rmse"]) == {"percent", "frames"}
    assert set(report.metrics["rmse"]["percent"]) == {"random", "kukleva", "reg", "reg+cls-100-100", "reg+cls-bal-100-100"}
    without = store.report(runs=store.runs[store.runs["method"] != "reg+cls-bal"])
    assert without.metrics["rmse"]["frames"]["reg+cls-bal-100-10"] is None is without.metrics["gap"]["frames"]["reg+cls-bal-100-10"]
    assert without.answers[1] == "reg+cls-bal: no run to compare reg with."


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (("random", "reg"), "No other method is trained"),
        (("reg+cls",), "No run of reg is finished"),
        (("focal-r",), "No run of reg is finished"),
        (("reg", "reg+cls-bal"), "reg+cls-bal with 100 classes has the lower"),
    ],
)
def test_a_grid_may_lack_methods(methods: Any, expected: str, params: Params) -> None:
    report = changed(params, methods=methods, seeds=1)
    assert report.answers[0].startswith(expected)
    assert (bool(report.lines)) == (methods == ("reg", "reg+cls-bal")) == ("progress.svg" in report.files)


@pytest.mark.usefixtures("undrawn")
def test_another_loss_appears_in_tables_figures_and_answers_by_name(params: Params) -> None:
    report = changed(params, methods=("focal-r(gamma=2)+cls", "focal-r", "reg+cls", "reg", "random"))
    cells = [("random", 0), ("reg", 0), ("reg+cls", 100), ("focal-r", 0), ("focal-r(gamma=2)+cls", 100)]
    for unit in ("a", "b"):
        assert [
            *csv(report, f"table5{unit}")
            .query("source == 'ours' and split == 's1'")[["method", "classes"]]
            .itertuples(index=False, name=None)
        ] == cells
        differences = csv(report, f"table5{unit}_differences").query("split == 'all'")
        assert differences["method"].tolist() == ["reg+cls", "focal-r", "focal-r(gamma=2)+cls"]
        assert differences["gap"].tolist() == pytest.approx((differences["reg"] - differences["other"]).tolist(), abs=1e-4)
    assert "| focal-r(gamma=2)+cls · 100 " in report.files["table5a_activities.md"] and "| focal-r |  |  |" in report.files["table5a.md"]
    expected = ["reg+cls with 100 classes has", "focal-r has", "focal-r(gamma=2)+cls with 100 classes has"]
    assert all(line.startswith(start) for line, start in zip(report.answers, expected, strict=False))
    assert report.lines and report.lines[0].method == "reg+cls · 100"  # the summary says so above its columns
    assert {"focal-r", "focal-r(gamma=2)+cls-100-100"} <= report.metrics["rmse"]["percent"].keys() & report.metrics["gap"]["percent"].keys()


def test_another_loss_next_to_reg_is_compared_but_not_in_the_summary(params: Params) -> None:
    report = changed(params, methods=("reg", "focal-r"))
    assert report.answers[0].startswith("focal-r has the lower test RMSE on progress in percent") and not report.lines
    assert "<!-- focal-r -->" in report.files["progress.svg"] and "classes" not in report.answers[0]


@pytest.mark.usefixtures("undrawn")
def test_with_frames_only_the_summary_has_the_relative_difference(params: Params) -> None:
    overall = changed(params, units=("frames",)).lines[0].overall
    assert re.fullmatch(r"helps \(relative to reg's error: \+\d+\.\d %\)", overall.answer)
    assert math.isnan(overall.low) and math.isnan(overall.high)  # of the absolute difference, which was not tested


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("values", [{"units": ("frames",)}, {"splits": ("s2",)}, {"seeds": 1}])
def test_a_grid_may_lack_units_splits_and_seeds(values: dict[str, Any], params: Params) -> None:
    report = changed(params, **values)
    assert report.lines and report.lines[0].overall.answer.startswith("helps") and report.warnings == []
    assert ("table5a.csv" in report.files) == ("units" not in values)


@pytest.mark.usefixtures("undrawn")
def test_one_activity_has_differences_and_no_test(params: Params) -> None:
    report = Store(params, activities=("tea",)).report()
    assert report.lines and report.lines[0].overall.answer == "n = 1: not tested" and np.isnan(report.lines[0].overall.low)
    assert "(not tested), mean over 1 activity" in report.answers[0] and "n = 1" in report.files["table5a_differences.md"]


@pytest.mark.usefixtures("undrawn")
def test_grids_may_be_omitted_or_renamed(params: Params) -> None:
    report = Store(with_grids(params, mine=replace(TABLE5, seeds=1), lambda_search=replace(SEARCH, seeds=0))).report()
    assert "Trained, but not shown here: the grid mine." in report.files["index.html"]
    assert not report.lines and report.answers == [] and not any(name.startswith("table") for name in report.files)


@pytest.mark.usefixtures("undrawn")
def test_several_lambdas_have_a_row_each_and_params_yaml_names_the_main(params: Params) -> None:
    report = changed(params, methods=("reg", "reg+cls"), classes=(10, 100), lambdas=(1.0, 10.0), seeds=1)
    table = csv(report, "table5b").query("source == 'ours' and method == 'reg+cls' and split == 's1'")
    assert table[["classes", "lambda"]].to_numpy().tolist() == [[10, 1], [10, 10], [100, 1], [100, 10]]
    assert report.lines and report.lines[0].method == "reg+cls · 100"
    assert "those in params.yaml are shown" in report.answers[-1]


@pytest.mark.usefixtures("undrawn")
def test_classes_without_lambda_have_rows_and_answers_without_it(params: Params) -> None:
    methods = ("reg", "reg+cls", "hl-gauss")
    grids = {"table5": replace(TABLE5, methods=methods, classes=(10, 100)), "lambda_search": replace(SEARCH, methods=methods)}
    report = Store(with_grids(params, **grids)).report()
    assert "| hl-gauss | 10 |  |" in report.files["table5a.md"] and "| hl-gauss | 100 |  |" in report.files["table5a.md"]
    assert any(line.startswith("hl-gauss with 100 classes has the ") for line in report.answers)
    assert "hl-gauss-100" in report.metrics["rmse"]["percent"] and "reg+cls-100-100" in report.metrics["rmse"]["percent"]
    searched = next(section.table for section in report.sections if section.name == "lambda_search")
    assert searched is not None and searched.columns[-3:] == ("λ 1", "λ 10", "λ 100")
    row = next(row for row in searched.rows if row[2].text == "hl-gauss")
    assert len({cell.text for cell in row[4:]}) == 1 and all(cell.runs for cell in row[4:])


@pytest.mark.usefixtures("undrawn")
def test_lambdas_searched_by_split_share_one_row(params: Params) -> None:
    searched = replace(TABLE5, methods=("reg", "reg+cls", "reg+cls-bal"), units=("percent",), lambdas="searched")
    both = with_grids(params, table5=searched, lambda_search=replace(SEARCH, units=("percent",), splits=("s1", "s2")))
    found = {("reg+cls", 100, "percent", "s1"): 10.0, ("reg+cls", 100, "percent", "s2"): 100.0}
    report = Store(both, found=found).report()  # type: ignore[arg-type]
    assert "| reg+cls | 100 | 10/100 |" in report.files["table5a.md"] and "that of each split" in report.files["table5a.md"]
    assert csv(report, "table5a_differences").query("split == 'all'")["splits"].tolist() == [2, 2]
    del found["reg+cls", 100, "percent", "s2"]
    waiting = Store(both, found=found).report()  # type: ignore[arg-type]
    assert waiting.warnings == [
        "table5: no λ found yet for percent reg+cls · 100, percent reg+cls-bal · 100; these runs are neither trained nor counted"
    ]


@pytest.mark.usefixtures("undrawn")
def test_other_training_values_are_noted(params: Params) -> None:
    report = Store(with_training(params, epochs=3)).report()
    assert "generated stand-in videos, epochs 3 instead of 40" in report.files["table5a.md"]


@pytest.mark.parametrize(("name", "unit"), [("table5a", "percent"), ("table5b", "frames")])
def test_constants_are_rows_below_ours(name: str, unit: str, params: Params) -> None:
    store = Store(params, activities=("tea",))
    frames = {video: np.arange(n) / (n / 100 if unit == "percent" else 1) for video, n in store.lengths.items()}
    tested = [video for video in frames if video[:3] in ("P03", "P09")]  # of split s1
    errors = csv(store.report(), name).query("source == 'constant' and split == 's1'").set_index("method")["rmse"].to_dict()
    training, test = np.concatenate([frames[video] for video in frames.keys() - tested]), np.concatenate([frames[v] for v in tested])
    constants = {"mean": training.mean(), "median": np.median(training)}
    by_hand = {f"{word} of training targets": np.sqrt(np.mean((test - value) ** 2)) for word, value in constants.items()}
    assert errors == pytest.approx(by_hand, rel=1e-6)


def test_no_verdict_is_given_where_reg_is_no_better_than_a_constant(store: Store, report: Report) -> None:
    assert {line for line in report.warnings if USELESS in line} == set()
    tested = [name for name in store.runs if name.startswith("test/")]
    useless = store.report(runs=store.runs.assign(**{name: 40 * store.runs[name] for name in tested}))
    for name in ("table5a_differences", "table5b_differences"):
        assert set(csv(useless, name)["answer"]) == {USELESS}
    assert useless.lines[0].overall.answer == USELESS and f"; {USELESS})" in useless.answers[0]
    assert [line for line in useless.warnings if USELESS in line] == [
        f"table5: {USELESS} in {unit} (split all, s1, s2): so there is no verdict" for unit in ("percent", "frames")
    ]
