"""Requirements on every report, whatever its tables, and the parts of a page."""

import re
from io import StringIO
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from regcls.errors import UserError
from regcls.reports import page
from regcls.reports.report import Report, Section
from regcls.reports.tables import Cell, RunGroup, Table
from regcls.tracking.views import View
from reports.made_up import MadeUpLinks, with_section
from tasks.depth import made_up_depth
from tasks.functions import made_up_functions
from tasks.images import made_up_images
from tasks.sequences import made_up_sequences

# Data set -> its made-up runs, some of its files, and a column without which no run is usable.
PAGES: dict[str, tuple[ModuleType, set[str], str]] = {
    "functions": (
        made_up_functions,
        {*(f"figure{n}.svg" for n in range(1, 6)), "panels.md", "summary.csv", "figure4_lambda.tex", "table1.tex", "figure3_networks.csv"},
        "test/mse/function_3",
    ),
    "imdb_wiki": (made_up_images, {"table3.csv", "table4.tex", "error_by_target.svg", "lambda_search.csv"}, "val/mse/all"),
    "nyud2": (
        made_up_depth,
        {"table2.csv", "table2_mae.md", "table2_delta.tex", "table4.tex", "error_by_depth.svg", "examples.svg", "lambda_search.csv"},
        "val/rmse/all",
    ),
    "breakfast": (
        made_up_sequences,
        {"table5a.csv", "table5b.tex", "table5a_activities.md", "table5b_differences.csv", "progress.svg", "lengths.svg", "lambda_search.csv"},
        "test/rmse/tea",
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=PAGES)
def dataset(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def store(dataset: str) -> Any:
    made_up = PAGES[dataset][0]
    return made_up.Store(made_up.small())


@pytest.fixture(scope="module")
def report(store: Any) -> Report:
    result: Report = store.report()
    return result


def test_the_page_does_not_depend_on_the_order_of_runs(dataset: str, store: Any, report: Report) -> None:
    again = store.report(runs=store.runs.sample(frac=1, random_state=1))
    assert (again.files, again.answers, again.warnings) == (report.files, report.answers, report.warnings)
    assert str(again.lines) == str(report.lines)  # NaN is not equal to itself
    assert PAGES[dataset][1] | {"index.html", "holes.csv"} <= set(report.files)


def test_every_run_is_linked_and_every_linked_file_exists(store: Any, report: Report) -> None:
    html = report.files["index.html"]
    assert set(re.findall(r"/runs/(\w+)", html)) == set(store.runs["run_id"])
    links = set(re.findall(r'href="([^"#:]+)"', html)) - {"../index.html"}
    assert links and links <= set(report.files)


def test_the_page_loads_nothing_from_the_network(report: Report) -> None:
    html = report.files["index.html"]
    assert "<script" not in html and not re.search(r"""(src|@import|url\()\s*=?\s*["']?(https?:)?//""", html)
    assert "abc&lt;1&gt;" in html  # shown text is escaped


def test_published_values_next_to_stand_ins_are_called_not_comparable(dataset: str, report: Report) -> None:
    published = [text for name, text in report.files.items() if name.endswith((".md", ".tex")) and "*Published" in text]
    assert all(re.search("not comparable with ours: .*generated stand-in ", text) for text in published)
    assert bool(published) == (dataset != "functions")  # which are drawn anyway, and whose tables have a column for them


def test_without_published_values_the_paper_is_not_mentioned(dataset: str, store: Any) -> None:
    report = PAGES[dataset][0].Store(with_section(store.params, dataset, published=None)).report()
    texts = {name: re.sub(r'base64,[^"]*', "", text) for name, text in report.files.items()}
    mentions = {name: re.findall(r"paper|published|released|printed|later re-run", text, re.IGNORECASE) for name, text in texts.items()}
    assert {name: words for name, words in mentions.items() if words} == {} and PAGES[dataset][1] <= set(mentions)


@pytest.mark.usefixtures("undrawn")
def test_duplicates_and_stale_runs_give_warnings(store: Any) -> None:
    again = store.runs.iloc[:2].assign(run_id=["later-1", "later-2"], started=2e9, fingerprint=[store.runs["fingerprint"][0], "another"])
    warnings = store.report(runs=pd.concat([store.runs, again])).warnings
    assert warnings[0].startswith("duplicates: 1 finished run ") and "later-1" in warnings[0]
    assert warnings[1].startswith("stale: 1 finished run ")


@pytest.mark.usefixtures("undrawn")
def test_without_usable_runs_the_error_says_what_to_do(dataset: str, store: Any) -> None:
    for runs in (store.runs.iloc[:0], store.runs.assign(status="FAILED"), store.runs.assign(**{PAGES[dataset][2]: float("nan")})):
        with pytest.raises(UserError, match=rf"regcls train {dataset} \(or: dvc repro -fs train@{dataset}\)"):
            store.report(runs=runs)


@pytest.mark.usefixtures("undrawn")
def test_each_missing_run_has_a_row_with_lambda_as_in_params_yaml(store: Any) -> None:
    report = store.report(runs=store.runs.drop(index=store.runs.index[store.runs["lam"].notna()][:3]))
    holes = pd.read_csv(StringIO(report.files["holes.csv"]))
    assert len(holes) == 3 and set(holes["state"]) == {"missing"} and holes["lambda"].notna().all()
    assert not {"run_id", "lam", "weight"} & set(holes) and report.metrics["runs"]["missing"] == 3


def test_the_list_of_all_runs_is_linked_with_the_columns_of_the_report(store: Any, report: Report) -> None:
    assert report.view is not None and set(report.view.metrics) <= set(store.runs)
    listed, beside = MadeUpLinks().view_urls(report.view)
    for url in (listed, beside.replace("&", "&amp;")):
        assert f'href="{url}"' in report.files["index.html"]


def rendered(table: Table | None = None, *, view: View | None = None, holes: int = 0) -> str:
    """A page of one section."""
    section = Section(name="one", title="One", caption="One", table=table, holes=[f"hole {k}." for k in range(holes)])
    made_up_report = Report(dataset="mine", title="Mine", wanted=1, finished=1, sections=[section], view=view)
    links = MadeUpLinks()
    views, nothing = view and links.view_urls(view), {"data": [], "code": []}
    return page.render("dataset.html", report=made_up_report, links=links, views=views, provenance={}, machines=[], origins=nothing)


@pytest.mark.parametrize(("count", "linked"), [(1, False), (2, True), (page.COMPARED_MOST, True), (page.COMPARED_MOST + 1, False)])
def test_the_runs_of_a_table_are_linked_side_by_side_unless_too_many(count: int, linked: bool) -> None:
    ids = [f"id{k}" for k in range(count)]
    cells = [Cell(text="1", runs=(RunGroup(label="reg", runs=(("0", run_id),)),)) for run_id in (*ids, ids[0])]
    table = Table(name="t", caption="T", columns=("a",) * len(cells), rows=(tuple(cells),), frame=pd.DataFrame())
    found = re.findall(r'href="([^"]*)">its (\d+) runs compared in MLflow', rendered(table))
    assert found == ([(MadeUpLinks().compare_url(ids), str(count))] if linked else [])


def test_a_page_without_a_view_has_no_list_of_all_runs() -> None:
    view = View(tag=("dataset", "mine"), params=("method",), metrics=("test/mae/all",))
    assert "parallel coordinates" in rendered(view=view) and "parallel coordinates" not in rendered()


def test_many_missing_runs_are_not_all_listed() -> None:
    few, many = rendered(holes=page.HOLES_SHOWN), rendered(holes=page.HOLES_SHOWN + 3)
    assert few.count("<li>hole") == many.count("<li>hole") == page.HOLES_SHOWN
    assert "and 3 more:" in many and "more:" not in few
