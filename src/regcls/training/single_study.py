"""The train stage for runs of one network each: finds the runs that are not tracked as FINISHED, and trains them."""

import json
import math
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from regcls.errors import UserError
from regcls.files import lock_holder, temporary_folder, try_lock, write_json
from regcls.params import Compute
from regcls.params.single import SingleSection
from regcls.processes import termination_noted, uninterrupted
from regcls.progress import Advance, progress, say
from regcls.runs import fingerprint
from regcls.runs.grids import (
    BestLambdas,
    MakeSpec,
    SingleSpec,
    all_specs,
    needs_search,
    search_specs,
    searched_for,
)
from regcls.runs.search import whole_search
from regcls.training.checkpoint import Checkpoints
from regcls.training.device import Place
from regcls.training.loop import DivergedError, Epoch, StoppedError
from regcls.training.outcome import Outcome, index_of, known_scores, repeating, why_stopped
from regcls.training.places import NodePlace, call_at, places_for, smallest
from regcls.training.single import Data, Job, Result, Train, Trainer
from regcls.training.single_worker import train_jobs

if TYPE_CHECKING:
    from regcls.tracking.tracker import Tracker

SECONDS_TIMED = 3.0
SO_FAR = ("threads", "gpu", "node")  # what may change when a run is resumed

SpecT = TypeVar("SpecT", bound=SingleSpec)


def fingerprints(specs: Sequence[SpecT], data: Data, code: str, origin: Callable[[SpecT], str] = lambda spec: "") -> dict[SpecT, str]:
    """The fingerprint of every run, from its spec, the data, the digest of the code, and its origin (see Trainer.origin)."""
    return {spec: fingerprint(spec, data_digest=data.digest, code_digest=code + origin(spec)) for spec in specs}


