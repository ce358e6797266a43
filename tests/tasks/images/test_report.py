import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from regcls.errors import MissingError
from regcls.metrics import METRICS, SHOTS, ShotGroups
from regcls.params import Params, load_params
from regcls.params.shots import DensityShots, IntegerShots
from regcls.params.single import SingleGrid
from regcls.params.types import Method
from regcls.reports.drawing import BARS, bins_of, histogram
from regcls.reports.report import Report
from reports.made_up import PARAMS, csv, row_of, with_section
from tasks.images.made_up_images import SEARCH, TABLE3, TABLE4, Store, small, with_grids

DENSITY = DensityShots(by="density", bins=50, many_above=1.0, few_below=0.2)
OTHERS = [name for name in METRICS if name not in ("mae", "mse")]  # in a table of their own
MORE = "_more"  # suffix of its name


@pytest.fixture(scope="module")
def params() -> Params:
    return small()


@pytest.fixture(scope="module")
def store(params: Params) -> Store:
    return Store(params)


@pytest.fixture(scope="module")
def report(store: Store) -> Report:
    return store.report()


def ours(report: Report, name: str = "table3") -> pd.DataFrame:
    return csv(report, name).query("source == 'ours'")


def changed(params: Params, **grids: SingleGrid) -> Report:
    return Store(with_grids(params, **grids)).report()


def errors_of(store: Store, *, seeds: Sequence[int] = (0, 1), **where: Any) -> np.ndarray:
    """(images, seeds), prediction − target, of a cell of Table 3."""
    ids = [store.id_of(seed=seed, balanced_data=False, **where) for seed in seeds]
    return np.stack([store.tables[run_id]["prediction"].astype(float) - store.ages for run_id in ids], axis=1)


HUNDRED = {"method": "reg+cls", "classes": 100, "lam": 0.1}


@pytest.mark.usefixtures("undrawn")
def test_the_papers_data_and_protocol_are_compared_without_caveats() -> None:
    paper = load_params(PARAMS)
    grids = {name: replace(grid, seeds=1) for name, grid in paper.datasets["imdb_wiki"].grids.items() if name.startswith("table")}
    report = Store(with_grids(paper, **grids)).report()
    html = report.files["index.html"]
    assert "not comparable" not in html
    assert "Table 3: 1 of 3 seeds" in html and "Not the paper" not in html
    assert "n = 1" in report.files["table3_differences.md"] and "1 seed." in report.answers[0]


@pytest.mark.usefixtures("undrawn")
def test_fewer_images_are_noted_wherever_published_values_are_shown() -> None:
    paper = load_params(PARAMS)
    store = Store(with_grids(paper, table3=replace(TABLE3, seeds=1)))
    report = store.report(data=replace(store.data, images=1000))
    assert report.other_data == ["1000 instead of 213553 images"]
    assert "not comparable with ours: 1000 instead of 213553 images." in report.files["table3.md"]
    assert "Not the paper's data or training values: 1000 instead of 213553 images." in report.extent


@pytest.mark.parametrize("shot", SHOTS)
def test_errors_are_recomputed_from_predictions_not_tracked_metrics(shot: str, store: Store, report: Report) -> None:
    assert (store.runs["test/mae/many"] == 99.0).all()
    errors = np.abs(errors_of(store, **HUNDRED)[np.ones(len(store.shots), bool) if shot == "all" else store.shots == shot])
    row = row_of(ours(report), method="reg+cls", classes=100)
    more = row_of(csv(report, f"table3{MORE}"), method="reg+cls", classes=100)
    by_hand = {
        f"mae_{shot}": errors.mean(axis=0),
        f"mse_{shot}": (errors**2).mean(axis=0),
        f"rmse_{shot}": np.sqrt((errors**2).mean(axis=0)),
        f"gm_{shot}": scipy_stats.gmean(errors, axis=0),
    }
    for name, by_seed in by_hand.items():
        found = row if name in row else more
        assert (found[name], found[f"{name}_std"]) == pytest.approx((by_seed.mean(), by_seed.std(ddof=1)), rel=1e-6), name


