"""Tracked runs -> reports/: tables, figures and a page for each data set, and a page over them."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from regcls.datasets.images import ImageSet
from regcls.datasets.synthetic import SyntheticSets
from regcls.errors import UserError
from regcls.params import Params
from regcls.progress import say
from regcls.provenance import git_tags, machine_tags
from regcls.reports import faces, overview, synthetic
from regcls.reports.report import Report
from regcls.runs.faces import FaceSpec
from regcls.runs.faces import all_specs as all_face_specs
from regcls.runs.synthetic import SyntheticSpec, all_specs
from regcls.stages.data_sets import open_data
from regcls.tracking.journal import waiting
from regcls.tracking.store import project_root
from regcls.tracking.tracker import Tracker
from regcls.training import faces_study, study


def compare(params: Params, root: Path) -> None:
    """Write reports/ from the runs that params.yaml's grids ask for; what is missing, failed or double is named.

    A data set that is not prepared or has no finished run is named too, and does not stop the others.

    Raises:
        UserError: no data set has prepared data and a run that counts, or the store does not answer.
    """
    opened: dict[str, SyntheticSets | ImageSet] = {}
    absent: dict[str, str] = {}
    for dataset in params.datasets:
        try:
            opened[dataset] = open_data(params, root, dataset, verify=False)
        except UserError as error:
            absent[dataset] = str(error)
    if not opened:  # before a store is made for nothing
        raise overview.nothing_to_show(absent)
    tracker = Tracker(root, experiment=params.tracking.experiment)
    if undelivered := waiting(project_root(root)):
        say(f"{undelivered} runs that were made here are not at their tracking server yet, and not in the report: regcls sync")
    provenance = {**git_tags(root), **{name: value for name, value in machine_tags().items() if name != "host"}}
    # First of all data sets: a store that fails must not pass for a data set without runs.
    runs = {dataset: tracker.collect(dataset, SyntheticSpec if dataset == "synthetic" else FaceSpec) for dataset in opened}
    reports: dict[str, Report] = {}
    for name, data in opened.items():
        try:
            if isinstance(data, SyntheticSets):
                reports[name] = _synthetic(params, data, runs[name], tracker, provenance)
            else:
                reports[name] = _faces(params, name, data, runs[name], tracker, provenance)
        except UserError as error:
            absent[name] = str(error)
    out = root / "reports"
    absent = {dataset: absent[dataset] for dataset in params.datasets if dataset in absent}  # in their order
    for line in overview.write(out, params=params, reports=reports, absent=absent, provenance=provenance):
        say(line)
    say(f"wrote {out / 'index.html'}")


def _synthetic(params: Params, sets: SyntheticSets, runs: pd.DataFrame, tracker: Tracker, provenance: Mapping[str, str]) -> Report:
    return synthetic.report(
        params=params,
        runs=runs,
        fingerprints=study.fingerprints(all_specs(params.synthetic), sets),
        run_url=tracker.run_url,
        runs_url=tracker.runs_url,
        sets=sets,
        provenance=provenance,
    )


def _faces(params: Params, dataset: str, images: ImageSet, runs: pd.DataFrame, tracker: Tracker, provenance: Mapping[str, str]) -> Report:
    section = params.faces(dataset)
    found = faces_study.found_lambdas(section, dataset, images, runs)
    return faces.report(
        params=params,
        dataset=dataset,
        runs=runs,
        fingerprints=faces_study.fingerprints(all_face_specs(section, dataset, found), images),
        found=found,
        predictions=lambda run_id: tracker.files.table(run_id, faces_study.PREDICTIONS),
        training_counts=images.training_counts(),
        run_url=tracker.run_url,
        runs_url=tracker.runs_url,
        provenance=provenance,
    )