def found_lambdas(
    search: Mapping[SpecT, str], score: str, runs: pd.DataFrame, new_scores: Mapping[str, float] | None = None
) -> BestLambdas:
    """The best λ of each search whose runs are all finished.

    `search`: spec -> fingerprint of the runs of the search. `score`: the metric to minimise. `runs`: table of the data set's runs
    (Tracker.collect). `new_scores`: fingerprint -> score of runs that the table may not have yet.
    """
    scores = known_scores(runs, score) | dict(new_scores or {})
    errors = {spec: scores[key] for spec, key in search.items() if key in scores}
    return whole_search(errors, search, searched_for)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What all runs of one call have in common."""

    trainer: Trainer
    dataset: str
    data: Data
    prepared: Path  # folder
    samples: int  # training samples per epoch
    tracker: "Tracker"
    compute: Compute
    tags: Mapping[str, str]
    state_epochs: int  # epochs between uploads of a run's state to a tracking server; 0: never
    lineage: Mapping[str, Any] | None = None  # see Tracker.start
    adopt: bool = False
    repeats: str | None = None  # id of a run to repeat, even though it is finished

    @cached_property
    def places(self) -> list[Place]:
        """Where runs train, one at a time at each place. Raises as `places_for` does."""
        return places_for(self.compute, self.tracker.root)


def train_grids(make_spec: MakeSpec[SingleSpec], section: SingleSection, study: Study) -> Outcome:
    """Train every run of the grids that is not FINISHED, those of the search for λ first. Raises as `train_runs` does."""
    tracked = _query_store(study)
    searches = needs_search(section)
    search = (
        fingerprints(search_specs(make_spec, section, study.dataset), study.data, study.trainer.code, study.trainer.origin)
        if searches
        else {}
    )

    def collect() -> pd.DataFrame:
        return study.tracker.collect(study.dataset, study.trainer.spec) if searches else pd.DataFrame()

    runs = collect()
    first = all_specs(make_spec, section, study.dataset, found_lambdas(search, study.trainer.score, runs))
    ledgers = [_train_missing(first, study, tracked)]
    if ledgers[0].kept:  # another process has finished some in the meantime
        runs = collect()
    best_lambdas = found_lambdas(search, study.trainer.score, runs, ledgers[0].scores)
    if new := [spec for spec in all_specs(make_spec, section, study.dataset, best_lambdas) if spec not in set(first)]:
        say("λ found: " + ", ".join(f"{lam:g} for {method} with {classes} classes" for (method, classes), lam in best_lambdas.items()))
        ledgers.append(_train_missing(new, study, tracked))
    return _outcome(ledgers, study.tracker, tracked)


def train_runs(specs: Sequence[SingleSpec], study: Study) -> Outcome:
    """Train and track every run that is not FINISHED in the store.

    `study.adopt` logs into the run that `mlflow run` has opened, and trains even if an equal one exists: it must not stay empty.

    Raises:
        UserError: fewer GPUs than required, prepared data missing or damaged, disk full, no intact checkpoint; or all runs are
            trained, but could not be delivered to the server.
        KeyboardInterrupt: open runs are marked KILLED; next time they resume from their last checkpoint.
        SystemExit: SIGTERM; open runs save their state and are marked KILLED.
    """
    tracked = _query_store(study)
    return _outcome([_train_missing(specs, study, tracked)], study.tracker, tracked)


class _Clock:
    """Hooks of a run that is only timed: it is stopped after a few seconds, or when it ends."""

    def __init__(self) -> None:
        self.started: float | None = None  # the first step, which is slower, does not count
        self.now = 0.0
        self.samples = 0

    def batch(self, samples: int, note: str) -> None:
        self.now = time.perf_counter()
        if self.started is None:
            self.started = self.now
            return
        self.samples += samples
        if self.now - self.started > SECONDS_TIMED:
            raise StoppedError

    def epoch(self, epoch: Epoch) -> None:
        self.now = time.perf_counter()


def seconds_per_sample(spec: SingleSpec, study: Study) -> float:
    """The time that training takes for a sample, measured for a few seconds and not tracked; all its threads count as one core.

    Raises:
        UserError: as `train_runs` does.
        DivergedError: a loss is not finite.
    """
    place = study.places[0]
    study.trainer.ready(spec, place)
    with temporary_folder() as folder:
        job = _job(replace(spec, epochs=spec.epochs + 1), "timed", folder, study, parallel=len(study.places))
        return call_at(place, _timed, study.trainer.train, job)


def _timed(train: Train, job: Job[Any]) -> float:
    clock = _Clock()
    with suppress(StoppedError):
        train(job, clock, lambda text: None)
    return (clock.now - (clock.started or 0.0)) / max(clock.samples, 1)


@dataclass(frozen=True, kw_only=True)
class _TrackedRuns:
    """Runs in the store at the start. Training does not depend on the server, which may be unavailable later."""

    finished: Mapping[str, str]  # fingerprint -> run id
    interrupted: Mapping[str, str]  # fingerprint -> run id, perhaps of another machine


def _query_store(study: Study) -> _TrackedRuns:
    tracker, dataset = study.tracker, study.dataset
    finished = {} if study.repeats or (study.adopt and tracker.adopted_run) else tracker.finished(dataset)
    interrupted = tracker.interrupted(dataset) if tracker.is_remote and not study.repeats else {}
    for key in finished:
        _remove_leftovers(tracker.root / ".regcls" / "checkpoints" / dataset / key, tracker.root)
    return _TrackedRuns(finished=finished, interrupted=interrupted)


def _train_missing(specs: Sequence[SingleSpec], study: Study, tracked: _TrackedRuns) -> "_Ledger":
    tracker, wanted = study.tracker, fingerprints(specs, study.data, study.trainer.code, study.trainer.origin)
    home = tracker.root / ".regcls" / "checkpoints" / study.dataset
    # A repetition resumes from checkpoints of its own earlier attempts, never from another run's.
    suffix = f"-{study.repeats[:8]}" if study.repeats else ""
    missing = {spec: key for spec, key in wanted.items() if key not in tracked.finished}
    places = study.places[: max(1, len(missing))]
    for spec in missing:
        study.trainer.ready(spec, smallest(places))
    jobs = [_job(spec, key, home / f"{key}{suffix}", study, parallel=len(places)) for spec, key in missing.items()]
    cores, threads = study.compute.cores, places[0].threads
    if len(jobs) == 1 and threads < cores and places[0].here:
        say(f"on {threads} of {cores} cores, as in a grid, so that results match the grid's. With compute.processes = 1 each run uses all")
    ledger = _Ledger(study, wanted, tracked, threads)
    with progress(sum(map(ledger.work, jobs)) or 1, "training") as advance, termination_noted() as asked_to_stop:
        ledger.advance, ledger.total, ledger.asked_to_stop = advance, len(jobs), asked_to_stop
        try:
            train_jobs(jobs, study.trainer.train, ledger, places=places, asked_to_stop=asked_to_stop)
            if asked_to_stop():  # while the last run was being logged
                raise StoppedError
        except StoppedError as error:
            ledger.abandon(error)
            raise SystemExit(128 + signal.SIGTERM) from None
        except BaseException as error:
            ledger.abandon(error)
            raise
    return ledger


def _outcome(ledgers: Sequence["_Ledger"], tracker: "Tracker", tracked: _TrackedRuns) -> Outcome:
    tracker.deliver()
    ended, failed, wanted = dict[str, tuple[str, str]](), list[tuple[str, str]](), dict[SingleSpec, str]()
    finished = dict(tracked.finished)
    for ledger in ledgers:
        ledger.release()
        ended |= {key: (tracker.run_id(run), status) for key, (run, status) in ledger.ended.items()}
        failed += ledger.failed
        wanted |= ledger.wanted
        finished |= ledger.kept
    index = index_of(wanted, finished, ended)
    return Outcome(trained=len(ended) - len(failed), kept=len(wanted) - len(ended), failed=failed, index=index)


def _remove_leftovers(checkpoints: Path, root: Path) -> None:
    """Remove the checkpoints of a FINISHED run whose process was killed before it removed them."""
    if checkpoints.exists() and (lock := try_lock(_lock_path(root / ".regcls", checkpoints.name))):  # no process is training it
        with lock:
            shutil.rmtree(checkpoints, ignore_errors=True)


def _lock_path(folder: Path, fingerprint: str) -> Path:
    return folder / f"run-{fingerprint}.lock"


def _run_record(checkpoints: Path, entry: str) -> str | None:
    """An entry of run.json beside the checkpoints: `run`, the tracker's name for their run; those of SO_FAR, see `_so_far`."""
    try:
        return str(json.loads((checkpoints / "run.json").read_text(encoding="utf-8"))[entry])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _so_far(checkpoints: Path, entry: str, now: str) -> str:
    """What a run had so far and has from now on, of those in SO_FAR: `1`, or `1, then 2`."""
    before = _run_record(checkpoints, entry) or now
    return before if before.split(", then ")[-1] == now else f"{before}, then {now}"


