"""Templates -> pages. No script, no request to anywhere: the figures are in the page."""

import base64
from collections.abc import Mapping
from typing import Any

import jinja2
import pandas as pd

from regcls.params import Params
from regcls.reports.picking import machines, origins
from regcls.reports.report import Report, to_csv
from regcls.words import counted

# More lines of holes than these are for holes.csv.
HOLES_SHOWN = 12

# More versions of data than these are for `regcls show`.
ORIGINS_SHOWN = 4


def render(template: str, *, params: Params, provenance: Mapping[str, str], **values: Any) -> str:
    """A page as HTML, from a template beside this file; `provenance` is of the page.

    A template for a data set is given `report` (see `report.Report`) and `links` (see `report.Links`) among its `values`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("regcls.reports", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["counted"] = counted
    environment.filters["data_uri"] = lambda svg: "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    titles = {name: section.title for name, section in params.datasets.items()}
    usual = {"holes_shown": HOLES_SHOWN, "origins_shown": ORIGINS_SHOWN, "titles": titles}
    return environment.get_template(template).render(**usual, params=params, provenance=provenance, command="dvc repro", **values)


def complete(made: Report, template: str, *, wanted: pd.DataFrame, counting: pd.DataFrame, **values: Any) -> Report:
    """Add to a report on a data set what each has: its page, how many runs there are, and holes.csv.

    `wanted`: the runs that params.yaml asks for, in order, with their state; `counting`: tracked ones that count; `values`: see `render`.
    """
    made.metrics["runs"] = made.run_counts()
    holes = wanted[wanted["state"] != "finished"].drop(columns=["run_id", "weight"], errors="ignore")
    made.files["holes.csv"] = to_csv(holes.rename(columns={"lam": "lambda"}))
    made.files["index.html"] = render(template, report=made, machines=machines(counting), origins=origins(counting), **values)
    return made