def test_a_table_has_exactly_the_errors_that_it_shows(report: Report) -> None:
    columns = {
        name: {column.rpartition("_")[0] for column in csv(report, name) if column.endswith("_few")} for name in report_tables(report)
    }
    assert columns == {f"{name}{more}": errors for name in ("table3", "table4") for more, errors in (("", {"mae", "mse"}), (MORE, set(OTHERS)))}  # fmt: skip


def report_tables(report: Report) -> list[str]:
    return [name.removesuffix(".csv") for name in report.files if re.fullmatch(rf"table\d({MORE})?\.csv", name)]


def test_the_order_of_prediction_rows_does_not_matter(store: Store, report: Report) -> None:
    shuffled = {run_id: table.sample(frac=1, random_state=index) for index, (run_id, table) in enumerate(store.tables.items())}
    again = store.report(kept={"predictions.parquet": lambda run_id: shuffled[run_id]})
    assert again.files == report.files


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("error", "power"), [("mae", 1), ("mse", 2)])
@pytest.mark.parametrize("shot", ["all", "few"])
def test_a_difference_is_tested_over_seeds_and_images(error: str, power: int, shot: str, three_seeds: Store) -> None:
    store, report = three_seeds, three_seeds.report()
    chosen = np.ones(len(store.shots), bool) if shot == "all" else store.shots == shot
    reg, other = (np.abs(errors_of(store, seeds=(0, 1, 2), **cell)[chosen]) ** power for cell in ({"method": "reg"}, HUNDRED))
    variances = [scipy_stats.sem((reg - other).mean(axis=axis)) ** 2 for axis in (0, 1)]
    t = scipy_stats.t(2, loc=reg.mean() - other.mean(), scale=math.sqrt(sum(variances)))
    found = row_of(csv(report, "table3_differences"), method="reg+cls", classes=100, error=error, shot=shot)
    assert (found["gap"], found["low"], found["high"]) == pytest.approx((t.mean(), *t.interval(0.95)), rel=1e-6)
    assert found["p"] == pytest.approx(2 * min(t.cdf(0), t.sf(0)), rel=1e-6)
    assert (found["images"], found["seeds"]) == (chosen.sum(), 3)


@pytest.fixture
def three_seeds(params: Params) -> Store:
    return Store(with_grids(params, table3=replace(TABLE3, methods=("reg", "reg+cls"), classes=(100,), seeds=3)))


