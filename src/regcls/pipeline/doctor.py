"""`regcls doctor`: a table of all checks, with remedies. No check can block it, or hide the result of another."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from regcls.checks import Finding, Place, State, bad, machine, note, project, stores
from regcls.errors import UserError
from regcls.params import Params
from regcls.progress import Advance, progress
from regcls.words import counted

DEADLINE = 30.0  # seconds for all checks together, on an idle machine
SIGNS: dict[State, tuple[str, str]] = {"good": ("ok", "green"), "note": ("note", "yellow"), "bad": ("FAIL", "bold red")}
# Set in the processes of the checks, before MLflow is imported: fail fast.
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "8", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}


@dataclass(frozen=True, kw_only=True)
class Step:
    """A check, with its name in the table."""

    name: str
    check: Callable[[Place], Finding]
    after: str = ""  # an earlier check of the group; if that is bad, this one is skipped
    needs_params: bool = False


# Each group runs in its own process, so that a hang or crash (a driver, a dead mount) affects no other group; a group shares imports.
GROUPS: tuple[tuple[Step, ...], ...] = (
    (Step(name="Python", check=machine.python), Step(name="commands", check=machine.commands)),
    (Step(name="torch", check=machine.torch), Step(name="GPU", check=machine.gpu, after="torch")),
    (Step(name="disk", check=machine.disk),),
    (
        Step(name="params.yaml", check=project.params),
        Step(name="data", check=project.data, needs_params=True),
        Step(name="git", check=project.git),
        Step(name="dvc.lock", check=project.dvc_lock),
    ),
    (
        Step(name="MLproject", check=project.mlproject),
        Step(name="tracking", check=stores.tracking),
        Step(name="artifacts", check=stores.artifacts, after="tracking", needs_params=True),
        Step(name="stale runs", check=stores.stale_runs, after="tracking", needs_params=True),
        Step(name="undelivered runs", check=stores.undelivered),
    ),
    (Step(name="DVC remote", check=stores.dvc_remote),),
)


def doctor(params: Params | UserError, root: Path) -> None:
    """Print the table of all checks.

    `params`: the content of params.yaml, or why it cannot be used.

    Raises:
        UserError: some checks are bad; names them.
    """
    place = Place(
        root=root, params=params if isinstance(params, Params) else None, problem="" if isinstance(params, Params) else str(params)
    )
    findings = examine(GROUPS, place, deadline=patience(os.getloadavg()[0], os.cpu_count() or 1))
    show(findings, Console())
    if problems := [name for name, finding in findings.items() if finding.state == "bad"]:
        raise UserError(f"doctor found {counted(len(problems), 'problem')}: {', '.join(problems)}")


def patience(load: float, cores: int) -> float:
    """Seconds for all checks together: more on busy cores, but limited, since processes that hang on a dead mount count as load too."""
    return DEADLINE * min(3.0, 1 + load / cores)


def examine(groups: tuple[tuple[Step, ...], ...], place: Place, *, deadline: float) -> dict[str, Finding]:
    """Run the groups in parallel processes for at most `deadline` seconds; returns name -> finding, in the order of `groups`."""
    end, context = time.monotonic() + deadline, get_context("spawn")
    findings: dict[str, Finding] = {}
    processes, pipes = [], []
    for group in groups:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(sender, group, place), daemon=True)
        process.start()
        sender.close()
        processes.append(process)
        pipes.append(receiver)
    waiting = list(pipes)
    with progress(sum(map(len, groups)), "checking") as advance:
        while waiting and (left := end - time.monotonic()) > 0:
            for pipe in wait(waiting, left):
                assert isinstance(pipe, Connection)
                if not _receive(pipe, findings, advance):
                    waiting.remove(pipe)
    hanging = [pipe in waiting for pipe in pipes]
    for process in processes:
        process.kill()
        process.join()
    for group, process, hangs in zip(groups, processes, hanging, strict=True):
        failure = _hangs(deadline) if hangs else _crashed(process.exitcode)
        findings |= {step.name: failure for step in group if step.name not in findings}
    return {step.name: findings[step.name] for group in groups for step in group}


def _receive(pipe: Connection, findings: dict[str, Finding], advance: Advance) -> bool:
    """Receive one finding; False if there are no more."""
    try:
        name, finding = pipe.recv()
    except EOFError:
        return False
    findings[name] = finding
    advance(1, name)
    return True


def _hangs(deadline: float) -> Finding:
    return bad(f"no answer within {deadline:.0f} s", "find out what hangs: a driver, a mounted disk, a server")


def _crashed(exit_code: int | None) -> Finding:
    return bad(f"the check crashed (exit code {exit_code})", "run it again; if it keeps crashing, tell the authors")


def _work(pipe: Connection, group: tuple[Step, ...], place: Place) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    os.environ.update(PATIENCE)
    before: dict[str, Finding] = {}
    for step in group:
        if step.after and before[step.after].state == "bad":
            finding = note(f"not checked: {step.after} comes first")
        elif step.needs_params and place.params is None:
            finding = note("not checked: params.yaml comes first")
        else:
            finding = outcome_of(step.check, place)
        before[step.name] = finding
        pipe.send((step.name, finding))


def outcome_of(check: Callable[[Place], Finding], place: Place) -> Finding:
    """The finding of a check, also if it raises an exception."""
    try:
        return check(place)
    except UserError as error:
        text, _, remedy = str(error).partition(". ")
        return bad(text, remedy)
    except ImportError as error:  # a missing or broken package, such as torch without its CUDA libraries
        return bad(f"cannot import {error.name or 'a package'}: {error}", "pip install -r requirements.lock (make venv)")
    except Exception as error:  # a bug of ours, or of a library: run the other checks
        return bad(f"the check itself failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}", "tell the authors")


def show(findings: dict[str, Finding], console: Console) -> None:
    """Print a table on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        for name, finding in findings.items():
            print(f"{SIGNS[finding.state][0]:<5}{name}: {finding.text}{f' -> {finding.remedy}' if finding.remedy else ''}")
        return
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, finding in findings.items():
        sign, colour = SIGNS[finding.state]
        text = Text(finding.text)
        if finding.remedy:
            text.append(f"\n→ {finding.remedy}", style=colour)
        table.add_row(Text(sign, style=colour), name, text)
    console.print(table)
