"""The train stage of runs of one network each: which runs are wanted, which are there already, and making the rest."""

import json
import math
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from regcls.errors import UserError
from regcls.files import lock_holder, try_lock, write_json
from regcls.params import Compute
from regcls.params.single import SingleSection
from regcls.processes import termination_noted, uninterrupted
from regcls.progress import Advance, progress, say
from regcls.runs import fingerprint
from regcls.runs.grids import (
    Found,
    MakeSpec,
    SingleSpec,
    all_specs,
    needs_search,
    search_specs,
    searched_for,
)
from regcls.runs.search import whole_search
from regcls.training.checkpoint import Checkpoints
from regcls.training.device import Device, device_for
from regcls.training.loop import DivergedError, Epoch, StoppedError
from regcls.training.outcome import Outcome, index_of, known_scores, repeating, why_stopped
from regcls.training.single import Data, Job, Result, Trainer
from regcls.training.single_worker import make

if TYPE_CHECKING:
    from regcls.tracking.tracker import Tracker

SpecT = TypeVar("SpecT", bound=SingleSpec)


def fingerprints(specs: Sequence[SpecT], data: Data, code: str, origin: Callable[[SpecT], str] = lambda spec: "") -> dict[SpecT, str]:
    """The fingerprint of every run, from its spec, the data, the code (a digest), and what it begins with (see Trainer.origin)."""
    return {spec: fingerprint(spec, data_digest=data.digest, code_digest=code + origin(spec)) for spec in specs}


def found_lambdas(search: Mapping[SpecT, str], score: str, runs: pd.DataFrame, made: Mapping[str, float] | None = None) -> Found:
    """λ of the search, as far as its runs are finished.

    `search`: the runs of the search with their fingerprints; `score`: the metric that decides. `runs`: the table of the data set's runs
    (Tracker.collect). `made`: fingerprint -> score of runs that may not be in it yet.
    """
    known = known_scores(runs, score) | dict(made or {})
    errors = {spec: known[key] for spec, key in search.items() if key in known}
    return whole_search(errors, search, searched_for)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What all runs of one call share."""

    trainer: Trainer
    dataset: str
    data: Data
    prepared: Path  # folder
    samples: int  # trained on in an epoch
    tracker: "Tracker"
    compute: Compute
    tags: Mapping[str, str]
    state_epochs: int  # a run's state goes to a tracking server every so many epochs; 0: never
    lineage: Mapping[str, Any] | None = None  # see Tracker.start
    adopt: bool = False
    repeats: str | None = None  # the id of a run that is to be made once more, whatever the store holds


def train_grids(make_spec: MakeSpec[SingleSpec], section: SingleSection, study: Study) -> Outcome:
    """Make every run of the grids that is not FINISHED, those of the search for λ first. Raises as `train_runs` does."""
    known = _look_up(study)
    searched = needs_search(section)
    search = (
        fingerprints(search_specs(make_spec, section, study.dataset), study.data, study.trainer.code, study.trainer.origin)
        if searched
        else {}
    )

    def collected() -> pd.DataFrame:
        return study.tracker.collect(study.dataset, study.trainer.spec) if searched else pd.DataFrame()

    runs = collected()
    first = all_specs(make_spec, section, study.dataset, found_lambdas(search, study.trainer.score, runs))
    made = [_make(first, study, known)]
    if made[0].kept:  # by another process, in the meantime
        runs = collected()
    found = found_lambdas(search, study.trainer.score, runs, made[0].scores)
    if new := [spec for spec in all_specs(make_spec, section, study.dataset, found) if spec not in set(first)]:
        say("λ found: " + ", ".join(f"{lam:g} for {method} with {classes} classes" for (method, classes), lam in found.items()))
        made.append(_make(new, study, known))
    return _outcome(made, study.tracker, known)


def train_runs(specs: Sequence[SingleSpec], study: Study) -> Outcome:
    """Train and track every run that the store does not hold as FINISHED.

    `study.adopt` logs into the run that `mlflow run` has opened, and trains even if an equal one exists: it must not stay empty.

    Raises:
        UserError: no GPU where one is asked for, prepared data gone or damaged, no space on the disk, no checkpoint that is whole; or all
            is trained, and the server could not be told.
        KeyboardInterrupt: open runs are marked KILLED; they go on from their last checkpoint next time.
        SystemExit: SIGTERM; so are these, and they go on from where they are.
    """
    known = _look_up(study)
    return _outcome([_make(specs, study, known)], study.tracker, known)


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What the store holds at the start; a server may be away later on, and is not needed to train."""

    finished: Mapping[str, str]  # fingerprint -> run id
    interrupted: Mapping[str, str]  # the same, of runs that another machine may have left


