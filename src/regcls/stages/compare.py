"""Tracked runs -> reports/: tables, figures, one page."""

from pathlib import Path

from regcls import reports
from regcls.datasets.store import prepared_folder
from regcls.datasets.synthetic import SyntheticSets
from regcls.params import Params
from regcls.progress import say
from regcls.provenance import git_tags, machine_tags
from regcls.runs import all_specs
from regcls.tracking import Tracker
from regcls.training.study import fingerprints


def compare(params: Params, root: Path) -> None:
    """Write reports/ from the runs that params.yaml's grids ask for; what is missing, failed or double is named.

    Raises:
        UserError: no prepared data, or no run of any grid.
    """
    sets = SyntheticSets(prepared_folder(root, "synthetic"), made_from=params.synthetic.data)
    tracker = Tracker(root, experiment=params.tracking.experiment)
    out = root / "reports"
    warnings = reports.compare(
        params=params,
        runs=tracker.collect("synthetic"),
        fingerprints=fingerprints(all_specs(params.synthetic), sets),
        run_url=tracker.run_url,
        sets=sets,
        out=out,
        provenance={**git_tags(root), **{name: value for name, value in machine_tags().items() if name != "host"}},
    )
    for line in warnings:
        say(line)
    say(f"wrote {out / 'index.html'}")
