"""Does a class loss help on these data? Trains what fits a budget, and answers with evidence."""

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from regcls.data.store import prepared_folder
from regcls.errors import UserError
from regcls.files import write_json
from regcls.params import Params
from regcls.pipeline.compare import provenance_of
from regcls.pipeline.prepare import prepare
from regcls.pipeline.train import train_grids
from regcls.progress import say
from regcls.reports import overview
from regcls.reports.report import Report
from regcls.tasks import task_named
from regcls.tasks.planning import asked_for
from regcls.tasks.task import Plan, Session, Sources, Task, open_data
from regcls.tracking.tracker import Tracker
from regcls.words import counted, duration

METHODS = ("reg+cls", "reg+cls-bal")
UNITS = {"s": 1, "m": 60, "h": 3600}
BUDGET = re.compile(r"([0-9]*\.?[0-9]+)\s*([smh])")


@dataclass(frozen=True, kw_only=True)
class Advice:
    """An answer, and the evidence for it."""

    report: Report
    plan: Plan
    page: Path  # with tables and figures

    def summary(self) -> str:
        """The answer in a few lines, and the lines of params.yaml that use it."""
        use = ["In params.yaml:", *(f"  {line}" for line in self.report.use)] if self.report.use else []
        return "\n".join([*self.report.answers, *self.plan.words, *use])


def seconds(budget: str) -> float:
    """The seconds of a budget such as `90s`, `10m` or `1.5h`.

    Raises:
        UserError: it has another form, or is 0.
    """
    match = BUDGET.fullmatch(budget.strip().casefold())
    if not match or not (value := float(match[1]) * UNITS[match[2]]):
        raise UserError(f"--budget = {budget}: write a time above 0 as in 90s, 10m or 1.5h")
    return value


def advise(params: Params, root: Path, dataset: str, *, budget: str = "10m", methods: Sequence[str] = METHODS) -> Advice:
    """Train reg and `methods` with several class counts and λ, as far as `budget` allows, and answer; runs that are there are not repeated.

    The same call after an interruption goes on with the same plan. The page is written to advice/<dataset>/.

    Raises:
        UserError: there are no data, a method does not exist, the budget is too small, or the task gives no advice.
    """
    params.check_name(dataset)
    params = replace(params, compute=replace(params.compute, engine="local"))  # the budget is this machine's time
    task, limit = task_named(params.task(dataset)), seconds(budget)
    if not task.advises:
        raise UserError(f"regcls advise is for tables, images and depth maps: train {dataset} in full with: regcls train {dataset}")
    named = asked_for(methods, params.task(dataset))
    if not prepared_folder(root, dataset).exists():
        prepare(params, root, dataset)
    data = open_data(params, root, dataset, verify=True)
    tracker = Tracker(root, experiment=params.tracking.experiment)
    session = Session(params=params, root=root, dataset=dataset, tracker=tracker)
    plan = _plan(task, data, session, methods=named, budget=limit)
    say(f"{counted(plan.networks, 'network')} for {', '.join(['reg', *named])}; about {duration(plan.seconds)} on this machine")
    for line in plan.words:
        say(line)
    planned = replace(session, params=replace(params, datasets={**params.datasets, dataset: plan.section}))
    if plan.section.data != session.section.data:
        data = _prepared(planned)
    with tracker.parent(f"advice · {dataset}", {"regcls.advice": dataset}) as store_text:
        train_grids(data, planned)
        runs = tracker.collect(dataset, task.spec_type)
        alone, provenance = replace(planned.params, chosen=(dataset,)), provenance_of(root)
        sources = Sources(params=alone, root=root, dataset=dataset, data=data, runs=runs, tracker=tracker, provenance=provenance)
        report, out = task.report(sources), root / "advice" / dataset
        for line in overview.write(out, params=alone, reports={dataset: report}, absent={}, provenance=provenance):
            say(line)
        advice = Advice(report=report, plan=plan, page=out / dataset / "index.html")
        store_text("advice.txt", advice.summary() + "\n")
    return advice


def _prepared(planned: Session) -> Any:
    """The data set as a plan changes it, such as with smaller images; its folder is .regcls/advice/<dataset>/."""
    folder = planned.root / ".regcls" / "advice" / planned.dataset
    task = task_named(planned.params.task(planned.dataset))
    with suppress(UserError):
        return task.open(folder, section=planned.section, verify=True)
    prepare(planned.params, planned.root, planned.dataset, folder=folder)
    return task.open(folder, section=planned.section, verify=False)


def _plan(task: Task[Any, Any, Any], data: Any, session: Session, *, methods: Sequence[str], budget: float) -> Plan:
    """The task's plan; that of an earlier call with the same arguments, since the machine may be slower or faster now."""
    file = session.root / ".regcls" / f"advice-{session.dataset}.json"
    arguments = json.dumps([list(methods), budget, asdict(session.section), data.prepared.digest()], sort_keys=True, default=str)
    key = hashlib.sha256(arguments.encode()).hexdigest()
    try:
        earlier = json.loads(file.read_text(encoding="utf-8"))
        level = int(earlier["level"]) if earlier["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        level = None
    plan = task.plan(data, session, methods=methods, budget=budget, level=level)
    write_json(file, {"key": key, "level": plan.level, "seconds": plan.seconds if level is None else earlier["seconds"]})
    return plan if level is None else replace(plan, seconds=earlier["seconds"])
