from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from regcls.reports import faces_tables, published
from regcls.reports.tables import Table, latex, markdown
from regcls.tasks.images.params import ShotLimits
from reports.test_faces_stats import made_up

LIMITS = ShotLimits(many_above=100, few_below=20)


def table3(values: dict[str, list[float]] | None = None, **changed: object) -> Table:
    """Of reg, reg+cls · 10 and reg+cls · 100 with one seed; `values` are metrics of these three."""
    runs = made_up(1)
    for name, found in (values or {}).items():
        runs.metrics[f"test_{name}"] = found
    usual: dict[str, object] = {"name": "table3", "caption": "c", "errors": ("mae", "mse"), "limits": LIMITS}
    return faces_tables.shots_table(runs, **(usual | changed))  # type: ignore[arg-type]


def strong(table: Table, column: int) -> list[str]:
    return [row[column].text for row in table.rows if row[column].strong]


def test_the_lowest_mean_of_a_column_is_bold_and_published_ones_do_not_compete() -> None:
    table = table3({"mae_all": [9.0, 8.5, 8.25]}, published=published.table3())
    assert strong(table, 3) == ["8.25"]  # the published 7.59 is lower
    assert "**8.25**" in markdown(table) and r"\textbf{8.25}" in latex(table)


def test_means_that_are_printed_alike_are_bold_together_and_one_alone_is_not() -> None:
    assert strong(table3({"mae_all": [9.0, 8.251, 8.252]}), 3) == ["8.25", "8.25"]
    runs = made_up(1)
    only = faces_tables.shots_table(replace(runs, wanted=runs.wanted.iloc[:1]), name="t", caption="", errors=("mae",), limits=LIMITS)
    assert [cell.strong for cell in only.rows[0]] == [False] * len(only.columns)


def test_a_mean_over_fewer_seeds_is_not_bold() -> None:
    runs = made_up(2, missing=("2-1",))
    runs.metrics["test_mae_all"] = [9.0, 8.0, 1.0, 9.0, 8.0]
    table = faces_tables.shots_table(runs, name="t", caption="", errors=("mae",), limits=LIMITS)
    assert strong(table, 3) == ["8.00 ± 0.00"] and table.rows[2][7].text == "1 of 2"


def test_a_group_without_images_is_a_dash() -> None:
    table = table3({"mae_few": [np.nan] * 3, "mse_few": [np.nan] * 3})
    assert [row[6].text for row in table.rows] == ["–"] * 3 and strong(table, 6) == []


def test_published_rows_stand_below_ours_set_apart() -> None:
    table = table3(published=published.table3(), not_comparable="epochs 10 instead of 90")
    assert [(part.place, part.title, part.ours) for part in table.parts] == [
        (0, "Ours", True),
        (3, "Published, not comparable with ours", False),
    ]
    text = {(row[0].text, row[1].text): [cell.text for cell in row] for row in table.rows[3:]}
    assert text["reg+cls", "100"][3:7] == ["7.61 ± 0.02", "6.90 ± 0.03", "13.46 ± 0.44", "25.04 ± 0.82"]
    assert text["bmse-gai", ""][3:] == ["8.12", "7.58", "12.27", "23.05", *["–"] * 4, "–", ""]
    assert "epochs 10 instead of 90" in markdown(table)
    assert table.frame.query("source == 'published' and method == 'reg'")["mse_few"].tolist() == [1017.59]


def test_table_4_has_published_values_for_all_images_only_and_marks_uncertain_ones() -> None:
    given = published.table4()
    given.loc[given["method"] == "reg", "uncertain"] = True
    table = table3(name="table4", published=given)
    reg = next(row for row in table.rows[3:] if row[0].text == "reg†")
    assert [cell.text for cell in reg[3:11]] == ["7.74 ± 0.04", "–", "–", "–", "131.03 ± 1.44", "–", "–", "–"]
    assert any(note.startswith("†") for note in table.notes)


def test_the_sizes_of_the_groups_stand_under_their_names_and_in_the_notes() -> None:
    table = table3()
    assert table.under[3:7] == ("8 images\n8 ages", "3 images\n3 ages", "3 images\n3 ages", "2 images\n2 ages") and len(table.under) == len(
        table.columns
    )
    assert "All 8 (8), Many 3 (3), Med. 3 (3), Few 2 (2)" in markdown(table)


def test_the_differences_have_a_row_a_method_error_and_group() -> None:
    table = faces_tables.differences_table(made_up(), name="d", caption="c")
    assert len(table.rows) == 2 * 2 * 4 and [part.place for part in table.parts] == [0, 8]
    row, frame = table.rows[0], table.frame.iloc[0]
    assert [cell.text for cell in row[:4]] == ["reg+cls", "10", "1", "All"]
    assert row[6].text == f"{frame['gap']:+.2f}".replace("-", "−") and row[-1].runs[0].label == "reg"
    assert sum(width for _, width in table.spans) == len(table.columns)


def test_the_best_lambda_is_bold_in_both_errors() -> None:
    runs = made_up()
    runs.wanted.loc[runs.wanted["classes"] == 100, ["classes", "lam"]] = [10, 0.1]
    for name in ("val_mse_all", "val_mae_all"):
        runs.metrics[name] = [float({"0": 7, "1": 6, "2": 5}[run_id[0]]) for run_id in runs.metrics.index]
    table = faces_tables.search_table(runs, caption="c")
    assert table.columns == ("method", "classes", "λ 0.1", "λ 1", "λ 0.1", "λ 1")
    assert [[cell.text for cell in row if cell.strong] for row in table.rows] == [[], ["5.00 ± 0.00", "5.00 ± 0.00"]]
    assert all(cell.runs for cell in table.rows[1][2:])


@pytest.mark.parametrize(("scale", "text"), [(1.0, "8.25"), (0.01, "0.0825")])
def test_small_errors_have_more_digits(scale: float, text: str) -> None:
    values = {f"{error}_{shot}": [8.25 * scale] * 3 for error in ("mae", "mse") for shot in ("all", "many", "medium", "few")}
    assert table3(values).rows[0][3].text == text


def test_the_frame_has_every_error_of_every_group() -> None:
    columns = set(table3().frame.columns)
    assert {
        f"{error}_{shot}{end}"
        for error in ("mae", "mse", "rmse", "gm")
        for shot in ("all", "many", "medium", "few")
        for end in ("", "_std")
    } <= columns
    assert isinstance(table3().frame, pd.DataFrame) and {"lambda", "seeds", "seeds_wanted"} <= columns