def test_with_two_seeds_there_are_differences_and_no_verdict(report: Report) -> None:
    table = csv(report, "table3_differences")
    assert table["gap"].notna().all() and table[["low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert set(table["answer"]) == {"n = 2: not tested"} and "nothing can be said about differences" in report.answers[-1]


FORGERIES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "targets as predictions": (lambda table: table.assign(prediction=table["target"]), "with predictions that contradict test/mae/all"),
    "missing rows": (lambda table: table.iloc[:-3], "with predictions of other images"),
    "double row": (lambda table: pd.concat([table, table.iloc[:1]]), "with predictions of other images"),
    "row in place of another": (lambda table: table.assign(row=table["row"].replace(1000, 1001)), "with predictions of other images"),
    "other targets": (lambda table: table.assign(target=table["target"] + 1), "with predictions of other images"),
    "NaN": (lambda table: table.assign(prediction=table["prediction"].where(table["row"] != 1000)), "without a finite error"),
    "no column": (lambda table: table.drop(columns="prediction"), "with damaged predictions"),
    "text": (lambda table: table.assign(prediction="many"), "with damaged predictions"),
    "empty": (lambda table: table.iloc[:0], "with predictions of other images"),
}


@pytest.fixture(scope="module")
def forged(store: Store) -> str:
    """The run whose predictions are forged."""
    return store.id_of(method="reg+cls", classes=10, lam=1.0, seed=1)


@pytest.fixture(scope="module")
def without(store: Store, forged: str) -> Report:
    """The report without that run."""
    return store.report(runs=store.runs[store.runs["run_id"] != forged])


@pytest.mark.parametrize("name", FORGERIES)
def test_predictions_that_do_not_fit_data_and_metrics_are_named_and_left_out(
    name: str, store: Store, forged: str, without: Report, undrawn: None
) -> None:
    forge, reason = FORGERIES[name]
    report = store.report(
        kept={"predictions.parquet": lambda run_id: forge(store.tables[run_id]) if run_id == forged else store.tables[run_id]}
    )
    assert f"reg+cls · 10 · λ 1: 1 of 2 seeds ({reason}: seed 1)" in report.files["index.html"]
    assert (
        report.files["table3.csv"] == without.files["table3.csv"]
        and report.files["table3_differences.csv"] == without.files["table3_differences.csv"]
    )


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("metric", ["test/mae/all", "test/mse/all"])
def test_a_metric_changed_in_the_store_is_named_and_its_run_left_out(metric: str, store: Store) -> None:
    changed = store.id_of(method="reg+cls", classes=10, lam=1.0, seed=1)
    runs = store.runs.assign(**{metric: store.runs[metric].mask(store.runs["run_id"] == changed, 15.75)})
    report = store.report(runs=runs)
    assert f"1 of 2 seeds (with predictions that contradict {metric}: seed 1)" in report.files["index.html"]
    assert f"left out, with predictions that contradict {metric} (predictions.parquet)" in report.warnings[1]


def test_the_summary_has_the_numbers_of_the_headline(report: Report) -> None:
    (line,) = report.lines
    assert line is not None and (line.measured, line.n) == ("MAE (years)", "2 seeds × 278 test images") and line.few is not None
    assert f"{line.overall.other:.2f} years against {line.overall.reg:.2f} of reg" in report.answers[0]
    assert f"{line.few.other:.2f} against {line.few.reg:.2f}" in report.answers[0]


def test_the_sizes_of_the_groups_are_counted_in_images_and_ages(store: Store, report: Report) -> None:
    few = store.ages[store.shots == "few"]
    expected = f"All {len(store.ages)} (101), Many {(store.shots == 'many').sum()}"
    assert expected in report.files["table3.md"] and f"Few {len(few)} ({len(np.unique(few))})" in report.files["table3.md"]
    table = next(section.table for section in report.sections if section.name == "table3")
    assert table is not None and table.under[6] == f"{len(few)} images\n{len(np.unique(few))} ages"


@pytest.mark.usefixtures("undrawn")
def test_an_added_metric_is_computed_for_finished_runs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "worst", lambda errors: float(np.max(np.abs(errors))))
    report = store.report()
    assert report.warnings == [] and report.finished == len(store.runs)
    found = row_of(csv(report, f"table3{MORE}"), method="reg+cls", classes=100)
    errors = np.abs(errors_of(store, **HUNDRED))
    for shot in SHOTS:
        by_seed = errors[np.ones(len(store.shots), bool) if shot == "all" else store.shots == shot].max(axis=0)
        assert (found[f"worst_{shot}"], found[f"worst_{shot}_std"]) == pytest.approx((by_seed.mean(), by_seed.std(ddof=1)), rel=1e-6)
    assert "| worst All |" in report.files[f"table3{MORE}.md"] and "worst" in report.files["index.html"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("shots", "expected"),
    [
        (IntegerShots(by="integer", many_above=200, few_below=50), "Many: ages with more than 200 training images; Few: fewer than 50"),
        (DensityShots(by="density", bins=20, many_above=1.5, few_below=0.5), "Many: bins of age (20 over the range of the training images) with more"),
    ],
    ids=["integer", "density"],
)  # fmt: skip
def test_other_shot_limits_change_groups_without_making_runs_stale(
    shots: IntegerShots | DensityShots, expected: str, store: Store, report: Report
) -> None:
    other = with_section(store.params, "imdb_wiki", shots=shots)
    assert Store(other).fingerprints == store.fingerprints
    found = store.report(params=other)
    assert (found.warnings, found.finished) == ([], len(store.runs)) and expected in found.files["table3.md"]
    groups = shots.groups(store.data.training).shot_of(store.ages)
    assert (groups != store.shots).any() and set(groups) == {"many", "medium", "few"}
    for shot in SHOTS:
        chosen = np.ones(len(groups), bool) if shot == "all" else groups == shot
        by_hand = np.abs(errors_of(store, **HUNDRED)[chosen]).mean()
        assert row_of(ours(found), method="reg+cls", classes=100)[f"mae_{shot}"] == pytest.approx(by_hand, rel=1e-6)
        assert row_of(csv(found, "table3_differences"), method="reg+cls", classes=100, error="mae", shot=shot)["images"] == chosen.sum()
    assert ours(found)["mae_all"].tolist() == ours(report)["mae_all"].tolist()
    bars = csv(found, "error_by_target").query("drawn == 'bar'")
    assert bars["shot"].tolist() == histogram(shots.groups(store.data.training))["shot"].tolist()


