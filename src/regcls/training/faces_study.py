"""The train stage of faces: which runs are wanted, which are there already, and making the rest."""

import json
import math
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd

from regcls.datasets.images import ImageSet
from regcls.errors import UserError
from regcls.files import lock, try_lock, write_json
from regcls.params import Compute
from regcls.params.faces import Faces
from regcls.processes import termination_noted, uninterrupted
from regcls.progress import Advance, progress, say
from regcls.provenance import code_digest
from regcls.runs import fingerprint
from regcls.runs.faces import FaceSpec, Found, all_specs, chosen_lambdas, needs_search, search_specs
from regcls.training.checkpoint import Checkpoints, load_predictor
from regcls.training.device import Device, device_for
from regcls.training.faces import FaceJob, FaceResult, open_images
from regcls.training.faces_worker import make
from regcls.training.loop import DivergedError, Epoch, StoppedError
from regcls.training.outcome import Outcome, index_of, repeating, why_stopped

if TYPE_CHECKING:
    from regcls.tracking.tracker import Tracker

BEST, LAST, PREDICTIONS = "checkpoints/best.pt", "checkpoints/last.pt", "predictions.parquet"  # files of a run
# What decides a result next to the spec and the data, with the heads and the ResNet below them.
MODULES = (
    "classes",
    "datasets.images",
    "losses",
    "metrics",
    "models.predictor",
    "training.augment",
    "training.faces",
    "training.feed",
    "training.loop",
)


@cache
def result_code() -> str:
    """Digest of the code that decides a result, next to the spec and the data."""
    return code_digest("regcls.models.heads", alone=[f"regcls.{name}" for name in MODULES])


def fingerprints(specs: Sequence[FaceSpec], images: ImageSet) -> dict[FaceSpec, str]:
    """The fingerprint of every run, from its spec, the data and the code as it stands."""
    return {spec: fingerprint(spec, data_digest=images.digest, code_digest=result_code()) for spec in specs}


def found_lambdas(faces: Faces, dataset: str, images: ImageSet, tracked: Callable[[], pd.DataFrame]) -> Found:
    """λ of the search, as far as its runs are finished. `tracked`: gives the table of the data set's runs (Tracker.collect)."""
    if not needs_search(faces):
        return {}
    wanted = fingerprints(search_specs(faces, dataset), images)
    runs = tracked()
    if "val_mse_all" not in runs.columns:
        return {}
    finished = runs[runs["status"] == "FINISHED"].drop_duplicates("fingerprint").set_index("fingerprint")["val_mse_all"].to_dict()
    # A λ that diverged is never the best; what failed for another reason says nothing of its λ.
    diverged = runs.loc[runs["diverged"] == 1, "fingerprint"].tolist() if "diverged" in runs.columns else list[str]()
    known = dict.fromkeys(diverged, math.inf) | finished
    errors = {spec: float(known[key]) for spec, key in wanted.items() if key in known}
    whole = {(spec.method, spec.classes) for spec in wanted} - {(spec.method, spec.classes) for spec in wanted.keys() - errors.keys()}
    # Half a search would choose another λ than the whole one, and other runs would be made with it.
    return {key: lam for key, lam in chosen_lambdas(errors).items() if key in whole}


@dataclass(frozen=True, kw_only=True)
class Study:
    """What all runs of one call share."""

    images: ImageSet
    tracker: "Tracker"
    compute: Compute
    tags: Mapping[str, str]
    state_epochs: int  # a run's state goes to a tracking server every so many epochs; 0: never
    lineage: Mapping[str, Any] | None = None  # see Tracker.start
    adopt: bool = False
    repeats: str | None = None  # the id of a run that is to be made once more, whatever the store holds


def train_grids(faces: Faces, dataset: str, study: Study) -> Outcome:
    """Make every run of the grids that is not FINISHED, those of the search for λ first. Raises as `train_runs` does."""
    tracked = partial(study.tracker.collect, dataset, FaceSpec)
    first = all_specs(faces, dataset, found_lambdas(faces, dataset, study.images, tracked))
    outcome = train_runs(first, dataset, study)
    found = found_lambdas(faces, dataset, study.images, tracked)
    new = [spec for spec in all_specs(faces, dataset, found) if spec not in set(first)]
    if not new:
        return outcome
    say("λ found: " + ", ".join(f"{lam:g} for {method} with {classes} classes" for (method, classes), lam in found.items()))
    rest = train_runs(new, dataset, study)
    return Outcome(
        trained=outcome.trained + rest.trained,
        kept=outcome.kept + rest.kept,
        failed={**outcome.failed, **rest.failed},
        index=[*outcome.index, *rest.index],
    )


