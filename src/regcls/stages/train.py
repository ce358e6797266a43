"""Prepared data -> tracked runs: a data set's grids, or one run."""

from pathlib import Path

from regcls.datasets.store import prepared_folder
from regcls.datasets.synthetic import SyntheticSets
from regcls.errors import UserError
from regcls.files import lock, write_json
from regcls.params import Params, RunOptions
from regcls.progress import say
from regcls.provenance import dvc_md5, git_tags, machine_tags
from regcls.runs import all_specs, single_spec
from regcls.stages.prepare import prepare
from regcls.tracking import Tracker
from regcls.training import study


def train(params: Params, root: Path, dataset: str) -> None:
    """Make every run of the grids that is not tracked as FINISHED yet, and write runs/<dataset>.json, the list of them.

    A run that diverges is tracked as FAILED and named; the others go on.

    Raises:
        UserError: no prepared data, no store, no GPU where one is asked for.
    """
    sets = SyntheticSets(prepared_folder(root, dataset), verify=True, made_from=params.synthetic.data)
    tracker = Tracker(root, experiment=params.tracking.experiment)
    # Beside the store, which experiments in temporary workspaces share.
    held = tracker.root / ".regcls" / f"train-{dataset}.lock"
    with lock(held, waiting=lambda holder: say(f"{holder} trains {dataset} already; waiting for it to end")):
        if stale := tracker.reconcile(dataset):
            say(f"{len(stale)} runs of a process that has died were marked KILLED; they are made again")
        wanted = study.fingerprints(all_specs(params.synthetic), sets)
        outcome = study.train_runs(wanted, sets, tracker, params.compute, _tags(root, dataset))
        write_json(root / "runs" / f"{dataset}.json", outcome.index)
    say(f"{outcome.trained} runs trained, {outcome.kept} were there already, {len(outcome.failed)} failed, in {tracker.uri}")
    for name, reason in outcome.failed.items():
        say(f"FAILED {name}: {reason}")


def run(params: Params, root: Path, dataset: str, options: RunOptions) -> None:
    """Make one run, with `options` over params.yaml's values; an equal one that is finished is kept.

    Raises:
        UserError: an option does not fit the prepared data, or the run diverged.
    """
    spec = single_spec(params.synthetic, options)
    if not prepared_folder(root, dataset).exists():
        say(f"{dataset} is not prepared yet; that comes first, once")
        prepare(params, root, dataset)
    sets = SyntheticSets(prepared_folder(root, dataset), verify=True, made_from=params.synthetic.data)
    tracker = Tracker(root, experiment=params.tracking.experiment)
    tracker.reconcile(dataset)
    wanted = study.fingerprints([spec], sets)
    held = tracker.root / ".regcls" / f"run-{wanted[spec]}.lock"
    with lock(held, waiting=lambda holder: say(f"{holder} makes this very run; waiting for it to end")):
        outcome = study.train_runs(wanted, sets, tracker, params.compute, _tags(root, dataset), adopt=True)
    for name, reason in outcome.failed.items():
        raise UserError(f"run {name} {reason}. Try a smaller --learning-rate.")
    run_id = outcome.index[0]["run_id"]
    say(f"{spec.name}: {'trained' if outcome.trained else 'was there already'}, test MSE {tracker.metrics(run_id)['test_mse']:.4f}")
    say(f"run {run_id} in {tracker.uri}")


def _tags(root: Path, dataset: str) -> dict[str, str]:
    data_md5 = dvc_md5(root, prepared_folder(root, dataset))
    return {**git_tags(root), **machine_tags(), "data_md5": data_md5, "code_digest": study.result_code()[:16]}