@pytest.mark.usefixtures("undrawn")
def test_missing_runs_are_listed_and_reduce_n(store: Store) -> None:
    gone = store.id_of(method="reg", seed=1, balanced_data=False)
    report = store.report(runs=store.runs[store.runs["run_id"] != gone])
    assert report.warnings == ["table3: 1 of 10 runs are holes (1 missing); see the report"]
    assert "reg: 1 of 2 seeds (missing: seed 1)" in report.files["index.html"]
    assert csv(report, "holes")["seed"].tolist() == [1]
    assert ours(report).query("method == 'reg'")["seeds"].tolist() == [1]
    assert report.metrics["runs"] == {"wanted": len(store.runs), "finished": len(store.runs) - 1, "missing": 1}


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_predictions_counts_as_missing_with_a_remedy(store: Store) -> None:
    gone = store.id_of(method="reg+cls", classes=10, lam=1.0, seed=1)

    def predictions(run_id: str) -> pd.DataFrame:
        if run_id == gone:
            raise MissingError("no file predictions.parquet")
        return store.tables[run_id]

    report = store.report(kept={"predictions.parquet": predictions})
    assert "1 without predictions" in report.warnings[0] and "To train them again, first: regcls delete 0" in report.warnings[1]
    assert "reg+cls · 10 · λ 1: 1 of 2 seeds (without predictions: seed 1)" in report.files["index.html"]


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_a_finite_validation_error_counts_as_missing(store: Store) -> None:
    bad = store.id_of(method="reg+cls-bal", classes=10, seed=1)
    runs = store.runs.assign(**{"val/mse/all": store.runs["val/mse/all"].mask(store.runs["run_id"] == bad, math.inf)})
    others = {run_id: table for run_id, table in store.tables.items() if run_id != bad}
    report = store.report(runs=runs, kept={"predictions.parquet": others.__getitem__})
    assert report.warnings == ["table3: 1 of 10 runs are holes (1 without a finite error); see the report"]


@pytest.mark.usefixtures("undrawn")
def test_predictions_of_search_runs_are_not_read(store: Store) -> None:
    read: list[str] = []

    def predictions(run_id: str) -> pd.DataFrame:
        read.append(run_id)
        return store.tables[run_id]

    assert store.report(kept={"predictions.parquet": predictions}).warnings == []
    searched = store.runs[(store.runs["lam"] == 10) | ((store.runs["lam"] == 1) & (store.runs["classes"] == 100))]
    assert set(store.runs["run_id"]) - set(read) == set(searched["run_id"]) | {store.id_of(method="reg+cls", classes=10, lam=0.1)}


