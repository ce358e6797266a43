"""Prints the provenance of a tracked run, or all runs on a version of data."""

import json
import math
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from regcls.data.store import prepared_folder
from regcls.errors import UserError
from regcls.params import Params
from regcls.pipeline.recorded import Fact, checkout, code_facts, data_fact, lineage_of, open_as_it_is, remedy, results_of, spec_of, task_of
from regcls.progress import say
from regcls.provenance import UNKNOWN, dvc_md5, lineage
from regcls.tracking.run_table import MACHINE, RERUN_TAG, TrackedRun
from regcls.tracking.store import without_password
from regcls.tracking.tracker import Tracker
from regcls.words import counted, printable

Part = Literal["params.yaml", "dvc.lock", "diff"]

WIDTH = 120  # characters, to wrap lists of values


def show(params: Params, root: Path, run: str, *, part: Part | None = None) -> None:
    """Print parameters, results, commit, data and files of a run, and whether code and data are the same here; or a `part` of its record.

    Raises:
        UserError: no such run, or it has no such part.
    """
    tracker = Tracker(root, experiment=params.tracking.experiment)
    row = tracker.find(run)
    record = lineage_of(row, tracker)
    if part is None:
        print("\n".join(map(printable, _lines(row, record, tracker, root))))
    else:
        sys.stdout.buffer.write(_part(row, record, part).encode())  # exact bytes in any terminal encoding, for `git apply`


def _part(row: TrackedRun, record: Mapping[str, Any], part: Part) -> str:
    if not record:
        raise UserError(f"run {row.run_id} has no lineage.json: it is not ours, was made by an earlier version, or its files are gone")
    if part == "dvc.lock":
        entry = record.get("dvc.lock")
        if not entry:
            raise UserError(f"run {row.run_id}: its data were not prepared by DVC, so dvc.lock had no entry for them")
        return json.dumps({f"prepare@{row.params.get('dataset')}": entry}, indent=2, ensure_ascii=False) + "\n"
    if part == "params.yaml":
        return str(record.get("params.yaml") or "")
    changes = record.get("changes") or {}
    if changes.get("diff") is None:
        reason = f"{changes['bytes']} bytes, too many to be kept" if changes else "there was no commit"
        raise UserError(f"run {row.run_id}: the changes to its commit are not in its record ({reason})")
    return str(changes["diff"])


def _lines(row: TrackedRun, record: Mapping[str, Any], tracker: Tracker, root: Path) -> Iterator[str]:
    yield row.name
    yield from _columns(_about(row, tracker))
    yield "parameters"
    yield from _wrapped(row.params)
    yield "results"
    shown = {name: value for name, value in results_of(row).items() if not name.startswith("selected_on_test/") and name.count("/") < 3}
    yield from _wrapped({name: f"{value:.6g}" for name, value in sorted(shown.items())}, empty="none")
    yield from _origin(row, record, tracker, root)
    files = tracker.files.sizes(row.run_id)
    yield "files"
    yield from _wrapped({path: f"({_size(size)})" for path, size in files.items()}, empty="none")
    yield f"  mlflow artifacts download --run-id {row.run_id} -d FOLDER"


def _about(row: TrackedRun, tracker: Tracker) -> Iterator[tuple[str, str]]:
    tags = row.tags
    yield "run", f"{row.run_id}  {row.status}" + (f": {tags['stopped']}" if "stopped" in tags else "")
    yield "page", tracker.run_url(row.run_id)
    duration = "" if row.ended is None else f", {(row.ended - row.started) / 1000:.1f} s"
    yield "started", f"{_time(row)}{duration}, by {tags.get('mlflow.user', UNKNOWN)} with: {tags.get('mlflow.source.name', UNKNOWN)}"
    machine = ", ".join(f"{name} {tags[name]}" for name in (*MACHINE, "mlflow") if name in tags)
    yield "machine", f"{tags.get('host', UNKNOWN)} ({machine})"
    yield "fingerprint", tags.get("fingerprint", UNKNOWN)
    if RERUN_TAG in tags:
        yield "repeats", tags[RERUN_TAG]
    if repetitions := tracker.tagged(RERUN_TAG, row.run_id):
        yield "repeated by", ", ".join(f"{other.run_id} {other.status}" for other in repetitions)


