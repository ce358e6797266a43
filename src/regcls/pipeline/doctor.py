"""`regcls doctor`: every check in a table, with what to do. None can hang it or hide another."""

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

from regcls.checks import Found, Place, State, bad, machine, note, project, stores
from regcls.errors import UserError
from regcls.params import Params
from regcls.progress import Advance, progress
from regcls.words import counted

DEADLINE = 30.0  # seconds for all checks together, where nothing else is to be done
SIGNS: dict[State, tuple[str, str]] = {"good": ("ok", "green"), "note": ("note", "yellow"), "bad": ("FAIL", "bold red")}
# In the processes of the checks, before MLflow is imported: an answer or none, soon.
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "8", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}


@dataclass(frozen=True, kw_only=True)
class Step:
    """A check, under the name that the table has for it."""

    name: str
    check: Callable[[Place], Found]
    after: str = ""  # the check of the same group without which this one makes no sense
    needs_params: bool = False


# Each group is a process, so that what hangs or crashes (a driver, a dead mount) takes no other with it; within a group imports are shared.
GROUPS: tuple[tuple[Step, ...], ...] = (
    (Step(name="Python", check=machine.python), Step(name="commands", check=machine.commands)),
    (Step(name="torch", check=machine.torch), Step(name="GPU", check=machine.gpu, after="torch")),
    (Step(name="disk", check=machine.disk),),
    (
        Step(name="params.yaml", check=project.params),
        Step(name="data", check=project.data, needs_params=True),
        Step(name="git", check=project.git),
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

    `params`: of params.yaml, or why it cannot be used.

    Raises:
        UserError: a check found something bad; its name is in the message.
    """
    place = Place(
        root=root, params=params if isinstance(params, Params) else None, problem="" if isinstance(params, Params) else str(params)
    )
    found = examine(GROUPS, place, deadline=patience(os.getloadavg()[0], os.cpu_count() or 1))
    show(found, Console())
    if ill := [name for name, outcome in found.items() if outcome.state == "bad"]:
        raise UserError(f"doctor found {counted(len(ill), 'problem')}: {', '.join(ill)}")


def patience(load: float, cores: int) -> float:
    """Seconds for all checks together: more where others keep the cores busy, but what hangs on a dead mount counts as load too."""
    return DEADLINE * min(3.0, 1 + load / cores)


def examine(groups: tuple[tuple[Step, ...], ...], place: Place, *, deadline: float) -> dict[str, Found]:
    """Run each group in a process of its own, all at once, for at most `deadline` seconds: name -> outcome, in the order of `groups`."""
    end, context = time.monotonic() + deadline, get_context("spawn")
    found: dict[str, Found] = {}
    processes, pipes = [], []
    for group in groups:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(theirs, group, place), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        pipes.append(ours)
    waiting = list(pipes)
    with progress(sum(map(len, groups)), "checking") as advance:
        while waiting and (left := end - time.monotonic()) > 0:
            for pipe in wait(waiting, left):
                assert isinstance(pipe, Connection)
                if not _received(pipe, found, advance):
                    waiting.remove(pipe)
    hanging = [pipe in waiting for pipe in pipes]
    for process in processes:
        process.kill()
        process.join()
    for group, process, hangs in zip(groups, processes, hanging, strict=True):
        silent = _hangs(deadline) if hangs else _crashed(process.exitcode)
        found |= {step.name: silent for step in group if step.name not in found}
    return {step.name: found[step.name] for group in groups for step in group}


def _received(pipe: Connection, found: dict[str, Found], advance: Advance) -> bool:
    """Take one outcome; False if there will be no more."""
    try:
        name, outcome = pipe.recv()
    except EOFError:
        return False
    found[name] = outcome
    advance(1, name)
    return True


def _hangs(deadline: float) -> Found:
    return bad(f"no answer within {deadline:.0f} s", "find out what hangs: a driver, a mounted disk, a server")


def _crashed(exit_code: int | None) -> Found:
    return bad(f"the check crashed (exit code {exit_code})", "start it again; if it stays so, tell the authors")


def _work(pipe: Connection, group: tuple[Step, ...], place: Place) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ.update(PATIENCE)
    before: dict[str, Found] = {}
    for step in group:
        if step.after and before[step.after].state == "bad":
            outcome = note(f"not checked: {step.after} comes first")
        elif step.needs_params and place.params is None:
            outcome = note("not checked: params.yaml comes first")
        else:
            outcome = outcome_of(step.check, place)
        before[step.name] = outcome
        pipe.send((step.name, outcome))


def outcome_of(check: Callable[[Place], Found], place: Place) -> Found:
    """What a check found; an exception is an outcome, too."""
    try:
        return check(place)
    except UserError as error:
        said, _, do = str(error).partition(". ")
        return bad(said, do)
    except ImportError as error:  # a package that is missing or broken, as torch without its CUDA libraries
        return bad(f"cannot import {error.name or 'a package'}: {error}", "pip install -r requirements.lock (make venv)")
    except Exception as error:  # a bug of ours, or of a library: the other checks go on
        return bad(f"the check itself failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}", "tell the authors")


def show(found: dict[str, Found], console: Console) -> None:
    """A table on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        for name, outcome in found.items():
            print(f"{SIGNS[outcome.state][0]:<5}{name}: {outcome.said}{f' -> {outcome.do}' if outcome.do else ''}")
        return
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, outcome in found.items():
        sign, colour = SIGNS[outcome.state]
        said = Text(outcome.said)
        if outcome.do:
            said.append(f"\n→ {outcome.do}", style=colour)
        table.add_row(Text(sign, style=colour), name, said)
    console.print(table)
