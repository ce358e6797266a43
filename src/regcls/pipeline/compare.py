"""Tracked runs -> reports/: tables, figures and a page for each data set, and an overview page."""

from pathlib import Path
from typing import Any

from regcls.errors import UserError
from regcls.params import Params
from regcls.progress import say
from regcls.provenance import git_tags, machine_tags
from regcls.reports import overview
from regcls.reports.report import Report
from regcls.tasks import task_named
from regcls.tasks.task import Sources, open_data
from regcls.tracking.journal import undelivered_count
from regcls.tracking.store import project_root
from regcls.tracking.tracker import Tracker
from regcls.words import counted


def provenance_of(root: Path) -> dict[str, str]:
    """Commit and machine, for a report."""
    return {**git_tags(root), **{name: value for name, value in machine_tags().items() if name != "host"}}


def compare(params: Params, root: Path) -> None:
    """Write reports/ from the runs of params.yaml's grids; reports missing, failed and duplicate runs.

    Data sets that are not prepared or have no finished run are listed without a report.

    Raises:
        UserError: no data set has prepared data and a finished run, or the store does not answer.
    """
    opened: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for name in params.chosen:
        try:
            opened[name] = open_data(params, root, name, verify=False)
        except UserError as error:
            absent[name] = str(error)
    if not opened:  # before a store is created for nothing
        raise overview.nothing_to_show(absent)
    tracker = Tracker(root, experiment=params.tracking.experiment)
    if undelivered := undelivered_count(project_root(root)):
        say(f"{counted(undelivered, 'run')} of this machine not on the tracking server yet, and not in the report: regcls sync")
    provenance = provenance_of(root)
    # For all data sets first, so that a failing store is not mistaken for a data set without runs.
    runs = {dataset: tracker.collect(dataset, task_named(params.task(dataset)).spec_type) for dataset in opened}
    reports: dict[str, Report] = {}
    for dataset, data in opened.items():
        sources = Sources(params=params, root=root, dataset=dataset, data=data, runs=runs[dataset], tracker=tracker, provenance=provenance)
        try:
            reports[dataset] = task_named(params.task(dataset)).report(sources)
        except UserError as error:
            absent[dataset] = str(error)
    out = root / "reports"
    absent = {name: absent[name] for name in params.chosen if name in absent}  # in the order of params.yaml
    for line in overview.write(out, params=params, reports=reports, absent=absent, provenance=provenance):
        say(line)
    say(f"wrote {out / 'index.html'}")
