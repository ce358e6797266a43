"""The train stage of faces: which runs are wanted, which are there already, and making the rest."""

import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regcls.datasets.images import ImageSet
from regcls.files import lock, write_json
from regcls.params import Compute
from regcls.params.faces import Faces
from regcls.processes import uninterrupted
from regcls.progress import Advance, progress, say
from regcls.provenance import code_digest
from regcls.runs import fingerprint
from regcls.runs.faces import FaceSpec, Found, all_specs, chosen_lambdas, needs_search, search_specs
from regcls.training.checkpoint import load_predictor
from regcls.training.device import Device, device_for
from regcls.training.faces import FaceJob, FaceResult, open_images
from regcls.training.faces_worker import make
from regcls.training.loop import DivergedError, Epoch
from regcls.training.outcome import Outcome, index_of, why_stopped

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


def found_lambdas(faces: Faces, dataset: str, images: ImageSet, tracker: "Tracker") -> Found:
    """λ of the search, as far as its runs are finished."""
    if not needs_search(faces):
        return {}
    wanted = fingerprints(search_specs(faces, dataset), images)
    runs = tracker.collect(dataset, FaceSpec)
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
    adopt: bool = False


def train_grids(faces: Faces, dataset: str, study: Study) -> Outcome:
    """Make every run of the grids that is not FINISHED, those of the search for λ first. Raises as `train_runs` does."""
    first = all_specs(faces, dataset, found_lambdas(faces, dataset, study.images, study.tracker))
    outcome = train_runs(first, dataset, study)
    found = found_lambdas(faces, dataset, study.images, study.tracker)
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
    """
    tracker, wanted = study.tracker, fingerprints(specs, study.images)
    device = device_for(study.compute.device)
    finished = {} if study.adopt and tracker.adopted_run else tracker.finished(dataset)
    home = tracker.root / ".regcls" / "checkpoints" / dataset
    for key, run_id in finished.items():
        if _run_of(home / key) == run_id:  # killed between its end and this; the folder of another run may be in use
            shutil.rmtree(home / key, ignore_errors=True)
    jobs = [_job(spec, key, home / key, study, device) for spec, key in wanted.items() if key not in finished]
    ledger = _Ledger(study, dataset)
    with progress(sum(map(ledger.work, jobs)) or 1, "training") as advance:
        ledger.advance, ledger.total = advance, len(jobs)
        try:
            processes = 1 if device == "cuda" else max(1, min(study.compute.process_count, len(jobs)))
            make(jobs, ledger, processes=processes, threads=max(1, study.compute.cores // processes))
        except BaseException as error:
            ledger.abandon(error)
            raise
    finished |= ledger.kept
    index = index_of(wanted, finished, ledger.ended)
    trained = len(ledger.ended) - len(ledger.failed)
    return Outcome(trained=trained, kept=len(wanted) - len(ledger.ended), failed=ledger.failed, index=index)


def _run_of(checkpoints: Path) -> str | None:
    """The id of the run that checkpoints belong to."""
    try:
        return str(json.loads((checkpoints / "run.json").read_text(encoding="utf-8"))["run_id"])
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
    run_id: str
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

    def work(self, job: FaceJob) -> int:
        """Samples to train on."""
        return job.spec.epochs * self.samples

    def begin(self, job: FaceJob) -> bool:
        """Open the run, or the one that its checkpoints belong to; False if it is finished by now."""
        held, key = ExitStack(), job.fingerprint
        own = self.tracker.root / ".regcls" / f"run-{key}.lock"
        held.enter_context(lock(own, waiting=lambda holder: say(f"{holder} makes {job.spec.name} at this moment; waiting for it to end")))
        adopts = self.study.adopt and self.tracker.adopted_run is not None
        if not adopts and (run_id := self.tracker.finished(self.dataset).get(key)):
            self.kept[key] = run_id
            held.close()
            self.advance(self.work(job))
            return False
        with uninterrupted():
            tags = {**self.study.tags, "data_digest": self.study.images.digest[:32]}
            run_id = None if adopts else self._earlier(job)
            if run_id is None:
                run_id = self.tracker.start(job.spec, fingerprint=key, tags=tags, adopt=self.study.adopt)
            write_json(job.checkpoints / "run.json", {"run_id": run_id, "name": job.spec.name})
            self.open[key] = _Open(job, run_id, held)
        return True

    def _earlier(self, job: FaceJob) -> str | None:
        """The run that was interrupted, opened again, if the store still has it."""
        run_id = _run_of(job.checkpoints)
        return run_id if run_id and self.tracker.resume(run_id, job.fingerprint) else None

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
                self.tracker.log_metrics(run.run_id, _epoch_points(epoch))
            case "say":
                say(f"{run.job.spec.name}: {content[0]}")

    def end(self, key: str, result: FaceResult | DivergedError) -> None:
        """Log what a run has left behind and close it. Only then do its checkpoints go."""
        run = self.open[key]
        with uninterrupted():
            if isinstance(result, DivergedError):
                self.tracker.files.log_json(run.run_id, "diverged.json", result.fed)
                self.tracker.log_metrics(run.run_id, [("diverged", 1.0, 0, time.time())])
                self.tracker.stop(run.run_id, status="FAILED", reason=str(result))
                self.failed[run.job.spec.name] = str(result)
            else:
                _log_result(self.tracker, run, result)
                self.tracker.end(run.run_id)
                shutil.rmtree(run.job.checkpoints, ignore_errors=True)
            del self.open[key]
            self.ended[key] = (run.run_id, "FAILED" if isinstance(result, DivergedError) else "FINISHED")
        run.held.close()
        self.advance(self.work(run.job) - run.seen)  # what an earlier process had trained, or nobody will

    def abandon(self, error: BaseException) -> None:
        """Mark the runs in the making KILLED."""
        with uninterrupted():
            for run in self.open.values():
                self.tracker.stop(run.run_id, status="KILLED", reason=why_stopped(error))
                run.held.close()


Point = tuple[str, float, int, float]  # name, value, step, Unix seconds


def _epoch_points(epoch: Epoch) -> list[Point]:
    """Without the sizes of the groups, which no epoch changes."""
    return [(f"epochs/{name}", value, epoch.number, epoch.time) for name, value in epoch.metrics.items() if not name.startswith("val_n_")]


def _log_result(tracker: "Tracker", run: _Open, result: FaceResult) -> None:
    """Equal points are dropped by MLflow, so what was logged before an interruption may be logged again."""
    points = [point for epoch in result.history for point in _epoch_points(epoch)]
    ended = result.history[-1].time
    points += [(name, value, result.best_epoch, ended) for name, value in {**result.metrics, "best_epoch": result.best_epoch}.items()]
    tracker.log_metrics(run.run_id, points)
    tracker.files.log(run.run_id, {BEST: result.best, LAST: result.last})
    tracker.files.log_table(run.run_id, PREDICTIONS, result.predictions)
    spec, images = run.job.spec, open_images(run.job)
    predictor = load_predictor(result.best, model=spec.model, width=spec.width)
    tracker.files.log_model(run.run_id, predictor, example=images.images[images.rows("test")[:2]], step=result.best_epoch)
