"""Prepared data -> tracked runs: a data set's grids, or one run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regcls.datasets.images import ImageSet
from regcls.datasets.store import prepared_folder
from regcls.datasets.synthetic import SyntheticSets
from regcls.errors import UserError
from regcls.files import lock, write_json
from regcls.params import Params
from regcls.params.faces import FaceOptions
from regcls.params.synthetic import SyntheticOptions
from regcls.progress import say
from regcls.provenance import lineage
from regcls.runs import faces as face_runs
from regcls.runs import synthetic as synthetic_runs
from regcls.stages.data_sets import open_data
from regcls.stages.prepare import prepare
from regcls.tracking.store import without_password
from regcls.tracking.tracker import Tracker
from regcls.training import faces_study, study
from regcls.training.outcome import Outcome

TEST_ERROR = {"synthetic": ("test MSE", "test_mse"), "faces": ("test MAE", "test_mae_all")}  # what a single run tells of itself


def train(params: Params, root: Path, dataset: str) -> None:
    """Make every run of the grids that is not tracked as FINISHED yet, and write runs/<dataset>.json, the list of them.

    A run that diverges is tracked as FAILED and named; the others go on.

    Raises:
        UserError: no prepared data, no store, no GPU where one is asked for.
    """
    data = open_data(params, root, dataset, verify=True)
    tracker = Tracker(root, experiment=params.tracking.experiment)
    # Beside the store, which experiments in temporary workspaces share.
    held = tracker.root / ".regcls" / f"train-{dataset}.lock"
    with lock(held, waiting=lambda holder: say(f"{holder} trains {dataset} already; waiting for it to end")):
        tracker.inherit()
        if stale := tracker.reconcile(dataset):
            say(f"{len(stale)} runs of a process that has died were marked KILLED; they are made again, from their last checkpoint if any")
        if isinstance(data, SyntheticSets):
            wanted = study.fingerprints(synthetic_runs.all_specs(params.synthetic), data)
            origin = lineage(root, dataset)
            tags = _tags(origin, study.result_code())
            outcome = study.train_runs(wanted, data, tracker, params.compute, tags, lineage=origin)
        else:
            faces = _face_study(data, tracker, params, root, dataset)
            outcome = faces_study.train_grids(params.faces(dataset), dataset, faces)
        write_json(root / "runs" / f"{dataset}.json", outcome.index)
    counts = f"{outcome.trained} runs trained, {outcome.kept} were there already, {len(outcome.failed)} failed"
    say(f"{counts}, in {without_password(tracker.uri)}")
    for name, reason in outcome.failed.items():
        say(f"FAILED {name}: {reason}")


def run(params: Params, root: Path, dataset: str, options: SyntheticOptions | FaceOptions) -> None:
    """Make one run, with `options` over params.yaml's values; an equal one that is finished is kept.

    Raises:
        UserError: an option does not fit the prepared data, or the run diverged.
    """
    spec = _single_spec(params, dataset, options)
    if not prepared_folder(root, dataset).exists():
        say(f"{dataset} is not prepared yet; that comes first, once")
        prepare(params, root, dataset)
    data = open_data(params, root, dataset, verify=True)
    tracker = Tracker(root, experiment=params.tracking.experiment)
    tracker.inherit()
    tracker.reconcile(dataset)
    outcome = train_one(spec, data, tracker, params, root)
    for name, reason in outcome.failed.items():
        raise UserError(f"run {name} {reason}. Try a smaller --learning-rate.")
    run_id = outcome.index[0]["run_id"]
    error, metric = TEST_ERROR["synthetic" if dataset == "synthetic" else "faces"]
    say(f"{spec.name}: {'trained' if outcome.trained else 'was there already'}, {error} {tracker.metrics(run_id)[metric]:.4f}")
    say(f"run {run_id} in {without_password(tracker.uri)}")


def train_one(
    spec: synthetic_runs.SyntheticSpec | face_runs.FaceSpec,
    data: SyntheticSets | ImageSet,
    tracker: Tracker,
    params: Params,
    root: Path,
    *,
    repeats: str | None = None,
) -> Outcome:
    """Make one run, in the run of `mlflow run` if that has begun one; an equal one that is finished is kept.

    `repeats`: the id of a run that is to be made once more, as a run of its own, whatever the store holds. Raises as `train_runs` does.
    """
    if isinstance(spec, synthetic_runs.SyntheticSpec):
        assert isinstance(data, SyntheticSets)
        return _run_synthetic(spec, data, tracker, params, root, repeats)
    assert isinstance(data, ImageSet)
    faces = _face_study(data, tracker, params, root, spec.dataset, adopt=repeats is None, repeats=repeats)
    return faces_study.train_runs([spec], spec.dataset, faces)


def _single_spec(
    params: Params, dataset: str, options: SyntheticOptions | FaceOptions
) -> synthetic_runs.SyntheticSpec | face_runs.FaceSpec:
    if isinstance(options, SyntheticOptions):
        return synthetic_runs.single_spec(params.synthetic, options)
    return face_runs.single_spec(params.faces(dataset), dataset, options)


def _run_synthetic(
    spec: synthetic_runs.SyntheticSpec, sets: SyntheticSets, tracker: Tracker, params: Params, root: Path, repeats: str | None
) -> Outcome:
    wanted = study.fingerprints([spec], sets)
    origin = lineage(root, spec.dataset)
    tags, adopt = _tags(origin, study.result_code()), repeats is None
    held = tracker.root / ".regcls" / f"run-{wanted[spec]}.lock"
    with lock(held, waiting=lambda holder: say(f"{holder} makes this very run; waiting for it to end")):
        tracker.inherit()
        return study.train_runs(wanted, sets, tracker, params.compute, tags, lineage=origin, adopt=adopt, repeats=repeats)


def _face_study(
    data: ImageSet, tracker: Tracker, params: Params, root: Path, dataset: str, *, adopt: bool = False, repeats: str | None = None
) -> faces_study.Study:
    origin = lineage(root, dataset)
    return faces_study.Study(
        images=data,
        tracker=tracker,
        compute=params.compute,
        tags=_tags(origin, faces_study.result_code()),
        lineage=origin,
        state_epochs=params.tracking.state_epochs,
        adopt=adopt,
        repeats=repeats,
    )


def _tags(origin: Mapping[str, Any], code: str) -> dict[str, str]:
    return {**origin["git"], **origin["machine"], "data_md5": origin["data_md5"], "code_digest": code[:16]}