def _job(spec: SingleSpec, key: str, checkpoints: Path, study: Study, *, parallel: int) -> Job[Any]:
    compute, place = study.compute, study.places[0]
    device, cores = place.device, place.threads if isinstance(place, NodePlace) else compute.cores // parallel
    share = min(8, max(1, cores)) if device == "cuda" else 0
    return study.trainer.job(
        spec=spec,
        prepared=study.prepared,
        data_digest=study.data.digest,
        checkpoints=checkpoints,
        fingerprint=key,
        device=device,
        loaders=share if compute.loaders == "auto" else compute.loaders,
        channels_last=compute.channels_last,
        compiled=compute.compile,
        checkpoint_minutes=compute.checkpoint_minutes,
    )


@dataclass
class _OpenRun:
    """A run in progress."""

    job: Job[Any]
    run: str  # the tracker's name for it
    lock: ExitStack
    seen: int = 0  # samples, on the progress bar
    slot: int = 0  # of its next state on the server
    stored: Path | None = None  # file of its last state there


class _Ledger:
    """Tracks runs from start to end in MLflow, and shows them on the progress bar."""

    def __init__(self, study: Study, wanted: Mapping[SingleSpec, str], tracked: _TrackedRuns, threads: int) -> None:
        self.study, self.tracker, self.wanted, self.tracked, self.threads = study, study.tracker, wanted, tracked, threads
        self.open: dict[str, _OpenRun] = {}  # by fingerprint
        self.ended: dict[str, tuple[str, str]] = {}  # fingerprint -> run name, status
        self.failed: list[tuple[str, str]] = []  # name and reason
        self.kept: dict[str, str] = {}  # fingerprint -> run id: finished by another process in the meantime
        self.advance: Advance = lambda amount, note="": None
        self.total = 0
        self.scores: dict[str, float] = {}  # fingerprint -> validation error of runs trained here; infinite if diverged
        self.asked_to_stop: Callable[[], bool] = lambda: False
        self.undelivered: list[tuple[str, ExitStack]] = []  # ended runs, with the locks that keep other processes from training them

    def work(self, job: Job[Any]) -> int:
        """Number of samples to train on."""
        return int(job.spec.epochs) * self.study.samples

    def begin(self, job: Job[Any]) -> bool:
        """Start the run, or reopen the one that its checkpoints belong to; False if another process has finished it."""
        lock, key = ExitStack(), job.fingerprint
        waited = self._acquire(job, lock)
        adopts = self.study.adopt and self.tracker.adopted_run is not None
        if not adopts and not self.study.repeats and (run_id := self._finished_meanwhile(key, waited)):
            self.kept[key] = run_id
            lock.close()
            self.advance(self.work(job))
            return False
        earlier = None if adopts else _run_record(job.checkpoints, "run") or self._from_elsewhere(job)
        with uninterrupted():
            tags = {**self.study.tags, **repeating(self.study.repeats), "data_digest": self.study.data.digest[:32]}
            tags["threads"] = _so_far(job.checkpoints, "threads", str(self.threads))
            adopt, lineage = self.study.adopt, self.study.lineage
            run = self.tracker.start(job.spec, fingerprint=key, tags=tags, adopt=adopt, continues=earlier, lineage=lineage)
            if earlier:
                self.tracker.log_tags(run, {"threads": tags["threads"]})
            self.open[key] = _OpenRun(job, run, lock)
            self._write_record(key, threads=tags["threads"])
        return True

    def _write_record(self, key: str, **entries: str) -> None:
        job, run = self.open[key].job, self.open[key].run
        kept = {entry: before for entry in SO_FAR if (before := _run_record(job.checkpoints, entry))}
        write_json(job.checkpoints / "run.json", {"run": run, "name": job.spec.name, **kept, **entries})

    def on_place(self, key: str, kind: str, name: str) -> None:
        """Tag the run with the GPU or the node that trains it: not all need be of one kind."""
        run = self.open[key]
        names = _so_far(run.job.checkpoints, kind, name)
        with uninterrupted():
            self.tracker.log_tags(run.run, {kind: names})
            self._write_record(key, **{kind: names})

    def _acquire(self, job: Job[Any], lock: ExitStack) -> bool:
        """Lock the run's checkpoints, which are in the project, and its place in the store; True if this had to wait for a process."""
        waited = False
        for folder in dict.fromkeys((self.tracker.root / ".regcls", self.tracker.locks)):
            path = _lock_path(folder, job.fingerprint)
            while (handle := try_lock(path)) is None:
                if not waited:
                    say(f"{lock_holder(path)} is training {job.spec.name}; waiting for it to finish")
                waited = True
                if self.asked_to_stop():
                    raise StoppedError
                time.sleep(0.2)
            lock.enter_context(handle)
        return waited

    def _finished_meanwhile(self, key: str, waited: bool) -> str | None:
        """The id of the run that another process has finished since this one started."""
        if self.tracker.is_remote and not waited:  # the server may be unavailable, and training does not need it
            return None
        with suppress(UserError) if self.tracker.is_remote else nullcontext():
            self.tracker.inherit()
            with uninterrupted():
                return self.tracker.finished(self.study.dataset).get(key)
        return None

    def _from_elsewhere(self, job: Job[Any]) -> str | None:
        """The id of the run if it was interrupted on another machine; restores its last state, if the server has one."""
        run_id = self.tracked.interrupted.get(job.fingerprint)
        if run_id is None:
            return None
        try:
            with temporary_folder() as folder:
                slots = self.tracker.fetch_state(run_id, folder)
                state = Checkpoints(job.checkpoints, fingerprint=job.fingerprint).restore(slots)
        except UserError as error:
            say(f"{job.spec.name}: starts from scratch, since the state of run {run_id}, interrupted elsewhere, is not available: {error}")
            return None
        say(f"{job.spec.name}: run {run_id} was interrupted elsewhere; it resumes here" + ("" if state else ", from scratch"))
        return run_id

    def on_state(self, key: str, files: Sequence[Path]) -> None:
        """Keep the state that a node has sent, whose files are there by now, and the one before it. Its own file is the last."""
        Checkpoints(self.open[key].job.checkpoints, fingerprint=key).prune(files[-1].stem)

    def on_batch(self, key: str, samples: int, note: str) -> None:
        """Show a finished step on the progress bar."""
        self.open[key].seen += samples
        self.advance(samples, f"run {len(self.ended) + 1} of {self.total}, {note}")
        self.release()

    def on_epoch(self, key: str, epoch: Epoch) -> None:
        """Log an epoch whose state is saved."""
        run = self.open[key]
        with uninterrupted():  # on Ctrl-C in between, SQLAlchemy prints a traceback of its own
            self.tracker.log_metrics(run.run, _epoch_points(epoch, self.study.trainer))
        if self.study.state_epochs and epoch.number % self.study.state_epochs == 0 and epoch.number < run.job.spec.epochs:
            self._store_state(run)
        self.release()

    def on_note(self, key: str, text: str) -> None:
        """Print a remark on a run."""
        say(f"{self.open[key].job.spec.name}: {text}")

    def _store_state(self, run: _OpenRun) -> None:
        """Upload the run's state, so that another machine can resume it. Of two slots, one stays intact while the other is replaced."""
        if self.tracker.is_remote and self.study.state_epochs:
            files = Checkpoints(run.job.checkpoints, fingerprint=run.job.fingerprint).newest()
            if files.get("state.pt") == run.stored:  # a node has sent several epochs at once
                return
            with suppress(FileNotFoundError):  # training has saved two newer states since; a later upload takes one of them
                self.tracker.log_state(run.run, files, slot=run.slot)
                run.slot, run.stored = 1 - run.slot, files.get("state.pt")

    def release(self) -> None:
        """Unlock the ended runs that are in the store by now."""
        for run, lock in [entry for entry in self.undelivered if self.tracker.is_delivered(entry[0])]:
            lock.close()
            self.undelivered.remove((run, lock))

    def end(self, key: str, result: Result | DivergedError) -> None:
        """Log the result of a run and close it, then remove its checkpoints."""
        run = self.open[key]
        with uninterrupted():
            if isinstance(result, DivergedError):
                self.tracker.log_json(run.run, "diverged.json", result.details)
                self.tracker.log_metrics(run.run, [("diverged", 1.0, 0, time.time())])
                self.tracker.stop(run.run, status="FAILED", reason=str(result))
                self.failed.append((run.job.spec.name, str(result)))
            else:
                _log_result(self.study, run, result)
                if self.study.repeats:  # before the end: after a kill in between, the next repetition would resume from them, finished
                    shutil.rmtree(run.job.checkpoints, ignore_errors=True)
                self.tracker.end(run.run)
                shutil.rmtree(run.job.checkpoints, ignore_errors=True)
            del self.open[key]
            self.ended[key] = (run.run, "FAILED" if isinstance(result, DivergedError) else "FINISHED")
            self.scores[key] = math.inf if isinstance(result, DivergedError) else result.score
        self.undelivered.append((run.run, run.lock))
        self.release()
        self.advance(self.work(run.job) - run.seen)  # samples that an earlier process has trained on, or that are skipped

    def abandon(self, error: BaseException) -> None:
        """Mark the runs in progress KILLED."""
        with uninterrupted():
            for run in self.open.values():
                with suppress(UserError):  # a full disk, perhaps the cause of `error`: the next start finds them RUNNING
                    if isinstance(error, StoppedError):  # the machine may be gone next time
                        self._store_state(run)
                    self.tracker.stop(run.run, status="KILLED", reason=why_stopped(error))
                run.lock.close()
            self.tracker.deliver_shortly()


