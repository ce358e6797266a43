"""Tracked runs -> reports/: tables, figures and a page for each data set, and a page over them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from regcls.errors import UserError
from regcls.params import KINDS, Params
from regcls.params import Kind as Name
from regcls.progress import say
from regcls.provenance import git_tags, machine_tags
from regcls.reports import depth, faces, overview, synthetic, video
from regcls.reports.report import Report
from regcls.runs import depth as depth_runs
from regcls.runs import faces as face_runs
from regcls.runs import synthetic as synthetic_runs
from regcls.runs import video as video_runs
from regcls.runs.images import Found, MakeSpec, Section, Spec, all_specs, search_specs
from regcls.stages.kinds import depth as depth_kind
from regcls.stages.kinds import faces as face_kind
from regcls.stages.kinds.registry import kind_of, open_data
from regcls.tracking.journal import waiting
from regcls.tracking.store import project_root
from regcls.tracking.tracker import Tracker
from regcls.training import ensemble_study, single_study, video_study
from regcls.training.single import Making
from regcls.training.synthetic_networks import SyntheticNetworks
from regcls.training.video_networks import PREDICTIONS, VideoNetworks
from regcls.words import counted


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What the report on a data set is made from."""

    params: Params
    root: Path
    dataset: str
    data: Any
    runs: pd.DataFrame
    tracker: Tracker
    provenance: Mapping[str, str]

    @property
    def common(self) -> dict[str, Any]:
        """Arguments that every report takes."""
        return {
            "params": self.params,
            "runs": self.runs,
            "links": self.tracker,
            "provenance": self.provenance,
        }


def compare(params: Params, root: Path) -> None:
    """Write reports/ from the runs that params.yaml's grids ask for; what is missing, failed or double is named.

    A data set that is not prepared or has no finished run is named too, and does not stop the others.

    Raises:
        UserError: no data set has prepared data and a run that counts, or the store does not answer.
    """
    opened: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for name in params.datasets:
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
    runs = {dataset: tracker.collect(dataset, kind_of(dataset).spec_type) for dataset in opened}
    reports: dict[str, Report] = {}
    for dataset, data in opened.items():
        sources = Sources(params=params, root=root, dataset=dataset, data=data, runs=runs[dataset], tracker=tracker, provenance=provenance)
        try:
            reports[dataset] = REPORTS[KINDS[dataset]](sources)
        except UserError as error:
            absent[dataset] = str(error)
    out = root / "reports"
    absent = {name: absent[name] for name in params.datasets if name in absent}  # in their order
    for line in overview.write(out, params=params, reports=reports, absent=absent, provenance=provenance):
        say(line)
    say(f"wrote {out / 'index.html'}")


def _synthetic(sources: Sources) -> Report:
    wanted = synthetic_runs.all_specs(sources.params.synthetic)
    fingerprints = ensemble_study.fingerprints(SyntheticNetworks(sources.data), wanted)
    return synthetic.report(**sources.common, fingerprints=fingerprints, sets=sources.data)


def _wanted(make: MakeSpec[Section, Spec], section: Section, sources: Sources, how: Making) -> tuple[Found, dict[Spec, str]]:
    """λ of the search, and every wanted run with its fingerprint."""

    def fingerprints(specs: Sequence[Spec]) -> dict[Spec, str]:
        return single_study.fingerprints(specs, sources.data, how.code, how.origin)

    found = single_study.found_lambdas(fingerprints(search_specs(make, section, sources.dataset)), how.score, sources.runs)
    return found, fingerprints(all_specs(make, section, sources.dataset, found))


def _faces(sources: Sources) -> Report:
    found, fingerprints = _wanted(face_runs.make_spec, sources.params.faces(sources.dataset), sources, face_kind.making())
    return faces.report(
        **sources.common,
        dataset=sources.dataset,
        fingerprints=fingerprints,
        found=found,
        predictions=lambda run_id: sources.tracker.files.table(run_id, face_kind.PREDICTIONS),
        training_counts=sources.data.training_counts(),
        counts={"images": len(sources.data.prepared.table)},
    )


def _depth(sources: Sources) -> Report:
    how, data = depth_kind.making(sources.params.nyud2, sources.root), sources.data
    found, fingerprints = _wanted(depth_runs.make_spec, sources.params.nyud2, sources, how)
    return depth.report(
        **sources.common,
        dataset=sources.dataset,
        fingerprints=fingerprints,
        found=found,
        sums=lambda run_id: sources.tracker.files.table(run_id, depth_kind.SUMS),
        examples=lambda run_id: _arrays(sources.tracker, run_id, depth_kind.EXAMPLES),
        training_levels=data.levels("train"),
        counts={"training images": len(data.rows("train")) + len(data.rows("val")), "test images": len(data.rows("test"))},
        drawn_mask=data.has_drawn_mask,
    )


def _video(sources: Sources) -> Report:
    section, networks = sources.params.breakfast, VideoNetworks(sources.data, sources.dataset)
    found = video_study.found_lambdas(section, networks, sources.runs)
    table = sources.data.table
    return video.report(
        **sources.common,
        dataset=sources.dataset,
        fingerprints=ensemble_study.fingerprints(networks, video_runs.all_specs(section, sources.dataset, found)),
        found=found,
        predictions=lambda run_id: sources.tracker.files.table(run_id, PREDICTIONS),
        lengths=dict(zip(table["video"].tolist(), table["frames"].tolist(), strict=True)),
        activities=sources.data.activities,
    )


def _arrays(tracker: Tracker, run_id: str, path: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz among the files of a run."""
    with TemporaryDirectory() as folder, np.load(tracker.files.fetch(run_id, path, Path(folder))) as content:
        return dict(content)


REPORTS: Mapping[Name, Callable[[Sources], Report]] = {"synthetic": _synthetic, "faces": _faces, "depth": _depth, "video": _video}
