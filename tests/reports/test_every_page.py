"""What every report on runs of images and videos must fulfil, whatever its tables. That on the 1D study: test_synthetic.py."""

import re
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from regcls.errors import UserError
from regcls.reports.report import Report
from reports import made_up_depth, made_up_faces, made_up_video
from reports.made_up import with_section

# Data set -> its made-up runs, some of its files, and a column without which no run counts.
PAGES: dict[str, tuple[ModuleType, set[str], str]] = {
    "imdb_wiki": (made_up_faces, {"table3.csv", "table4.tex", "error_by_age.svg", "lambda_search.csv"}, "test_mae_all"),
    "nyud2": (
        made_up_depth,
        {"table2.csv", "table2_mae.md", "table2_delta.tex", "table4.tex", "error_by_depth.svg", "examples.svg", "lambda_search.csv"},
        "val_rmse_all",
    ),
    "breakfast": (
        made_up_video,
        {"table5a.csv", "table5b.tex", "table5a_activities.md", "table5b_differences.csv", "progress.svg", "lengths.svg", "lambda_search.csv"},
        "activities/test_rmse_tea",
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
    made: Report = store.report()
    return made


def test_the_same_runs_give_the_same_bytes_in_any_order(dataset: str, store: Any, report: Report) -> None:
    again = store.report(runs=store.runs.sample(frac=1, random_state=1))
    assert (again.files, again.answers, again.warnings, again.line) == (report.files, report.answers, report.warnings, report.line)
    assert PAGES[dataset][1] | {"index.html", "holes.csv"} <= set(report.files)


def test_every_run_is_linked_and_every_file_that_the_page_links_to_is_there(store: Any, report: Report) -> None:
    html = report.files["index.html"]
    assert set(re.findall(r"/runs/(\w+)", html)) == set(store.runs["run_id"])
    links = set(re.findall(r'href="([^"#:]+)"', html)) - {"../index.html"}
    assert links and links <= set(report.files)


def test_the_page_asks_nothing_of_the_network(report: Report) -> None:
    html = report.files["index.html"]
    assert "<script" not in html and not re.search(r"""(src|@import|url\()\s*=?\s*["']?(https?:)?//""", html)
    assert "abc&lt;1&gt;" in html  # what is shown is escaped


def test_published_values_beside_stand_ins_are_said_to_be_not_comparable(report: Report) -> None:
    published = [text for name, text in report.files.items() if name.endswith((".md", ".tex")) and "*Published" in text]
    assert published and all("not comparable with ours: generated stand-in " in text for text in published)


def test_without_published_values_none_are_shown_and_nothing_is_said_of_the_paper(dataset: str, store: Any) -> None:
    report = PAGES[dataset][0].Store(with_section(store.params, dataset, published=None)).report()
    said = {name: re.findall(r"paper|published|later re-run", text, re.IGNORECASE) for name, text in report.files.items()}
    assert {name: words for name, words in said.items() if words} == {} and PAGES[dataset][1] <= set(said)


def test_duplicates_and_stale_runs_are_warned_of(store: Any) -> None:
    again = store.runs.iloc[:2].assign(run_id=["later-1", "later-2"], started=2e9, fingerprint=[store.runs["fingerprint"][0], "another"])
    warnings = store.report(runs=pd.concat([store.runs, again])).warnings
    assert warnings[0].startswith("duplicates: 1 finished run ") and "later-1" in warnings[0]
    assert warnings[1].startswith("stale: 1 finished run ")


def test_no_run_that_counts_is_an_error_that_says_what_to_do(dataset: str, store: Any) -> None:
    for runs in (store.runs.iloc[:0], store.runs.assign(status="FAILED"), store.runs.assign(**{PAGES[dataset][2]: float("nan")})):
        with pytest.raises(UserError, match=rf"regcls train {dataset} \(or: dvc repro -f train@{dataset}\)"):
            store.report(runs=runs)
