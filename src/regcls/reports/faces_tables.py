"""The tables on faces: frames of `faces_stats` and of `published` -> `Table`."""

from collections.abc import Sequence

import pandas as pd

from regcls.reports import faces_stats, images_tables
from regcls.reports.faces_collect import ImageRuns
from regcls.reports.faces_stats import TESTED, ErrorName
from regcls.reports.images_tables import SHORT, ErrorColumns, Published, digits_for
from regcls.reports.tables import Table
from regcls.tasks.images.params import ShotLimits

NAMES: dict[ErrorName, str] = {"mae": "MAE", "mse": "MSE", "rmse": "RMSE", "gm": "GM"}


def shots_table(
    runs: ImageRuns,
    *,
    name: str,
    caption: str,
    errors: Sequence[ErrorName],
    limits: ShotLimits,
    published: pd.DataFrame | None = None,
    not_comparable: str = "",
    balanced_data: bool = False,
    warning: str = "",
) -> Table:
    """Table 3 and Table 4: see `images_tables.shots_table`.

    `published`, as from `published.table3`, stands below ours, set apart; `not_comparable` says why it is not of what was trained.
    """
    ours = faces_stats.cells(runs, "test")
    columns = [ErrorColumns(error=error, title=NAMES[error]) for error in errors]
    sizes = faces_stats.group_sizes(runs.images)
    listed = [f"{SHORT[shot]} {images:,} ({ages})" for shot, (images, ages) in sizes.items()]
    groups = (
        f"Many: ages with more than {limits.many_above} training images; Few: fewer than {limits.few_below}; Med.: between. "
        f"Test images (ages among them): {', '.join(listed)}."
    )
    theirs = None
    if published is not None:
        theirs = Published(values=published, where="IMDB-WIKI-DIR", why=not_comparable, digits=2, balanced_data=balanced_data)
    return images_tables.shots_table(
        ours,
        runs.wanted,
        name=name,
        caption=caption,
        errors=columns,
        under={shot: f"{images:,} images\n{ages} ages" for shot, (images, ages) in sizes.items()},
        digits=digits_for(ours, [column for each in columns for column in each.names], large=2),
        notes=[groups, *(["GM: geometric mean of the absolute error."] * ("gm" in errors))],
        published=theirs,
        warning=warning,
    )


def differences_table(runs: ImageRuns, *, name: str, caption: str, warning: str = "") -> Table:
    """What a class loss changes: see `images_tables.differences_table`."""
    return images_tables.differences_table(
        faces_stats.differences(runs),
        runs.wanted,
        name=name,
        caption=caption,
        titles={error: NAMES[error] for error in TESTED},
        digits=lambda row: 2 if max(abs(row["reg"]), abs(row["other"])) >= 1 else 4,
        meaning="Δ = error(reg) − error(method), over the seeds that both have: above 0 the class loss helps. MAE above, MSE below.",
        over_images="Over test images: paired t-test, each image's error averaged over the seeds. It takes the trained networks as given, "
        "and images as independent, which those of one person are not: its intervals are rather too narrow.",
        warning=warning,
    )


def search_table(runs: ImageRuns, *, caption: str, warning: str = "") -> Table:
    """The search for λ: validation MSE and MAE; the λ of the lowest mean MSE in bold."""
    return images_tables.search_table(
        faces_stats.cells(runs, "val"),
        runs.wanted,
        caption=caption,
        errors={"mse_all": "validation MSE", "mae_all": "validation MAE"},
        digits=2,
        warning=warning,
    )
