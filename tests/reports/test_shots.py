"""Tables in which each run is one network: the content of cells, and what is bold."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from regcls.params.single import SEARCH
from regcls.reports.report import Report
from regcls.reports.shot_differences import differences
from regcls.reports.shot_subject import Metric, Published, ShotTable, best_by_validation, cells, reg_and_best
from regcls.reports.shots import complete, differences_table, search_table, shots_table
from regcls.reports.tables import Table, latex, markdown
from reports.made_up import row_of
from reports.made_up_shots import GRID, MadeUp, by_classes_alone, made_up, runs_of, with_another_loss


def printed(**changed: Any) -> Published:
    """Published values: a baseline of another paper, reg, and reg+cls with only some errors."""
    rows = [
        ("lds+fds", 0, "mae", "all", 7.85, math.nan),
        *(("reg", 0, "mae", shot, value, 0.5) for shot, value in (("all", 7.74), ("many", 7.1), ("medium", 13.0), ("few", 25.0))),
        ("reg+cls", 100, "mae", "all", 0.01, 0.04),
        ("reg+cls", 100, "mse", "few", 1017.59, 20.0),
    ]
    values = pd.DataFrame(rows, columns=["method", "classes", "metric", "shot", "value", "std"]).assign(uncertain=False)
    return Published(**({"values": values, "where": "THAT-DIR", "why": "", "digits": 2, "balanced_data": False} | changed))


def table3(values: dict[str, list[float]] | None = None, *, published: Published | None = None, digits: int = 2) -> Table:
    """Table 3 of reg, reg+cls · 10 and reg+cls · 100 with one seed; `values` are their three measurements."""
    return table_of(made_up(1), values, published=published, digits=digits)


def table_of(study: MadeUp, values: dict[str, list[float]] | None = None, *, published: Published | None = None, digits: int = 2) -> Table:
    for name, found in (values or {}).items():
        study.runs.values[f"test/{name}"] = found
    subject = replace(study.subject, digits=lambda value: digits)
    return shots_table(subject, study.runs, subject.main, name="table3", caption="c", published=published)


def strong(table: Table, column: int) -> list[str]:
    return [row[column].text for row in table.rows if row[column].strong]


def test_a_cell_shows_mean_and_deviation_over_its_seeds() -> None:
    study = made_up()
    values = study.runs.values["test/mae/few"].loc[["1-0", "1-1", "1-2"]]
    unmeasured = Metric(name="gm", measured="test/gm", title="GM")
    cell = row_of(cells(study.subject, study.runs, [*study.subject.main.metrics, unmeasured]), classes=10)
    assert (cell["mae_few"], cell["mae_few_std"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (cell["seeds"], cell["seeds_wanted"]) == (3, 3) and math.isnan(cell["gm_few"])


def test_a_cell_without_runs_is_shown_empty() -> None:
    study = made_up(1, missing=("2-0",))
    cell = row_of(cells(study.subject, study.runs, study.subject.main.metrics), classes=100)
    assert cell["seeds"] == 0 and math.isnan(cell["mae_all"])


def test_the_class_count_is_chosen_by_validation_among_complete_means() -> None:
    study = made_up()
    study.runs.values["val/mse/all"] = [9, 9, 1, 9, 2, 5, 9, 2, 1]  # by seed, then by cell
    assert best_by_validation(study.subject, study.runs)["classes"].tolist() == [0, 100]
    thin = made_up(missing=("2-1",))
    thin.runs.values["val/mse/all"] = 5.0
    thin.runs.values.loc["2-0", "val/mse/all"] = 0.0
    assert best_by_validation(thin.subject, thin.runs)["classes"].tolist() == [0, 10]


def test_reg_is_compared_with_the_best_of_all_other_methods() -> None:
    study = made_up()
    study.runs.values["val/mse/all"] = [5.0 - int(run_id[0]) for run_id in study.runs.values.index]
    assert reg_and_best(study.subject, study.runs)["classes"].tolist() == [0, 100]
    study.runs.values.loc["2-1", "val/mse/all"] = 99.0
    assert reg_and_best(study.subject, study.runs)["classes"].tolist() == [0, 10]
    without = made_up(1, missing=("0-0",))
    without.runs.values["val/mse/all"] = [4.0, 3.0]
    assert reg_and_best(without.subject, without.runs)["classes"].tolist() == [100]


def test_the_lowest_of_our_means_in_a_column_is_bold() -> None:
    table = table3({"mae/all": [9.0, 8.5, 8.25]}, published=printed())
    assert strong(table, 3) == ["8.25"]  # the published 0.01 is lower
    assert "**8.25**" in markdown(table) and r"\textbf{8.25}" in latex(table)


def test_equal_printed_means_are_bold_together_and_a_lone_one_is_not() -> None:
    assert strong(table3({"mae/all": [9.0, 8.251, 8.252]}), 3) == ["8.25", "8.25"]
    study = made_up(1)
    alone = replace(study.runs, wanted=study.runs.wanted.iloc[:1])
    only = shots_table(study.subject, alone, study.subject.main, name="t", caption="")
    assert [cell.strong for cell in only.rows[0]] == [False] * len(only.columns)


@pytest.mark.parametrize("thin", [1.0, 8.0], ids=["lower", "the same"])
def test_a_mean_over_fewer_seeds_is_not_bold(thin: float) -> None:
    study = made_up(2, missing=("2-1",))
    table = table_of(study, {"mae/all": [9.0, 8.0, thin, 9.0, 8.0]})
    assert strong(table, 3) == ["8.00 ± 0.00"] and table.rows[2][11].text == "1 of 2"
    assert not table.rows[2][3].strong


def test_the_highest_mean_is_bold_if_higher_is_better() -> None:
    study = made_up(1)
    study.runs.values["test/share/all"] = [0.5, 0.7, 0.6]
    share = Metric(name="share", measured="test/share", title="share", higher_is_better=True)
    table = shots_table(study.subject, study.runs, ShotTable(suffix="s", metrics=[share], caption=""), name="t", caption="")
    assert strong(table, 3) == ["0.70"] and "the highest mean" in markdown(table)
    both = ShotTable(suffix="s", metrics=[share, *study.subject.main.metrics], caption="")
    assert "the best mean" in markdown(shots_table(study.subject, study.runs, both, name="t", caption=""))
    assert "the lowest mean" in markdown(table3())


def test_an_empty_group_is_shown_as_a_dash() -> None:
    table = table3({"mae/few": [np.nan] * 3, "mse/few": [np.nan] * 3})
    assert [row[6].text for row in table.rows] == ["–"] * 3 and strong(table, 6) == []


def test_each_error_has_its_own_block_and_best_value() -> None:
    table = table3({"mae/all": [1.6, 1.5, 1.7], "mse/all": [1.3, 1.4, 1.35]})
    assert table.spans[1:3] == (("MAE", 4), ("MSE", 4)) and (strong(table, 3), strong(table, 7)) == (["1.50"], ["1.30"])
    assert sum(width for _, width in table.spans) == len(table.columns) == len(table.under)


def test_published_rows_are_set_apart_below_ours() -> None:
    table = table3(published=printed(why="epochs 10 instead of 90"))
    assert [(part.place, part.title, part.ours) for part in table.parts] == [
        (0, "Ours", True),
        (3, "Published, not comparable with ours", False),
    ]
    text = {(row[0].text, row[1].text): [cell.text for cell in row] for row in table.rows[3:]}
    assert text["reg", ""][3:7] == ["7.74 ± 0.50", "7.10 ± 0.50", "13.00 ± 0.50", "25.00 ± 0.50"]
    assert text["reg+cls", "100"][3:] == ["0.01 ± 0.04", *["–"] * 6, "1,017.59 ± 20.00", "3", ""]
    assert text["lds+fds", ""][3:] == ["7.85", *["–"] * 7, "–", ""]
    assert "not comparable with ours: epochs 10 instead of 90." in markdown(table) and "lds+fds: baselines" in markdown(table)
    assert table.frame.query("source == 'published' and classes == 100")["mse_few"].tolist() == [1017.59]
    assert table3(published=printed()).parts[1].title == "Published"


def test_without_published_values_our_rows_have_no_heading() -> None:
    assert table3().parts == () and "source" not in table3().frame and "ublished" not in markdown(table3())


def test_uncertain_published_values_are_marked_and_explained() -> None:
    given = printed().values
    table = table3(published=printed(values=given.assign(uncertain=given["method"] == "reg")))
    assert [row[0].text for row in table.rows[3:]] == ["lds+fds", "reg†", "reg+cls"]
    assert any(note.startswith("†") for note in table.notes) and not any(note.startswith("†") for note in table3(published=printed()).notes)


def test_for_balanced_data_the_papers_class_loss_is_explained() -> None:
    note = "The paper's reg+cls on balanced data has equalised classes, so it is called reg+cls-bal here."
    assert note in table3(published=printed(balanced_data=True)).notes and note not in table3(published=printed()).notes


def test_published_values_keep_their_own_digits() -> None:
    table = table3(published=printed(digits=3), digits=0)
    assert table.rows[4][3].text == "7.740 ± 0.500" and "." not in table.rows[0][3].text


def test_group_sizes_are_shown_under_their_names_and_in_the_notes() -> None:
    table = table3()
    assert table.under[3:7] == ("8 images\nof people", "3 images\nof people", "3 images\nof people", "2 images\nof people")
    assert len(table.under) == len(table.columns) and "- Many: all that is frequent." in markdown(table)


def test_every_row_links_to_its_runs_and_those_of_reg() -> None:
    table = table_of(made_up(2))
    assert [[(group.label, group.ids) for group in row[-1].runs] for row in table.rows] == [
        [("reg", ("0-0", "0-1"))],
        [("reg", ("0-0", "0-1")), ("reg+cls · 10 · λ 1", ("1-0", "1-1"))],
        [("reg", ("0-0", "0-1")), ("reg+cls · 100 · λ 0.1", ("2-0", "2-1"))],
    ]


def test_table_data_holds_the_unrounded_numbers_of_its_columns() -> None:
    study = made_up(1)
    frame = table_of(study).frame
    assert frame["mse_few"].tolist() == study.runs.values["test/mse/few"].tolist()
    errors = {f"{error}_{shot}{end}" for error in ("mae", "mse") for shot in ("all", "many", "medium", "few") for end in ("", "_std")}
    assert set(frame) == errors | {"method", "classes", "lambda", "seeds", "seeds_wanted"}


def test_the_differences_have_a_row_per_method_error_and_group() -> None:
    study = made_up()
    table = differences_table(
        study.subject, study.runs, differences(study.runs, study.subject.compare, negligible=2.0), name="d", caption="c"
    )
    assert len(table.rows) == 2 * 2 * 4 and [part.place for part in table.parts] == [0, 8]
    row, frame = table.rows[0], table.frame.iloc[0]
    assert [cell.text for cell in row[:4]] == ["reg+cls", "10", "1", "All"]
    assert row[6].text == f"{frame['gap']:+.2f}".replace("-", "−") and row[-1].runs[0].label == "reg"
    assert len(row) == len(table.columns) and row[7].text == frame["answer"]
    assert "adjusted for the 16 tests of this table" in markdown(table)


def test_differences_of_one_error_have_no_headings() -> None:
    study = made_up()
    table = differences(study.runs, study.subject.compare, negligible=2.0)
    subject = replace(study.subject, tested={"mae": "MAE"})
    shown = differences_table(subject, study.runs, table[table["error"] == "mae"], name="d", caption="c")
    assert shown.parts == () and len(shown.rows) == 2 * 4


def searched(seeds: int = 3) -> MadeUp:
    """A search of reg+cls with 10 classes over two values of λ, of which 0.1 is better."""
    study = made_up(seeds)
    study.runs.wanted["classes"] = study.runs.wanted["classes"].replace(100, 10)
    for name in ("val/mse/all", "val/mae/all"):
        study.runs.values[name] = [float({"0": 7, "1": 6, "2": 5}[run_id[0]]) for run_id in study.runs.values.index]
    return study


def test_the_best_lambda_is_bold_for_both_errors() -> None:
    study = searched()
    table = search_table(study.subject, study.runs)
    assert table.columns == ("method", "classes", "λ 0.1", "λ 1", "λ 0.1", "λ 1")
    assert table.spans[1:] == (("validation MSE", 2), ("validation MAE", 2))
    assert [[cell.text for cell in row if cell.strong] for row in table.rows] == [[], ["5.00 ± 0.00‡", "5.00 ± 0.00‡"]]
    assert all(cell.runs for cell in table.rows[1][2:]) and "A method with only one loss has no λ: its value is repeated." in table.notes


EDGE_NOTE = (
    "‡ The smallest or largest λ of its grid: a better one may lie outside, so extend `lambdas` of lambda_search by a factor of ten."
)


@pytest.mark.parametrize(("errors", "marked"), [((7, 5, 6), False), ((5, 6, 7), True), ((7, 6, 5), True), ((5, None, None), False)])
def test_a_lambda_at_the_edge_of_its_grid_is_marked(errors: Sequence[float | None], marked: bool) -> None:
    runs = runs_of(1, ())
    cells = [("reg+cls", 10, lam, f"{lam:g}", f"{index}-0") for index, lam in enumerate((0.1, 1.0, 10.0)) if errors[index] is not None]
    wanted = pd.DataFrame(cells, columns=["method", "classes", "lam", "weight", "run_id"]).assign(seed=0, state="finished")
    values = pd.DataFrame(
        {name: [float(error) for error in errors if error] for name in ("val/mse/all", "val/mae/all")}, index=wanted["run_id"]
    )
    table = search_table(made_up(1).subject, replace(runs, wanted=wanted, values=values))
    assert ([cell.text for cell in table.rows[0] if cell.strong] == ["5.00‡"] * 2, EDGE_NOTE in table.notes) == (marked, marked)


@pytest.mark.parametrize(("seeds", "best"), [(1, "3.00‡"), (2, "3.00 ± 0.00‡")])
def test_the_search_is_judged_by_its_first_error(seeds: int, best: str) -> None:
    study = searched(seeds)
    study.runs.values["val/mse/all"] = [{"0": 5.0, "1": 3.0, "2": 4.0}[run_id[0]] for run_id in study.runs.values.index]
    table = search_table(study.subject, study.runs)
    assert [cell.text for cell in table.rows[1] if cell.strong] == [best, table.rows[1][5].text]  # λ 1, whatever its MAE


def test_a_lambda_with_fewer_seeds_does_not_win() -> None:
    study = searched(2)
    study.runs.wanted.loc[study.runs.wanted["run_id"] == "2-1", ["run_id", "state"]] = ["", "failed"]
    table = search_table(study.subject, study.runs)
    assert [cell.text for cell in table.rows[1][2:4]] == ["5.00 (n = 1 of 2)", "6.00 ± 0.00‡"]
    assert [cell.strong for cell in table.rows[1][2:4]] == [False, True]


def test_another_loss_has_its_own_rows_with_classes_only_if_it_has_any() -> None:
    study = with_another_loss()
    rows = [("reg", "", ""), ("focal-r", "", ""), ("focal-r+cls", "100", "0.1")]
    table = shots_table(study.subject, study.runs, study.subject.main, name="t", caption="c")
    assert [tuple(cell.text for cell in row[:3]) for row in table.rows] == rows
    differences_of = differences(study.runs, study.subject.compare, negligible=2.0)
    shown = differences_table(study.subject, study.runs, differences_of, name="d", caption="c")
    assert [*dict.fromkeys(tuple(cell.text for cell in row[:3]) for row in shown.rows)] == rows[1:]
    row = row_of(differences_of, method="focal-r", error="mae", shot="all")
    values = study.runs.values["test/mae/all"]
    assert row["gap"] == pytest.approx(np.mean([values[f"0-{seed}"] - values[f"1-{seed}"] for seed in range(3)]))


def test_another_loss_without_classes_has_one_value_for_all_lambdas() -> None:
    study = with_another_loss()
    table = search_table(study.subject, study.runs)
    assert [(row[0].text, row[1].text) for row in table.rows] == [("reg", ""), ("focal-r", ""), ("focal-r+cls", "100")]
    assert "A method with only one loss has no λ: its value is repeated." in table.notes


def test_classes_without_lambda_have_rows_of_their_own_and_one_value_for_all_lambdas() -> None:
    study = by_classes_alone()
    table = shots_table(study.subject, study.runs, study.subject.main, name="t", caption="c")
    rows = [("reg", "", ""), ("reg+cls", "100", "0.1"), ("hl-gauss", "10", "")]
    assert [tuple(cell.text for cell in row[:3]) for row in table.rows] == rows
    assert [group.label for group in table.rows[2][-1].runs] == ["reg", "hl-gauss · 10"]
    search = search_table(study.subject, study.runs)
    assert search.columns == ("method", "classes", "λ 0.1", "λ 0.1") and [row[0].text for row in search.rows] == [row[0] for row in rows]
    assert not any(cell.strong for cell in search.rows[2]) and all(cell.runs for cell in search.rows[2][2:])
    assert "A method with only one loss has no λ: its value is repeated." in search.notes


def test_all_results_of_grids_are_added_to_a_report_in_order() -> None:
    study = made_up()
    grids = {"table3": study.runs, SEARCH: searched().runs}
    report, seen = Report(dataset="d", title="t", wanted=9, finished=9), list[Any]()
    complete(
        report, study.subject, grids, best_lambdas={}, extra=lambda runs: seen.append((runs, [section.name for section in report.sections]))
    )
    assert [section.name for section in report.sections] == ["table3", "table3_differences", SEARCH]
    assert seen == [(study.runs, ["table3", "table3_differences"])]
    assert report.sections[0].caption == "Errors on all images." and report.sections[1].title == "Table 3: differences to reg"
    assert bool(report.lines) and len(report.answers) == 3 and set(report.metrics) == {"mae", "gap"}


def test_a_grid_still_waiting_for_lambda_gives_a_warning() -> None:
    study, report = made_up(), Report(dataset="d", title="t", wanted=9, finished=9)
    grids = {"table3": replace(GRID, lambdas="searched"), SEARCH: replace(GRID, lambdas=(0.1, 1.0))}
    subject = replace(study.subject, grids=grids)
    complete(report, subject, {"table3": study.runs}, best_lambdas={("reg+cls", 100): 0.1}, extra=lambda runs: None)
    assert report.warnings == ["table3: no λ found yet for reg+cls · 10; these runs are neither trained nor counted"]
