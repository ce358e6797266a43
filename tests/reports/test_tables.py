import math
from dataclasses import replace

import pandas as pd

from regcls.reports import tables
from regcls.reports.tables import (
    Cell,
    Part,
    RunGroup,
    Table,
    comparison,
    heads,
    interval,
    latex,
    markdown,
    number,
    p_value,
    signed,
    with_std,
)

TABLE = Table(
    name="t",
    caption="100 % of λ",
    columns=("data", "MSE ± std", "runs"),
    rows=(
        (Cell(text="noisy σ 0.1", header=True), Cell(text="−0.5 ± 0.1"), Cell(text="", runs=(RunGroup(label="reg", runs=(("0", "a"),)),))),
    ),
    frame=pd.DataFrame(),
    notes=("a | note",),
    run_column=True,
)


def test_markdown_has_the_numbers_but_no_run_column() -> None:
    assert markdown(TABLE).splitlines()[2:5] == ["| data | MSE ± std |", "| --- | --- |", "| noisy σ 0.1 | −0.5 ± 0.1 |"]


def test_latex_is_escaped() -> None:
    text = latex(TABLE)
    assert (
        r"\caption{100 \% of $\lambda$}" in text and r"noisy $\sigma$ 0.1 & $-$0.5 $\pm$ 0.1 \\" in text and r"\begin{tabular}{lr}" in text
    )


def test_numbers_use_real_minus_signs_and_a_dash_for_missing() -> None:
    assert (number(-0.25, 2), signed(0.25, 2), number(math.nan), p_value(math.nan)) == ("−0.25", "+0.25", "–", "–")
    assert (p_value(0.0004), p_value(0.0304)) == ("< 0.001", "0.030")


def test_a_mean_is_shown_with_its_spread_if_any() -> None:
    assert (with_std(0.2, 0.1, 3), with_std(0.2, math.nan, 1), with_std(math.nan, 0.1, 3)) == ("0.200 ± 0.100", "0.2", "–")
    assert (interval(-0.5, 0.26, 1), interval(math.nan, math.nan, 1)) == ("−0.5 to +0.3", "–")


def test_the_reason_for_a_missing_test_replaces_p() -> None:
    assert [tables.tested(*given) for given in ((0.02, 5), (math.nan, 0), (math.nan, 1), (math.nan, 5))] == [
        "0.020",
        "–",
        "n = 1",
        "no spread",
    ]


def test_row_headings_are_method_class_count_and_lambda() -> None:
    assert heads({"method": "reg", "classes": 0, "weight": ""}) == (Cell(text="reg", header=True), *[Cell(text="", header=True)] * 2)
    assert [cell.text for cell in heads({"method": "reg+cls", "classes": 10, "weight": "0.1"})] == ["reg+cls", "10", "0.1"]


def test_the_runs_of_a_table_are_those_of_its_cells_without_duplicates() -> None:
    both = (RunGroup(label="reg", runs=(("0", "b"), ("1", "a"))), RunGroup(label="reg+cls", runs=(("0", "c"),)))
    rows = ((Cell(text="x", header=True), Cell(text="1", runs=both)), (Cell(text="y", header=True), Cell(text="", runs=both[:1])))
    assert replace(TABLE, rows=rows).run_ids == ("b", "a", "c") and replace(TABLE, rows=()).run_ids == ()


def test_the_best_is_bold_in_markdown_and_latex() -> None:
    best = replace(TABLE, rows=((Cell(text="a", header=True), Cell(text="1 %", strong=True), Cell(text="")),))
    assert "| a | **1 %** |" in markdown(best) and r"a & \textbf{1 \%} \\" in latex(best)


def test_spans_and_parts_are_rendered_in_place() -> None:
    row = TABLE.rows[0]
    spanned = replace(
        TABLE,
        spans=(("", 1), ("error", 1), ("", 1)),
        parts=(Part(place=0, title="Ours"), Part(place=1, title="Theirs", ours=False)),
        rows=(row, row),
    )
    assert markdown(spanned).splitlines()[2:8] == [
        "| data | error MSE ± std |",
        "| --- | --- |",
        "| *Ours* |  |",
        "| noisy σ 0.1 | −0.5 ± 0.1 |",
        "| *Theirs* |  |",
        "| noisy σ 0.1 | −0.5 ± 0.1 |",
    ]
    lines = latex(spanned).splitlines()
    top = lines.index(r"\toprule")
    assert lines[top + 1 : top + 3] == [r"\multicolumn{1}{c}{} & \multicolumn{1}{c}{error} \\", r"\cmidrule(lr){2-2}"]
    assert lines[lines.index(r"\multicolumn{2}{l}{\textit{Theirs}} \\") - 1] == r"\midrule"


def test_numbers_rounding_to_zero_have_no_minus_sign() -> None:
    assert (number(-0.001, 2), signed(-0.001, 2)) == ("0.00", "+0.00")


def test_a_difference_too_small_to_print_is_called_none() -> None:
    assert [comparison(value, 9.5, 2) for value in (9.4, 9.6, 9.5002)] == ["the lower", "the higher", "the same"]
