"""The report on sequences: Table 5, the effect of a class loss, the search for λ, and progress curves."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from regcls.errors import MissingError
from regcls.methods import has_class_loss, is_balanced
from regcls.params.single import SEARCH
from regcls.reports import page, protocol
from regcls.reports.measured import TOLERANCE, Runs, collect, contradictions, finite, key_of, row_name, unusable_lines
from regcls.reports.picking import records, warnings_of
from regcls.reports.report import Report, Section, rounded
from regcls.reports.stats import USELESS
from regcls.tasks.sequences import compared, figures, published, tables
from regcls.tasks.sequences.compared import ERRORS, MEASURED, SHOWN, Differences
from regcls.tasks.sequences.params import SequenceGrid, Sequences, SequenceSplit, Unit
from regcls.tasks.sequences.runs import BestLambdas, SequenceSpec, expand, searched_lambda
from regcls.tasks.task import Sources
from regcls.tracking.views import View
from regcls.words import counted

PREDICTIONS = "predictions.parquet"  # artifact of a run: activity, video, frame, prediction (in the unit as trained)
UNITS: Mapping[Unit, tuple[str, str]] = {
    "percent": ("table5a", "Table 5 (a): progress in percent"),
    "frames": ("table5b", "Table 5 (b): progress in frames"),
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The subject of the report."""

    section: Sequences
    activities: Sequence[str]  # activities that have networks
    lengths: Mapping[str, int]  # video -> number of frames
    counts: Sequence[str]  # differences to the paper's data, from protocol.other_counts


def report(sources: Sources, *, fingerprints: Mapping[SequenceSpec, str], best_lambdas: BestLambdas) -> Report:
    """See `Task.report`; `fingerprints`: of every requested run; `best_lambdas`: chosen by the search."""
    section: Sequences = sources.section
    activities, table = list(sources.data.activities), sources.data.table
    lengths = dict(zip(table["video"].tolist(), table["frames"].tolist(), strict=True))
    runs, picked = _collected(sources, fingerprints, activities)
    grids = _grids(runs, section, sources.dataset, best_lambdas)
    prepared = {"videos": len(lengths), "activities": len(activities)}
    counts = protocol.other_counts(prepared, published.COUNTS if section.published else {})
    subject = Subject(section=section, activities=activities, lengths=lengths, counts=counts)
    changed = [*counts, *departures(section, section.grids["table5"])] if "table5" in grids else []
    report = Report(
        dataset=sources.dataset,
        title=section.title,
        wanted=len(runs.wanted),
        finished=int((runs.wanted["state"] == "finished").sum()),
        intro=f"Small networks, one for each of {counted(len(activities), 'activity', 'activities')}, predict from the features of a frame "
        "how far the video has progressed: in percent of its length, or as the number of the frame. They are trained with a regression "
        "loss alone (reg), with an added classification loss (reg+cls), and with balanced classes (reg+cls-bal); kukleva has sigmoids "
        "instead of ReLU, and random is not trained. Every number comes from tracked MLflow runs and links to them"
        f"{', and the published values are shown next to ours' if section.published else ''}.",
        extent=[
            f"Each trains {counted(len(activities), 'network')}.",
            *protocol.paper_differences(
                section.published,
                reduced=protocol.reductions(section.grids, published.GRIDS),
                changed=changed,
                without=protocol.unshown(section.grids, list(published.GRIDS)),
            ),
        ],
        networks=_networks(section),
        view=View(
            tag=("dataset", sources.dataset),
            params=("unit", "split", "method", "classes", "lambda", "seed"),
            metrics=("test/rmse/all", "test/rmse_batch40/all"),
            axes=("unit", "split", "method", "classes"),
        ),
        other_data=counts,
    )
    report.warnings += warnings_of({name: grid.wanted for name, grid in grids.items()}, duplicates=picked.duplicates, stale=picked.stale)
    report.warnings += unusable_lines(picked.wanted, "errors by activity", "metrics")
    report.warnings += _search_lines(section, best_lambdas)
    if "table5" in grids:
        main = grids["table5"]
        constants = compared.constants(main, sources.data, activities)
        differences: Differences = {
            unit: _add_table5(report, subject, main.where(unit=unit), constants.where(unit=unit), unit) for unit in _units(main)
        }
        _add_curves(report, sources, subject, main)
        report.answers += compared.answers(section, main, differences)
        report.lines = compared.first_lines(section, differences)
        report.ranking = compared.ranking(section, differences)
        report.metrics |= _metrics(main, subject, differences)
    if SEARCH in grids:
        search = tables.search_table(grids[SEARCH], activities)
        holes = grids[SEARCH].hole_lines(_cell_name)
        report.add(Section(name=SEARCH, title="The search for λ", caption=search.caption, table=search, holes=holes))
    _add_lengths(report, lengths)
    return page.complete(report, runs, picked, links=sources.tracker, provenance=sources.provenance)


