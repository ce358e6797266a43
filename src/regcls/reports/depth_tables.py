"""The tables on depth: frames of `depth_stats` and of `published` -> `Table`."""

from collections.abc import Sequence

import pandas as pd

from regcls.reports import depth_stats, images_tables
from regcls.reports.depth_collect import DepthRuns, ErrorName
from regcls.reports.images_collect import CELL
from regcls.reports.images_tables import SHORT, ErrorColumns, Published
from regcls.reports.tables import Table
from regcls.tasks.depth.params import DepthShots

DIGITS = 3  # as the paper prints metres
SELECTED = {
    "val": "RMSE-val: model selected on validation",
    "test": "RMSE-test: model selected on test (as earlier work; optimistic)",
}
DISTANCES: tuple[ErrorName, ...] = ("mae", "abs_rel", "log10")
DELTAS: tuple[ErrorName, ...] = ("delta1", "delta2", "delta3")
TITLES: dict[str, str] = {"mae": "MAE (m)", "abs_rel": "ABS_REL", "log10": "log10"} | {
    error: f"δ{error[-1]} (higher is better)" for error in DELTAS
}
TWO_SELECTIONS = (
    "Both are RMSE (m) on the test images, of two sets of weights from one training: those of the epoch with the lowest RMSE on "
    "validation, and those of the epoch with the lowest RMSE on the test images themselves, which no one has beforehand."
)


def rmse_table(runs: DepthRuns, *, name: str, caption: str, shots: DepthShots, published: Published | None, warning: str) -> Table:
    """Table 2 and Table 4: RMSE by shot group, of weights selected on validation and of weights selected on test."""
    columns = [ErrorColumns(error=f"rmse_{selection}", title=title) for selection, title in SELECTED.items()]
    return _shots_table(
        runs, columns, name=name, caption=caption, notes=[TWO_SELECTIONS], shots=shots, published=published, warning=warning
    )


def other_tables(runs: DepthRuns, *, name: str, shots: DepthShots, warning: str) -> list[Table]:
    """The other errors, of weights selected on validation: MAE, ABS_REL and log10, then δ1 to δ3."""
    return [
        _shots_table(
            runs,
            [ErrorColumns(error=f"{error}_val", title=TITLES[error], higher_is_better=error in DELTAS) for error in errors],
            name=f"{name}_{end}",
            caption=f"{title} by shot group, model selected on validation; mean ± std over seeds.",
            notes=["On the test images, weights selected on validation.", meaning],
            shots=shots,
            published=None,
            warning=warning,
        )
        for end, errors, title, meaning in (
            ("mae", DISTANCES, "MAE (m), ABS_REL and log10", "ABS_REL: |error| / depth. log10: |log10 prediction − log10 depth|."),
            (
                "delta",
                DELTAS,
                "δ1, δ2 and δ3",
                "δk: share of pixels whose prediction and depth differ by less than a factor of 1.25 to the k.",
            ),
        )
    ]


def _shots_table(
    runs: DepthRuns,
    errors: Sequence[ErrorColumns],
    *,
    name: str,
    caption: str,
    notes: Sequence[str],
    shots: DepthShots,
    published: Published | None,
    warning: str,
) -> Table:
    sizes = depth_stats.group_sizes(runs)
    listed = [f"{SHORT[shot]} {pixels:,} ({images:,})" for shot, (pixels, images) in sizes.items()]
    groups = f"{groups_note(shots)} Test pixels (images that have some): {', '.join(listed)}."
    shown = [column for each in errors for column in each.names]
    kept = [*CELL, "seeds", "seeds_wanted", *(f"{column}{end}" for column in shown for end in ("", "_std"))]
    return images_tables.shots_table(
        depth_stats.cells(runs)[kept],
        runs.wanted,
        name=name,
        caption=caption,
        errors=errors,
        under={shot: f"{pixels:,} px\n{images:,} images" for shot, (pixels, images) in sizes.items()},
        digits=DIGITS,
        notes=[*notes, groups],
        published=published,
        warning=warning,
    )


def groups_note(shots: DepthShots) -> str:
    """Which depths are in which group."""
    many, medium = (_ranges(ranges) for ranges in (shots.many, shots.medium))
    return f"Groups are of pixels, by buckets of 0.1 m (bucket 9 holds 0.9 to 1.0 m). Many: {many}; Med.: {medium}; Few: the rest."


def _ranges(ranges: Sequence[tuple[int, int]]) -> str:
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in ranges) or "none"


def differences_table(runs: DepthRuns, frame: pd.DataFrame, *, name: str, caption: str, warning: str) -> Table:
    """What a class loss changes, `frame` as from `depth_stats.differences`: see `images_tables.differences_table`."""
    least = 2 / (depth_stats.RESAMPLES + 1)
    return images_tables.differences_table(
        frame,
        runs.wanted,
        name=name,
        caption=caption,
        titles={depth_stats.TESTED: SELECTED["val"]},
        digits=lambda row: DIGITS,
        meaning="Δ = RMSE(reg) − RMSE(method) in metres, over the seeds that both have, weights selected on validation: above 0 the class "
        "loss helps.",
        over_images=f"Over test images: paired bootstrap, {depth_stats.RESAMPLES:,} resamples of whole images, since the pixels of one "
        f"belong together; RMSE of all their pixels in the group, mean over seeds. Its p is at least {least:.3f} before it is adjusted. It "
        "takes the trained networks as given, and images as independent, which those of one scene are not: its intervals are rather too "
        "narrow.",
        warning=warning,
    )


def search_table(runs: DepthRuns, *, caption: str, warning: str) -> Table:
    """The search for λ: validation RMSE and MAE; the λ of the lowest mean RMSE in bold."""
    return images_tables.search_table(
        depth_stats.validation(runs),
        runs.wanted,
        caption=caption,
        errors={depth_stats.JUDGED: "validation RMSE", "val_mae_all": "validation MAE"},
        digits=DIGITS,
        warning=warning,
    )
