"""Report tables of tasks with one network per run: errors by shot group, differences to reg, and the search for λ.

A task describes its errors in a shot_subject.Subject; nothing here depends on the task.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from regcls.methods import has_class_loss
from regcls.metrics import SHOTS, Shot
from regcls.params.single import SEARCH
from regcls.reports.measured import EDGE, ROW, Runs, at_edge, edge_note, full, groups_of, means, row_name, rows_like
from regcls.reports.picking import Row, records
from regcls.reports.report import Report, Section
from regcls.reports.shot_differences import differences
from regcls.reports.shot_subject import (
    BASELINES,
    SHORT,
    Metric,
    Published,
    ShotTable,
    Subject,
    cells,
    constant_error,
    no_better_than_constant,
)
from regcls.reports.shot_words import answers, compared_methods, few_metrics, line_of, use
from regcls.reports.stats import FEWEST, USELESS, equivalence_note, holm_note
from regcls.reports.tables import DASH, Cell, Part, RunGroup, Table, answer_cell, heads, interval, number, p_value, signed, with_std
from regcls.runs.grids import BestLambdas, searched_lambda
from regcls.words import counted


def complete(
    report: Report, subject: Subject, grids: Mapping[str, Runs], *, best_lambdas: BestLambdas, extra: Callable[[Runs], None]
) -> None:
    """Add the results of the grids (name -> runs) to a report: tables, differences, the search for λ, answers and metrics.

    `best_lambdas`: chosen by the search. `extra` adds further sections on the main grid, the first one with a table, after its tables.
    """
    report.warnings += _search_lines(subject, best_lambdas)
    main: tuple[Runs, pd.DataFrame] | None = None
    for name in (name for name in subject.titles if name in grids):
        runs, table = grids[name], differences(grids[name], subject.compare, negligible=subject.negligible)
        useless = no_better_than_constant(subject, table)
        table["answer"] = table["answer"].mask(table["error"].isin(list(useless)) & table["p"].notna(), USELESS)
        if useless:
            report.warnings.append(_useless_line(subject, name, *next(iter(useless.items()))))
        _add_tables(report, subject, name, runs, table)
        if main is None:
            main = runs, table
            tried = subject.grids[SEARCH if subject.grids[name].lambdas == "searched" else name].lambdas
            extra(runs)
    if SEARCH in grids:
        _add_search(report, subject, grids[SEARCH])
    if main:
        compared = compared_methods(subject, *main)
        report.answers += answers(subject, *main, compared, tried=tried)
        lines = {method: line_of(subject, compared, method) for method in compared}
        report.lines = [lines["reg+cls"]] if "reg+cls" in lines else []
        report.ranking = sorted(lines.values(), key=lambda line: line.overall.other)
        report.use = use(subject, main[0], compared)
        report.metrics |= few_metrics(subject, *main)


def _useless_line(subject: Subject, grid: str, error: str, reg: float) -> str:
    constant = constant_error(subject, error)
    digits = subject.digits(max(reg, constant))
    return (
        f"{grid}: {USELESS}: its {subject.tested[error]} is {number(reg, digits)}, that of a constant {number(constant, digits)}; so there "
        "is no verdict. Try a larger learning rate, more epochs, or standardised targets (docs/own-data.md)"
    )


def _add_tables(report: Report, subject: Subject, name: str, runs: Runs, table: pd.DataFrame) -> None:
    data = subject.samples[subject.grids[name].balanced_data]
    title, holes = subject.titles[name], runs.hole_lines(row_name)
    main = shots_table(
        subject, runs, subject.main, name=name, caption=subject.main.caption.format(data=data), published=subject.published(name)
    )
    more = [shots_table(subject, runs, each, name=f"{name}_{each.suffix}", caption=each.caption) for each in subject.more]
    report.add(Section(name=name, title=title, caption=main.caption, table=main, more=more, holes=holes))
    extent = f"{counted(subject.test_images, 'test image')} and {counted(runs.wanted['seed'].nunique(), 'seed')}"
    caption = f"Differences to reg, trained on {data}, over {extent}."
    changes = differences_table(subject, runs, table, name=f"{name}_differences", caption=caption)
    if changes.rows:
        report.add(Section(name=changes.name, title=f"{title.partition(':')[0]}: differences to reg", caption=caption, table=changes))


def shots_table(subject: Subject, runs: Runs, table: ShotTable, *, name: str, caption: str, published: Published | None = None) -> Table:
    """Tables 2, 3 and 4: a row per (method, class count, λ), a column per (error, shot group): mean ± std over seeds, the best in bold.

    Published values follow below ours, in a part of their own.
    """
    ours = cells(subject, runs, table.metrics)
    metric_of = {column: metric for metric in table.metrics for column in metric.by_column}
    columns = list(metric_of)
    digits = {
        column: subject.digits(float(np.nanmax(ours[list(metric.by_column)].to_numpy(dtype=float), initial=-math.inf)))
        for column, metric in metric_of.items()
    }
    best = {column: _best(ours, column, digits[column], metric.higher_is_better) for column, metric in metric_of.items()}
    most, none = ours["seeds"].max(), dict.fromkeys(best, "")
    rows = [_our_row(row, best if row["seeds"] == most else none, digits, _with_reg(runs, row)) for row in records(ours)]
    papers, parts = (_wide(published.values) if published else pd.DataFrame()), tuple[Part, ...]()
    if published and len(papers):
        title = "Published" + (", not comparable with ours" if published.why else "")
        parts = (Part(place=0, title="Ours"), Part(place=len(rows), title=title, ours=False))
        rows += [_published_row(row, columns, published.digits) for row in records(papers)]
    constants = _constants(subject, table.metrics)
    if len(constants):
        parts = (*(parts or (Part(place=0, title="Ours"),)), Part(place=len(rows), title="Constants, for comparison", ours=False))
        rows += [_constant_row(row, columns, digits) for row in records(constants)]
    sources = {"ours": ours, "published": papers, "constant": constants}
    by_source = [part.assign(source=source) for source, part in sources.items() if len(part)]
    frame = pd.concat(by_source, ignore_index=True) if len(by_source) > 1 else ours
    front = [column for column in ("source", *ROW, "seeds", "seeds_wanted", "uncertain") if column in frame]
    return Table(
        name=name,
        caption=caption,
        columns=("method", "classes", "λ", *(SHORT[shot] for _ in table.metrics for shot in SHOTS), "n", "runs"),
        spans=(("", 3), *((metric.title, 4) for metric in table.metrics), ("", 1), ("", 1)),
        under=("", "", "", *("\n".join(subject.sizes[shot]) for _ in table.metrics for shot in SHOTS), "seeds", ""),
        rows=tuple(rows),
        frame=frame[[*front, *(column for column in frame if column not in front)]].rename(columns={"weight": "lambda"}),
        notes=(
            "± : standard deviation over seeds. n: seeds.",
            *table.notes,
            subject.groups,
            *_bold_note(table, best),
            *_published_notes(published),
        ),
        run_column=True,
        parts=parts,
    )


def _best(ours: pd.DataFrame, column: str, digits: int, higher: bool) -> str:
    """The best mean of a column as printed; "" if there are fewer than two to compare."""
    values = full(ours)[column].dropna()
    return number(values.max() if higher else values.min(), digits) if len(values) > 1 else ""


def _with_reg(runs: Runs, row: Row) -> tuple[RunGroup, ...]:
    """The runs of a row, and those of reg that it is compared with."""
    reg = groups_of(runs.wanted[runs.wanted["method"] == "reg"], row_name)
    return _runs_of(runs, row) if row["method"] == "reg" else reg + _runs_of(runs, row)


def _runs_of(runs: Runs, row: Row) -> tuple[RunGroup, ...]:
    return groups_of(rows_like(runs.wanted, row, ROW), row_name)


def _our_row(row: Row, best: Mapping[str, str], digits: Mapping[str, int], runs: tuple[RunGroup, ...]) -> tuple[Cell, ...]:
    values = [
        Cell(text=with_std(row[column], row[f"{column}_std"], digits[column]), strong=number(row[column], digits[column]) == winner)
        for column, winner in best.items()
    ]
    n = str(row["seeds"]) if row["seeds"] == row["seeds_wanted"] else f"{row['seeds']} of {row['seeds_wanted']}"
    return (*heads(row), *values, Cell(text=n), Cell(text="", runs=runs))


def _wide(published: pd.DataFrame) -> pd.DataFrame:
    """Published values in the columns of `cells`, in printed order: baselines first."""
    rows = []
    for (method, classes), part in published.groupby(["method", "classes"], sort=False):
        row: dict[str, Any] = {"method": method, "classes": classes, "weight": "", "uncertain": bool(part["uncertain"].any())}
        for entry in records(part):
            row |= {f"{entry['metric']}_{entry['shot']}": entry["value"], f"{entry['metric']}_{entry['shot']}_std": entry["std"]}
        rows.append(row)
    return pd.DataFrame(rows)


def _published_row(row: Row, columns: Sequence[str], digits: int) -> tuple[Cell, ...]:
    names = heads({**row, "method": str(row["method"]) + "†" * row["uncertain"]})
    values = (Cell(text=with_std(row.get(column, math.nan), row.get(f"{column}_std", math.nan), digits)) for column in columns)
    return (*names, *values, Cell(text=DASH if row["method"] in BASELINES else "3"), Cell(text=""))


def _constants(subject: Subject, metrics: Sequence[Metric]) -> pd.DataFrame:
    """The errors of constant predictions, in the columns of `cells`."""
    by_column = {column: measured for metric in metrics for column, measured in metric.by_column.items()}
    rows = [
        {"method": name, "classes": 0, "weight": ""} | {column: values.get(measured, math.nan) for column, measured in by_column.items()}
        for name, values in subject.constants.items()
    ]
    return pd.DataFrame(rows)


def _constant_row(row: Row, columns: Sequence[str], digits: Mapping[str, int]) -> tuple[Cell, ...]:
    values = (Cell(text=number(row[column], digits[column])) for column in columns)
    return (*heads(row), *values, Cell(text=DASH), Cell(text=""))


def _bold_note(table: ShotTable, best: Mapping[str, str]) -> list[str]:
    higher = [metric.higher_is_better for metric in table.metrics]
    word = "highest" if all(higher) else "best" if any(higher) else "lowest"
    note = f"Bold: the {word} mean of a column among our rows with the most seeds; it is not based on a test."
    return [note] if any(best.values()) else []


def _published_notes(published: Published | None) -> list[str]:
    if published is None:
        return []
    quoted = ", ".join(name for name in BASELINES if name in set(published.values["method"]))
    baselines = f" {quoted}: baselines, as the paper quotes them." if quoted else ""
    notes = [f"Published: the paper's own values on {published.where}, ± over its 3 seeds." + baselines]
    if published.balanced_data:
        notes.append("The paper's reg+cls on balanced data has equalised classes, so it is called reg+cls-bal here.")
    if published.why:
        notes.append(f"The published values are not comparable with ours: {published.why}.")
    if published.values["uncertain"].any():
        notes.append("† It is uncertain which row or column of the printed table the value belongs to.")
    return notes


def differences_table(subject: Subject, runs: Runs, frame: pd.DataFrame, *, name: str, caption: str) -> Table:
    """The differences to reg (`differences`): a row per (error, method, class count, λ, shot group)."""
    rows: list[tuple[Cell, ...]] = []
    parts = []
    for error, title in subject.tested.items():
        parts.append(Part(place=len(rows), title=title))
        rows += [_difference_row(subject, runs, row) for row in records(frame[frame["error"] == error])]
    return Table(
        name=name,
        caption=caption,
        columns=(
            *("method", "classes", "λ", "group", "reg", "method's", "Δ", "does it help?"),
            *("95 % interval", "p", "p (Holm)", "seeds × images", "runs"),
        ),
        rows=tuple(rows),
        frame=frame.rename(columns={"weight": "lambda"}),
        notes=(
            subject.meaning,
            f"Interval and p: t-test of Δ over seeds and test images, both as samples of more (paired; needs {FEWEST} seeds). "
            f"{subject.independence}",
            holm_note(int(frame["p"].notna().sum()), of="seeds"),
            equivalence_note(subject.negligible),
            *([f"With {FEWEST} seeds only large differences become clear."] if frame["seeds"].max() == FEWEST else []),
        ),
        run_column=True,
        parts=tuple(parts) if len(parts) > 1 else (),
    )


def _difference_row(subject: Subject, runs: Runs, row: Row) -> tuple[Cell, ...]:
    digits = subject.digits(max(abs(row["reg"]), abs(row["other"])))
    shot: Shot = row["shot"]
    texts = (
        *(number(row["reg"], digits), number(row["other"], digits), signed(row["gap"], digits)),
        *(interval(row["low"], row["high"], digits), p_value(row["p"]), p_value(row["p_holm"]), f"{row['seeds']} × {row['images']:,}"),
    )
    cells = [Cell(text=text) for text in texts]
    cells.insert(3, answer_cell(row["answer"]))
    return (*heads(row), Cell(text=SHORT[shot], header=True), *cells, Cell(text="", runs=_with_reg(runs, row)))


# The search for λ.


def _search_lines(subject: Subject, best_lambdas: BestLambdas) -> list[str]:
    """A warning for each grid with λ that the search has not determined yet."""
    lines = []
    for name, grid in subject.grids.items():
        if grid.lambdas == "searched" and grid.seeds:
            pairs = [(method, classes) for method in grid.methods if has_class_loss(method) for classes in grid.classes]
            unknown = [
                f"{method} · {classes}"
                for method, classes in pairs
                if searched_lambda(subject.grids, best_lambdas, method, classes) is None
            ]
            if unknown:
                lines.append(f"{name}: no λ found yet for {', '.join(unknown)}; these runs are neither trained nor counted")
    return lines


def _add_search(report: Report, subject: Subject, runs: Runs) -> None:
    table = search_table(subject, runs)
    report.add(Section(name=SEARCH, title="The search for λ", caption=table.caption, table=table, holes=runs.hole_lines(row_name)))


def search_table(subject: Subject, runs: Runs) -> Table:
    """The λ search: a row per (method, class count), a column per (validation error, λ); the λ with the lowest first error in bold."""
    frame = means(runs, {name: [name] for name in subject.searched})
    weights = sorted(filter(None, frame["weight"].unique()), key=float)
    judged = next(iter(subject.searched))
    rows, edges = [], False
    for _, part in frame.groupby(["method", "classes"], sort=False):
        by_weight = {row["weight"]: row for row in records(part)}
        first = next(iter(by_weight.values()))
        best = full(part).sort_values(judged, kind="stable")["weight"].tolist()[:1] if first["weight"] else []
        edge = any(at_edge(float(weight), map(float, by_weight)) for weight in best)
        edges = edges or edge
        columns = [(error, by_weight.get(weight, by_weight.get("")), weight in best) for error in subject.searched for weight in weights]
        values = [_search_cell(subject, runs, row, error, strong=strong, edge=strong and edge) for error, row, strong in columns]
        rows.append((*heads(first)[:2], *values))
    return Table(
        name=SEARCH,
        caption="Validation error by λ; mean over seeds.",
        columns=("method", "classes", *(f"λ {weight}" for _ in subject.searched for weight in weights)),
        spans=(("", 2), *((heading, len(weights)) for heading in subject.searched.values())) if weights else (),
        rows=tuple(rows),
        frame=frame.rename(columns={"weight": "lambda"}),
        notes=(
            "± : standard deviation over seeds, where there are several. Over all validation images.",
            f"Bold: the lowest mean {subject.searched[judged]} of a row, among λ with the most seeds. A grid with "
            "“lambdas: searched” uses this λ.",
            *(edge_note("λ", f"`lambdas` of {SEARCH}") if edges else []),
            *(["A method with only one loss has no λ: its value is repeated."] if (frame["weight"] == "").any() else []),
        ),
    )


def _search_cell(subject: Subject, runs: Runs, row: Row | None, error: str, *, strong: bool, edge: bool) -> Cell:
    if row is None:
        return Cell(text=DASH)
    holes = "" if row["seeds"] == row["seeds_wanted"] else f" (n = {row['seeds']} of {row['seeds_wanted']})"
    text = with_std(row[error], row[f"{error}_std"], subject.digits(row[error])) + EDGE * edge + holes
    return Cell(text=text, runs=_runs_of(runs, row), strong=strong)
