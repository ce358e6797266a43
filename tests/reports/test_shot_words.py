import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from regcls.reports.measured import Runs, at_edge
from regcls.reports.shot_differences import differences
from regcls.reports.shot_subject import Subject, best_by_validation
from regcls.reports.shot_words import answers, compared_methods, few_metrics, line_of, use
from reports.made_up import row_of
from reports.made_up_shots import MadeUp, by_classes_alone, made_up, with_another_loss


def answers_for(study: MadeUp, **changed: Any) -> list[str]:
    subject: Subject = replace(study.subject, **changed)
    return told(subject, study.runs, differences(study.runs, subject.compare, negligible=2.0))


def told(subject: Subject, runs: Runs, table: pd.DataFrame, **more: Any) -> list[str]:
    return answers(subject, runs, table, compared_methods(subject, runs, table), **more)


def test_the_answer_has_the_numbers_of_the_differences_table() -> None:
    study = made_up()
    table = differences(study.runs, study.subject.compare, negligible=2.0)
    best = best_by_validation(study.subject, study.runs)["classes"].max()
    row = row_of(table, classes=best, error="mae", shot="all")
    first = answers_for(study)[0]
    assert first.startswith(f"reg+cls with {best} classes, λ 0.1: cannot be told. It has the lower test MAE: ")
    assert f": {row['other']:.2f} years against {row['reg']:.2f} of reg, " in first
    assert f"Δ +{row['gap']:.2f} (95 % {row['low']:+.2f} to {row['high']:+.2f})".replace("-", "−") in first
    assert "over 8 test images and 3 seeds. In Few (2 images): cannot be told." in first


def test_another_loss_without_classes_is_described_without_classes() -> None:
    first, second, _, caution = answers_for(with_another_loss())
    assert first.startswith("focal-r: cannot be told.") and second.startswith("focal-r+cls with 100 classes, λ 0.1: cannot be told.")
    assert "several class counts" not in caution and "several class counts" in answers_for(made_up())[-1]


def test_classes_without_lambda_are_described_without_it() -> None:
    assert answers_for(by_classes_alone())[1].startswith("hl-gauss with 10 classes: cannot be told. It has ")


def test_unitless_errors_are_shown_without_a_unit() -> None:
    assert " years" not in answers_for(made_up(), unit="")[0] and "  " not in answers_for(made_up(), unit="")[0]


def test_a_harmful_class_loss_is_called_harmful() -> None:
    study = made_up()
    study.errors[["0-0", "0-1", "0-2"]] = 0.25
    assert "has the higher test MAE" in answers_for(study)[0]


def test_errors_that_print_equally_are_called_the_same() -> None:
    study = made_up(1)
    study.errors[:] = 1.001
    study.errors["0-0"] = 1.002
    assert "has the same test MAE: 1.00 years against 1.00 of reg" in answers_for(study)[0]


def test_clear_results_are_stated_as_such() -> None:
    study = made_up()
    for index, run_id in enumerate(study.errors):
        study.errors[run_id] = [
            (9.0 if run_id[0] == "0" else 5.0) + 0.01 * image * int(run_id[0]) + 0.001 * index * int(run_id[0]) for image in range(8)
        ]
    assert (
        "λ 0.1: helps. It has the lower" in answers_for(study)[0] and "are for other seeds and other test images" in answers_for(study)[-1]
    )


def test_what_would_tell_more_is_said_where_it_cannot_be_told() -> None:
    assert answers_for(made_up())[-2].startswith("To tell more, add seeds or test images: an interval within ± 2 % of reg's error")
    study = made_up()
    for run_id in study.errors:
        study.errors[run_id] = [9.0 + 0.001 * image * int(run_id[0]) + 0.0001 * int(run_id[2]) * int(run_id[0]) for image in range(8)]
    first, *others = answers_for(study)
    assert ", λ 0.1: no difference above 2 %. It has" in first and not any("To tell more" in line for line in others)


def test_the_best_constant_stands_beside_reg() -> None:
    constants = {"mean": {"test/mae/all": 7.25}, "median": {"test/mae/all": 7.125}}
    line = answers_for(made_up(), constants=constants)[1]
    assert re.fullmatch(r"For comparison, test MAE \(years\): reg [0-9.]+, the best constant 7\.12\.", line)


def test_lines_of_params_use_the_method_that_helps_and_that_validation_prefers() -> None:
    study = made_up()
    table = differences(study.runs, study.subject.compare, negligible=2.0)
    compared = compared_methods(study.subject, study.runs, table)
    assert use(study.subject, study.runs, compared) == []
    helps = {method: {shot: {**row, "answer": "helps"} for shot, row in rows.items()} for method, rows in compared.items()}
    assert use(study.subject, study.runs, helps) == ["run: {method: reg+cls, classes: 100}", "training: {lambda: {100: 0.1}}"]
    other = with_another_loss()
    table = differences(other.runs, other.subject.compare, negligible=2.0)
    compared = compared_methods(other.subject, other.runs, table)
    helps = compared | {"focal-r": {"all": {**compared["focal-r"]["all"], "answer": "helps"}}}
    assert use(other.subject, other.runs, helps) == ["run: {method: focal-r}"]
    alone = by_classes_alone()
    table = differences(alone.runs, alone.subject.compare, negligible=2.0)
    compared = compared_methods(alone.subject, alone.runs, table)
    helps = compared | {"hl-gauss": {"all": {**compared["hl-gauss"]["all"], "answer": "helps"}}}
    assert use(alone.subject, alone.runs, helps) == ["run: {method: hl-gauss, classes: 10}"]


