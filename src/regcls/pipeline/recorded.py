"""The recorded provenance of a tracked run, compared with this machine and checkout."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regcls.data.store import prepared_folder
from regcls.errors import MissingError, UserError
from regcls.files import temporary_folder
from regcls.methods import has_class_loss, has_regression_loss, is_balanced
from regcls.provenance import UNKNOWN
from regcls.runs import RunSpec
from regcls.tasks import TASKS, task_named
from regcls.tasks.task import Task
from regcls.tracking.run_table import MACHINE, TrackedRun, typed
from regcls.tracking.tracker import LINEAGE, Tracker


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One item of a run's provenance: as recorded, and as it is here and now."""

    name: str
    then: str
    now: str

    @property
    def same(self) -> bool:
        """Whether both are known and equal."""
        return self.then == self.now != UNKNOWN

    def __str__(self) -> str:
        return f"{self.name}: the same ({self.then})" if self.same else f"{self.name}: then {self.then}, now {self.now}"


def task_of(row: TrackedRun) -> Task[Any, Any, Any]:
    """The task of a run.

    Raises:
        UserError: it is not a run of this version of regcls.
    """
    if (task := row.tags.get("task", "")) in TASKS:
        return task_named(task)
    dataset = row.params.get("dataset")
    reason = f"is on {dataset}, made by an earlier version of regcls" if dataset else "was not made by regcls run or regcls train"
    raise UserError(f"run {row.run_id} {reason}")


def spec_of(row: TrackedRun) -> RunSpec:
    """The complete spec of a run.

    Raises:
        UserError: it is not a run of regcls, or of a version with other parameters.
    """
    kind = task_of(row).spec_type
    values, method = typed(row.params, kind), row.params.get("method", "")
    optional = set[str]()
    if not has_class_loss(method):
        optional.add("lam")
    if not has_regression_loss(method):
        optional.add("loss")
    if not is_balanced(method) and row.params.get("balanced_data") != "true":
        optional.add("rounding")
    if missing := [name for name, value in values.items() if value is None and name not in optional]:
        raise UserError(
            f"run {row.run_id} has no usable value of {', '.join(missing)}: it was made by a version of regcls with other parameters. "
            f"Take the code of that run: {checkout(row)}"
        )
    spec: RunSpec = kind(**values)
    return spec


def checkout(row: TrackedRun) -> str:
    """The git command that checks out the run's code."""
    commit = row.tags.get("git_commit", UNKNOWN)
    return "its commit is not known" if commit == UNKNOWN else f"git checkout {commit}"


def lineage_of(row: TrackedRun, tracker: Tracker) -> dict[str, Any]:
    """The recorded provenance.lineage of a run; empty if it has none.

    Raises:
        UserError: the store does not answer.
    """
    with temporary_folder() as folder:
        try:
            content = json.loads(tracker.files.fetch(row.run_id, LINEAGE, folder).read_text(encoding="utf-8"))
        except (MissingError, ValueError):
            return {}
    return content if isinstance(content, dict) else {}


def open_as_it_is(root: Path, spec: RunSpec, *, verify: bool) -> Any:
    """Open the prepared data of the run's data set, without comparing them with params.yaml.

    Raises:
        UserError: missing, damaged or of another format version.
    """
    return task_named(spec.task).open(prepared_folder(root, spec.dataset), section=None, verify=verify)


def fingerprint_here(spec: RunSpec, data: Any) -> str:
    """The fingerprint that the run would have with the data and code here."""
    return task_named(spec.task).fingerprint(spec, data)


def data_fact(row: TrackedRun, spec: RunSpec, data: Any) -> Fact:
    """Digests of the samples that the run sees.

    Raises:
        UserError: the data here lack these samples.
    """
    digest = task_named(spec.task).digest(spec, data)
    return Fact(name="data", then=row.tags.get("data_digest", UNKNOWN), now=digest[:32])


def code_facts(row: TrackedRun, spec: RunSpec, lineage: Mapping[str, Any], here: Mapping[str, Any]) -> list[Fact]:
    """Commits, and digests of the code that decides a result. `lineage`, `here`: see provenance.lineage."""
    code = task_named(spec.task).code()
    return [
        Fact(name="commit", then=_commit(row.tags, lineage), now=_commit(here["git"], here)),
        Fact(name="code that decides a result", then=row.tags.get("code_digest", UNKNOWN), now=code[:16]),
    ]


def _commit(tags: Mapping[str, Any], lineage: Mapping[str, Any]) -> str:
    commit = str(tags.get("git_commit", UNKNOWN))
    if tags.get("git_dirty") != "true":
        return commit
    return f"{commit} with uncommitted changes {(lineage.get('changes') or {}).get('sha256', '')[:8]}".rstrip()


def machine_facts(row: TrackedRun, here: Mapping[str, Any]) -> list[Fact]:
    """Hardware and package versions, on which the last digits of a result may depend."""
    return [Fact(name=name, then=row.tags.get(name, UNKNOWN), now=str(now)) for name, now in here["machine"].items() if name in MACHINE]


def remedy(row: TrackedRun) -> str:
    """How to get the run's data."""
    md5, folder = row.tags.get("data_md5", UNKNOWN), f"data/{row.params['dataset']}/prepared"
    if md5 == UNKNOWN:
        return f"`regcls show {row.run_id[:8]} --print params.yaml` gives the params.yaml that they were prepared with"
    return (
        f"DVC has them as {md5}: `git log -S {md5} -- dvc.lock` names the commits, then "
        f"`git checkout COMMIT dvc.lock && dvc checkout {folder}` (dvc pull, from a remote)"
    )


def results_of(row: TrackedRun) -> dict[str, float]:
    """The run's final metrics, without metrics of epochs and of speed."""
    speed = {"images_per_second", "waiting_share", "peak_memory_gb"}
    return {name: value for name, value in row.metrics.items() if not name.startswith(("epochs/", "system/")) and name not in speed}


def equal(one: float, other: float) -> bool:
    """Whether two values are equal to the last digit; NaN equals NaN."""
    return one == other or (math.isnan(one) and math.isnan(other))
