"""reports/index.html: one self-contained page, every number of which leads to its MLflow runs."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import jinja2
import pandas as pd

from regcls.params import Params
from regcls.reports.collect import Collected
from regcls.reports.protocol import departures, reductions, unshown
from regcls.reports.tables import Table, signed

# More lines of holes than these are for holes.csv.
HOLES_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Section:
    """A figure or a table of the page, or a figure with its table; `name` is that of its files."""

    name: str
    title: str
    caption: str
    svg: str = ""
    alt: str = ""
    table: Table | None = None
    warning: str = ""
    holes: Sequence[str] = ()


def render(
    *,
    params: Params,
    collected: Collected,
    panels: Table | None,
    sections: Sequence[Section],
    warnings: Sequence[str],
    run_url: Callable[[str], str],
    provenance: Mapping[str, str],
    machines: Sequence[str],
) -> str:
    """The page as HTML. No script, no request to anywhere: the figures are in it.

    `provenance` is of the page, `machines` of the runs: a line each kind of machine.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["data_uri"] = lambda svg: "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    template = environment.from_string((files("regcls.reports") / "page.html").read_text(encoding="utf-8"))
    return template.render(
        params=params,
        training=params.synthetic.training,
        answers=answers(panels) if panels else [],
        panels=panels,
        reduced=reductions(params),
        changed=list(dict.fromkeys(line for grid in params.synthetic.grids.values() for line in departures(params, grid))),
        unshown=unshown(params),
        sections=sections,
        warnings=warnings,
        wanted=len(collected.wanted),
        finished=int((collected.wanted["state"] == "finished").sum()),
        holes_shown=HOLES_SHOWN,
        run_url=run_url,
        provenance=provenance,
        machines=machines,
        command="dvc repro" if params.scale == "demo" else "dvc exp run -S scale=paper",
    )


def answers(panels: Table) -> list[str]:
    """Does a classification loss help? A sentence a method, by the tests of `study.panels_table`."""
    lines = []
    for method, rows in panels.frame.groupby("method", sort=False):
        given = rows[rows["n"] > 0]
        verdicts = given["answer"].value_counts()
        lower, tested = int((given["gap"] > 0).sum()), int(given["p_holm"].notna().sum())
        line = f"{method} has the lower mean test MSE in {lower} of {len(given)} panels"
        if tested:
            helps, hurts = verdicts.get("helps", 0), verdicts.get("hurts", 0)
            line += f"; after correction for {tested} tests it clearly helps in {helps} and clearly hurts in {hurts}."
        else:
            line += "; one repetition allows no test, so this is no evidence yet."
        uniform = given["sampling"] == "uniform"
        ranges = [
            f"{_range(part)} under {kind} sampling"
            for kind, part in (("uniform", given[uniform]), ("imbalanced", given[~uniform]))
            if len(part)
        ]
        lines.append(
            f"{line} Δ = MSE(reg) − MSE({method}) is {' and '.join(ranges)}." if ranges else f"{method}: no panel has runs to compare."
        )
    few = panels.frame["n"].max()
    if 2 <= few < 4:
        lines.append(f"With {few} repetitions a paired test can find hardly anything: read the gaps, not the p-values.")
    return lines


def _range(rows: pd.DataFrame) -> str:
    return f"{signed(rows['gap'].min(), 3)} to {signed(rows['gap'].max(), 3)}"
