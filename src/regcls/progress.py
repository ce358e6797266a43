"""Shows progress: a bar on a terminal, an occasional plain line elsewhere (a log, CI)."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from regcls.words import printable

T = TypeVar("T")
PLAIN_EVERY = 15.0  # seconds between plain lines
ESTIMATE_FROM = 0.02  # share of the work, before which the remaining time is not estimated: starting processes and first reads distort it


class Advance(Protocol):
    """Advance by `amount`, and show `note` behind the bar."""

    def __call__(self, amount: float, note: str = "") -> None: ...


@contextmanager
def progress(total: float, label: str) -> Iterator[Advance]:
    """Show the share of `total` that is done, and the remaining time, on stderr."""
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
    started = last_print = time.monotonic()
    done, last_note = 0.0, ""

    def advance(amount: float, note: str = "") -> None:
        nonlocal done, last_print, last_note
        done, last_note, now = done + amount, note, time.monotonic()
        if now - last_print >= PLAIN_EVERY:
            last_print = now
            spent = now - started
            left = f", about {spent / done * (total - done):.0f} s left" if done > ESTIMATE_FROM * total else ""
            print(f"{label}: {100 * done / total:.0f} % {note} ({spent:.0f} s{left})", file=sys.stderr, flush=True)

    yield advance
    percent, spent = 100 * done / total if total else 100, time.monotonic() - started
    print(f"{label}: {percent:.0f} % {last_note} ({spent:.0f} s)", file=sys.stderr, flush=True)


def tracked(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Iterate over `items`, and show progress."""
    with progress(total, label) as advance:
        for item in items:
            yield item
            advance(1)


def say(text: str) -> None:
    """Print a message of one line on stderr; stdout is for results."""
    print(printable(text), file=sys.stderr, flush=True)
