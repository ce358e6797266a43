"""The figure on faces: test error by age, with the training images of each age behind it."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from regcls.metrics import shot_of
from regcls.reports.images_figures import error_by_target
from regcls.tasks.images.params import ShotLimits


def training_histogram(counts: Mapping[int, int], limits: ShotLimits) -> pd.DataFrame:
    """Training images by integer age, ages without any included: age, training_images, shot."""
    ages = np.arange(min(counts), max(counts) + 1)
    shots = shot_of(ages, counts, many_above=limits.many_above, few_below=limits.few_below)
    return pd.DataFrame({"age": ages, "training_images": [counts.get(age, 0) for age in ages.tolist()], "shot": shots})


def error_by_age(lines: pd.DataFrame, histogram: pd.DataFrame, limits: ShotLimits) -> str:
    """Test MAE by age (`faces_stats.error_by_age`), shaded ± std over seeds, over `training_histogram` on a log axis of its own."""
    bars = histogram.rename(columns={"age": "start", "training_images": "count"})
    return error_by_target(
        lines.rename(columns={"age_from": "start", "age_to": "end", "mae": "error"}),
        bars.assign(end=bars["start"] + 1),
        target="age (years)",
        error="test MAE (years)",
        counted="training images",
        each="an age",
        limits={"many: above": limits.many_above, "few: below": limits.few_below},
    )
