"""The report on a data set of videos: Table 5, what a class loss changes, the search for λ, and progress curves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd

from regcls.errors import MissingError
from regcls.params import Params
from regcls.params.single import SEARCH
from regcls.reports import page, protocol, video_figures, video_stats, video_tables
from regcls.reports.picking import Picked, records, warnings_of
from regcls.reports.report import Links, Report, Section, rounded
from regcls.reports.video_answers import Differences, answers, first_line
from regcls.reports.video_collect import SequenceRuns, collect, hole_lines, in_order
from regcls.tasks.sequences.params import WITH_CLASSES, Sequences, Unit
from regcls.tasks.sequences.runs import Found, SequenceSpec, expand, searched_lambda

Predictions = Callable[[str], pd.DataFrame]  # run id -> the test frames: activity, video, frame, prediction

UNITS: Mapping[Unit, tuple[str, str]] = {
    "percent": ("table5a", "Table 5 (a): progress in percent"),
    "frames": ("table5b", "Table 5 (b): progress in frames"),
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is reported on, as given to `report`. `warning` is to be read before any number."""

    video: Sequences
    dataset: str
    activities: Sequence[str]
    lengths: Mapping[str, int]
    warning: str


def report(
    *,
    params: Params,
    dataset: str,
    runs: pd.DataFrame,
    fingerprints: Mapping[SequenceSpec, str],
    found: Found,
    predictions: Predictions,
    lengths: Mapping[str, int],
    activities: Sequence[str],
    links: Links,
    provenance: Mapping[str, str],
) -> Report:
    """All that stands in reports/<dataset>; equal runs give equal bytes.

    `runs`: a row a tracked run; `fingerprints`: of every run that params.yaml asks for, with λ as `found` by the search; `predictions`:
    run id -> those of its test frames, as trained, a MissingError where they are gone; `lengths`: frames of every video; `activities`:
    those that have networks; `links`: to MLflow; `provenance`: what made the report, as it is to be shown.

    Raises:
        UserError: no run counts.
    """
    video: Sequences = params.datasets[dataset]
    collected, picked = collect(runs, fingerprints, dataset=dataset, activities=activities)
    grids = _grids(collected, video, dataset, found, fingerprints)
    warning = ""
    counts = {"videos": len(lengths), "activities": len(activities)}
    data = protocol.other_data(video.published, counts, source=video.data.source)
    about = Subject(video=video, dataset=dataset, activities=activities, lengths=lengths, warning=warning)
    wanted = collected.wanted
    finished = int((wanted["state"] == "finished").sum())
    made = Report(dataset=dataset, wanted=len(wanted), finished=finished, other_data=data)
    made.warnings += _warnings(video, grids, picked, found)

    if "table5" in grids:
        main = grids["table5"]
        differences: Differences = {unit: _add_table5(made, about, main.on(unit), unit) for unit in _units(main)}
        _add_curves(made, about, main, predictions)
        made.answers += answers(video, main, differences)
        made.line = first_line(video, differences)
        made.metrics |= _metrics(main, differences)
    if SEARCH in grids:
        _add_search(made, grids[SEARCH], warning)
    _add_lengths(made, about)
    return page.complete(
        made,
        "video.html",
        wanted=in_order(wanted),
        counting=picked.chosen,
        params=params,
        links=links,
        provenance=provenance,
        video=video,
        activities=activities,
        in_paper=video.published is not None,
        reduced=protocol.video_reductions(video),
        changed=[*made.other_data, *protocol.video_departures(video, video.grids["table5"])] if "table5" in grids else [],
        unshown=protocol.videos_unshown(video),
    )


def _grids(
    collected: SequenceRuns, video: Sequences, dataset: str, found: Found, fingerprints: Mapping[SequenceSpec, str]
) -> dict[str, SequenceRuns]:
    """By name, those that have runs."""
    place = {spec: position for position, spec in enumerate(fingerprints)}
    specs = {name: expand(video, dataset, name, found) for name in video.grids}
    return {name: collected.of(here, place, by_split=video.grids[name].lambdas == "searched") for name, here in specs.items() if here}


def _units(runs: SequenceRuns) -> list[Unit]:
    trained = set(runs.wanted["unit"])
    return [unit for unit in get_args(Unit) if unit in trained]


def _warnings(video: Sequences, grids: Mapping[str, SequenceRuns], picked: Picked, found: Found) -> list[str]:
    lines = warnings_of({name: grid.wanted for name, grid in grids.items()}, duplicates=picked.duplicates, stale=picked.stale)
    for name, grid in video.grids.items():
        if grid.lambdas == "searched" and grid.seeds:
            keys = [
                (method, classes, unit, split)
                for method in grid.methods
                if method in WITH_CLASSES
                for classes in grid.classes
                for unit in grid.units
                for split in grid.splits
            ]
            unknown = list(dict.fromkeys(f"{key[2]} {key[0]} · {key[1]}" for key in keys if searched_lambda(video, found, key) is None))
            if unknown:
                lines.append(f"{name}: no λ is found yet for {', '.join(unknown)}; these runs are neither made nor counted")
    return lines