def train_runs(specs: Sequence[FaceSpec], dataset: str, study: Study) -> Outcome:
    """Train and track every run that the store does not hold as FINISHED.

    `study.adopt` logs into the run that `mlflow run` has opened, and trains even if an equal one exists: it must not stay empty.

    Raises:
        UserError: no GPU where one is asked for, prepared data gone or damaged, no space on the disk, no checkpoint that is whole.
        KeyboardInterrupt: open runs are marked KILLED; they go on from their last checkpoint next time.
        SystemExit: SIGTERM; so are these, and they go on from where they are.
    """
    tracker, wanted = study.tracker, fingerprints(specs, study.images)
    device = device_for(study.compute.device)
    finished = {} if study.repeats or (study.adopt and tracker.adopted_run) else tracker.finished(dataset)
    home = tracker.root / ".regcls" / "checkpoints" / dataset
    for key in finished:
        _remove_leftovers(home / key, tracker.root)
    # A repetition never goes on from what another run has left, but it does from what an earlier attempt at itself has.
    own = f"-{study.repeats[:8]}" if study.repeats else ""
    jobs = [_job(spec, key, home / f"{key}{own}", study, device) for spec, key in wanted.items() if key not in finished]
    ledger = _Ledger(study, dataset)
    with progress(sum(map(ledger.work, jobs)) or 1, "training") as advance, termination_noted() as asked_to_stop:
        ledger.advance, ledger.total = advance, len(jobs)
        try:
            processes = 1 if device == "cuda" else max(1, min(study.compute.process_count, len(jobs)))
            threads = max(1, study.compute.cores // processes)
            make(jobs, ledger, processes=processes, threads=threads, asked_to_stop=asked_to_stop)
        except StoppedError as error:
            ledger.abandon(error)
            raise SystemExit(128 + signal.SIGTERM) from None
        except BaseException as error:
            ledger.abandon(error)
            raise
    tracker.deliver()
    finished |= ledger.kept
    ended = {key: (tracker.run_id(run), status) for key, (run, status) in ledger.ended.items()}
    trained = len(ended) - len(ledger.failed)
    return Outcome(trained=trained, kept=len(wanted) - len(ended), failed=ledger.failed, index=index_of(wanted, finished, ended))


def _remove_leftovers(checkpoints: Path, root: Path) -> None:
    """The checkpoints of a run that is FINISHED: its process was killed between its end and their removal."""
    if checkpoints.exists() and (held := try_lock(_lock_of(root, checkpoints.name))):  # nobody makes it
        with held:
            shutil.rmtree(checkpoints, ignore_errors=True)


def _lock_of(root: Path, fingerprint: str) -> Path:
    return root / ".regcls" / f"run-{fingerprint}.lock"


def _run_of(checkpoints: Path) -> str | None:
    """The run that checkpoints belong to, as the tracker names it."""
    try:
        return str(json.loads((checkpoints / "run.json").read_text(encoding="utf-8"))["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _job(spec: FaceSpec, key: str, checkpoints: Path, study: Study, device: Device) -> FaceJob:
    compute = study.compute
    loaders = (min(8, compute.cores) if device == "cuda" else 0) if compute.loaders == "auto" else compute.loaders
    return FaceJob(
        spec=spec,
        prepared=study.images.prepared.folder,
        data_digest=study.images.digest,
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

    job: FaceJob
    run: str  # as the tracker names it
    held: ExitStack
    seen: int = 0  # samples, on the progress bar


class _Ledger:
    """Runs from their start to their end, in MLflow and on the progress bar."""

    def __init__(self, study: Study, dataset: str) -> None:
        self.study, self.dataset, self.tracker = study, dataset, study.tracker
        self.open: dict[str, _Open] = {}  # by fingerprint
        self.ended: dict[str, tuple[str, str]] = {}  # fingerprint -> run id, status
        self.failed: dict[str, str] = {}  # name -> reason
        self.kept: dict[str, str] = {}  # fingerprint -> run id: another process has finished it in the meantime
        self.advance: Advance = lambda amount, note="": None
        self.total = 0
        self.samples = len(study.images.rows("train"))
        self.interrupted = study.tracker.interrupted(dataset) if study.tracker.is_remote and not study.repeats else {}

    def work(self, job: FaceJob) -> int:
        """Samples to train on."""
        return job.spec.epochs * self.samples

    def begin(self, job: FaceJob) -> bool:
        """Open the run, or the one that its checkpoints belong to; False if it is finished by now."""
        held, key = ExitStack(), job.fingerprint
        own = _lock_of(self.tracker.root, key)
        was_held = list[str]()

        def wait(holder: str) -> None:
            was_held.append(holder)
            say(f"{holder} makes {job.spec.name} at this moment; waiting for it to end")

        held.enter_context(lock(own, waiting=wait))
        adopts = self.study.adopt and self.tracker.adopted_run is not None
        # A server may be away at this moment, and is not needed to train.
        look = not adopts and not self.study.repeats and (was_held or not self.tracker.is_remote)
        if look and (run_id := self.tracker.finished(self.dataset).get(key)):
            self.kept[key] = run_id
            held.close()
            self.advance(self.work(job))
            return False
        earlier = None if adopts else _run_of(job.checkpoints) or self._from_elsewhere(job)
        with uninterrupted():
            tags = {**self.study.tags, **repeating(self.study.repeats), "data_digest": self.study.images.digest[:32]}
            adopt, lineage = self.study.adopt, self.study.lineage
            run = self.tracker.start(job.spec, fingerprint=key, tags=tags, adopt=adopt, continues=earlier, lineage=lineage)
            write_json(job.checkpoints / "run.json", {"run": run, "name": job.spec.name})
            self.open[key] = _Open(job, run, held)
        return True

    def _from_elsewhere(self, job: FaceJob) -> str | None:
        """The run that was interrupted on another machine, with its last state, if the server has one."""
        run_id = self.interrupted.get(job.fingerprint)
        if run_id is None:
            return None
        with TemporaryDirectory() as folder:
            slots = self.tracker.fetch_state(run_id, Path(folder))
            state = Checkpoints(job.checkpoints, fingerprint=job.fingerprint).restore(slots)
        say(f"{job.spec.name}: run {run_id} was interrupted elsewhere; it goes on here" + ("" if state else ", from its beginning"))
        return run_id

    def told(self, key: str, event: str, *content: Any) -> None:
        """What the loop says of a run: `batch`, `epoch` or `say`."""
        run = self.open[key]
        match event:
            case "batch":
                samples, note = content
                run.seen += samples
                self.advance(samples, f"run {len(self.ended) + 1} of {self.total}, {note}")
            case "epoch":
                (epoch,) = content
                with uninterrupted():  # SQLAlchemy prints a traceback of its own when Ctrl-C comes in between
                    self.tracker.log_metrics(run.run, _epoch_points(epoch))
                if self.study.state_epochs and epoch.number % self.study.state_epochs == 0 and epoch.number < run.job.spec.epochs:
                    self._store_state(run, slot=epoch.number // self.study.state_epochs % 2)
            case "say":
                say(f"{run.job.spec.name}: {content[0]}")

    def _store_state(self, run: _Open, *, slot: int) -> None:
        """So that the run can go on on another machine. Two slots: one is whole while the other is replaced."""
        if self.tracker.is_remote:
            with suppress(FileNotFoundError):  # the training is two states ahead by now, and will give another one
                self.tracker.log_state(run.run, Checkpoints(run.job.checkpoints, fingerprint=run.job.fingerprint).newest(), slot=slot)

    def end(self, key: str, result: FaceResult | DivergedError) -> None:
        """Log what a run has left behind and close it. Only then do its checkpoints go."""
        run = self.open[key]
        with uninterrupted():
            if isinstance(result, DivergedError):
                self.tracker.log_json(run.run, "diverged.json", result.fed)
                self.tracker.log_metrics(run.run, [("diverged", 1.0, 0, time.time())])
                self.tracker.stop(run.run, status="FAILED", reason=str(result))
                self.failed[run.job.spec.name] = str(result)
            else:
                _log_result(self.tracker, run, result)
                if self.study.repeats:  # left behind by a kill in this moment, they would be the whole of the next repetition
                    shutil.rmtree(run.job.checkpoints, ignore_errors=True)
                self.tracker.end(run.run)
                shutil.rmtree(run.job.checkpoints, ignore_errors=True)
            del self.open[key]
            self.ended[key] = (run.run, "FAILED" if isinstance(result, DivergedError) else "FINISHED")
        run.held.close()
        self.advance(self.work(run.job) - run.seen)  # what an earlier process had trained, or nobody will

    def abandon(self, error: BaseException) -> None:
        """Mark the runs in the making KILLED."""
        with uninterrupted():
            for run in self.open.values():
                with suppress(UserError):  # a full disk, perhaps the reason of all this: the next start finds them RUNNING
                    if isinstance(error, StoppedError):  # the machine may be gone next time
                        self._store_state(run, slot=0)
                    self.tracker.stop(run.run, status="KILLED", reason=why_stopped(error))
                run.held.close()
            self.tracker.deliver_shortly()


Point = tuple[str, float, int, float]  # name, value, step, Unix seconds


def _epoch_points(epoch: Epoch) -> list[Point]:
    """Without the sizes of the groups, which no epoch changes."""
    return [(f"epochs/{name}", value, epoch.number, epoch.time) for name, value in epoch.metrics.items() if not name.startswith("val_n_")]


def _log_result(tracker: "Tracker", run: _Open, result: FaceResult) -> None:
    """Equal points are dropped by MLflow, so what was logged before an interruption may be logged again."""
    points = [point for epoch in result.history for point in _epoch_points(epoch)]
    ended = result.history[-1].time
    final = [(name, value, result.best_epoch, ended) for name, value in {**result.metrics, "best_epoch": result.best_epoch}.items()]
    tracker.log_metrics(run.run, points + final)
    tracker.log_files(run.run, {BEST: result.best, LAST: result.last})
    tracker.log_table(run.run, PREDICTIONS, result.predictions)
    spec, images = run.job.spec, open_images(run.job)
    predictor = load_predictor(result.best, model=spec.model, width=spec.width)
    tracker.log_model(run.run, predictor, example=images.images[images.rows("test")[:2]], points=final, step=result.best_epoch)