Point = tuple[str, float, int, float]  # name, value, step, Unix seconds


def _epoch_points(epoch: Epoch, trainer: Trainer) -> list[Point]:
    """Without `trainer.unlogged`: group sizes, which are the same in every epoch."""
    metrics = {name: value for name, value in epoch.metrics.items() if not trainer.unlogged or not name.startswith(trainer.unlogged)}
    return [(f"epochs/{name}", value, epoch.number, epoch.time) for name, value in metrics.items()]


def _log_result(study: Study, run: _OpenRun, result: Result) -> None:
    """Log all epochs, also those logged before an interruption: MLflow drops duplicate points."""
    tracker = study.tracker
    points = [point for epoch in result.history for point in _epoch_points(epoch, study.trainer)]
    ended = result.history[-1].time
    final = [(name, value, result.best_epoch, ended) for name, value in {**result.metrics, "best_epoch": result.best_epoch}.items()]
    tracker.log_metrics(run.run, points + final)
    if result.tags:
        tracker.log_tags(run.run, result.tags)
    tracker.log_files(run.run, result.files)
    for path, table in result.tables.items():
        tracker.log_table(run.run, path, table)
    model = study.trainer.model(run.job, result)
    tracker.log_model(run.run, model.network, example=model.example, points=final, step=result.best_epoch)
