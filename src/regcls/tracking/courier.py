"""Delivers a journal to a tracking server in the background: training neither waits for the server nor stops when it is unavailable."""

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
from regcls.tracking.writer import ALIVE_TAG, JOURNAL_TAG, Writer, is_no_answer, is_temporary

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between retries
BEAT = 60.0  # seconds between heartbeats of a run
MOST_TOGETHER = 50  # metric events per request
DOUBT = 600.0  # seconds without an answer, after which another machine may have taken over our runs (tracker.SILENCE: 1800)


class _FilesPendingError(Exception):
    """Some files of a run did not reach the store; all other events that do not depend on them did."""


class Courier:
    """The journal of this process, and the thread that delivers it."""

    def __init__(self, journal: Journal, writer: Writer, uri: str) -> None:
        """`writer`: used by the thread only."""
        self._journal, self._writer, self._uri = journal, writer, uri
        self._runs: dict[str, JournaledRun] = {}  # not fully delivered, by name, earliest first
        self._ids: dict[str, str] = {}
        self._open: set[str] = set()  # more events will follow
        self._doubted: set[str] = set()  # may belong to another process by now
        self._inherited: set[str] = set()  # from processes that have ended
        self._refused: dict[str, str] = {}  # name -> why the server refuses the run for good
        self._condition, self._has_news, self._hurry = threading.Condition(), False, False
        self._trouble: str | None = None  # why the last round did not deliver everything
        self._last_success = time.monotonic()  # when the server last accepted something
        self._is_accepting = False  # it accepted something in this round: the present request may be a large file
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()
        atexit.register(journal.close)

    def begin(self, start: Mapping[str, Any]) -> str:
        """Begin a run, and return its name in the journal. Raises as Journal.create does."""
        run = self._journal.create(start)
        with self._notify():
            self._runs[run.name] = run
            self._open.add(run.name)
        return run.name

    def add(self, name: str, kind: str, content: Mapping[str, Any], files: Mapping[str, Path], *, replaces: str = "") -> None:
        """Add an event of a run; `end` or `finish` is the last. Raises as JournaledRun.add does."""
        with self._notify():
            self._runs[name].add(kind, content, files, replaces=replaces)
            if kind in ("end", "finish"):
                self._open.discard(name)

    def inherit(self, *, refused: bool) -> int:
        """Take over undelivered runs of processes that have ended, `refused` ones too; return their number."""
        inherited = self._journal.inherit(refused=refused)
        with self._notify():
            for run in inherited:
                self._runs[run.name] = run
                self._inherited.add(run.name)
                self._doubted.add(run.name)
        return len(inherited)

    @contextmanager
    def _notify(self) -> Iterator[None]:
        """Change the runs under the lock, then wake the thread."""
        with self._condition:
            yield
            self._has_news = True
            self._condition.notify_all()

    def run_id(self, name: str) -> str | None:
        """The id on the server, once the run is there."""
        return self._ids.get(name)

    def is_delivered(self, name: str) -> bool:
        """Whether the server has all events of a run that has ended."""
        return name not in self._runs

    def undelivered(self) -> dict[str, str]:
        """Name -> reason, of the runs with undelivered events."""
        with self._condition:
            return {
                name: self._refused.get(name) or self._trouble or "not yet" for name, run in self._runs.items() if self._is_pending(run)
            }

    def _is_pending(self, run: JournaledRun) -> bool:
        return run.name not in self._open or run.name not in self._ids or bool(run.events())

    def deliver(self, *, patience: float, longest: float = math.inf) -> dict[str, str]:
        """Wait until all is delivered, the server has accepted nothing for `patience` seconds, or `longest` seconds are over.

        Returns `undelivered`.
        """
        started, announced = time.monotonic(), False
        with self._notify():
            self._last_success, self._hurry = max(self._last_success, started), True
        while time.monotonic() - started < longest:
            with self._condition:
                pending = [run for run in self._runs.values() if run.name not in self._refused and self._is_pending(run)]
                gave_up = self._trouble is not None and not self._is_accepting and time.monotonic() - self._last_success > patience
            if not pending or gave_up:
                break
            if not announced and time.monotonic() - started > 2:
                say(f"sending {len(pending)} runs to {without_password(self._uri)}")
                announced = True
            time.sleep(0.02)
        return self.undelivered()

    def _work(self) -> None:
        pause, next_beat = FIRST_PAUSE, time.monotonic() + BEAT
        while True:
            with self._condition:
                # In trouble, new events are no reason to retry at once: they come with every epoch.
                self._condition.wait_for(lambda: self._hurry or (self._has_news and not self._trouble), pause if self._trouble else BEAT)
                hurry, self._has_news, self._hurry = self._hurry, False, False
                runs = list(self._runs.values())
            try:
                before = self._last_success
                trouble = self._round(runs)
                if time.monotonic() > next_beat and (trouble is None or self._last_success > before):
                    trouble, next_beat = self._beat() or trouble, time.monotonic() + BEAT
            except Exception as error:  # the disk of the journal is full
                trouble = f"{error}"
            if trouble is None and self._trouble is not None:
                say(f"{without_password(self._uri)} accepts data again")
            if trouble is not None and self._trouble is None:
                say(f"{trouble} Logged data stay in {self._journal.home} until they can be delivered.")
            pause = FIRST_PAUSE if trouble is None or hurry or self._trouble is None else min(LONGEST_PAUSE, pause * 2)
            self._trouble, self._is_accepting = trouble, False

    def _round(self, runs: list[JournaledRun]) -> str | None:
        """Deliver all pending events; return what went wrong, if anything."""
        trouble = None
        for run in runs:
            if run.name in self._refused:
                continue
            try:
                self._deliver(run)
            except _FilesPendingError as error:
                reason = without_password(" ".join(str(error.__cause__).split())[:300])
                trouble = f"{without_password(self._uri)} cannot store files at the moment ({reason})."
            except Exception as error:
                if _may_retry(error):
                    trouble = self._why(error)
                    if is_no_answer(error):
                        if time.monotonic() - self._last_success > DOUBT:
                            self._doubted |= self._runs.keys()
                        return trouble
                    continue
                reason = without_password(f"{type(error).__name__}: {error}")
                self._refused[run.name] = reason
                run.refuse(reason)
                say(f"the run {run.start['name']} cannot be delivered: {reason}. It stays in {run.folder}.")
        return trouble

    def _why(self, error: Exception) -> str:
        text = without_password(" ".join(str(error).split())[:300])
        return explanation(self._uri, error) or f"{without_password(self._uri)} does not accept the data: {text}."

    def _deliver(self, run: JournaledRun) -> None:
        if run.run_id is None:
            self._begin(run)
        elif run.name in self._doubted:
            self._reclaim(run, run.run_id)
        run_id = run.run_id
        assert run_id is not None
        self._ids[run.name] = run_id
        file_error: Exception | None = None
        is_closed = run.name not in self._open  # checked before reading events
        for batch in _batches(run):
            files, event = [file for file, _ in batch], _merged([event for _, event in batch])
            if file_error and (event.files or _needs_all(event)):
                continue
            try:
                self._log(run, run_id, event)
            except Exception as error:
                if event.files and not files[0].exists():  # a later event has replaced it in the meantime
                    continue
                if not event.files or not _may_retry(error):
                    raise
                file_error = error
                continue
            for file in files:
                run.drop(file)
            self._last_success, self._is_accepting = time.monotonic(), True
        if file_error:
            raise _FilesPendingError from file_error
        if is_closed:
            if run.name in self._inherited:
                self._writer.end_if_running(run_id)
            self._writer.forget(run_id)
            with self._condition:
                del self._runs[run.name]
                run.remove()

    def _log(self, run: JournaledRun, run_id: str, event: Event) -> None:
        if event.kind in ("end", "finish") and run.start.get("is_rest"):  # not FINISHED: a FINISHED run is complete
            self._writer.end(run_id, "KILLED", reason="another process has taken over this run; this is the rest", at=event.content["at"])
        else:
            self._writer.log(run_id, event.kind, event.content, event.files)

    def _begin(self, run: JournaledRun) -> None:
        start, requested = run.start, run.was_requested
        start["tags"] |= {JOURNAL_TAG: run.name, ALIVE_TAG: str(int(time.time()))}
        run.note_request()
        run.note_id(self._writer.start(start, requested=run.name if requested else None))
        self._last_success = time.monotonic()

    def _reclaim(self, run: JournaledRun, run_id: str) -> None:
        """Continue a run after a long silence, or of an ended process; if another process has taken it over, begin a run for the rest."""
        if self._writer.reclaim(run_id, run.name):
            self._writer.beat(run_id, time.time())
        else:
            say(f"another process has taken over run {run_id}; the rest of {run.start['name']} becomes a run of its own")
            run.restart({**run.start, "continues": None, "adopts": None, "is_rest": True})
            self._begin(run)
        self._doubted.discard(run.name)

    def _beat(self) -> str | None:
        for name in sorted(self._open & self._ids.keys()):
            if name in self._refused:
                continue
            try:
                self._writer.beat(self._ids[name], time.time())
                self._last_success = time.monotonic()
            except Exception as error:
                if is_no_answer(error):
                    return self._why(error)  # other errors are reported by deliveries
        return None


def _batches(run: JournaledRun) -> Iterator[list[tuple[Path, Event]]]:
    """A run's events, with consecutive metrics together: a server with accounts takes half a second per request."""
    batch: list[tuple[Path, Event]] = []
    for file in run.events():
        if (event := run.read(file)) is None:
            continue
        if batch and not (event.kind == batch[-1][1].kind == "metrics" and len(batch) < MOST_TOGETHER):
            yield batch
            batch = []
        batch.append((file, event))
    if batch:
        yield batch


def _merged(events: list[Event]) -> Event:
    if len(events) == 1:
        return events[0]
    return Event(kind="metrics", content={"points": [point for event in events for point in event.content["points"]]}, files={})


def _may_retry(error: Exception) -> bool:
    return isinstance(error, UserError) or is_temporary(error)


def _needs_all(event: Event) -> bool:
    """Whether all earlier events must be delivered first: a FINISHED run is complete."""
    return event.kind == "finish" or (event.kind == "end" and event.content["status"] == "FINISHED")
