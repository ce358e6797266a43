from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from regcls.reports.shot_differences import differences
from regcls.reports.shot_subject import Subject, best_by_validation
from regcls.reports.shot_words import answers, few_metrics, line
from reports.made_up_shots import MadeUp, made_up, row_of, with_another_loss


def said(made: MadeUp, **changed: Any) -> list[str]:
    subject: Subject = replace(made.subject, **changed)
    return answers(subject, made.runs, differences(made.runs, subject.compare))


def test_the_answer_has_the_numbers_of_the_table_of_differences() -> None:
    made = made_up()
    table = differences(made.runs, made.subject.compare)
    best = best_by_validation(made.subject, made.runs)["classes"].max()
    row = row_of(table, classes=best, error="mae", shot="all")
    first = said(made)[0]
    assert first.startswith(f"reg+cls with {best} classes has the lower test MAE: {row['other']:.2f} years against {row['reg']:.2f} of reg")
    assert f"Δ +{row['gap']:.2f} (95 % {row['low']:+.2f} to {row['high']:+.2f}; not clear)".replace("-", "−") in first
    assert "over 8 test images and 3 seeds. In Few (2 images):" in first


def test_another_loss_is_spoken_of_without_classes_where_it_has_none() -> None:
    first, second, caution = said(with_another_loss())
    assert first.startswith("focal-r has the ") and second.startswith("focal-r+cls with 100 classes has the ")
    assert "several class counts" not in caution and "several class counts" in said(made_up())[-1]


def test_errors_without_a_unit_have_none() -> None:
    assert " years" not in said(made_up(), unit="")[0] and "  " not in said(made_up(), unit="")[0]


def test_a_class_loss_that_hurts_is_said_to() -> None:
    made = made_up()
    made.errors[["0-0", "0-1", "0-2"]] = 0.25
    assert "has the higher test MAE" in said(made)[0]


def test_errors_that_are_printed_alike_are_said_to_be_the_same() -> None:
    made = made_up(1)
    made.errors[:] = 1.001
    made.errors["0-0"] = 1.002
    assert "has the same test MAE: 1.00 years against 1.00 of reg" in said(made)[0]


def test_what_is_clear_is_said_with_its_scope() -> None:
    made = made_up(1)
    for run_id, error in (("0-0", 9.0), ("1-0", 5.0), ("2-0", 5.0)):
        made.errors[run_id] = [error + 0.01 * place * (run_id != "0-0") for place in range(8)]
    assert "; clear for these trained networks)" in said(made)[0] and "1 seed." in said(made)[0]


def test_what_is_clear_over_seeds_too_is_said_so() -> None:
    made = made_up()
    for place, run_id in enumerate(made.errors):
        made.errors[run_id] = [
            (9.0 if run_id[0] == "0" else 5.0) + 0.01 * image * int(run_id[0]) + 0.001 * place * int(run_id[0]) for image in range(8)
        ]
    assert "; clear over images and over seeds)" in said(made)[0]


def test_methods_without_a_finished_run_are_named() -> None:
    assert said(made_up(1, missing=("1-0", "2-0")))[0] == "reg+cls: no run that reg could be compared with."
    assert said(made_up(1, missing=("0-0",))) == ["No run of reg is finished: there is nothing to compare the other methods with."]


def test_where_no_test_image_is_in_few_that_is_said() -> None:
    made = made_up()
    table = differences(made.runs, made.subject.compare)
    none = table.assign(images=table["images"].mask(table["shot"] == "few", 0))
    assert answers(made.subject, made.runs, none)[0].endswith("No test image is in Few.")


def test_the_caution_says_how_the_class_count_was_chosen_and_how_many_tests_there_are() -> None:
    caution = said(made_up())[-1]
    assert "Of several class counts, the one with the lowest validation MSE." in caution and "correction for 16 tests" in caution
    made = made_up()
    one = made.runs.where(classes=0).wanted, made.runs.where(classes=10).wanted
    runs = replace(made.runs, wanted=pd.concat(one))
    caution = answers(made.subject, runs, differences(runs, made.subject.compare))[-1]
    assert "Of several class counts" not in caution and "correction for 8 tests" in caution


def test_the_line_of_the_first_screen_has_the_numbers_of_the_table_and_how_they_are_shown() -> None:
    made = made_up()
    table = differences(made.runs, made.subject.compare)
    found = line(made.subject, made.runs, table)
    best = best_by_validation(made.subject, made.runs)["classes"].max()
    assert found is not None and found.few is not None
    assert (found.measured, found.method, found.n, found.digits) == ("MAE (years)", f"reg+cls · {best}", "3 seeds, over 8 test images", 2)
    for compared, shot in ((found.overall, "all"), (found.few, "few")):
        row = row_of(table, classes=best, error="mae", shot=shot)
        assert (compared.reg, compared.gap, compared.low, compared.answer) == (row["reg"], row["gap"], row["low"], row["answer"])
    without_unit = line(replace(made.subject, unit=""), made.runs, table)
    assert without_unit is not None and without_unit.measured == "MAE"


@pytest.mark.parametrize("missing", [("0-0",), ("1-0", "2-0")], ids=["reg", "reg+cls"])
def test_there_is_no_line_where_a_side_is_missing(missing: tuple[str, ...]) -> None:
    made = made_up(1, missing=missing)
    assert line(made.subject, made.runs, differences(made.runs, made.subject.compare)) is None


def test_metrics_have_the_error_and_the_gap_of_each_cell_and_a_hole_is_none() -> None:
    made = made_up(1, missing=("2-0",))
    table = differences(made.runs, made.subject.compare)
    found = few_metrics(made.subject, made.runs, table)
    assert found.keys() == {"mae", "gap"} and found["mae"].keys() == {"reg", "reg+cls-10", "reg+cls-100"}
    assert found["mae"]["reg"] == {shot: float(f"{made.runs.values.loc['0-0', f'test/mae/{shot}']:.6g}") for shot in ("all", "few")}
    gap = np.abs(made.errors["0-0"]).mean() - np.abs(made.errors["1-0"]).mean()
    assert found["gap"]["reg+cls-10"]["all"] == pytest.approx(gap, rel=1e-5)
    assert found["mae"]["reg+cls-100"] == {"all": None, "few": None} == found["gap"]["reg+cls-100"]
