"""Delivers a journal to a tracking server, in the background: training never waits for the server, nor ends because it is away."""

import atexit
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regcls.errors import UserError
from regcls.progress import say
from regcls.tracking.journal import Event, Journal, JournaledRun
from regcls.tracking.store import explanation, without_password
from regcls.tracking.writer import ALIVE_TAG, JOURNAL_TAG, Writer, is_no_answer, passes

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds until the server is asked again
BEAT = 60.0  # seconds between two signs of life of a run
MOST_TOGETHER = 50  # metric events a request
DOUBT = 600.0  # seconds without an answer, after which another machine may have taken over our runs (tracker.SILENCE: 1800)


class _FilesHeldError(Exception):
    """Files of a run did not reach the store; what else there was to tell of it is told."""


class Courier:
    """The journal of this process, and the thread that delivers it."""

    def __init__(self, journal: Journal, writer: Writer, uri: str) -> None:
        """`writer` is for the thread alone."""
        self._journal, self._writer, self._uri = journal, writer, uri
        self._runs: dict[str, JournaledRun] = {}  # that are not through, by name, the earliest first
        self._ids: dict[str, str] = {}
        self._open: set[str] = set()  # of which more will be told
        self._doubted: set[str] = set()  # which may belong to another process by now
        self._inherited: set[str] = set()  # of processes that have ended
        self._refused: dict[str, str] = {}  # why the server will not have it
        self._news, self._is_news, self._hurry = threading.Condition(), False, False
        self._trouble: str | None = None  # why the last round did not deliver all
        self._answered = time.monotonic()  # when the server last took something
        self._is_taking = False  # it has, in this round: what it is told now may be a large file
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()
        atexit.register(journal.close)

    def begin(self, start: Mapping[str, Any]) -> str:
        """Begin a run, and return its name in the journal. Raises as Journal.create does."""
        run = self._journal.create(start)
        with self._changed():
            self._runs[run.name] = run
            self._open.add(run.name)
        return run.name

    def add(self, name: str, kind: str, content: Mapping[str, Any], files: Mapping[str, Path], *, instead: str = "") -> None:
        """Something to tell of a run; `end` and `finish` are the last. Raises as JournaledRun.add does."""
        with self._changed():
            self._runs[name].add(kind, content, files, instead=instead)
            if kind in ("end", "finish"):
                self._open.discard(name)

    def inherit(self, *, refused: bool) -> int:
        """Deliver also what processes that have ended left behind, or what was `refused` to them. How many runs that are."""
        inherited = self._journal.inherit(refused=refused)
        with self._changed():
            for run in inherited:
                self._runs[run.name] = run
                self._inherited.add(run.name)
                self._doubted.add(run.name)
        return len(inherited)

    @contextmanager
    def _changed(self) -> Iterator[None]:
        """Something is new: the thread is to look."""
        with self._news:
            yield
            self._is_news = True
            self._news.notify_all()

    def run_id(self, name: str) -> str | None:
        """The id at the server, once it is there."""
        return self._ids.get(name)

    def is_through(self, name: str) -> bool:
        """Whether the server has been told all of a run that has ended."""
        return name not in self._runs

    def undelivered(self) -> dict[str, str]:
        """Name -> why, of the runs that have ended and are not through."""
        with self._news:
            return {name: self._refused.get(name) or self._trouble or "not yet" for name, run in self._runs.items() if self._is_left(run)}

    def _is_left(self, run: JournaledRun) -> bool:
        return run.name not in self._open or run.name not in self._ids or bool(run.waiting())

    def deliver(self, *, patience: float, longest: float = math.inf) -> dict[str, str]:
        """Wait until all is through, the server took nothing for `patience` seconds, or `longest` seconds are over; see `undelivered`."""
        begun, said = time.monotonic(), False
        with self._changed():
            self._answered, self._hurry = max(self._answered, begun), True
        while time.monotonic() - begun < longest:
            with self._news:
                left = [run for run in self._runs.values() if run.name not in self._refused and self._is_left(run)]
                gave_up = self._trouble is not None and not self._is_taking and time.monotonic() - self._answered > patience
            if not left or gave_up:
                break
            if not said and time.monotonic() - begun > 2:
                say(f"telling {without_password(self._uri)} of {len(left)} runs")
                said = True
            time.sleep(0.02)
        return self.undelivered()

    def _work(self) -> None:
        pause, beat = FIRST_PAUSE, time.monotonic() + BEAT
        while True:
            with self._news:
                # In trouble, news are no reason to ask again at once: they come with every epoch.
                self._news.wait_for(lambda: self._hurry or (self._is_news and not self._trouble), pause if self._trouble else BEAT)
                hurry, self._is_news, self._hurry = self._hurry, False, False
                runs = list(self._runs.values())
            try:
                before = self._answered
                trouble = self._round(runs)
                if time.monotonic() > beat and (trouble is None or self._answered > before):
                    trouble, beat = self._beat() or trouble, time.monotonic() + BEAT
            except Exception as error:  # the disk of the journal is full
                trouble = f"{error}"
            if trouble is None and self._trouble is not None:
                say(f"{without_password(self._uri)} takes what it is told again")
            if trouble is not None and self._trouble is None:
                say(f"{trouble} What is logged is kept in {self._journal.home} until it can be delivered.")
            pause = FIRST_PAUSE if trouble is None or hurry or self._trouble is None else min(LONGEST_PAUSE, pause * 2)
            self._trouble, self._is_taking = trouble, False

    def _round(self, runs: list[JournaledRun]) -> str | None:
        """Deliver what there is; what was in the way, if anything."""
        trouble = None
        for run in runs:
            if run.name in self._refused:
                continue
            try:
                self._deliver(run)
            except _FilesHeldError as error:
                said = without_password(" ".join(str(error.__cause__).split())[:300])
                trouble = f"{without_password(self._uri)} cannot store files at the moment ({said})."
            except Exception as error:
                if _may_pass(error):
                    trouble = self._why(error)
                    if is_no_answer(error):
                        if time.monotonic() - self._answered > DOUBT:
                            self._doubted |= self._runs.keys()
                        return trouble
                    continue
                said = without_password(f"{type(error).__name__}: {error}")
                self._refused[run.name] = said
                run.refuse(said)
                say(f"the run {run.start['name']} cannot be delivered: {said}. It stays in {run.folder}.")
        return trouble

    def _why(self, error: Exception) -> str:
        text = without_password(" ".join(str(error).split())[:300])
        return explanation(self._uri, error) or f"{without_password(self._uri)} does not take what it is told: {text}."

    def _deliver(self, run: JournaledRun) -> None:
        if run.run_id is None:
            self._begin(run)
        elif run.name in self._doubted:
            self._reclaim(run, run.run_id)
        run_id = run.run_id
        assert run_id is not None
        self._ids[run.name] = run_id
        held: Exception | None = None
        is_closed = run.name not in self._open  # before its events are looked at
        for together in _batches(run):
            files, event = [file for file, _ in together], _merged([event for _, event in together])
            if held and (event.files or _needs_all(event)):
                continue
            try:
                self._log(run, run_id, event)
            except Exception as error:
                if event.files and not files[0].exists():  # a later one has taken its place in the meantime
                    continue
                if not event.files or not _may_pass(error):
                    raise
                held = error
                continue
            for file in files:
                run.drop(file)
            self._answered, self._is_taking = time.monotonic(), True
        if held:
            raise _FilesHeldError from held
        if is_closed:
            if run.name in self._inherited:
                self._writer.end_if_running(run_id)
            self._writer.forget(run_id)
            with self._news:
                del self._runs[run.name]
                run.remove()

    def _log(self, run: JournaledRun, run_id: str, event: Event) -> None:
        if event.kind in ("end", "finish") and run.start.get("is_rest"):  # a FINISHED run is whole
            self._writer.end(run_id, "KILLED", reason="another process has gone on with this run; this is the rest", at=event.content["at"])
        else:
            self._writer.log(run_id, event.kind, event.content, event.files)

    def _begin(self, run: JournaledRun) -> None:
        start, tried = run.start, run.tried
        start["tags"] |= {JOURNAL_TAG: run.name, ALIVE_TAG: str(int(time.time()))}
        run.trying()
        run.is_there(self._writer.start(start, tried=run.name if tried else None))
        self._answered = time.monotonic()

    def _reclaim(self, run: JournaledRun, run_id: str) -> None:
        """Go on with a run that was not spoken of for long, or that a process left which has ended; not with one that another now makes."""
        if self._writer.reclaim(run_id, run.name):
            self._writer.is_alive(run_id, time.time())
        else:
            say(f"another process has gone on with run {run_id}; what is left of {run.start['name']} becomes a run of its own")
            run.begin_anew({**run.start, "continues": None, "adopts": None, "is_rest": True})
            self._begin(run)
        self._doubted.discard(run.name)

    def _beat(self) -> str | None:
        for name in sorted(self._open & self._ids.keys()):
            if name in self._refused:
                continue
            try:
                self._writer.is_alive(self._ids[name], time.time())
                self._answered = time.monotonic()
            except Exception as error:
                if is_no_answer(error):
                    return self._why(error)  # of others, deliveries tell
        return None


def _batches(run: JournaledRun) -> Iterator[list[tuple[Path, Event]]]:
    """A run's events, metrics that follow each other together: a server with accounts takes half a second a request."""
    together: list[tuple[Path, Event]] = []
    for file in run.waiting():
        if (event := run.read(file)) is None:
            continue
        if together and not (event.kind == together[-1][1].kind == "metrics" and len(together) < MOST_TOGETHER):
            yield together
            together = []
        together.append((file, event))
    if together:
        yield together


def _merged(events: list[Event]) -> Event:
    if len(events) == 1:
        return events[0]
    return Event(kind="metrics", content={"points": [point for event in events for point in event.content["points"]]}, files={})


def _may_pass(error: Exception) -> bool:
    return isinstance(error, UserError) or passes(error)


def _needs_all(event: Event) -> bool:
    """A FINISHED run is whole."""
    return event.kind == "finish" or (event.kind == "end" and event.content["status"] == "FINISHED")