def test_with_two_seeds_the_answer_says_that_nothing_can_be_said() -> None:
    *_, first, caution = answers_for(made_up(2))
    assert "(not tested)" in first and "clear" not in first + caution
    assert caution.endswith("With fewer than 3 seeds nothing can be said about differences: training again may change their sign.")


def test_methods_without_a_finished_run_are_named() -> None:
    assert answers_for(made_up(1, missing=("1-0", "2-0")))[0] == "reg+cls: no run to compare reg with."
    assert answers_for(made_up(1, missing=("0-0",))) == ["No run of reg is finished: there is nothing to compare the other methods with."]


def test_an_empty_few_group_is_mentioned() -> None:
    study = made_up()
    table = differences(study.runs, study.subject.compare, negligible=2.0)
    none = table.assign(images=table["images"].mask(table["shot"] == "few", 0))
    assert told(study.subject, study.runs, none)[0].partition(" At the edge")[0].endswith("No test image is in Few.")


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        ("default", "100 classes"),
        ((0.01, 0.1, 1.0), "100 classes"),
        ((0.1, 1.0), "100 classes and λ 0.1"),
        ((0.01, 0.1), "100 classes and λ 0.1"),
        ((0.1,), "100 classes"),
    ],
)
def test_a_choice_at_the_edge_of_its_grid_is_named(tried: Any, expected: str) -> None:
    study = made_up()  # reg+cls is best with 100 classes and λ 0.1
    first = told(study.subject, study.runs, differences(study.runs, study.subject.compare, negligible=2.0), tried=tried)[0]
    assert first.endswith(f" At the edge of the grid: {expected}. Extend it by a factor of ten: a better value may lie outside.")


def test_no_edge_is_named_without_a_choice() -> None:
    study = made_up()
    one = replace(study.runs, wanted=study.runs.wanted[study.runs.wanted["classes"] != 10])
    assert "At the edge" not in told(study.subject, one, differences(one, study.subject.compare, negligible=2.0), tried=(0.1,))[0]
    assert not at_edge(2, (2, 10, 100), least=2) and at_edge(10, (10, 100), least=2) and not at_edge(10, (2, 10, 100), least=2)


def test_the_caution_tells_the_class_choice_and_the_number_of_methods() -> None:
    caution = answers_for(made_up())[-1]
    assert "Of several class counts, the one with the lowest validation MSE is shown." in caution and "corrected" not in caution
    caution = answers_for(with_another_loss())[-1]
    assert "Of several class counts" not in caution and "“helps” and “hurts” are corrected for the 2 methods" in caution


def test_answers_are_corrected_over_the_methods_and_not_over_the_whole_table() -> None:
    study = with_another_loss()
    table = differences(study.runs, study.subject.compare, negligible=2.0)
    compared = compared_methods(study.subject, study.runs, table)
    assert list(compared) == ["focal-r", "focal-r+cls"]
    for shot in ("all", "many", "medium", "few"):
        p = [row_of(table, method=method, error="mae", shot=shot)["p"] for method in compared]
        low, high = sorted(p)
        expected = {low: min(2 * low, 1.0), high: max(high, min(2 * low, 1.0))}
        assert [rows[shot]["p_holm"] for rows in compared.values()] == pytest.approx([expected[each] for each in p])


def test_the_summary_line_has_the_formatted_numbers_of_the_table() -> None:
    study = made_up()
    table = differences(study.runs, study.subject.compare, negligible=2.0)
    compared = compared_methods(study.subject, study.runs, table)
    found = line_of(study.subject, compared, "reg+cls")
    best = best_by_validation(study.subject, study.runs)["classes"].max()
    assert found.few is not None
    assert (found.measured, found.method, found.n, found.digits) == (
        "MAE (years)",
        f"reg+cls · {best}",
        "3 seeds × 8 test images; 1 test",
        2,
    )
    for overall, shot in ((found.overall, "all"), (found.few, "few")):
        row = row_of(table, classes=best, error="mae", shot=shot)
        assert (overall.reg, overall.gap, overall.low) == (row["reg"], row["gap"], row["low"])
        assert overall.answer == compared["reg+cls"][shot]["answer"] == "cannot be told"
    assert line_of(replace(study.subject, unit=""), compared, "reg+cls").measured == "MAE"


@pytest.mark.parametrize("missing", [("0-0",), ("1-0", "2-0")], ids=["reg", "reg+cls"])
def test_nothing_is_compared_if_a_side_is_missing(missing: tuple[str, ...]) -> None:
    study = made_up(1, missing=missing)
    assert compared_methods(study.subject, study.runs, differences(study.runs, study.subject.compare, negligible=2.0)) == {}


def test_metrics_hold_error_and_gap_of_each_cell_and_none_if_missing() -> None:
    study = made_up(1, missing=("2-0",))
    table = differences(study.runs, study.subject.compare, negligible=2.0)
    found = few_metrics(study.subject, study.runs, table)
    assert found.keys() == {"mae", "gap"} and found["mae"].keys() == {"reg", "reg+cls-10", "reg+cls-100"}
    assert found["mae"]["reg"] == {shot: float(f"{study.runs.values.loc['0-0', f'test/mae/{shot}']:.6g}") for shot in ("all", "few")}
    gap = np.abs(study.errors["0-0"]).mean() - np.abs(study.errors["1-0"]).mean()
    assert found["gap"]["reg+cls-10"]["all"] == pytest.approx(gap, rel=1e-5)
    assert found["mae"]["reg+cls-100"] == {"all": None, "few": None} == found["gap"]["reg+cls-100"]
