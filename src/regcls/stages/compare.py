"""Tracked runs -> reports/: tables, figures and a page for each data set, and a page over them."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from regcls.datasets.images import ImageSet
from regcls.datasets.store import open_prepared, prepared_folder
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
from regcls.tracking import Tracker
from regcls.training import faces_study, study


def compare(params: Params, root: Path) -> None:
    """Write reports/ from the runs that params.yaml's grids ask for; what is missing, failed or double is named.

    A data set that is not prepared or has no finished run is named too, and does not stop the others.

    Raises:
        UserError: no data set has prepared data and a run that counts, or the store does not answer.
    """
    missing: dict[str, str] = {dataset: error for dataset in params.datasets if (error := _unprepared(prepared_folder(root, dataset)))}
    if len(missing) == len(params.datasets):  # before a store is made for nothing
        raise overview.nothing_to_show(missing)
    tracker = Tracker(root, experiment=params.tracking.experiment)
    provenance = {**git_tags(root), **{name: value for name, value in machine_tags().items() if name != "host"}}
    # First of all data sets: a store that fails must not pass for a data set without runs.
    runs = {dataset: tracker.collect(dataset, SyntheticSpec if dataset == "synthetic" else FaceSpec) for dataset in params.datasets}
    reports: dict[str, Report] = {}
    absent: dict[str, str] = {}
    for dataset in params.datasets:
        make = _synthetic if dataset == "synthetic" else _faces
        try:
            reports[dataset] = make(params, root, dataset, runs[dataset], tracker, provenance)
        except UserError as error:
            absent[dataset] = str(error)
    out = root / "reports"
    for line in overview.write(out, params=params, reports=reports, absent=absent, provenance=provenance):
        say(line)
    say(f"wrote {out / 'index.html'}")


def _unprepared(folder: Path) -> str:
    """What is wrong with a data set that cannot be opened; empty if it can."""
    try:
        open_prepared(folder)
    except UserError as error:
        return str(error)
    return ""


def _synthetic(params: Params, root: Path, dataset: str, runs: pd.DataFrame, tracker: Tracker, provenance: Mapping[str, str]) -> Report:
    sets = SyntheticSets(prepared_folder(root, dataset), made_from=params.synthetic.data)
    return synthetic.report(
        params=params,
        runs=runs,
        fingerprints=study.fingerprints(all_specs(params.synthetic), sets),
        run_url=tracker.run_url,
        sets=sets,
        provenance=provenance,
    )


def _faces(params: Params, root: Path, dataset: str, runs: pd.DataFrame, tracker: Tracker, provenance: Mapping[str, str]) -> Report:
    section = params.faces(dataset)
    images = ImageSet(prepared_folder(root, dataset), made_from=section.data)
    found = faces_study.found_lambdas(section, dataset, images, tracker)
    return faces.report(
        params=params,
        dataset=dataset,
        runs=runs,
        fingerprints=faces_study.fingerprints(all_face_specs(section, dataset, found), images),
        found=found,
        predictions=lambda run_id: tracker.files.table(run_id, faces_study.PREDICTIONS),
        training_counts=images.training_counts(),
        run_url=tracker.run_url,
        provenance=provenance,
    )
