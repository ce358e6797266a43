"""The stages: what `dvc repro` and the command line start. Paths, params and tracking meet here, and nowhere below."""

import os
import sys
from pathlib import Path

from regcls.datasets import synthetic
from regcls.errors import UserError
from regcls.files import lock, write_json
from regcls.params import Params, RunOptions
from regcls.progress import tracked
from regcls.runs import all_specs, single_spec


def prepared_folder(root: Path, dataset: str) -> Path:
    """Where a data set's prepared files are."""
    return root / "data" / dataset / "prepared"


def prepare(params: Params, root: Path, dataset: str) -> None:
    """Raw data -> prepared data set. For the 1D study: draw it."""
    processes = os.cpu_count() or 1 if params.compute.processes == "auto" else params.compute.processes
    table = synthetic.prepare(params.synthetic.data, prepared_folder(root, dataset), processes=processes, progress=tracked)
    for (data, split), samples in table.groupby(["data", "split"], sort=False)["samples"]:
        print(f"{data:12s} {split:5s} {len(samples):5d} sets of {samples.min()} to {samples.max()} samples")


def train(params: Params, root: Path, dataset: str) -> None:
    """Every run of the data set's grids that is not tracked as finished yet -> tracked runs, and runs/<dataset>.json."""
    from regcls.tracking import Tracker
    from regcls.training import study

    with lock(root / ".regcls" / f"train-{dataset}.lock", waiting=lambda holder: say(f"{holder} trains {dataset} already; waiting for it to end")):
        sets = _open_sets(root, dataset)
        tracker = Tracker(root, experiment=params.tracking.experiment)
        if stale := tracker.reconcile(dataset):
            say(f"{len(stale)} runs of a process that has died were marked KILLED; they are made again")
        wanted = study.fingerprints(all_specs(params.synthetic), sets)
        outcome = study.train_runs(wanted, sets, tracker, params.compute, _tags(root, dataset))
        write_json(root / "runs" / f"{dataset}.json", outcome.index)
    say(f"{outcome.trained} runs trained, {outcome.kept} were there already, {len(outcome.failed)} failed, in {tracker.uri}")
    for name, reason in outcome.failed.items():
        say(f"FAILED {name}: {reason}")


def run(params: Params, root: Path, dataset: str, options: RunOptions) -> None:
    """One run of `dataset`, with `options` over params.yaml's values.

    Raises:
        UserError: an option does not fit the prepared data.
    """
    from regcls.tracking import Tracker
    from regcls.training import study

    spec = single_spec(params.synthetic, options)
    if not prepared_folder(root, dataset).exists():
        say(f"{dataset} is not prepared yet; that comes first, once")
        prepare(params, root, dataset)
    sets = _open_sets(root, dataset)
    tracker = Tracker(root, experiment=params.tracking.experiment)
    wanted = study.fingerprints([spec], sets)
    with lock(root / ".regcls" / f"run-{wanted[spec]}.lock", waiting=lambda holder: say(f"{holder} makes this very run; waiting for it to end")):
        outcome = study.train_runs(wanted, sets, tracker, params.compute, _tags(root, dataset), adopt=True)
    for name, reason in outcome.failed.items():
        raise UserError(f"run {name} {reason}. Try a smaller --learning-rate.")
    run_id = outcome.index[0]["run_id"]
    say(f"{spec.name}: {'trained' if outcome.trained else 'was there already'}, test MSE {tracker.metrics(run_id)['test_mse']:.4f}")
    say(f"run {run_id} in {tracker.uri}")


def compare(params: Params, root: Path) -> None:
    """Tracked runs -> reports/: tables, figures, one page."""
    from regcls import reports
    from regcls.provenance import git_tags, machine_tags
    from regcls.tracking import Tracker
    from regcls.training import study

    sets = _open_sets(root, "synthetic")
    tracker = Tracker(root, experiment=params.tracking.experiment)
    wanted = study.fingerprints(all_specs(params.synthetic), sets)
    said = reports.compare(
        params=params, runs=tracker.collect("synthetic"), fingerprints=wanted, run_url=tracker.run_url, sets=sets, out=root / "reports", provenance={**git_tags(root), **machine_tags()}
    )
    for line in said:
        say(line)
    say(f"wrote {root / 'reports' / 'index.html'}")


def say(text: str) -> None:
    """A line for the user, on stderr."""
    print(text, file=sys.stderr, flush=True)


def _open_sets(root: Path, dataset: str) -> synthetic.SyntheticSets:
    sets = synthetic.SyntheticSets(prepared_folder(root, dataset))
    sets.prepared.verify()
    return sets


def _tags(root: Path, dataset: str) -> dict[str, str]:
    from regcls.provenance import code_digest, dvc_md5, git_tags, machine_tags
    from regcls.training.study import CODE

    return {**git_tags(root), **machine_tags(), "data_md5": dvc_md5(root, prepared_folder(root, dataset)), "code_digest": code_digest(CODE)[:16]}