@pytest.mark.usefixtures("undrawn")
def test_metrics_are_few_and_missing_cells_are_none(store: Store, report: Report) -> None:
    assert set(report.metrics) == {"mae", "gap", "runs"} and set(report.metrics["gap"]["reg+cls-100"]) == {"all", "few"}
    assert report.metrics["mae"]["reg"]["all"] == pytest.approx(ours(report)["mae_all"].iloc[0], rel=1e-5)
    without = store.report(runs=store.runs[~((store.runs["method"] == "reg+cls-bal") & (store.runs["classes"] == 10))])
    assert without.metrics["mae"]["reg+cls-bal-10"] == {"all": None, "few": None} == without.metrics["gap"]["reg+cls-bal-10"]


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
    report = changed(params, table3=replace(TABLE3, methods=methods, classes=(100,), seeds=1))
    assert report.answers[0].startswith(expected) and not report.lines
    assert ("table3_differences.csv" in report.files) == (methods[0] == "reg" and len(methods) > 1)


def test_another_loss_appears_in_tables_figures_and_answers_by_name(params: Params) -> None:
    methods = ("focal-r(beta=1)+cls", "focal-r", "reg+cls", "reg")
    report = changed(params, table3=replace(TABLE3, methods=methods, classes=(100,)))
    cells = [("reg", 0), ("reg+cls", 100), ("focal-r", 0), ("focal-r(beta=1)+cls", 100)]
    assert [*ours(report)[["method", "classes"]].itertuples(index=False, name=None)] == cells
    differences = csv(report, "table3_differences")
    assert [*dict.fromkeys(differences["method"])] == ["reg+cls", "focal-r", "focal-r(beta=1)+cls"]
    assert differences["gap"].tolist() == pytest.approx((differences["reg"] - differences["other"]).tolist(), abs=1e-4)
    assert "| focal-r |  |  |" in report.files["table3.md"] and "| focal-r(beta=1)+cls | 100 |" in report.files["table3_differences.md"]
    for name in ("reg", "reg+cls with 100 classes", "focal-r", "focal-r(beta=1)+cls with 100 classes"):
        assert f"<!-- {name} -->" in report.files["error_by_target.svg"]
    expected = ["reg+cls with 100 classes, λ", "focal-r. It has", "focal-r(beta=1)+cls with 100 classes, λ"]
    assert all(line.startswith(start) for line, start in zip(report.answers, expected, strict=False))
    assert "several class counts" not in report.answers[-1] and report.lines and report.lines[0].method == "reg+cls · 100"
    assert {"focal-r", "focal-r(beta=1)+cls-100"} <= next(iter(report.metrics.values())).keys() & report.metrics["gap"].keys()


def test_grids_may_be_omitted_or_renamed(params: Params) -> None:
    report = changed(params, mine=replace(TABLE3, seeds=1), lambda_search=replace(SEARCH, seeds=0))
    page = report.files["index.html"]
    assert "Trained, but not shown" not in page and "mine: errors by shot group" in page and "mine.csv" in report.files
    assert not any(name.startswith("table") for name in report.files) and report.finished == report.wanted == 5
    assert {name for name in changed(params, table4=TABLE4).files if name.endswith(".svg")} == {"error_by_target.svg"}


@pytest.mark.usefixtures("undrawn")
def test_a_search_alone_is_reported_without_predictions(params: Params) -> None:
    report = Store(with_grids(params, lambda_search=SEARCH)).report(kept={})
    assert [section.name for section in report.sections] == ["lambda_search"] and report.answers == []


@pytest.mark.usefixtures("undrawn")
def test_several_lambdas_and_class_counts_have_a_row_each(params: Params) -> None:
    report = changed(params, table3=replace(TABLE3, methods=("reg", "reg+cls"), classes=(2, 10, 50, 100), lambdas=(0.1, 1.0), seeds=1))
    assert len(ours(report)) == 1 + 8 and "reg+cls-50-0.1" in report.metrics["mae"]


@pytest.mark.usefixtures("undrawn")
def test_a_grid_waiting_for_its_lambda_says_so(params: Params) -> None:
    searched = replace(TABLE3, methods=("reg", "reg+cls"), lambdas="searched")
    waiting = with_grids(params, table3=searched, lambda_search=SEARCH)
    lines = Store(waiting, found={("reg+cls", 10): 0.1}).report().warnings
    assert lines == ["table3: no λ found yet for reg+cls · 100; these runs are neither trained nor counted"]


