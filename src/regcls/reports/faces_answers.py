"""The answer in words on faces, and the line of the first screen."""

from regcls.reports import faces_stats, images_answers
from regcls.reports.faces_collect import ImageRuns
from regcls.reports.report import Line

WORDS = images_answers.Words(
    tested="mae",
    error="MAE",
    unit="years",
    judged="validation MSE",
    nothing_in_few="No test image is in Few.",
    few="images",
    digits=2,
    small_digits=4,
    intervals="Intervals are over test images, which takes the trained networks as given.",
)


def answers(runs: ImageRuns) -> list[str]:
    """See `images_answers.answers`: test MAE."""
    return images_answers.answers(runs.wanted, faces_stats.best_by_validation(runs), faces_stats.differences(runs), WORDS)


def line(runs: ImageRuns) -> Line | None:
    """See `images_answers.line`."""
    return images_answers.line(faces_stats.best_by_validation(runs), faces_stats.differences(runs), WORDS)
