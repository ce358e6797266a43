"""Repeats a tracked run, and compares the results."""

import math
from pathlib import Path
from typing import Any

from regcls.errors import UserError
from regcls.params import Params
from regcls.pipeline.recorded import (
    checkout,
    code_facts,
    data_fact,
    equal,
    fingerprint_here,
    lineage_of,
    machine_facts,
    open_as_it_is,
    remedy,
    results_of,
    spec_of,
    task_of,
)
from regcls.progress import say
from regcls.provenance import lineage
from regcls.runs import RunSpec
from regcls.tasks import task_named
from regcls.tasks.task import Session
from regcls.tracking.run_table import TrackedRun
from regcls.tracking.tracker import Tracker
from regcls.words import counted, printable

GROUPS = ("/many", "/medium", "/few")  # suffixes of errors by shot group


def rerun(params: Params, root: Path, run: str, *, anyway: bool) -> None:
    """Repeat a tracked run from its recorded parameters, as a new run, and print the results of both.

    Reports if commit, code or machine differ from the recorded ones. On other data it stops, except with `anyway`.

    Raises:
        UserError: no such run, or it is still in progress; the data are missing or differ; or the run diverged.
    """
    tracker = Tracker(root, experiment=params.tracking.experiment)
    tracker.inherit()
    row = tracker.find(run)
    spec = spec_of(row)
    if row.status == "RUNNING":
        tracker.reconcile(spec.dataset)
        row = tracker.find(row.run_id)
    if row.status == "RUNNING":
        raise UserError(f"run {row.run_id} is still in progress on {row.tags.get('host')}. Wait for it to finish, or stop it.")
    say(f"repeating run {row.run_id}: {row.name}")
    data, same_data = _open_data(row, spec, root, anyway=anyway)
    same = _compare_origins(row, spec, data, tracker, root, same_data=same_data)
    session = Session(params=params, root=root, dataset=spec.dataset, tracker=tracker, repeats=row.run_id)
    outcome = task_named(spec.task).train_one(spec, data, session)
    for name, reason in outcome.failed:
        raise UserError(
            f"run {name} {reason}. The recorded one ended as {row.status}{f': {why}' if (why := row.tags.get('stopped')) else ''}."
        )
    _compare_results(row, tracker.find(outcome.index[0]["run_id"]), same=same)


def _open_data(row: TrackedRun, spec: RunSpec, root: Path, *, anyway: bool) -> tuple[Any, bool]:
    """The data to repeat the run on, and whether they are the recorded ones."""
    try:
        data = open_as_it_is(root, spec, verify=True)
        fact = data_fact(row, spec, data)
    except UserError as error:
        raise UserError(f"{error}\nA repetition of run {row.run_id} needs the same data: {remedy(row)}.") from error
    say(str(fact))
    if not fact.same and not anyway:
        raise UserError(
            f"the data here are not those of run {row.run_id}. {remedy(row)[0].upper()}{remedy(row)[1:]}. "
            f"To repeat the run on the data here: regcls rerun {row.run_id[:8]} --anyway"
        )
    if misfit := task_named(spec.task).misfit(spec, data):
        raise UserError(f"{misfit}: the run cannot be repeated on them. {remedy(row)[0].upper()}{remedy(row)[1:]}.")
    return data, fact.same


def _compare_origins(row: TrackedRun, spec: RunSpec, data: Any, tracker: Tracker, root: Path, *, same_data: bool) -> bool:
    """Report differences. Returns False if something differs that may change the result."""
    here = lineage(root, spec.dataset)
    commit, code = code_facts(row, spec, lineage_of(row, tracker), here)
    machine = [fact for fact in machine_facts(row, here) if not fact.same]
    for fact in (commit, code, *machine):
        say(str(fact))
    if not code.same:
        say(f"other code may give another result. The recorded code: {checkout(row)}")
    elif same_data and fingerprint_here(spec, data) != row.tags.get("fingerprint"):
        say("parameters: they do not give the recorded fingerprint, so that run had others that are not in its record")
        return False
    return code.same and same_data and not machine


def _compare_results(then: TrackedRun, now: TrackedRun, *, same: bool) -> None:
    """Print the test errors side by side, and how far the other metrics agree."""
    before, after = results_of(then), results_of(now)
    if (limits := then.tags.get("shots")) != now.tags.get("shots"):
        say(f"shot groups: then {limits}, now {now.tags.get('shots')}; the errors by group are not compared")
        before, after = ({name: value for name, value in side.items() if not name.endswith(GROUPS)} for side in (before, after))
    print(f"{'':<14} {'then':>12} {'now':>12}")
    print(f"{'run':<14} {then.run_id[:12]:>12} {now.run_id[:12]:>12}")
    _, name = task_of(then).error
    verdict = "" if name not in before else "   equal" if equal(before[name], after[name]) else f"   {after[name] - before[name]:+.3g}"
    print(f"{name:<14} {before.get(name, math.nan):>12.6g} {after[name]:>12.6g}{verdict}")
    if then.status != "FINISHED":
        print(f"the recorded run ended as {printable(then.status)}: there is nothing to compare with")
        return
    shared = sorted(before.keys() & after.keys())
    differing = [name for name in shared if not equal(before[name], after[name])]
    if not differing:
        print(f"all {len(shared)} final metrics are equal" if len(shared) > 1 else "the final metric is equal")
        return
    most = max(differing, key=lambda name: abs(after[name] - before[name]) / (abs(before[name]) or 1.0))
    share = f"{len(differing)} of {counted(len(shared), 'final metric')}"
    print(f"{share} differ, most of all {printable(most)}: then {before[most]:.8g}, now {after[most]:.8g}")
    if not same:
        return
    threads = [row.tags.get("threads") for row in (then, now)]
    if "none" == then.tags.get("gpu") == now.tags.get("gpu") and None not in threads and threads[0] != threads[1]:
        print(
            f"threads of a run: then {printable(str(threads[0]))}, now {threads[1]}. Sums round differently, and training amplifies it. "
            "With compute.processes in params.yaml each run has cores / processes"
        )
    else:
        print(
            "code, data and kind of machine are the same. On a GPU, or with other compute settings, sums are added in another order: "
            "training amplifies the rounding"
        )