def _add_table5(made: Report, about: Subject, runs: SequenceRuns, unit: Unit) -> pd.DataFrame:
    """Table 5 of one unit with what belongs to it; gives its `video_stats.differences`."""
    name, title = UNITS[unit]
    in_paper, warning = about.video.published is not None, about.warning
    measured = video_tables.MEASURED[unit]
    table = video_tables.table5(
        runs,
        name=name,
        caption=f"Test RMSE ({measured}) by split; mean ± std over activities.",
        unit=unit,
        deviation=about.video.deviation,
        beside_published=in_paper,
        not_comparable=protocol.videos_not_comparable(about.video, unit, made.other_data) if in_paper else "",
        warning=warning,
    )
    activities = video_tables.activities_table(
        runs,
        name=f"{name}_activities",
        caption=f"Test RMSE ({measured}) of each activity; mean over splits and seeds.",
        unit=unit,
        lengths=about.lengths,
        warning=warning,
    )
    made.add(Section(name=name, title=title, caption=table.caption, table=table, more=[activities], holes=hole_lines(runs.wanted)))
    differences = video_stats.differences(runs)
    if len(differences):
        changes = video_tables.differences_table(
            runs,
            differences,
            name=f"{name}_differences",
            caption=f"Differences to reg, tested over {len(about.activities)} activities.",
            unit=unit,
            warning=warning,
        )
        short = title.partition(":")[0]
        made.add(Section(name=changes.name, title=f"{short}: what the class loss changes", caption=changes.caption, table=changes))
    return differences


def _add_curves(made: Report, about: Subject, runs: SequenceRuns, predictions: Predictions) -> None:
    """Of one split and seed: reg and the class loss that stands for all, on a few test videos."""
    unit = _units(runs)[0]
    drawn = _drawn_runs(about.video, runs.on(unit), unit)
    if drawn is None:
        return
    split, seed, chosen = drawn
    try:
        tables = {name: predictions(run_id) for name, run_id in chosen.items()}
    except MissingError as error:
        made.warnings.append(f"progress: the curves are left out, because {error}")
        return
    tested = {name: about.lengths[name] for name in map(str, next(iter(tables.values()))["video"].unique())}
    videos = video_figures.drawn_videos(tested)
    curves = video_stats.progress_curves(tables, videos, about.lengths, unit, points=video_figures.POINTS)
    notes = {}
    for name in videos:
        errors = (f"{method} {video_stats.video_error(table, name, about.lengths, unit):.1f}" for method, table in tables.items())
        notes[name] = f"RMSE: {', '.join(errors)}"
    labels = ", ".join(chosen)
    section = Section(
        name="progress",
        title="Progress of single videos",
        svg=video_figures.progress_figure(curves, notes, unit),
        alt=f"Predicted progress against the frame in {len(videos)} test videos: {labels}, and the true progress. The CSV has the numbers.",
        caption=f"Test videos of split {split.upper()}, short to long (a fixed choice by length, whatever their errors): true progress "
        f"(dashed) and the predictions of {labels}, seed {seed}, frame by frame; {video_figures.POINTS} frames a video at most are drawn. "
        f"RMSE ({video_tables.MEASURED[unit]}): of that video, over all its frames.",
        warning=about.warning,
    )
    made.add(section, numbers=curves)


def _add_search(made: Report, runs: SequenceRuns, warning: str) -> None:
    table = video_tables.search_table(runs, caption="RMSE on held-out training videos, by λ.", warning=warning)
    made.add(Section(name=SEARCH, title="The search for λ", caption=table.caption, table=table, holes=hole_lines(runs.wanted)))


def _drawn_runs(video: Sequences, runs: SequenceRuns, unit: Unit) -> tuple[str, int, dict[str, str]] | None:
    """The first split and seed with a finished run of reg and of a class loss: split, seed, name -> run id."""
    finished = runs.wanted[runs.wanted["state"] == "finished"]
    for method in WITH_CLASSES:
        main = video_stats.main_row(video, runs.wanted, unit, method)
        if main is None:
            continue
        same = (finished[list(main)] == list(main.values())).all(axis=1)
        pairs = finished[same].merge(finished[finished["method"] == "reg"], on=["split", "seed"], suffixes=("", "_reg"))
        if len(pairs):
            first = records(pairs.sort_values(["split", "seed"], kind="stable"))[0]
            return first["split"], first["seed"], {"reg": first["run_id_reg"], method: first["run_id"]}
    return None


def _add_lengths(made: Report, about: Subject) -> None:
    sizes = np.array(list(about.lengths.values()))
    counts = video_figures.length_counts(sizes.tolist())
    section = Section(
        name="lengths",
        title="How long the videos are",
        svg=video_figures.lengths_figure(counts),
        alt="Two histograms: videos by their length, and frames by their number within the video. The CSV has the numbers.",
        caption=f"The imbalance: {len(sizes):,} videos of {sizes.min():,} to {sizes.max():,} frames, {sizes.sum():,} frames in all. Left: "
        "videos by length. Right: frames by their number within the video, which is the target in frames (log axis): only long videos have "
        "large ones. In percent every video covers the whole range, but long videos with more frames.",
        warning=about.warning,
    )
    made.add(section, numbers=counts)


def _metrics(runs: SequenceRuns, differences: Differences) -> dict[str, Any]:
    """Few, for the columns of `dvc exp show`: test RMSE (the mean over splits) and its gap to reg, by unit and method; a hole is null."""
    rmse: dict[str, dict[str, float | None]] = {}
    gaps: dict[str, dict[str, float | None]] = {}
    for unit, table in differences.items():
        rmse[unit] = {_key(row): rounded(row["mean"]) for row in records(video_stats.by_activity(runs.on(unit)))}
        for row in records(table.drop_duplicates(["method", "classes", "weight"], keep="last")):  # that over all splits comes last
            gaps.setdefault(unit, {})[_key(row)] = rounded(row["gap"])
    return {"rmse": rmse} | ({"gap": gaps} if gaps else {})


def _key(row: Mapping[str, Any]) -> str:
    return "-".join(map(str, [row["method"], *([row["classes"], row["weight"]] if row["classes"] else [])]))
