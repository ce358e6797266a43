"""The tables on sequences, from frames of `compared` and `published`."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from regcls.params.single import SEARCH
from regcls.reports.measured import EDGE, ROW, Runs, at_edge, edge_note, full, groups_of, row_name, rows_like
from regcls.reports.picking import Row, records
from regcls.reports.stats import CONSTANTS, holm_note
from regcls.reports.tables import DASH, Cell, Part, RunGroup, Table, answer_cell, heads, interval, number, p_value, signed, tested, with_std
from regcls.tasks.sequences import compared, published
from regcls.tasks.sequences.compared import DIGITS, ERRORS, EVERY, MEASURED, SIGN
from regcls.tasks.sequences.figures import activity_of
from regcls.words import counted


def table5(
    runs: Runs,
    constants: Runs,
    activities: Sequence[str],
    *,
    name: str,
    unit: str,
    deviation: str,
    with_published: bool,
    why: str = "",
) -> Table:
    """Table 5 (a) or (b): a row per method, a column per (error, split): mean ± std over activities, the best in bold.

    `deviation`: denominator of std, n - 1 or n. The paper's rows and the authors' later re-run follow below ours in parts of their own: the
    paper's in the columns of RMSE, the re-run in those by batches of 40. `why`: reasons why they are not comparable with ours. `constants`
    (`compared.constants`) come last.
    """
    ours, theirs = (compared.cells(each, activities, ddof=1 if deviation == "n - 1" else 0) for each in (runs, constants))
    theirs = theirs[theirs["method"].isin(list(CONSTANTS))].drop(columns=["seeds", "seeds_wanted"])
    splits = sorted(ours["split"].unique())
    rows, parts, frames = _our_rows(runs, ours, splits), [Part(place=0, title="Ours")], [ours.assign(source="ours")]
    if with_published:
        for error, source, title, table in (
            ("rmse", "published", "Published", published.table5()),
            ("rmse_batch40", "re-run", "The authors' later re-run", published.released_breakfast()),
        ):
            printed = table[(table["unit"] == unit) & table["split"].isin(splits)]
            if printed.empty:
                continue
            parts.append(Part(place=len(rows), title=title + (", not comparable with ours" if why else ""), ours=False))
            printed = printed.rename(columns={"rmse": error, "std": f"{error}_std"})
            rows += [_other_row(part, splits) for _, part in printed.groupby(["method", "classes"], sort=False)]
            frames.append(printed.assign(source=source))
    if len(theirs):
        parts.append(Part(place=len(rows), title="Constants, for comparison", ours=False))
    rows += [_other_row(part, splits) for _, part in theirs.groupby("method", sort=False)]
    frames.append(theirs.assign(source="constant"))
    frame = pd.concat(frames, ignore_index=True).rename(columns={"weight": "lambda"})
    return Table(
        name=name,
        caption=f"Test RMSE ({MEASURED[unit]}) by split; mean ± std over activities.",
        columns=("method", "classes", "λ", *(split.upper() for _ in ERRORS for split in splits), "n"),
        spans=(("", 3), ("RMSE", len(splits)), ("RMSE by batches of 40", len(splits)), ("", 1)),
        rows=tuple(rows),
        frame=frame[["source", *(column for column in frame if column != "source")]],
        notes=_notes(unit, runs, len(activities), deviation, with_published=with_published, why=why),
        parts=tuple(parts),
    )


def _our_rows(runs: Runs, ours: pd.DataFrame, splits: Sequence[str]) -> list[tuple[Cell, ...]]:
    best = {(error, split): _best(ours[ours["split"] == split], error) for error in ERRORS for split in splits}
    rows = []
    for _, line in ours.groupby(ROW, sort=False):
        by_split = {row["split"]: row for row in records(line)}
        values = [_cell(runs, by_split.get(split), error, best[error, split]) for error in ERRORS for split in splits]
        seeds = sorted({row["seeds"] for row in by_split.values()})
        n = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        rows.append((*heads(next(iter(by_split.values()))), *values, Cell(text=n)))
    return rows


def _best(line: pd.DataFrame, error: str) -> float:
    """The lowest mean; NaN if there are fewer than two to compare."""
    means = full(line)[error]
    return float(means.min()) if len(means) > 1 else math.nan


def _cell(runs: Runs, row: Row | None, error: str, best: float) -> Cell:
    if row is None:  # its λ is not known yet
        return Cell(text=DASH)
    holes = "" if row["seeds"] == row["seeds_wanted"] else f" (n = {row['seeds']} of {row['seeds_wanted']})"
    digits = DIGITS[row["unit"]]
    strong = not holes and number(row[error], digits) == number(best, digits) != DASH
    return Cell(text=with_std(row[error], row[f"{error}_std"], digits) + holes, runs=_groups(_same(runs, row)), strong=strong)


def _other_row(part: pd.DataFrame, splits: Sequence[str]) -> tuple[Cell, ...]:
    """A row without runs: published values or a constant; a dash for errors and splits that `part` lacks."""
    by_split = {row["split"]: row for row in records(part)}
    first = next(iter(by_split.values()))
    found = [(by_split.get(split, {}), error) for error in ERRORS for split in splits]
    texts = [with_std(row[error], row[f"{error}_std"], DIGITS[first["unit"]]) if error in row else DASH for row, error in found]
    return (*heads(first | {"weight": ""}), *(Cell(text=text) for text in (*texts, DASH)))


def _same(runs: Runs, row: Row) -> pd.DataFrame:
    """The rows of `wanted` in the cell of `row`."""
    return rows_like(runs.wanted, {name: row[name] for name in runs.cell if name in row and row[name] != EVERY})


def _groups(wanted: pd.DataFrame) -> tuple[RunGroup, ...]:
    """The counted runs, grouped by method and, if there are several, by split."""
    splits = wanted["split"].nunique() > 1
    return groups_of(wanted, lambda row: f"{row['split']} · {row_name(row)}" if splits else row_name(row))


def _notes(unit: str, runs: Runs, activities: int, deviation: str, *, with_published: bool, why: str) -> tuple[str, ...]:
    notes = [
        f"Mean ± standard deviation (denominator {deviation.replace('-', '−')}) over the {activities} activities, each averaged over its "
        f"seeds first; in {MEASURED[unit]}. n: seeds. Bold: the lowest mean of a column among ours; it is not based on a test.",
        "RMSE: over all test frames of an activity. RMSE by batches of 40: mean RMSE of test batches of 40 consecutive frames, usually "
        "lower. The authors' test code computes the latter.",
        "Constants: the mean and the median of an activity's training targets, predicted for every frame. Where reg is no better, there is "
        "no verdict.",
        "random: the untrained network with sigmoids. kukleva: with sigmoids instead of ReLU (Kukleva et al. 2019).",
        *(["λ: if it differs between splits, that of each split."] if runs.wanted["weight"].str.contains("/").any() else []),
    ]
    if with_published:
        inferred = (
            ", and the authors' later re-run (learning rate 0.0001, λ 0.001) to be that by batches: predicting half of the video gives "
            "28.9 % and 25.2 %, and reg+cls is close to the former in the paper and to the latter in the re-run. This is inferred."
        )
        notes.append(
            "Published: the paper's Table 5, which states neither the number of seeds nor the kind of RMSE. We assume it is over all frames"
            + (inferred if unit == "percent" else ": see the table in percent.")
        )
        if why:
            notes.append(f"The published values are not comparable with ours: {why}.")
    return tuple(notes)


def activities_table(runs: Runs, activities: Sequence[str], *, name: str, unit: str, lengths: Mapping[str, int]) -> Table:
    """Test RMSE by activity, averaged over splits and seeds, a column per method; `lengths`: video -> number of frames."""
    frame, digits = compared.by_activity(runs, activities), DIGITS[unit]
    methods = records(frame)
    sizes: dict[str, list[int]] = {}
    for video, frames in lengths.items():
        sizes.setdefault(activity_of(video), []).append(frames)
    rows = []
    for activity in (*activities, "mean"):
        frames_of_videos = sizes.get(activity, [])
        size = [str(len(frames_of_videos)), f"{statistics.median(frames_of_videos):.0f}"] if frames_of_videos else ["", ""]
        values = [number(row[activity], digits) for row in methods]
        best = number(min((row[activity] for row in methods if not math.isnan(row[activity])), default=math.nan), digits)
        strong = [len(methods) > 1 and value == best != DASH for value in values]
        lead = (Cell(text=activity, header=True), *(Cell(text=text) for text in size))
        rows.append((*lead, *(Cell(text=value, strong=bold) for value, bold in zip(values, strong, strict=True))))
    counts = (Cell(text=f"{row['runs']} of {row['runs_wanted']}", runs=_groups(_same(runs, row))) for row in methods)
    rows.append((Cell(text="runs", header=True), Cell(text=""), Cell(text=""), *counts))
    long = frame.melt(id_vars=[*ROW, "runs", "runs_wanted"], var_name="activity", value_name="rmse").rename(columns={"weight": "lambda"})
    return Table(
        name=name,
        caption=f"Test RMSE ({MEASURED[unit]}) of each activity; mean over splits and seeds.",
        columns=("activity", "videos", "median frames", *map(row_name, methods)),
        rows=tuple(rows),
        frame=long,
        notes=(
            "Mean over splits, each averaged over its seeds; if runs are missing, over the existing ones. "
            "Bold: the lowest of a row; it is not based on a test.",
        ),
    )


def differences_table(runs: Runs, frame: pd.DataFrame, *, name: str, activities: int, unit: str) -> Table:
    """The differences to reg (`compared.differences`): a row per (method, class count, λ, split or all), tested over activities."""
    tests = compared.test_count(frame, unit)
    decides = "Δ" if compared.deciding(unit) == "gap" else "the difference in % of reg's error"
    return Table(
        name=name,
        caption=f"Differences to reg, over {counted(activities, 'activity', 'activities')}.",
        columns=(
            *("method", "classes", "λ", "split", "reg", "method's"),
            *(f"Δ ({SIGN[unit]})", "95 % interval", "p (Holm)", "Δ (% of reg)", "95 % interval", "p (Holm)"),
            *("does it help?", "n", "runs"),
        ),
        spans=(("", 6), (f"in {MEASURED[unit]}", 3), ("relative to reg", 3), ("", 2), ("", 1)),
        rows=tuple(_difference_row(runs, row, DIGITS[unit]) for row in records(frame)),
        frame=frame.rename(columns={"weight": "lambda"}),
        notes=(
            "Δ = RMSE(reg) − RMSE(method): above 0 the method helps. RMSE: over all test frames of an activity. n: activities × seeds, "
            "in the rows “all” × splits.",
            f"Unit of replication: the activity (n = {activities}). Its error is averaged over the seeds that both have, and in the rows "
            "“all” over the splits, then reg and the method are compared by a paired t-test over activities. Splits and seeds are not "
            "further replications: they share the activity's videos, and the splits' training videos overlap.",
            "Relative: the mean over activities of 100 · Δ / RMSE(reg). Errors in frames grow with the length of the videos, so the "
            f"longest activities dominate Δ. Here {decides} decides whether a method helps.",
            f"{holm_note(tests, of='activities')}{' Each of the two scales is adjusted on its own.' if tests else ''}",
        ),
        run_column=True,
    )


def _difference_row(runs: Runs, row: Row, digits: int) -> tuple[Cell, ...]:
    every, n = row["split"] == EVERY, row["activities"] if row["seeds"] else 0
    values = [number(row["reg"], digits), number(row["other"], digits)]
    for gap, start, shown in (("gap", "", digits), ("relative", "relative_", 2)):
        p = row[f"{start}p_holm"]
        p_text = tested(row[f"{start}p"], n) if math.isnan(p) else p_value(p)
        values += [signed(row[gap], shown), interval(row[f"{start}low"], row[f"{start}high"], shown), p_text]
    count = f"{row['activities']} × {row['seeds']}" + (f" × {row['splits']}" if every else "")
    groups = _groups(_same(runs, {"method": "reg", "split": row["split"]})) + _groups(_same(runs, row))
    return (
        *(*heads(row), Cell(text=row["split"] if every else row["split"].upper(), header=True)),
        *(Cell(text=text) for text in values),
        *(answer_cell(row["answer"]), Cell(text=count), Cell(text="", runs=groups)),
    )


def search_table(runs: Runs, activities: Sequence[str]) -> Table:
    """The λ search: RMSE on held-out training videos, a row per (unit, split, method, class count), a column per λ; the lowest in bold."""
    frame = compared.cells(runs, activities, ["rmse"], split="val")
    weights = sorted(filter(None, frame["weight"].unique()), key=float)
    rows, edges = [], False
    for _, line in frame.groupby(["unit", "split", "method", "classes"], sort=False):
        by_weight = {row["weight"]: row for row in records(line)}
        first, best = next(iter(by_weight.values())), _best(line, "rmse") if len(line) > 1 else math.nan
        lead = [Cell(text=str(first[name] or ""), header=True) for name in ("unit", "split", "method", "classes")]
        cells = [_cell(runs, by_weight.get(weight, by_weight.get("")), "rmse", best) for weight in weights]
        marked = [cell.strong and at_edge(float(weight), map(float, weights)) for cell, weight in zip(cells, weights, strict=True)]
        edges = edges or any(marked)
        rows.append((*lead, *(replace(cell, text=cell.text + EDGE * edge) for cell, edge in zip(cells, marked, strict=True))))
    return Table(
        name="lambda_search",
        caption="RMSE on held-out training videos, by λ.",
        columns=("target", "split", "method", "classes", *(f"λ {weight}" for weight in weights)),
        rows=tuple(rows),
        frame=frame.rename(columns={"weight": "lambda", "rmse": "val_rmse", "rmse_std": "val_rmse_std"}),
        notes=(
            "Mean ± standard deviation over activities, each averaged over its seeds first; in % of the video or in frames. Some training "
            "videos of each activity are held out for this search.",
            "Bold: the lowest mean of a row, among λ with the most seeds. A grid with “lambdas: searched” uses this λ.",
            *(edge_note("λ", f"`lambdas` of {SEARCH}") if edges else []),
        ),
    )
