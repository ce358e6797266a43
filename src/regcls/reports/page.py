"""Templates -> pages. No script, no request to anywhere: the figures are in the page."""

import base64
from collections.abc import Mapping
from typing import Any

import jinja2

from regcls.methods import meanings
from regcls.reports.measured import Runs
from regcls.reports.picking import Picked, machines, origins
from regcls.reports.report import Links, Report, to_csv
from regcls.words import counted

HOLES_SHOWN = 12  # lines of holes; more are for holes.csv
COMPARED_MOST = 100  # runs that MLflow's page is asked to compare: more are no help
ORIGINS_SHOWN = 4  # versions of data; more are for `regcls show`


def render(template: str, *, provenance: Mapping[str, str], **values: Any) -> str:
    """A page as HTML, from a template beside this file; `provenance` is of the page."""
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


def complete(made: Report, runs: Runs, picked: Picked, *, links: Links, provenance: Mapping[str, str]) -> Report:
    """Add to a report on a data set what each has: its page, how many runs there are, and holes.csv."""
    made.metrics["runs"] = made.run_counts()
    made.extent = [*made.extent, *meanings(runs.wanted["method"])]
    wanted = runs.in_order(runs.wanted)
    holes = wanted[wanted["state"] != "finished"].drop(columns=["run_id", "lam"])
    made.files["holes.csv"] = to_csv(holes.rename(columns={"weight": "lambda"}))
    where = {"machines": machines(picked.chosen), "origins": origins(picked.chosen)}
    views = links.view_urls(made.view) if made.view else None
    made.files["index.html"] = render("dataset.html", report=made, links=links, views=views, provenance=provenance, **where)
    return made
