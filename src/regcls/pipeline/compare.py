"""Tracked runs -> reports/: tables, figures and a page for each data set, and a page over them."""

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
from regcls.tracking.journal import waiting
from regcls.tracking.store import project_root
from regcls.tracking.tracker import Tracker
from regcls.words import counted


def compare(params: Params, root: Path) -> None:
    """Write reports/ from the runs that params.yaml's grids ask for; what is missing, failed or double is named.

    A data set that is not prepared or has no finished run is named too, and does not stop the others.

    Raises:
        UserError: no data set has prepared data and a run that counts, or the store does not answer.
    """
    opened: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for name in params.chosen:
        try:
            opened[name] = open_data(params, root, name, verify=False)
        except UserError as error:
            absent[name] = str(error)
    if not opened:  # before a store is made for nothing
        raise overview.nothing_to_show(absent)
    tracker = Tracker(root, experiment=params.tracking.experiment)
    if undelivered := waiting(project_root(root)):
        say(f"{counted(undelivered, 'run')} of this machine not at the tracking server yet, and not in the report: regcls sync")
    provenance = {**git_tags(root), **{name: value for name, value in machine_tags().items() if name != "host"}}
    # First of all data sets: a store that fails must not pass for a data set without runs.
    runs = {dataset: tracker.collect(dataset, task_named(params.task(dataset)).spec_type) for dataset in opened}
    reports: dict[str, Report] = {}
    for dataset, data in opened.items():
        sources = Sources(params=params, root=root, dataset=dataset, data=data, runs=runs[dataset], tracker=tracker, provenance=provenance)
        try:
            reports[dataset] = task_named(params.task(dataset)).report(sources)
        except UserError as error:
            absent[dataset] = str(error)
    out = root / "reports"
    absent = {name: absent[name] for name in params.chosen if name in absent}  # in their order
    for line in overview.write(out, params=params, reports=reports, absent=absent, provenance=provenance):
        say(line)
    say(f"wrote {out / 'index.html'}")