@pytest.mark.usefixtures("undrawn")
def test_without_few_shot_test_images_few_is_a_dash(params: Params) -> None:
    report = Store(with_grids(params, table3=TABLE3), few=False).report()
    assert "No test image is in Few." in report.answers[0]
    assert ours(report)["mae_few"].isna().all()
    assert re.search(r"\| reg \|  \|  \|( [\d.]+ ± [\d.]+ \|| \*\*[^|]+\|){3} – \|", report.files["table3.md"])
    assert "Few 0 (0)" in report.files["table3.md"]
    few = csv(report, "table3_differences").query("shot == 'few'")
    assert few["gap"].isna().all() and set(few["answer"]) == {"no images"}


@pytest.mark.usefixtures("undrawn")
def test_data_with_another_range_have_no_published_values(params: Params) -> None:
    base = with_section(params, "agedb", grids={"table3": replace(TABLE3, seeds=1)})
    report = Store(base, "agedb", target_of=lambda age: age * 2.0 - 40.5).report()
    assert "paper" not in report.files["index.html"] and "Published" not in report.files["table3.md"]
    drawn = csv(report, "error_by_target")
    assert drawn["age_from"].min() < 0 and drawn.query("drawn == 'line'")["age_from"].max() > 120


def like_prices(age: np.ndarray) -> np.ndarray:
    """Prices from 22 000 to 5 858 000, most of them low."""
    return 22_000 + (age / 100) ** 3 * 5_836_000


def with_target(params: Params, target: str, unit: str, **values: Any) -> Params:
    data = replace(params.datasets["imdb_wiki"].data, target=target, unit=unit)
    return with_section(
        params, "imdb_wiki", **({"published": None, "data": data, "title": f"A {target} from an image", "shots": DENSITY} | values)
    )


@pytest.fixture(scope="module")
def prices_report(params: Params) -> Report:
    return Store(with_target(params, "price", "$"), target_of=like_prices).report()


def test_a_report_on_prices_mentions_dollars_and_never_ages(prices_report: Report) -> None:
    files = {name: re.sub(r"base64,[^\"]*", "", text) for name, text in prices_report.files.items()}
    assert {name: found for name, text in files.items() if (found := re.findall(r"\b(?:ages?|years?|faces?)\b", text, re.IGNORECASE))} == {}
    assert {"error_by_target.svg", "error_by_target.csv"} <= set(files) and not any("age" in re.split(r"\W|_", name) for name in files)
    assert "predicts a number (price) from an image" in files["index.html"] and "MAE ($) and MSE ($²) by shot group" in files["index.html"]
    names = ", ".join(["RMSE", "GM", *OTHERS[2:]])
    assert f"{names} ($) by shot group" in files[f"table3{MORE}.md"]
    assert "bins of price (50 over the range of the training images)" in files["table3.md"]
    assert prices_report.lines and prices_report.lines[0].measured == "MAE ($)" and " $ against " in prices_report.answers[0]
    for text in ("price ($)", "test MAE ($)", "training images of each bin"):
        assert f"<!-- {text} -->" in files["error_by_target.svg"]


@pytest.mark.usefixtures("undrawn")
def test_large_errors_have_no_decimals_and_small_ones_four(params: Params, prices_report: Report) -> None:
    assert re.match(r"[^:]+: \d{3},\d{3} \$ against \d{3},\d{3} of reg", prices_report.answers[0])
    doses = Store(with_target(params, "dose", "mg"), target_of=lambda age: 0.05 * age).report()
    assert re.match(r"[^:]+: 0\.\d{4} mg against 0\.\d{4} of reg", doses.answers[0])
    assert re.search(r"\| reg \|  \|  \| 0\.\d{4} ± 0\.\d{4} \|", doses.files["table3.md"])


