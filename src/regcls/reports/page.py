"""Renders pages from templates. Pages are self-contained: no scripts, no requests, figures inlined."""

import base64
from collections.abc import Mapping
from typing import Any

import jinja2

from regcls.methods import meanings
from regcls.reports.measured import Runs
from regcls.reports.picking import Picked, machines, origins
from regcls.reports.report import Links, Report, to_csv
from regcls.words import counted

HOLES_SHOWN = 12  # lines on missing runs; holes.csv has them all
COMPARED_MOST = 100  # most runs in a link to MLflow's comparison page
ORIGINS_SHOWN = 4  # most versions of the data listed; `regcls show` lists them all


def render(template: str, *, provenance: Mapping[str, str], **values: Any) -> str:
    """An HTML page from a template in this folder; `provenance`: of the page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("regcls.reports", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["counted"] = counted
    environment.filters["data_uri"] = lambda svg: "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    limits = {"holes_shown": HOLES_SHOWN, "origins_shown": ORIGINS_SHOWN, "compared_most": COMPARED_MOST}
    return environment.get_template(template).render(**limits, provenance=provenance, **values)


def complete(report: Report, runs: Runs, picked: Picked, *, links: Links, provenance: Mapping[str, str]) -> Report:
    """Add to a report what all reports have: its page, run counts and holes.csv."""
    report.metrics["runs"] = report.run_counts()
    report.extent = [*report.extent, *meanings(runs.wanted["method"])]
    wanted = runs.in_order(runs.wanted)
    holes = wanted[wanted["state"] != "finished"].drop(columns=["run_id", "lam"]).rename(columns={"found": "unusable_run_id"})
    report.files["holes.csv"] = to_csv(holes.rename(columns={"weight": "lambda"}))
    lineage = {"machines": machines(picked.chosen), "origins": origins(picked.chosen)}
    views = links.view_urls(report.view) if report.view else None
    report.files["index.html"] = render("dataset.html", report=report, links=links, views=views, provenance=provenance, **lineage)
    return report
