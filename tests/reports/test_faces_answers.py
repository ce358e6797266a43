from regcls.reports import faces_stats
from regcls.reports.faces_answers import answers
from reports.test_faces_stats import made_up


def test_the_answer_has_the_numbers_of_the_table_of_differences() -> None:
    runs = made_up()
    table = faces_stats.differences(runs)
    best = faces_stats.best_by_validation(runs)["classes"].max()
    row = table[(table["classes"] == best) & (table["error"] == "mae") & (table["shot"] == "all")].iloc[0]
    first = answers(runs)[0]
    assert first.startswith(f"reg+cls with {best} classes has the lower test MAE: {row['other']:.2f} years against {row['reg']:.2f} of reg")
    assert f"Δ +{row['gap']:.2f} (95 % {row['low']:+.2f} to {row['high']:+.2f}; not clear)".replace("-", "−") in first
    assert "over 8 test images and 3 seeds. In Few (2 images):" in first


def test_a_class_loss_that_hurts_is_said_to() -> None:
    runs = made_up()
    runs.errors[["0-0", "0-1", "0-2"]] = 0.25
    assert "has the higher test MAE" in answers(runs)[0]


def test_what_is_clear_is_said_with_its_scope() -> None:
    runs = made_up(1)
    for cell, error in (("0-0", 9.0), ("1-0", 5.0), ("2-0", 5.0)):
        runs.errors[cell] = [error + 0.01 * place * (cell != "0-0") for place in range(8)]
    assert "; clear for these trained networks)" in answers(runs)[0] and "1 seed." in answers(runs)[0]


def test_methods_without_a_finished_run_are_named() -> None:
    runs = made_up(1, missing=("1-0", "2-0"))
    assert answers(runs)[0] == "reg+cls: no run that reg could be compared with."
    assert answers(made_up(1, missing=("0-0",)))[0].startswith("No run of reg is finished")