@pytest.mark.usefixtures("undrawn")
def test_networks_no_better_than_a_constant_get_a_warning(params: Params) -> None:
    store = Store(with_target(params, "price", "$"), target_of=like_prices)
    assert store.report().warnings == []
    store.tables |= {run_id: table.assign(prediction=np.float32(0)) for run_id, table in store.tables.items()}
    warnings = store.report(runs=store.tracked()).warnings
    training, targets = store.data.training.astype(float), like_prices(store.ages)
    best = min(np.abs(targets - constant).mean() for constant in (training.mean(), np.median(training)))
    expected = f"reg is no better than a constant: its MAE is {targets.mean():,.0f}, that of a constant {best:,.0f};"
    assert [line.partition(" its")[0] for line in warnings] == [f"table{n}: reg is no better than a constant:" for n in (3, 4)]
    assert expected in warnings[0]


@pytest.mark.usefixtures("undrawn")
def test_constants_are_rows_of_every_table_and_no_verdict_is_given_where_reg_is_no_better(three_seeds: Store) -> None:
    report, training = three_seeds.report(), three_seeds.data.training.astype(float)
    for name in ("table3", f"table3{MORE}"):
        rows = csv(report, name).query("source == 'constant'")
        assert rows["method"].tolist() == ["mean of training targets", "median of training targets"]
    assert csv(report, "table3").query("source == 'constant'")["mae_few"].tolist() == pytest.approx(
        [np.abs(three_seeds.ages - constant)[three_seeds.shots == "few"].mean() for constant in (training.mean(), np.median(training))],
        rel=1e-6,
    )
    assert "| median of training targets |" in report.files["table3.md"]
    useful = csv(report, "table3_differences")["answer"]
    assert set(useful) <= {"helps", "hurts", "no difference above 2 %", "cannot be told"}
    three_seeds.tables |= {run_id: far(table) for run_id, table in three_seeds.tables.items()}
    useless = three_seeds.report(runs=three_seeds.tracked())
    assert set(csv(useless, "table3_differences")["answer"]) == {"reg is no better than a constant"}
    assert ": reg is no better than a constant." in useless.answers[0]


def far(table: pd.DataFrame) -> pd.DataFrame:
    """Predictions whose errors are ten times as large."""
    return table.assign(prediction=np.float32(table["target"] + 10 * (table["prediction"] - table["target"])))


def test_a_unitless_target_is_shown_without_a_unit(params: Params) -> None:
    report = Store(with_target(params, "score", ""), target_of=lambda age: age - 50).report()
    assert report.lines and report.lines[0].measured == "MAE"
    assert "**MAE and MSE by shot group, trained on all training images" in report.files["table3.md"]
    assert "<!-- score -->" in report.files["error_by_target.svg"] and "()" not in report.files["index.html"]


def test_the_figure_and_the_note_show_the_same_limits(prices_report: Report) -> None:
    limits = re.search(r"more than ([\d.]+) training images; Few: fewer than ([\d.]+);", prices_report.files["table3.md"])
    assert limits
    assert f"<!-- many: above {limits[1]} -->" in prices_report.files["error_by_target.svg"]
    assert f"<!-- few: below {limits[2]} -->" in prices_report.files["error_by_target.svg"]


@pytest.mark.parametrize(
    "shots", [DENSITY, IntegerShots(by="integer", many_above=100, few_below=20), replace(DENSITY, bins=100_000)], ids=["density", "integer", "many bins"]
)  # fmt: skip
def test_prices_up_to_six_million_are_drawn_in_a_few_hundred_bars(params: Params, shots: IntegerShots | DensityShots) -> None:
    report = Store(with_target(params, "price", "$", shots=shots), target_of=like_prices).report()
    drawn = csv(report, "error_by_target")
    bars, lines = drawn.query("drawn == 'bar'"), drawn.query("drawn == 'line'")
    assert len(bars) <= BARS < 300 and bars["training_images"].sum() == len(Store(params).data.training)
    assert lines.groupby(["method", "classes"]).size().max() <= 42
    svg = report.files["error_by_target.svg"]
    assert svg.count('<g id="patch_') < BARS + 30
    assert ("<!-- many: above " in svg) == (shots == DENSITY)  # limits refer to a bin: a bar for several bins has none


