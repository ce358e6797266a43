"""The tables on videos: frames of `video_stats` and of `published` -> `Table`."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from regcls.reports import published, video_stats
from regcls.reports.picking import records
from regcls.reports.stats import full
from regcls.reports.tables import DASH, Cell, Part, RunGroup, Table, interval, number, p_value, signed, tested
from regcls.reports.video_collect import ERRORS, ROW, SIGN, ErrorName, SequenceRuns, activity_of, row_name
from regcls.reports.video_stats import EVERY, LEVEL
from regcls.tasks.sequences.params import Unit
from regcls.words import counted

Row = Mapping[str, Any]
MEASURED: Mapping[Unit, str] = {"percent": "% of the video", "frames": "frames"}
DIGITS: Mapping[Unit, int] = {"percent": 2, "frames": 1}


def table5(
    runs: SequenceRuns,
    *,
    name: str,
    caption: str,
    unit: Unit,
    deviation: str,
    beside_published: bool,
    not_comparable: str = "",
    warning: str = "",
) -> Table:
    """Table 5 (a) or (b): a row a method, a column a (error, split): mean ± std over activities, the best in bold.

    `deviation`: n - 1 or n below in std. The paper's rows and the authors' later re-run stand below ours, set apart, the first in the
    columns of RMSE, the second in those by batches of 40; `not_comparable` says why they are not of what was trained.
    """
    ours = video_stats.cells(runs, ddof=1 if deviation == "n - 1" else 0)
    splits = sorted(ours["split"].unique())
    rows, parts = _our_rows(runs, ours, splits), []
    frames = [ours.assign(source="ours")]
    if beside_published:
        parts.append(Part(place=0, title="Ours"))
        theirs: dict[ErrorName, tuple[str, str, pd.DataFrame]] = {
            "rmse": ("published", "Published", published.table5()),
            "rmse_batch40": ("re-run", "The authors' later re-run", published.released_breakfast()),
        }
        for error, (source, title, table) in theirs.items():
            here = table[(table["unit"] == unit) & table["split"].isin(splits)]
            if here.empty:
                continue
            parts.append(Part(place=len(rows), title=title + (", not comparable with ours" if not_comparable else ""), ours=False))
            rows += [_their_row(part, splits, error) for _, part in here.groupby(["method", "classes"], sort=False)]
            frames.append(here.rename(columns={"rmse": error, "std": f"{error}_std"}).assign(source=source))
    frame = pd.concat(frames, ignore_index=True).rename(columns={"weight": "lambda"})
    return Table(
        name=name,
        caption=caption,
        columns=("method", "classes", "λ", *(split.upper() for _ in ERRORS for split in splits), "n"),
        spans=(("", 3), ("RMSE", len(splits)), ("RMSE by batches of 40", len(splits)), ("", 1)),
        rows=tuple(rows),
        frame=frame[["source", *(column for column in frame if column != "source")]],
        notes=_notes(unit, runs, deviation, beside_published=beside_published, why=not_comparable),
        warning=warning,
        parts=tuple(parts),
    )


def _our_rows(runs: SequenceRuns, ours: pd.DataFrame, splits: Sequence[str]) -> list[tuple[Cell, ...]]:
    best = {(error, split): _best(ours[ours["split"] == split], error) for error in ERRORS for split in splits}
    rows = []
    for _, line in ours.groupby(ROW, sort=False):
        cells = {row["split"]: row for row in records(line)}
        first = next(iter(cells.values()))
        values = [_our_cell(runs, cells.get(split), error, best[error, split]) for error in ERRORS for split in splits]
        rows.append((*_heads(first), *values, Cell(text=_seeds(cells.values()))))
    return rows


def _best(cells: pd.DataFrame, error: str) -> float:
    """The lowest mean of a column; none unless more than one method competes."""
    means = full(cells)[error]
    return float(means.min()) if len(means) > 1 else math.nan


def _our_cell(runs: SequenceRuns, row: Row | None, error: str, best: float) -> Cell:
    if row is None:  # its λ is not found yet
        return Cell(text=DASH)
    holes = "" if row["seeds"] == row["seeds_wanted"] else f" (n = {row['seeds']} of {row['seeds_wanted']})"
    digits = DIGITS[row["unit"]]
    strong = not holes and number(row[error], digits) == number(best, digits) != DASH
    return Cell(text=_with_std(row[error], row[f"{error}_std"], digits) + holes, runs=_groups(_same(runs, row)), strong=strong)


def _seeds(cells: Any) -> str:
    seeds = sorted({row["seeds"] for row in cells})
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"


def _heads(row: Row) -> tuple[Cell, ...]:
    return tuple(Cell(text=str(text or ""), header=True) for text in (row["method"], row["classes"], row["weight"]))


def _with_std(mean: float, std: float, digits: int) -> str:
    return number(mean, digits) if math.isnan(std) or math.isnan(mean) else f"{number(mean, digits)} ± {number(std, digits)}"


def _their_row(part: pd.DataFrame, splits: Sequence[str], error: ErrorName) -> tuple[Cell, ...]:
    by_split = {row["split"]: row for row in records(part)}
    first = next(iter(by_split.values()))
    digits = DIGITS[first["unit"]]
    values = [_with_std(by_split[split]["rmse"], by_split[split]["std"], digits) if split in by_split else DASH for split in splits]
    texts = [*(text for name in ERRORS for text in (values if name == error else [DASH] * len(splits))), DASH]
    return (*_heads(first | {"weight": ""}), *(Cell(text=text) for text in texts))


def _same(runs: SequenceRuns, row: Row) -> pd.DataFrame:
    """The rows of `wanted` with all of CELL that `row` has."""
    wanted = runs.wanted
    for name in ("unit", "split", *ROW):
        if name in row and row[name] != EVERY:
            wanted = wanted[wanted[name] == row[name]]
    return wanted


def _groups(wanted: pd.DataFrame) -> tuple[RunGroup, ...]:
    """The counted runs, by method and, where there are several, by split."""
    splits = wanted["split"].nunique() > 1
    groups: dict[str, list[tuple[str, str]]] = {}
    for row in records(wanted[wanted["state"] == "finished"]):
        label = f"{row['split']} · {row_name(row)}" if splits else row_name(row)
        groups.setdefault(label, []).append((str(row["seed"]), row["run_id"]))
    return tuple(RunGroup(label=label, runs=tuple(found)) for label, found in groups.items())


def _notes(unit: Unit, runs: SequenceRuns, deviation: str, *, beside_published: bool, why: str) -> tuple[str, ...]:
    notes = [
        f"Mean ± standard deviation ({deviation.replace('-', '−')} below) over the {len(runs.activities)} activities, each averaged over "
        f"its seeds first; in {MEASURED[unit]}. n: seeds. Bold: the lowest mean of a column among our own; no test stands behind it.",
        "RMSE: over all test frames of an activity. RMSE by batches of 40: the mean, over test batches of 40 consecutive frames, of each "
        "batch's RMSE, which is as a rule lower. The authors' test code takes the second.",
        "random: the network with sigmoids as it is initialised, untrained. kukleva: with sigmoids in place of ReLU (Kukleva et al. 2019).",
        *(["λ: where it differs between splits, that of each in turn."] if runs.wanted["weight"].str.contains("/").any() else []),
    ]
    if beside_published:
        notes.append(
            "Published: the paper's Table 5; it does not say over how many seeds, nor which RMSE it is. It is taken for that of all frames"
            + (
                ", and the authors' later re-run (learning rate 0.0001, λ 0.001) for that by batches: a constant half of the video gives "
                "28.9 % and 25.2 %, and reg+cls lies near the first in the paper and near the second in the re-run. This is inferred."
                if unit == "percent"
                else ": see the table in percent."
            )
        )
        notes += [f"The published values are not comparable with ours: {why}."] * bool(why)
    return tuple(notes)


def activities_table(runs: SequenceRuns, *, name: str, caption: str, unit: Unit, lengths: Mapping[str, int], warning: str = "") -> Table:
    """A row an activity, a column a method: test RMSE, the mean over splits and seeds; `lengths`: frames of each video."""
    frame, digits = video_stats.by_activity(runs), DIGITS[unit]
    methods = records(frame)
    sizes: dict[str, list[int]] = {}
    for video, frames in lengths.items():
        sizes.setdefault(activity_of(video), []).append(frames)
    rows = []
    for activity in (*runs.activities, "mean"):
        here = sizes.get(activity, [])
        size = [str(len(here)), f"{statistics.median(here):.0f}"] if here else ["", ""]
        values = [number(row[activity], digits) for row in methods]
        best = min((row[activity] for row in methods if not math.isnan(row[activity])), default=math.nan)
        strong = [len(methods) > 1 and value == number(best, digits) != DASH for value in values]
        heads = (Cell(text=activity, header=True), *(Cell(text=text) for text in size))
        rows.append((*heads, *(Cell(text=value, strong=bold) for value, bold in zip(values, strong, strict=True))))
    counts = (Cell(text=f"{row['runs']} of {row['runs_wanted']}", runs=_groups(_same(runs, row))) for row in methods)
    rows.append((Cell(text="runs", header=True), Cell(text=""), Cell(text=""), *counts))
    long = frame.melt(id_vars=[*ROW, "runs", "runs_wanted"], var_name="activity", value_name="rmse").rename(columns={"weight": "lambda"})
    return Table(
        name=name,
        caption=caption,
        columns=("activity", "videos", "median frames", *map(row_name, methods)),
        rows=tuple(rows),
        frame=long,
        notes=(
            "The mean over the splits, of each the mean over its seeds; where runs are missing, over those that are there. "
            "Bold: the lowest of a row; no test stands behind it.",
        ),
        warning=warning,
    )


def differences_table(runs: SequenceRuns, frame: pd.DataFrame, *, name: str, caption: str, unit: Unit, warning: str = "") -> Table:
    """What a class loss changes (`video_stats.differences`): a row a (method, class count, λ, split or all), tested over activities."""
    tests = int(frame["p"].notna().sum())
    sign, deciding = SIGN[unit], "Δ" if video_stats.deciding(unit) == "gap" else "the difference in % of reg's error"
    return Table(
        name=name,
        caption=caption,
        columns=(
            *("method", "classes", "λ", "split", "reg", "method's"),
            *(f"Δ ({sign})", "95 % interval", "p (Holm)", "Δ (% of reg)", "95 % interval", "p (Holm)"),
            *("does it help?", "n", "runs"),
        ),
        spans=(("", 6), (f"in {MEASURED[unit]}", 3), ("relative to reg", 3), ("", 2), ("", 1)),
        rows=tuple(_difference_row(runs, row, DIGITS[unit]) for row in records(frame)),
        frame=frame.rename(columns={"weight": "lambda"}),
        notes=(
            "Δ = RMSE(reg) − RMSE(method): above 0 the class loss helps. RMSE: over all test frames of an activity. n: activities × seeds, "
            "in the rows “all” × splits.",
            f"Unit of replication: the activity (n = {len(runs.activities)}). Its error is averaged over the seeds that both have, and in "
            "the rows “all” over the splits, then reg and the method are compared by a paired t-test over activities. Splits and seeds are "
            "no further replications: they share the activity's videos, and the splits' training videos overlap.",
            "Relative: the mean over activities of 100 · Δ / RMSE(reg). Errors in frames grow with the length of the videos, so that the "
            f"longest activities carry Δ. Here {deciding} decides whether the class loss helps.",
            f"p (Holm) is adjusted for the {counted(tests, 'test')} of this table in each of the two scales. “Helps”, “hurts”: adjusted "
            f"p < {LEVEL}.",
        ),
        warning=warning,
        run_column=True,
    )


def _difference_row(runs: SequenceRuns, row: Row, digits: int) -> tuple[Cell, ...]:
    every, n = row["split"] == EVERY, row["activities"] if row["seeds"] else 0
    values = [number(row["reg"], digits), number(row["other"], digits)]
    for gap, start, shown in (("gap", "", digits), ("relative", "relative_", 2)):
        p = row[f"{start}p_holm"]
        said = tested(row[f"{start}p"], n) if math.isnan(p) else p_value(p)
        values += [signed(row[gap], shown), interval(row[f"{start}low"], row[f"{start}high"], shown), said]
    clear = row["answer"] in ("helps", "hurts")
    count = f"{row['activities']} × {row['seeds']}" + f" × {row['splits']}" * every
    groups = _groups(_same(runs, {"method": "reg", "split": row["split"]})) + _groups(_same(runs, row))
    return (
        *(*_heads(row), Cell(text=row["split"] if every else row["split"].upper(), header=True)),
        *(Cell(text=text) for text in values),
        *(Cell(text=row["answer"], strong=clear), Cell(text=count), Cell(text="", runs=groups)),
    )


def search_table(runs: SequenceRuns, *, caption: str, warning: str = "") -> Table:
    """The search for λ: RMSE on held-out training videos, a row a (unit, split, method, class count), a column a λ; the lowest in bold."""
    frame = video_stats.cells(runs, ["val_rmse"])
    weights = sorted(frame.loc[frame["classes"] > 0, "weight"].unique(), key=float)
    rows = []
    for _, line in frame.groupby(["unit", "split", "method", "classes"], sort=False):
        by_weight = {row["weight"]: row for row in records(line)}
        best = full(line)["val_rmse"].min() if len(line) > 1 else math.nan
        first = next(iter(by_weight.values()))
        heads = [Cell(text=str(first[name] or ""), header=True) for name in ("unit", "split", "method", "classes")]
        values = [_search_cell(runs, by_weight.get(weight, by_weight.get("")), best) for weight in weights]
        rows.append((*heads, *values))
    return Table(
        name="lambda_search",
        caption=caption,
        columns=("target", "split", "method", "classes", *(f"λ {weight}" for weight in weights)),
        rows=tuple(rows),
        frame=frame.rename(columns={"weight": "lambda"}),
        notes=(
            "Mean ± standard deviation over activities, each averaged over its seeds first; in % of the video or in frames. A share of the "
            "training videos of each activity is held out for it.",
            "Bold: the lowest mean of a row, among λ with all seeds that any has. A grid with “lambdas: searched” takes it.",
        ),
        warning=warning,
    )


def _search_cell(runs: SequenceRuns, row: Row | None, best: float) -> Cell:
    if row is None:
        return Cell(text=DASH)
    holes = "" if row["seeds"] == row["seeds_wanted"] else f" (n = {row['seeds']} of {row['seeds_wanted']})"
    text = _with_std(row["val_rmse"], row["val_rmse_std"], DIGITS[row["unit"]]) + holes
    return Cell(text=text, runs=_groups(_same(runs, row)), strong=row["val_rmse"] == best)