def _look_up(study: Study) -> _Known:
    tracker, dataset = study.tracker, study.dataset
    finished = {} if study.repeats or (study.adopt and tracker.adopted_run) else tracker.finished(dataset)
    interrupted = tracker.interrupted(dataset) if tracker.is_remote and not study.repeats else {}
    for key in finished:
        _remove_leftovers(tracker.root / ".regcls" / "checkpoints" / dataset / key, tracker.root)
    return _Known(finished=finished, interrupted=interrupted)


def _make(specs: Sequence[SingleSpec], study: Study, known: _Known) -> "_Ledger":
    tracker, wanted = study.tracker, fingerprints(specs, study.data, study.trainer.code, study.trainer.origin)
    device = device_for(study.compute.device)
    home = tracker.root / ".regcls" / "checkpoints" / study.dataset
    # A repetition never goes on from what another run has left, but it does from what an earlier attempt at itself has.
    own = f"-{study.repeats[:8]}" if study.repeats else ""
    jobs = [_job(spec, key, home / f"{key}{own}", study, device) for spec, key in wanted.items() if key not in known.finished]
    for spec in dict.fromkeys(job.spec for job in jobs):
        study.trainer.ready(spec)
    cores, threads = study.compute.cores, study.compute.cores if device == "cuda" else study.compute.threads
    if len(jobs) == 1 and threads < cores:
        say(f"on {threads} of {cores} cores, as in a grid, so that the numbers are a grid's. With compute.processes = 1 each run takes all")
    ledger = _Ledger(study, wanted, known, threads)
    with progress(sum(map(ledger.work, jobs)) or 1, "training") as advance, termination_noted() as asked_to_stop:
        ledger.advance, ledger.total, ledger.asked_to_stop = advance, len(jobs), asked_to_stop
        try:
            processes = 1 if device == "cuda" else max(1, min(study.compute.process_count, len(jobs)))
            make(jobs, study.trainer.train, ledger, processes=processes, threads=ledger.threads, asked_to_stop=asked_to_stop)
            if asked_to_stop():  # while the last one was logged
                raise StoppedError
        except StoppedError as error:
            ledger.abandon(error)
            raise SystemExit(128 + signal.SIGTERM) from None
        except BaseException as error:
            ledger.abandon(error)
            raise
    return ledger


def _outcome(made: Sequence["_Ledger"], tracker: "Tracker", known: _Known) -> Outcome:
    tracker.deliver()
    ended, failed, wanted = dict[str, tuple[str, str]](), dict[str, str](), dict[SingleSpec, str]()
    finished = dict(known.finished)
    for ledger in made:
        ledger.release()
        ended |= {key: (tracker.run_id(run), status) for key, (run, status) in ledger.ended.items()}
        failed |= ledger.failed
        wanted |= ledger.wanted
        finished |= ledger.kept
    index = index_of(wanted, finished, ended)
    return Outcome(trained=len(ended) - len(failed), kept=len(wanted) - len(ended), failed=failed, index=index)


def _remove_leftovers(checkpoints: Path, root: Path) -> None:
    """The checkpoints of a run that is FINISHED: its process was killed between its end and their removal."""
    if checkpoints.exists() and (held := try_lock(_lock_of(root, checkpoints.name))):  # nobody makes it
        with held:
            shutil.rmtree(checkpoints, ignore_errors=True)


def _lock_of(root: Path, fingerprint: str) -> Path:
    return root / ".regcls" / f"run-{fingerprint}.lock"


def _noted(checkpoints: Path, entry: str) -> str | None:
    """What is noted beside checkpoints: `run` that they belong to, as the tracker names it; `threads` that it had."""
    try:
        return str(json.loads((checkpoints / "run.json").read_text(encoding="utf-8"))[entry])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _threads(checkpoints: Path, now: int) -> str:
    """Those that a run had so far, and those that it goes on with: `1`, or `1, then 2`."""
    before = _noted(checkpoints, "threads") or str(now)
    return before if before.split(", then ")[-1] == str(now) else f"{before}, then {now}"