def test_the_error_by_target_is_averaged_over_seeds_per_bin(store: Store, report: Report) -> None:
    drawn = csv(report, "error_by_target").query("drawn == 'line'")
    chosen = (store.ages >= 70) & (store.ages < 75)
    by_seed = np.abs(errors_of(store, **HUNDRED)[chosen]).mean(axis=0)
    found = row_of(drawn, method="reg+cls", age_from=70)
    assert (found["mae"], found["std"]) == pytest.approx((by_seed.mean(), by_seed.std(ddof=1)), rel=1e-6)
    assert (found["images"], found["seeds"], found["age_to"]) == (chosen.sum(), 2, 75)
    assert drawn.query("method == 'reg'")["age_from"].tolist() == list(range(0, 105, 5))


@pytest.mark.parametrize(
    ("targets", "whole", "width"),
    [
        ([0, 100], True, 5),
        ([3, 9], True, 1),
        ([-40, 160], True, 5),
        ([-40, 170], True, 10),
        ([0, 5000], True, 200),
        ([22_000, 5_858_000], True, 200_000),
        ([22_000, 5_858_000], False, 200_000),
        ([0.0, 5.0], False, 0.2),
        ([-40.0, -5.0], False, 1),
        ([0.0, 1e-6], False, 5e-8),
    ],
)
def test_the_bins_of_the_figure_fit_the_range_of_the_targets(targets: list[float], whole: bool, width: float) -> None:
    edges = bins_of(np.array(targets), whole=whole)
    assert np.diff(edges) == pytest.approx(np.full(len(edges) - 1, width)) and 3 <= len(edges) <= 43
    assert edges[0] <= targets[0] < edges[1] and edges[-2] <= targets[1] < edges[-1]


@pytest.mark.parametrize("whole", [True, False])
def test_equal_targets_share_one_bin(whole: bool) -> None:
    edges = bins_of(np.full(3, 7.5), whole=whole)
    assert len(edges) == 2 and edges[0] <= 7.5 < edges[1]


def test_the_histogram_has_every_age_with_its_group() -> None:
    training = np.repeat([30, 33, 34], [150, 20, 5])
    bars = histogram(ShotGroups.by_integer(training, many_above=100, few_below=20))
    assert bars["start"].tolist() == [30, 31, 32, 33, 34] and bars["end"].tolist() == [31, 32, 33, 34, 35]
    assert bars["count"].tolist() == [150, 0, 0, 20, 5]
    assert bars["shot"].tolist() == ["many", "few", "few", "medium", "few"]


def test_bars_for_several_bins_have_the_group_of_the_fullest_bin() -> None:
    training = np.repeat([0, 1, 2, 3, 2 * BARS - 1], [150, 1, 20, 5, 3])
    bars = histogram(ShotGroups.by_integer(training, many_above=100, few_below=20))
    assert len(bars) == BARS and bars["end"].iloc[-1] == 2 * BARS
    assert bars["count"].tolist() == [151, 25, *[0] * (BARS - 3), 3] and bars["shot"].tolist()[:3] == ["many", "medium", "few"]


def test_the_histogram_of_densities_covers_the_range_of_the_training_targets() -> None:
    bars = histogram(ShotGroups.by_density([-2.0, -2.0, -1.0, 3.0], bins=5, many_above=2.0, few_below=1.0))
    assert (bars["start"].tolist(), bars["end"].tolist()) == ([-2, -1, 0, 1, 2], [-1, 0, 1, 2, 3])
    assert bars["count"].tolist() == [2, 1, 0, 0, 1] and bars["shot"].tolist() == ["many", "medium", "few", "few", "medium"]


def test_groups_without_training_targets_are_not_in_the_legend(params: Params) -> None:
    nowhere_many = IntegerShots(by="integer", many_above=1000, few_below=500)
    svg = Store(with_section(with_grids(params, table3=TABLE3), "imdb_wiki", shots=nowhere_many)).report().files["error_by_target.svg"]
    assert "many training images" not in svg and "many: above" not in svg and "few training images" in svg