def _collected(sources: Sources, fingerprints: Mapping[SequenceSpec, str], activities: Sequence[str]) -> Any:
    """The runs that count: with finite test errors of all activities, their mean, and finite validation errors if videos are held out."""
    held_out = {fingerprint for spec, fingerprint in fingerprints.items() if spec.held_out}
    scale = {fingerprint: SHOWN[spec.unit] for spec, fingerprint in fingerprints.items()}
    tested = [name for error in ERRORS for name in compared.columns(error, activities)]
    validated = compared.columns("rmse", activities, "val")

    def measure(chosen: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
        searched = chosen[chosen["fingerprint"].isin(held_out)]
        values = chosen.set_index("run_id").reindex(columns=[*tested, *validated]).astype(float)
        values = values.mul(chosen["fingerprint"].map(scale).to_numpy(dtype=float), axis=0)
        tracked = chosen.set_index("run_id")
        means = {f"test/{error}/all": tracked.reindex(columns=compared.columns(error, activities)).mean(axis=1) for error in ERRORS}
        contrary = contradictions(chosen, pd.DataFrame(means), what="errors by activity")
        return values, contrary | finite(chosen, tested) | finite(searched, validated)

    order = {"unit": get_args(Unit)}
    return collect(sources.runs, fingerprints, measure, dataset=sources.dataset, axes=("unit", "split"), more=("held_out",), order=order)


def _grids(runs: Runs, section: Sequences, dataset: str, best_lambdas: BestLambdas) -> dict[str, Runs]:
    """The grids that have runs, by name. A searched λ may differ between splits; its cells are still joined in one row."""
    specs = {name: expand(section, dataset, name, best_lambdas) for name in section.grids}
    grids = {name: runs.of(wanted) for name, wanted in specs.items() if wanted}
    searched = {name: section.grids[name].lambdas == "searched" for name in grids}
    rows = {name: _one_weight(grid.wanted) if searched[name] else grid.wanted for name, grid in grids.items()}
    return {name: replace(grid, wanted=grid.in_order(rows[name])) for name, grid in grids.items()}


def _one_weight(wanted: pd.DataFrame) -> pd.DataFrame:
    """One `weight` for all runs of a (unit, method, class count): λ, or if it differs between splits, that of each: `10/100/10/10`."""
    joined = {}
    for key, part in wanted.groupby(["unit", "method", "classes"], sort=False):
        weights = [weight for _, weight in sorted(set(zip(part["split"], part["weight"], strict=True)))]
        joined[key] = weights[0] if len(set(weights)) == 1 else "/".join(weights)
    keys: Any = wanted[["unit", "method", "classes"]].itertuples(index=False, name=None)
    return wanted.assign(weight=[joined[key] for key in keys])


def _cell_name(row: Mapping[str, Any]) -> str:
    return f"{row['unit']} {row['split']} · {row_name(row)}"


def _units(runs: Runs) -> list[Unit]:
    trained = set(runs.wanted["unit"])
    return [unit for unit in get_args(Unit) if unit in trained]


def _search_lines(section: Sequences, best_lambdas: BestLambdas) -> list[str]:
    """A warning for each grid with λ that the search has not determined yet."""
    lines = []
    for name, grid in section.grids.items():
        if grid.lambdas != "searched" or not grid.seeds:
            continue
        keys = [
            (method, classes, unit, split)
            for method in grid.methods
            if has_class_loss(method)
            for classes in grid.classes
            for unit in grid.units
            for split in grid.splits
        ]
        missing = [key for key in keys if searched_lambda(section, best_lambdas, key) is None]
        unknown = list(dict.fromkeys(f"{unit} {method} · {classes}" for method, classes, unit, _ in missing))
        if unknown:
            lines.append(f"{name}: no λ found yet for {', '.join(unknown)}; these runs are neither trained nor counted")
    return lines


def departures(section: Sequences, grid: SequenceGrid) -> list[str]:
    """The data and training values of a grid that differ from the paper's: `epochs 10 instead of 40`."""
    splits: Sequence[SequenceSplit] = grid.splits

    def persons(ours: Mapping[Any, Any], papers: Mapping[Any, Any]) -> list[str]:
        return [f"other test persons ({split})" for split in splits if ours.get(split) != papers[split]]

    say: dict[str, protocol.Say] = {
        "source": lambda ours, papers: ["generated stand-in videos"],
        "test_persons": persons,
        "lam": protocol.by_key("λ", grid.units if grid.lambdas == "default" else ()),
    }
    unused = [] if any(map(is_balanced, grid.methods)) else ["rounding"]
    ours = asdict(section.data) | asdict(section.training)
    return protocol.departures(ours, published.VALUES, unused=unused, say=say) + protocol.other_lambdas(grid.lambdas)


def _networks(section: Sequences) -> str:
    training = section.training
    steps = f", × {training.decay} after epochs {', '.join(map(str, training.milestones))}" if training.milestones else ""
    return (
        f"Networks: 64 features, {' and '.join(map(str, training.hidden))} hidden units, {training.optimizer}, {training.epochs} epochs, "
        f"learning rate {training.learning_rate}{steps}, batches of {training.batch_size} frames, weight decay {training.weight_decay}, "
        f"{training.precision}; regression loss: squared error, summed over the batch; λ {training.lam.percent:g} (percent), "
        f"{training.lam.frames:g} (frames). The weights kept are those after the last epoch."
    )


def _add_table5(report: Report, subject: Subject, runs: Runs, constants: Runs, unit: Unit) -> pd.DataFrame:
    """Add Table 5 of one unit, its further tables, and a warning if networks learned nothing; return its `compared.differences`."""
    section, activities, (name, title) = subject.section, subject.activities, UNITS[unit]
    why = ", ".join([*subject.counts, *departures(section, replace(section.grids["table5"], units=(unit,)))]) if section.published else ""
    with_published = section.published is not None
    table = tables.table5(
        runs, constants, activities, name=name, unit=unit, deviation=section.deviation, with_published=with_published, why=why
    )
    by_activity = tables.activities_table(runs, activities, name=f"{name}_activities", unit=unit, lengths=subject.lengths)
    report.add(Section(name=name, title=title, caption=table.caption, table=table, more=[by_activity], holes=runs.hole_lines(_cell_name)))
    differences, useless = compared.differences(runs, activities), compared.useless_splits(constants, activities, unit)
    differences["answer"] = differences["answer"].mask(differences["split"].isin(useless) & differences["p"].notna(), USELESS)
    if useless:
        report.warnings.append(f"table5: {USELESS} in {unit} (split {', '.join(useless)}): so there is no verdict")
    if len(differences):
        changes = tables.differences_table(runs, differences, name=f"{name}_differences", activities=len(activities), unit=unit)
        short = title.partition(":")[0]
        report.add(Section(name=changes.name, title=f"{short}: differences to reg", caption=changes.caption, table=changes))
    return differences


def _add_curves(report: Report, sources: Sources, subject: Subject, runs: Runs) -> None:
    """Add progress curves of reg and another method on a few test videos, of one split and seed."""
    unit = _units(runs)[0]
    drawn = _drawn_runs(subject.section, runs.where(unit=unit), unit)
    if drawn is None:
        return
    split, seed, run_ids = drawn
    try:
        predictions = {method: sources.table(PREDICTIONS)(run_id) for method, run_id in run_ids.items()}
    except MissingError as error:
        report.warnings.append(f"progress: the curves are left out, because {error}")
        return
    if wrong := [run_ids[method] for method, table in predictions.items() if not _agrees(table, run_ids[method], runs, subject, unit)]:
        report.warnings.append(f"progress: the curves are left out, because {PREDICTIONS} of run {wrong[0]} contradicts its metrics")
        return
    tested = {name: subject.lengths[name] for name in map(str, next(iter(predictions.values()))["video"].unique())}
    videos = figures.drawn_videos(tested)
    curves = figures.progress_curves(predictions, videos, subject.lengths, unit)
    notes = {}
    for name in videos:
        errors = (f"{method} {figures.video_error(table, name, subject.lengths, unit):.1f}" for method, table in predictions.items())
        notes[name] = f"RMSE: {', '.join(errors)}"
    labels = ", ".join(run_ids)
    section = Section(
        name="progress",
        title="Progress of single videos",
        svg=figures.progress_figure(curves, notes, unit),
        alt=f"Predicted progress against the frame in {len(videos)} test videos: {labels}, and the true progress. The CSV has the numbers.",
        caption=f"Test videos of split {split.upper()}, short to long (a fixed choice by length, regardless of errors): true progress "
        f"(dashed) and the predictions of {labels}, seed {seed}, frame by frame; at most {figures.POINTS} frames per video are drawn. "
        f"RMSE ({MEASURED[unit]}): over all frames of the video.",
    )
    report.add(section, numbers=curves)


def _agrees(table: pd.DataFrame, run_id: str, runs: Runs, subject: Subject, unit: Unit) -> bool:
    """Whether the predictions of a run give its test RMSE of each activity."""
    if {"activity", "video", "frame", "prediction"} - set(table.columns) or table.empty or not set(table["video"]) <= set(subject.lengths):
        return False
    if not (is_numeric_dtype(table["prediction"]) and is_numeric_dtype(table["frame"])):
        return False
    lengths = table["video"].astype(str).map(subject.lengths)
    errors = SHOWN[unit] * (table["prediction"].astype(float) - table["frame"] / (lengths if unit == "percent" else 1))
    rmse = (errors**2).groupby(table["activity"].astype(str)).mean() ** 0.5
    tracked = runs.values.loc[run_id, compared.columns("rmse", subject.activities)].to_numpy(dtype=float)
    return bool(np.allclose(rmse.reindex(list(subject.activities)).to_numpy(dtype=float), tracked, rtol=TOLERANCE))


def _drawn_runs(section: Sequences, runs: Runs, unit: Unit) -> tuple[str, int, dict[str, str]] | None:
    """The first split and seed with finished runs of reg and of another method: split, seed, method -> run id."""
    finished = runs.wanted[runs.wanted["state"] == "finished"]
    for method in compared.compared_methods(runs.wanted):
        main = compared.main_row(section, runs.wanted, unit, method)
        if main is None:
            continue
        same = (finished[list(main)] == list(main.values())).all(axis=1)
        pairs = finished[same].merge(finished[finished["method"] == "reg"], on=["split", "seed"], suffixes=("", "_reg"))
        if len(pairs):
            first = records(pairs.sort_values(["split", "seed"], kind="stable"))[0]
            return first["split"], first["seed"], {"reg": first["run_id_reg"], method: first["run_id"]}
    return None


def _add_lengths(report: Report, lengths: Mapping[str, int]) -> None:
    sizes = np.array(list(lengths.values()))
    counts = figures.length_counts(sizes.tolist())
    section = Section(
        name="lengths",
        title="Lengths of the videos",
        svg=figures.lengths_figure(counts),
        alt="Two histograms: videos by length, and frames by their number within the video. The CSV has the numbers.",
        caption=f"The imbalance: {len(sizes):,} videos of {sizes.min():,} to {sizes.max():,} frames, {sizes.sum():,} in total. Left: "
        "videos by length. Right: frames by their number within the video, the target in frames (log axis): only long videos have "
        "large ones. In percent every video covers the whole range, but long videos have more frames.",
    )
    report.add(section, numbers=counts)


def _metrics(runs: Runs, subject: Subject, differences: Differences) -> dict[str, Any]:
    """Columns of `dvc exp show`: test RMSE (mean over splits) and its gap to reg, by unit and method; null if missing."""
    rmse: dict[str, dict[str, float | None]] = {}
    gaps: dict[str, dict[str, float | None]] = {}
    for unit, table in differences.items():
        rows = records(compared.by_activity(runs.where(unit=unit), subject.activities))
        rmse[unit] = {key_of(row, several_weights=True): rounded(row["mean"]) for row in rows}
        for row in records(table.drop_duplicates(["method", "classes", "weight"], keep="last")):  # the one over all splits comes last
            gaps.setdefault(unit, {})[key_of(row, several_weights=True)] = rounded(row["gap"])
    return {"rmse": rmse} | ({"gap": gaps} if gaps else {})
