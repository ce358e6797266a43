from regcls.reports import faces_figures, faces_stats
from regcls.tasks.images.params import ShotLimits
from reports.test_faces_stats import made_up

LIMITS = ShotLimits(many_above=100, few_below=20)


def test_the_histogram_has_every_age_with_its_group() -> None:
    histogram = faces_figures.training_histogram({30: 150, 33: 20, 34: 5}, LIMITS)
    assert histogram["age"].tolist() == [30, 31, 32, 33, 34]
    assert histogram["training_images"].tolist() == [150, 0, 0, 20, 5]
    assert histogram["shot"].tolist() == ["many", "few", "few", "medium", "few"]


def test_the_figure_names_its_lines_and_groups_and_is_the_same_every_time() -> None:
    runs = made_up()
    lines = faces_stats.error_by_age(runs, faces_stats.best_by_validation(runs), 5)
    histogram = faces_figures.training_histogram({5: 30, 30: 150, 70: 40, 90: 3}, LIMITS)
    svg = faces_figures.error_by_age(lines, histogram, LIMITS)
    assert svg == faces_figures.error_by_age(lines, histogram, LIMITS)
    for text in (
        "<!-- reg -->",
        "<!-- many training images -->",
        "<!-- few training images -->",
        "<!-- many: above 100 -->",
        "<!-- few: below 20 -->",
    ):
        assert text in svg


def test_groups_that_no_age_is_in_have_no_line() -> None:
    runs = made_up(1)
    lines = faces_stats.error_by_age(runs, faces_stats.best_by_validation(runs), 5)
    svg = faces_figures.error_by_age(lines, faces_figures.training_histogram({30: 3, 31: 2}, LIMITS), LIMITS)
    assert "many training images" not in svg and "many: above" not in svg and "few training images" in svg
