"""The answer in words on depth, and the line of the first screen."""

import pandas as pd

from regcls.reports import depth_stats, images_answers
from regcls.reports.depth_collect import DepthRuns
from regcls.reports.report import Line

WORDS = images_answers.Words(
    tested=depth_stats.TESTED,
    error="RMSE",
    unit="m",
    judged="validation RMSE",
    nothing_in_few="No test pixel is in Few.",
    few="images have such pixels",
    digits=3,
    small_digits=3,
    intervals="Weights are selected on validation. Intervals are over test images (none of fewer than "
    f"{depth_stats.FEWEST}), whole ones, which takes the trained networks as given.",
)


def answers(runs: DepthRuns, differences: pd.DataFrame) -> list[str]:
    """See `images_answers.answers`: test RMSE of the weights selected on validation; `differences` as from `depth_stats`."""
    return images_answers.answers(runs.wanted, depth_stats.best_by_validation(runs), differences, WORDS)


def line(runs: DepthRuns, differences: pd.DataFrame) -> Line | None:
    """See `images_answers.line`."""
    return images_answers.line(depth_stats.best_by_validation(runs), differences, WORDS)
