import pytest

from regcls.reports import depth_stats, depth_tables, published
from regcls.reports.images_tables import Published
from regcls.reports.tables import Table, markdown
from reports.test_depth_stats import LIMITS, made_up


def table2(values: dict[str, list[float]] | None = None, *, theirs: bool = False, why: str = "") -> Table:
    """Of reg, reg+cls · 10 and reg+cls · 100 with one seed; `values` are errors of these three."""
    runs = made_up(1)
    for name, found in (values or {}).items():
        runs.errors[name] = found
    given = Published(values=published.table2(), where="NYUD2-DIR", why=why, digits=3, balanced_data=False) if theirs else None
    return depth_tables.rmse_table(runs, name="table2", caption="c", shots=LIMITS, published=given, warning="")


def strong(table: Table, column: int) -> list[str]:
    return [row[column].text for row in table.rows if row[column].strong]


def test_each_selection_has_its_own_block_and_its_own_best() -> None:
    table = table2({"rmse_val_all": [1.6, 1.5, 1.7], "rmse_test_all": [1.3, 1.4, 1.35]}, theirs=True)
    assert table.spans[1:3] == ((depth_tables.SELECTED["val"], 4), (depth_tables.SELECTED["test"], 4))
    assert (strong(table, 3), strong(table, 7)) == (["1.500"], ["1.300"])  # the published 1.251 does not compete
    assert sum(width for _, width in table.spans) == len(table.columns) == len(table.under)


def test_published_rows_stand_below_ours_with_baselines_and_three_digits() -> None:
    table = table2(theirs=True, why="epochs 10 instead of 5")
    text = {(row[0].text, row[1].text): [cell.text for cell in row] for row in table.rows[3:]}
    assert text["reg+cls", "100"][3:11] == [
        "1.536 ± 0.090",
        "0.569 ± 0.018",
        "0.966 ± 0.041",
        "2.222 ± 0.146",
        "1.488 ± 0.028",
        "0.578 ± 0.015",
        "0.971 ± 0.049",
        "2.141 ± 0.045",
    ]
    assert text["lds+fds", ""][3:12] == [*["–"] * 4, "1.338", "0.670", "0.851", "1.880", "–"]
    assert table.parts[1].title == "Published, not comparable with ours" and "epochs 10 instead of 5" in markdown(table)


def test_table_4_marks_published_values_as_uncertain() -> None:
    given = Published(values=published.table4_depth(), where="NYUD2-DIR", why="", digits=3, balanced_data=True)
    table = depth_tables.rmse_table(made_up(1), name="table4", caption="c", shots=LIMITS, published=given, warning="")
    reg = next(row for row in table.rows[3:] if row[0].text == "reg†")
    assert [cell.text for cell in reg[3:11]] == ["1.492 ± 0.042", "–", "–", "–", "1.442 ± 0.077", "–", "–", "–"]
    assert any(note.startswith("†") for note in table.notes)


def test_of_shares_the_highest_is_best() -> None:
    runs = made_up(1)
    runs.errors["delta1_val_all"], runs.errors["mae_val_all"] = [0.5, 0.7, 0.6], [0.5, 0.7, 0.6]
    mae, delta = depth_tables.other_tables(runs, name="table2", shots=LIMITS, warning="")
    assert (mae.name, delta.name) == ("table2_mae", "table2_delta")
    assert (strong(mae, 3), strong(delta, 3)) == (["0.500"], ["0.700"])
    assert "the lowest mean" in markdown(mae) and "the highest mean" in markdown(delta)


def test_a_table_has_the_unrounded_numbers_of_its_own_columns() -> None:
    frame = table2().frame
    assert frame["rmse_test_few"].tolist() == made_up(1).errors["rmse_test_few"].tolist()
    assert {"lambda", "seeds", "seeds_wanted"} <= set(frame) and not any(column.startswith("mae") for column in frame)


def test_the_groups_are_said_in_buckets_with_their_pixels() -> None:
    runs = made_up(1)
    pixels, images = depth_stats.group_sizes(runs)["few"]
    text = markdown(table2())
    assert "Many: 10–29; Med.: 30–49; Few: the rest." in text and f"Few {pixels:,} ({images})" in text
    assert table2().under[6] == f"{pixels:,} px\n{images} images"


def test_the_differences_have_a_row_a_method_and_group() -> None:
    runs = made_up()
    table = depth_tables.differences_table(runs, depth_stats.differences(runs), name="d", caption="c", warning="")
    assert len(table.rows) == 2 * 4 and [cell.text for cell in table.rows[0][:4]] == ["reg+cls", "10", "0.1", "All"]
    assert table.rows[0][6].text == f"{table.frame['gap'].iloc[0]:+.3f}".replace("-", "−") and table.rows[0][-1].runs[0].label == "reg"


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_search_is_by_validation_rmse(seeds: int) -> None:
    runs = made_up(seeds)
    runs.wanted.loc[runs.wanted["classes"] == 100, "classes"] = 10
    table = depth_tables.search_table(runs, caption="c", warning="")
    assert table.spans[1:] == (("validation RMSE", 2), ("validation MAE", 2))
    assert next(cell.text for cell in table.rows[1] if cell.strong).startswith("3.000")