def _job(spec: SingleSpec, key: str, checkpoints: Path, study: Study, device: Device) -> Job[Any]:
    compute = study.compute
    loaders = (min(8, compute.cores) if device == "cuda" else 0) if compute.loaders == "auto" else compute.loaders
    return study.trainer.job(
        spec=spec,
        prepared=study.prepared,
        data_digest=study.data.digest,
        checkpoints=checkpoints,
        fingerprint=key,
        device=device,
        loaders=loaders,
        channels_last=compute.channels_last,
        compiled=compute.compile,
        checkpoint_minutes=compute.checkpoint_minutes,
    )


@dataclass
class _Open:
    """A run in the making."""

    job: Job[Any]
    run: str  # as the tracker names it
    held: ExitStack
    seen: int = 0  # samples, on the progress bar
    slot: int = 0  # where its next state goes at the server


class _Ledger:
    """Runs from their start to their end, in MLflow and on the progress bar."""

    def __init__(self, study: Study, wanted: Mapping[SingleSpec, str], known: _Known, threads: int) -> None:
        self.study, self.tracker, self.wanted, self.known, self.threads = study, study.tracker, wanted, known, threads
        self.open: dict[str, _Open] = {}  # by fingerprint
        self.ended: dict[str, tuple[str, str]] = {}  # fingerprint -> run id, status
        self.failed: dict[str, str] = {}  # name -> reason
        self.kept: dict[str, str] = {}  # fingerprint -> run id: another process has finished it in the meantime
        self.advance: Advance = lambda amount, note="": None
        self.total = 0
        self.scores: dict[str, float] = {}  # fingerprint -> validation error of what was made; infinite if it diverged
        self.asked_to_stop: Callable[[], bool] = lambda: False
        self.undelivered: list[tuple[str, ExitStack]] = []  # runs that have ended, and what keeps others from making them

    def work(self, job: Job[Any]) -> int:
        """Samples to train on."""
        return int(job.spec.epochs) * self.study.samples

    def begin(self, job: Job[Any]) -> bool:
        """Open the run, or the one that its checkpoints belong to; False if it is finished by now."""
        held, key = ExitStack(), job.fingerprint
        was_held = self._hold(job, held)
        adopts = self.study.adopt and self.tracker.adopted_run is not None
        if not adopts and not self.study.repeats and (run_id := self._finished_meanwhile(key, was_held)):
            self.kept[key] = run_id
            held.close()
            self.advance(self.work(job))
            return False
        earlier = None if adopts else _noted(job.checkpoints, "run") or self._from_elsewhere(job)
        with uninterrupted():
            tags = {**self.study.tags, **repeating(self.study.repeats), "data_digest": self.study.data.digest[:32]}
            tags["threads"] = _threads(job.checkpoints, self.threads)
            adopt, lineage = self.study.adopt, self.study.lineage
            run = self.tracker.start(job.spec, fingerprint=key, tags=tags, adopt=adopt, continues=earlier, lineage=lineage)
            if earlier:
                self.tracker.log_tags(run, {"threads": tags["threads"]})
            write_json(job.checkpoints / "run.json", {"run": run, "name": job.spec.name, "threads": tags["threads"]})
            self.open[key] = _Open(job, run, held)
        return True

    def _hold(self, job: Job[Any], held: ExitStack) -> bool:
        """Keep other processes from making this run; whether one did so until now."""
        own, was_held = _lock_of(self.tracker.root, job.fingerprint), False
        while (handle := try_lock(own)) is None:
            if not was_held:
                say(f"{lock_holder(own)} makes {job.spec.name} at this moment; waiting for it to end")
            was_held = True
            if self.asked_to_stop():
                raise StoppedError
            time.sleep(0.2)
        held.enter_context(handle)
        return was_held

    def _finished_meanwhile(self, key: str, was_held: bool) -> str | None:
        """The id of the run that another process has finished since this one began."""
        if self.tracker.is_remote and not was_held:  # the server may be away, and is not needed to train
            return None
        with suppress(UserError) if self.tracker.is_remote else nullcontext():
            self.tracker.inherit()
            with uninterrupted():
                return self.tracker.finished(self.study.dataset).get(key)
        return None

    def _from_elsewhere(self, job: Job[Any]) -> str | None:
        """The run that was interrupted on another machine, with its last state, if the server has one."""
        run_id = self.known.interrupted.get(job.fingerprint)
        if run_id is None:
            return None
        try:
            with TemporaryDirectory() as folder:
                slots = self.tracker.fetch_state(run_id, Path(folder))
                state = Checkpoints(job.checkpoints, fingerprint=job.fingerprint).restore(slots)
        except UserError as error:
            say(f"{job.spec.name}: trained anew, since the state of run {run_id}, which was interrupted elsewhere, cannot be had: {error}")
            return None
        say(f"{job.spec.name}: run {run_id} was interrupted elsewhere; it goes on here" + ("" if state else ", from its beginning"))
        return run_id

    def on_batch(self, key: str, samples: int, note: str) -> None:
        """A step is through."""
        self.open[key].seen += samples
        self.advance(samples, f"run {len(self.ended) + 1} of {self.total}, {note}")
        self.release()

    def on_epoch(self, key: str, epoch: Epoch) -> None:
        """An epoch is through, and its state is saved."""
        run = self.open[key]
        with uninterrupted():  # SQLAlchemy prints a traceback of its own when Ctrl-C comes in between
            self.tracker.log_metrics(run.run, _epoch_points(epoch, self.study.trainer))
        if self.study.state_epochs and epoch.number % self.study.state_epochs == 0 and epoch.number < run.job.spec.epochs:
            self._store_state(run)
        self.release()

    def on_note(self, key: str, text: str) -> None:
        """Something that the user should know of a run."""
        say(f"{self.open[key].job.spec.name}: {text}")

    def _store_state(self, run: _Open) -> None:
        """So that the run can go on on another machine. Two slots: one is whole while the other is replaced."""
        if self.tracker.is_remote and self.study.state_epochs:
            with suppress(FileNotFoundError):  # the training is two states ahead by now, and will give another one
                self.tracker.log_state(run.run, Checkpoints(run.job.checkpoints, fingerprint=run.job.fingerprint).newest(), slot=run.slot)
                run.slot = 1 - run.slot

    def release(self) -> None:
        """Let other processes look at runs that the store holds by now."""
        for run, held in [entry for entry in self.undelivered if self.tracker.is_delivered(entry[0])]:
            held.close()
            self.undelivered.remove((run, held))

    def end(self, key: str, result: Result | DivergedError) -> None:
        """Log what a run has left behind and close it. Only then do its checkpoints go."""
        run = self.open[key]
        with uninterrupted():
            if isinstance(result, DivergedError):
                self.tracker.log_json(run.run, "diverged.json", result.fed)
                self.tracker.log_metrics(run.run, [("diverged", 1.0, 0, time.time())])
                self.tracker.stop(run.run, status="FAILED", reason=str(result))
                self.failed[run.job.spec.name] = str(result)
            else:
                _log_result(self.study, run, result)
                if self.study.repeats:  # left behind by a kill in this moment, they would be the whole of the next repetition
                    shutil.rmtree(run.job.checkpoints, ignore_errors=True)
                self.tracker.end(run.run)
                shutil.rmtree(run.job.checkpoints, ignore_errors=True)
            del self.open[key]
            self.ended[key] = (run.run, "FAILED" if isinstance(result, DivergedError) else "FINISHED")
            self.scores[key] = math.inf if isinstance(result, DivergedError) else result.score
        self.undelivered.append((run.run, run.held))
        self.release()
        self.advance(self.work(run.job) - run.seen)  # what an earlier process had trained, or nobody will

    def abandon(self, error: BaseException) -> None:
        """Mark the runs in the making KILLED."""
        with uninterrupted():
            for run in self.open.values():
                with suppress(UserError):  # a full disk, perhaps the reason of all this: the next start finds them RUNNING
                    if isinstance(error, StoppedError):  # the machine may be gone next time
                        self._store_state(run)
                    self.tracker.stop(run.run, status="KILLED", reason=why_stopped(error))
                run.held.close()
            self.tracker.deliver_shortly()


Point = tuple[str, float, int, float]  # name, value, step, Unix seconds


def _epoch_points(epoch: Epoch, trainer: Trainer) -> list[Point]:
    """Without the sizes of the groups, which no epoch changes."""
    shown = {name: value for name, value in epoch.metrics.items() if not trainer.unlogged or not name.startswith(trainer.unlogged)}
    return [(f"epochs/{name}", value, epoch.number, epoch.time) for name, value in shown.items()]


def _log_result(study: Study, run: _Open, result: Result) -> None:
    """Equal points are dropped by MLflow, so what was logged before an interruption may be logged again."""
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
