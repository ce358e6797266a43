"""Writes the folder reports/: a start page on all data sets, a subfolder with the report on each, and the metrics that DVC shows."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from regcls.errors import UserError
from regcls.files import folder_written_aside
from regcls.params import Params
from regcls.reports import page
from regcls.reports.report import Compared, Line, Report, files_of
from regcls.reports.stats import FEWEST, NOT_TESTED
from regcls.reports.tables import DASH, Cell, Table, answer_cell, interval, number, signed

GROUP = ("reg", "reg+cls", "Δ (95 % interval)", "does it help?")
SPANS = (("", 3), ("all test samples", 4), ("Few: rare targets", 4), ("", 1))
NO_BREAK = "\u00a0"
NUMBERS = ("reg", "other", "gap", "low", "high", "answer")
FRAME = ["dataset", "part", "measured", "method", *NUMBERS, *(f"few_{name}" for name in NUMBERS), "n"]
NOTES = (
    f"Δ = error(reg) − error(method): above 0 the class loss helps. “Helps” and “hurts” are the outcome of a test over trained replicates "
    f"(seeds, repetitions, activities, folds; at least {FEWEST}), as each report explains. An interval is for one difference alone; the "
    "answer is corrected for the number of tests that the last column ends with, so it may be “not clear” or “cannot be told” even though "
    "the interval excludes 0.",
    "The class count is never chosen on test data: it has the lowest validation error (images, depth; tables, in each fold), is that of "
    "params.yaml (sequences), or the mean is over all class counts (functions). Few: test samples whose targets are rare in training, if "
    "there are such groups.",
)
OTHER_DATA = "‡ Not the paper's data: its values are not comparable with these."


def nothing_to_show(absent: Mapping[str, str]) -> UserError:
    """The error to raise if no data set has a report; `absent`: see `write`."""
    return UserError("\n".join(absent.values() if len(absent) == 1 else (f"{name}: {why}" for name, why in absent.items())))


def write(
    out: Path, *, params: Params, reports: Mapping[str, Report], absent: Mapping[str, str], provenance: Mapping[str, str]
) -> list[str]:
    """Write the reports (by data set) and the start page to `out`, replacing its content; return warnings.

    `absent`: data sets without a report -> why, and what to do, in a line or two. Equal input gives identical bytes.

    Raises:
        UserError: no data set has a report, or `out` cannot be written; `out` is left unchanged.
    """
    if not reports:
        raise nothing_to_show(absent)
    several = len(params.chosen) > 1
    metrics = {name: reports[name].metrics if name in reports else None for name in params.chosen}
    files = {f"{name}/{file}": text for name, report in reports.items() for file, text in report.files.items()}
    files["metrics.json"] = json.dumps(metrics, indent=2, ensure_ascii=False) + "\n"
    titles = {name: params.datasets[name].title for name in params.chosen}
    summary, methods = first_screen(params, reports), methods_screen(params, reports)
    files |= files_of(summary) | (files_of(methods) if methods else {})
    files["index.html"] = page.render(
        "overview.html", titles=titles, provenance=provenance, reports=reports, absent=absent, summary=summary, methods=methods
    )
    with folder_written_aside(out) as folder:
        for name, text in sorted(files.items()):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    warnings = [f"{name}: {line}" if several else line for name, report in reports.items() for line in report.warnings]
    return warnings + [f"{name}: left out, because {' '.join(why.splitlines())}" for name, why in absent.items()]


def first_screen(params: Params, reports: Mapping[str, Report]) -> Table:
    """The table of the start page, a row per data set or part of it: reg against reg+cls over all test samples and in Few, with tests."""
    rows, frame, marks = [], list[dict[str, Any]](), set[str]()
    for dataset in params.chosen:
        report = reports.get(dataset)
        mark = "‡" if report and report.other_data else ""
        marks.add(mark)
        title, page_url = params.datasets[dataset].title + mark, f"{dataset}/index.html" if report else ""
        if report is None or not report.lines:
            why = "no report" if report is None else "nothing to compare"
            name = Cell(text=title, header=True, href=page_url)
            rows.append((name, *(Cell(text=text) for text in (why, *[DASH] * 9, ""))))
            frame.append({"dataset": dataset, "measured": why})
            continue
        for line in report.lines:
            rows.append(_row(line, title, page_url))
            frame.append({"dataset": dataset} | _numbers(line))
    return Table(
        name="summary",
        caption="Test error of reg against reg+cls; a line per data set or setting.",
        columns=("data set", "error", "with", *GROUP, *GROUP, "n"),
        spans=SPANS,
        rows=tuple(rows),
        frame=pd.DataFrame(frame, columns=FRAME),
        notes=(
            *NOTES,
            *([NOT_TESTED.format(of="replicates")] if any("not tested" in str(row["answer"]) for row in frame if "answer" in row) else []),
            *([OTHER_DATA] if "‡" in marks else []),
        ),
    )


def methods_screen(params: Params, reports: Mapping[str, Report]) -> Table | None:
    """The table of all methods against reg, a row per method, by error; of data sets with several methods. None if there are none."""
    rows, frame = [], list[dict[str, Any]]()
    for dataset in params.chosen:
        ranking = reports[dataset].ranking if dataset in reports else ()
        parts = Counter((line.part, line.measured) for line in ranking)
        for line in (line for line in ranking if parts[line.part, line.measured] > 1):
            rows.append(_row(line, params.datasets[dataset].title, f"{dataset}/index.html"))
            frame.append({"dataset": dataset} | _numbers(line))
    if not rows:
        return None
    return Table(
        name="methods",
        caption="Each method against reg, by test error.",
        columns=("data set", "error", "with", *(text.replace("reg+cls", "method") for text in (*GROUP, *GROUP)), "n"),
        spans=SPANS,
        rows=tuple(rows),
        frame=pd.DataFrame(frame, columns=FRAME),
        notes=(
            "“Helps” and “hurts” are corrected over the methods of the data set, or of its part (Holm), in all test samples and in Few "
            "separately. Images, depth and tables: with “no difference above x %” the interval lies within x % of reg's error, and "
            "otherwise it “cannot be told”. Answers may differ from those of a report's table, which has more tests. regcls methods "
            "explains the names.",
        ),
    )


def _row(line: Line, title: str, page_url: str) -> tuple[Cell, ...]:
    name = Cell(text=f"{title}: {line.part}" if line.part else title, header=True, href=page_url)
    few = _compared(line.few, line.digits) if line.few else tuple(Cell(text=DASH) for _ in GROUP)
    return (name, Cell(text=line.measured), Cell(text=line.method), *_compared(line.overall, line.digits), *few, Cell(text=line.n))


def _compared(group: Compared, digits: int) -> tuple[Cell, ...]:
    bounds = "" if math.isnan(group.low) else f" ({interval(group.low, group.high, digits)})".replace(" to ", f"{NO_BREAK}to{NO_BREAK}")
    texts = (number(group.reg, digits), number(group.other, digits), signed(group.gap, digits) + bounds)
    return (*(Cell(text=text) for text in texts), answer_cell(group.answer))


def _numbers(line: Line) -> dict[str, Any]:
    few = {f"few_{key}": value for key, value in asdict(line.few).items()} if line.few else {}
    return {"part": line.part, "measured": line.measured, "method": line.method, "n": line.n} | asdict(line.overall) | few