def _origin(row: TrackedRun, record: Mapping[str, Any], tracker: Tracker, root: Path) -> Iterator[str]:
    """Commit and data, and whether they are the same here."""
    short, dataset = row.run_id[:8], row.params.get("dataset", "")
    try:
        spec = spec_of(row)
    except UserError as error:
        yield f"code and data: unknown, because {error}"
        return
    here = lineage(root, dataset)
    yield "code"
    yield from (f"  {_fact(fact)}" for fact in code_facts(row, spec, record, here))
    yield f"  {checkout(row)}"
    if row.tags.get("git_dirty") == "true":
        yield f"  regcls show {short} --print diff | git apply"
    if new := record.get("new_files"):
        yield f"  files that git did not know: {', '.join(new)}"
    last_commit = (record.get("git") or {}).get("git_commit")
    if last_commit and last_commit != row.tags.get("git_commit"):
        yield f"  it was interrupted, and resumed at commit {last_commit}"
    yield "data"
    try:
        fact = data_fact(row, spec, open_as_it_is(root, spec, verify=False))
        yield f"  {_fact(fact)}"
        same = fact.same
    except UserError as error:
        yield f"  data: {row.tags.get('data_digest', UNKNOWN)}; here: {error}"
        same = False
    yield f"  {_fact(Fact(name='DVC md5', then=row.tags.get('data_md5', UNKNOWN), now=here['data_md5']))}"
    if not same:
        yield f"  {remedy(row)}"
    for out in (record.get("dvc.lock") or {}).get("outs", ()):
        size = f"{_size(out.get('size', 0))}, {out.get('nfiles', 1)} files"
        yield f"  dvc.lock, prepare@{dataset}: {out.get('path')} md5 {out.get('md5')}, {size}"
    digest = row.tags.get("data_digest", UNKNOWN)
    if digest != UNKNOWN:
        others = len(tracker.tagged("data_digest", digest)) - 1
        yield f"  {counted(others, 'other run')} on these data: regcls show --data {digest[:12]}"
        yield f"  {tracker.runs_url('data_digest', digest)}"
    if record:
        yield "record"
        yield f"  regcls show {short} --print params.yaml   (or dvc.lock, or diff)"


def _fact(fact: Fact) -> str:
    if fact.then == fact.now == UNKNOWN:
        return f"{fact.name}: unknown, here as well"
    return f"{fact.name}: {fact.then}" + (" (the same here)" if fact.same else f" (here: {fact.now})")


def _columns(pairs: Iterator[tuple[str, str]]) -> Iterator[str]:
    for name, value in pairs:
        yield f"  {name:<12} {value}"


def _wrapped(values: Mapping[str, str], *, empty: str = "") -> list[str]:
    text = ", ".join(printable(f"{name} {value}").replace(" ", "\0") for name, value in values.items()) or empty
    lines = textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines]


def _size(size: int) -> str:
    return f"{size} B" if size < 1000 else f"{size / 1000:.0f} kB" if size < 10**6 else f"{size / 10**6:.1f} MB"


def _time(row: TrackedRun) -> str:
    return datetime.fromtimestamp(row.started / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def show_data(params: Params, root: Path, version: str) -> None:
    """Print a table of all runs on a version of data (the beginning of a digest or of DVC's md5), or on all versions of a data set.

    Raises:
        UserError: there is no run on it.
    """
    tracker = Tracker(root, experiment=params.tracking.experiment)
    if version in params.datasets:
        rows = tracker.tagged("dataset", version)
    elif re.fullmatch(r"[0-9a-f]{4,32}(\.dir)?", version):
        rows = tracker.tagged("data_digest", f"{version}%") or tracker.tagged("data_md5", f"{version}%")
    else:
        raise UserError(
            f"--data {version}: the first characters (4 or more) of a digest or DVC md5, or one of {', '.join(params.datasets)}"
        )
    if not rows:
        raise UserError(
            f"no run on the data {version} in {without_password(tracker.uri)}. `regcls show --data DATASET` lists all runs on a data set."
        )
    heading = ("run", "status", "test error", "data", "DVC md5", "commit", "started", "name")
    table = [heading, *(tuple(map(printable, _cells(row))) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    for dataset in sorted({row.params.get("dataset", "") for row in rows} & set(params.datasets)):
        say(f"{dataset} here: DVC md5 {dvc_md5(root, prepared_folder(root, dataset))}")
    say(f"{len(rows)} runs: " + ", ".join(f"{count} {status}" for status, count in Counter(row.status for row in rows).items()))


def _cells(row: TrackedRun) -> tuple[str, ...]:
    try:
        error = row.metrics.get(task_of(row).error[1], math.nan)
    except UserError:
        error = math.nan
    commit = row.tags.get("git_commit", UNKNOWN)[:8] + ("+" if row.tags.get("git_dirty") == "true" else "")
    short = [row.tags.get(name, UNKNOWN)[:12] for name in ("data_digest", "data_md5")]
    return (row.run_id[:12], row.status, "–" if math.isnan(error) else f"{error:.4f}", *short, commit, _time(row)[:16], row.name)
