import errno
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from regcls.errors import UserError
from regcls.params import Params
from regcls.reports import overview
from regcls.reports.report import Compared, Line, Report
from reports.made_up import small_params

ABSENT = {"agedb": "there is no prepared data in data/agedb/prepared. Prepare it with: regcls prepare agedb"}

OTHER = ["8 instead of 213553 images"]


@pytest.fixture(scope="module")
def small() -> Params:
    return small_params()


def made_up_report(dataset: str, **changed: Any) -> Report:
    defaults: dict[str, Any] = {
        "title": f"Title of {dataset}",
        "wanted": 3,
        "finished": 3,
        "answers": [f"Of {dataset}."],
        "files": {"index.html": f"page of {dataset}", "holes.csv": "state\n"},
    }
    return Report(dataset=dataset, **(defaults | changed))


def line(**changed: Any) -> Line:
    overall = Compared(reg=7.1, other=6.4, gap=0.7, low=0.4, high=1.0, answer="helps")
    few = Compared(reg=14.5, other=15.5, gap=-1.0, low=math.nan, high=math.nan, answer="not tested")
    defaults: dict[str, Any] = {
        "measured": "MAE (years)",
        "method": "reg+cls · 100",
        "overall": overall,
        "few": few,
        "n": "2 seeds",
        "digits": 2,
    }
    return Line(**(defaults | changed))


def write(out: Path, params: Params, reports: dict[str, Report], absent: dict[str, str]) -> list[str]:
    params = replace(params, chosen=(*reports, *absent))
    return overview.write(out, params=params, reports=reports, absent=absent, provenance={"git commit": "abc<1>"})


def test_each_data_set_has_an_answer_a_state_and_a_link(small: Params, tmp_path: Path) -> None:
    faces = made_up_report("imdb_wiki", finished=2, warnings=["table3: 1 of 3 runs are holes (1 failed); see the report"])
    warnings = write(tmp_path / "reports", small, {"functions": made_up_report("functions"), "imdb_wiki": faces}, {})
    html = (tmp_path / "reports/index.html").read_text()
    assert "Of functions." in html and "3 of 3 runs finished." in html
    assert "Of imdb_wiki." in html and "2 of 3 runs finished" in html and "1 missing" in html and "1 failed" in html
    links = re.findall(r'href="([^"#:]+)"', html)
    assert {"functions/index.html", "imdb_wiki/index.html", "metrics.json"} <= set(links)
    assert all((tmp_path / "reports" / link).is_file() for link in links)
    assert warnings == ["imdb_wiki: table3: 1 of 3 runs are holes (1 failed); see the report"]
    assert "abc&lt;1&gt;" in html


def test_a_data_set_without_a_report_is_listed_with_its_remedy(small: Params, tmp_path: Path) -> None:
    warnings = write(tmp_path / "reports", small, {"functions": made_up_report("functions", metrics={"gap": 0.5})}, ABSENT)
    assert warnings == [f"agedb: left out, because {ABSENT['agedb']}"]
    assert "regcls prepare agedb" in (tmp_path / "reports/index.html").read_text()
    assert json.loads((tmp_path / "reports/metrics.json").read_text()) == {"functions": {"gap": 0.5}, "agedb": None}
    assert not (tmp_path / "reports/agedb").exists()


