"""Tables and their renderings as Markdown, LaTeX (booktabs) and, in macros.html, HTML with links to all runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from regcls.reports.stats import FEWEST, is_clear

DASH = "–"  # nothing to show

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "±": r"$\pm$", "−": "$-$", "–": "--",
    "×": r"$\times$", "·": r"$\cdot$", "λ": r"$\lambda$", "σ": r"$\sigma$", "Δ": r"$\Delta$", "†": r"\dag{}", "√": r"$\surd$",
    "²": r"$^2$", "…": r"\dots{}", "\u00a0": "~",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """The runs of one configuration: a label, and (seed, run id) of each run."""

    label: str
    runs: tuple[tuple[str, str], ...]

    @property
    def count(self) -> int:
        return len(self.runs)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(run_id for _, run_id in self.runs)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell's text and the runs behind it. A `header` names the row; `href` links it to a page."""

    text: str
    runs: tuple[RunGroup, ...] = ()
    header: bool = False
    strong: bool = False
    href: str = ""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A heading between rows, above the row at `place`; rows that are not `ours` are shaded."""

    place: int
    title: str
    ours: bool = True


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells for readers; `frame` holds the same numbers unrounded, for the CSV.

    With `run_column`, the last cell of a row lists the runs behind the row. `spans`: headings above the column names, as (text, number of
    columns). `under`: small print below each column name, in HTML only.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    frame: pd.DataFrame
    notes: tuple[str, ...] = ()
    warning: str = ""  # shown before the numbers
    run_column: bool = False
    spans: tuple[tuple[str, int], ...] = ()
    under: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()

    @property
    def run_ids(self) -> tuple[str, ...]:
        """Ids of the runs behind all cells, without duplicates."""
        return tuple(dict.fromkeys(run_id for row in self.rows for cell in row for group in cell.runs for run_id in group.ids))


def heads(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    """Header cells with method, class count and λ."""
    return tuple(Cell(text=str(text or ""), header=True) for text in (row["method"], row["classes"], row["weight"]))


def answer_cell(answer: str) -> Cell:
    """A cell with a verdict (stats.verdict), strong if it is clear."""
    return Cell(text=answer, strong=is_clear(answer))


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown, without links to runs."""
    width = _width(table)
    above = [text for text, columns in table.spans for _ in range(columns)] or [""] * width
    names = [f"{over} {name}".strip() for over, name in zip(above[:width], table.columns[:width], strict=True)]
    parts = {part.place: part.title for part in table.parts}
    lines = [f"**{table.caption}**", "", *([f"**{table.warning}**", ""] if table.warning else []), _line(names), _line(["---"] * width)]
    for place, row in enumerate(table.rows):
        if place in parts:
            lines.append(_line([f"*{parts[place]}*", *[""] * (width - 1)]))
        lines.append(_line([f"**{cell.text}**" if cell.strong else cell.text for cell in row[:width]]))
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]).rstrip() + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def latex(table: Table) -> str:
    """The table as a LaTeX `table` that needs booktabs; notes become comments."""
    width, parts = _width(table), {part.place: part.title for part in table.parts}
    headers = sum(cell.header for cell in table.rows[0]) if table.rows else 1
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_escape(table.caption)}}}", rf"\label{{tab:{table.name}}}"]
    lines += [rf"\begin{{tabular}}{{{'l' * headers + 'r' * (width - headers)}}}", r"\toprule", *_spans(table)]
    lines += [" & ".join(map(_escape, table.columns[:width])) + r" \\", r"\midrule"]
    for place, row in enumerate(table.rows):
        if place in parts:
            lines += ([r"\midrule"] if place else []) + [rf"\multicolumn{{{width}}}{{l}}{{\textit{{{_escape(parts[place])}}}}} \\"]
        texts = [_escape(cell.text) for cell in row[:width]]
        lines.append(" & ".join(rf"\textbf{{{text}}}" if cell.strong else text for text, cell in zip(texts, row, strict=False)) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join([*(f"% {note}" for note in (table.warning, *table.notes) if note), *lines]) + "\n"


def _spans(table: Table) -> list[str]:
    """The line of headings above the column names, and the rules below it."""
    cells, rules, first = [], [], 1
    for text, columns in table.spans[: len(table.spans) - table.run_column]:
        cells.append(rf"\multicolumn{{{columns}}}{{c}}{{{_escape(text)}}}")
        rules += [rf"\cmidrule(lr){{{first}-{first + columns - 1}}}"] if text else []
        first += columns
    return [" & ".join(cells) + r" \\", " ".join(rules)] if cells else []


def _escape(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def _width(table: Table) -> int:
    """Number of columns without the run column."""
    return len(table.columns) - table.run_column


def number(value: float, digits: int = 4) -> str:
    """A number with fixed decimal places and a true minus sign; a dash for NaN."""
    return DASH if math.isnan(value) else f"{value:z,.{digits}f}".replace("-", "−")


def digits_of(value: float) -> int:
    """Decimal places of errors up to `value`: two, none from 10 000 on, and four significant digits below 1."""
    if value >= 10_000:
        return 0
    return 2 if value >= 1 or not value > 0 else 3 - min(-1, math.floor(math.log10(value)))


def with_std(mean: float, std: float, digits: int) -> str:
    """`0.1530 ± 0.0421`; without ± if std is NaN."""
    return number(mean, digits) if math.isnan(std) or math.isnan(mean) else f"{number(mean, digits)} ± {number(std, digits)}"


def signed(value: float, digits: int = 4) -> str:
    """`number` with its sign."""
    return DASH if math.isnan(value) else f"{value:+z,.{digits}f}".replace("-", "−")


def comparison(value: float, other: float, digits: int) -> str:
    """Compares two values as printed: `the lower`, `the higher` or `the same`."""
    if number(value, digits) == number(other, digits):
        return "the same"
    return "the lower" if value < other else "the higher"


def interval(low: float, high: float, digits: int = 4) -> str:
    """`+0.12 to +0.34`, or a dash for NaN."""
    return DASH if math.isnan(low) else f"{signed(low, digits)} to {signed(high, digits)}"


def p_value(p: float) -> str:
    """A p-value with three decimals, or `< 0.001`."""
    return DASH if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def tested(p: float, n: int) -> str:
    """`p_value`, or why there is no test: `n = 2`, or `no spread` among n values."""
    return p_value(p) if not math.isnan(p) or n == 0 else f"n = {n}" if n < FEWEST else "no spread"
