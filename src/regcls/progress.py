"""Progress on a terminal as a bar, elsewhere (a log, CI) as a plain line now and then."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
PLAIN_EVERY = 15.0  # seconds between plain lines
FORETELLS = 0.02  # share of the work from which on the time left can be told: processes start, files are read for the first time


class Advance(Protocol):
    """Move on by `amount`, and say `note` behind the bar."""

    def __call__(self, amount: float, note: str = "") -> None: ...


@contextmanager
def progress(total: float, label: str) -> Iterator[Advance]:
    """Show how much of `total` is done, on stderr, with the time left."""
    console = Console(stderr=True)
    if not console.is_terminal:
        with _plain(total, label) as advance:
            yield advance
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(label, total=total, note="")
        yield lambda amount, note="": bars.update(task, advance=amount, note=note)


@contextmanager
def _plain(total: float, label: str) -> Iterator[Advance]:
    started = said = time.monotonic()
    done, last = 0.0, ""

    def advance(amount: float, note: str = "") -> None:
        nonlocal done, said, last
        done, last, now = done + amount, note, time.monotonic()
        if now - said >= PLAIN_EVERY:
            said = now
            spent = now - started
            left = f", about {spent / done * (total - done):.0f} s left" if done > FORETELLS * total else ""
            print(f"{label}: {100 * done / total:.0f} % {note} ({spent:.0f} s{left})", file=sys.stderr, flush=True)

    yield advance
    print(f"{label}: {100 * done / total if total else 100:.0f} % {last} ({time.monotonic() - started:.0f} s)", file=sys.stderr, flush=True)


def tracked(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """`items`, with progress as they are consumed."""
    with progress(total, label) as advance:
        for item in items:
            yield item
            advance(1)


def say(text: str) -> None:
    """A line for the user, on stderr: stdout is for results."""
    print(text, file=sys.stderr, flush=True)