def test_without_any_report_the_error_says_why(small: Params, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^there is no prepared data .* prepare agedb$"):
        write(tmp_path / "reports", small, {}, ABSENT)
    with pytest.raises(UserError, match=r"(?s)^agedb: there .*\nimdb_wiki: none$"):
        write(tmp_path / "reports", small, {}, ABSENT | {"imdb_wiki": "none"})
    assert not (tmp_path / "reports").exists()


def test_a_report_without_an_answer_says_there_is_nothing_to_compare(small: Params, tmp_path: Path) -> None:
    write(tmp_path / "reports", small, {"imdb_wiki": made_up_report("imdb_wiki", answers=[])}, {})
    assert "Nothing to compare yet." in (tmp_path / "reports/index.html").read_text()


def test_a_full_disk_keeps_the_previous_report(small: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/index.html").write_text("before")
    write_text = Path.write_text

    def full(path: Path, *args: Any, **kwargs: Any) -> int:
        if path.name == "metrics.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="no space left"):
        write(tmp_path / "reports", small, {"functions": made_up_report("functions")}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["reports"]
    assert [path.read_text() for path in (tmp_path / "reports").iterdir()] == ["before"]


def test_the_summary_has_a_line_per_data_set_in_three_formats(small: Params, tmp_path: Path) -> None:
    reports = {
        "imdb_wiki": made_up_report("imdb_wiki", lines=[line()], other_data=OTHER),
        "functions": made_up_report("functions", lines=[line(few=None, digits=3, part="noisy"), line(few=None, digits=3)]),
    }
    write(tmp_path / "reports", small, reports, ABSENT)
    lines = [row for row in (tmp_path / "reports/summary.md").read_text().splitlines() if row.startswith("| ")][2:]
    assert [row.replace("\u00a0", " ") for row in lines] == [
        "| Age from faces: IMDB-WIKI-DIR‡ | MAE (years) | reg+cls · 100 | 7.10 | 6.40 | +0.70 (+0.40 to +1.00) | **helps** "
        "| 14.50 | 15.50 | −1.00 | not tested | 2 seeds |",
        "| 1D functions: noisy | MAE (years) | reg+cls · 100 | 7.100 | 6.400 | +0.700 (+0.400 to +1.000) | **helps** | – | – | – | – | 2 seeds |",
        "| 1D functions | MAE (years) | reg+cls · 100 | 7.100 | 6.400 | +0.700 (+0.400 to +1.000) | **helps** | – | – | – | – | 2 seeds |",
        "| Age from faces: AgeDB-DIR | no report | – | – | – | – | – | – | – | – | – |  |",
    ]
    table = pd.read_csv(tmp_path / "reports/summary.csv", index_col="dataset", keep_default_na=False)
    assert (
        table.loc["imdb_wiki", "few_gap"] == "-1"
        and table.loc["functions", "part"].tolist() == ["noisy", ""]
        and table.loc["agedb", "measured"] == "no report"
    )
    assert (tmp_path / "reports/summary.tex").is_file()


def test_the_summary_precedes_the_answers_and_links_to_the_reports(small: Params, tmp_path: Path) -> None:
    write(tmp_path / "reports", small, {"imdb_wiki": made_up_report("imdb_wiki", lines=[line()], other_data=OTHER)}, ABSENT)
    html = (tmp_path / "reports/index.html").read_text()
    assert html.index('<th scope="row"><a href="imdb_wiki/index.html">Age from faces: IMDB-WIKI-DIR‡</a></th>') < html.index(
        "Of imdb_wiki."
    )
    assert '<th scope="row">Age from faces: AgeDB-DIR</th>' in html
    assert html.index("‡ Not the paper&#39;s data") < html.index("Of imdb_wiki.")


def test_data_sets_other_than_the_papers_are_marked(small: Params, tmp_path: Path) -> None:
    other = made_up_report("nyud2", lines=[line()], other_data=["8 instead of 50688 training images"])
    write(tmp_path / "reports", small, {"nyud2": other}, {})
    text, html = (tmp_path / "reports/summary.md").read_text(), (tmp_path / "reports/index.html").read_text()
    assert "| Depth from an image: NYUD2-DIR‡ |" in text and "‡ Not the paper's data" in text
    assert "Not the paper&#39;s data: 8 instead of 50688 training images." in html or "Not the paper's data: 8 instead of" in html


def test_the_papers_data_are_not_marked_and_missing_comparisons_are_noted(small: Params, tmp_path: Path) -> None:
    write(tmp_path / "reports", small, {"imdb_wiki": made_up_report("imdb_wiki", lines=[line()]), "agedb": made_up_report("agedb")}, {})
    text = (tmp_path / "reports/summary.md").read_text()
    assert "‡" not in text and "| Age from faces: AgeDB-DIR | nothing to compare |" in text


def test_methods_are_ranked_where_there_are_several(small: Params, tmp_path: Path) -> None:
    several = [line(method="lds"), line(method="reg+cls · 100"), line(part="noisy", method="reg+cls · 4")]
    reports = {"imdb_wiki": made_up_report("imdb_wiki", ranking=several), "nyud2": made_up_report("nyud2", ranking=[line()])}
    write(tmp_path / "reports", small, reports, {})
    table = pd.read_csv(tmp_path / "reports/methods.csv")
    assert table[["dataset", "method"]].to_numpy().tolist() == [["imdb_wiki", "lds"], ["imdb_wiki", "reg+cls · 100"]]
    html = (tmp_path / "reports/index.html").read_text()
    assert "All methods" in html and html.index(">lds<") < html.index(">reg+cls · 100<", html.index(">lds<"))
    write(tmp_path / "other", small, {"nyud2": reports["nyud2"]}, {})
    assert not (tmp_path / "other/methods.csv").exists() and "All methods" not in (tmp_path / "other/index.html").read_text()
