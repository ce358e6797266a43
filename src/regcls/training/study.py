"""The train stage of the 1D study: which runs are wanted, which are there already, and making the rest."""

import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from regcls.classes import class_ranges
from regcls.datasets.synthetic import SyntheticSets
from regcls.errors import UserError
from regcls.params import Compute
from regcls.params.synthetic import Sampling
from regcls.processes import uninterrupted, worker_pool
from regcls.progress import progress, say
from regcls.provenance import code_digest
from regcls.runs import fingerprint
from regcls.runs.synthetic import SyntheticSpec
from regcls.training import worker
from regcls.training.device import Device, device_for
from regcls.training.ensemble import Recipe, Trained
from regcls.training.networks import Member, recipe, result
from regcls.training.outcome import Outcome, index_of, repeating, why_stopped

if TYPE_CHECKING:
    from regcls.tracking.tracker import Tracker

Chunk = list[Member]

LOGIT_BYTES = {"cpu": 2**21, "cuda": 2**31}  # of a chunk: what stays in a core's cache; what keeps a GPU busy
MOST_TOGETHER = {"cpu": 50, "cuda": 4000}  # networks
WAVE = 12  # chunks whose runs are in the making at once: an interruption loses no more


def fingerprints(specs: Sequence[SyntheticSpec], sets: SyntheticSets) -> dict[SyntheticSpec, str]:
    """The fingerprint of every run, from its spec, the data that it sees and the code as it stands."""
    return {spec: fingerprint(spec, data_digest=sets.digest(spec), code_digest=result_code()) for spec in specs}


@cache
def result_code() -> str:
    """Digest of the code that decides a result, next to the spec and the data."""
    return code_digest("regcls.training.ensemble", alone=["regcls.training.networks"])


def train_runs(
    wanted: Mapping[SyntheticSpec, str],
    sets: SyntheticSets,
    tracker: "Tracker",
    compute: Compute,
    tags: Mapping[str, str],
    *,
    lineage: Mapping[str, Any] | None = None,
    adopt: bool = False,
    repeats: str | None = None,
) -> Outcome:
    """Train and track every run of `wanted` (spec -> fingerprint) that the store does not hold as FINISHED.

    `tags` and `lineage`: what they come from, see Tracker.start. `adopt` logs into the run that `mlflow run` has opened, and trains even
    if an equal one exists: it must not stay empty. `repeats`: the id of a run that is to be made once more, whatever the store holds.

    Raises:
        UserError: no GPU where one is asked for, or a training process was ended from outside.
        KeyboardInterrupt: open runs are marked KILLED, finished ones are kept.
    """
    device = device_for(compute.device)
    finished = {} if repeats or (adopt and tracker.adopted_run) else tracker.finished("synthetic")
    missing = {spec: key for spec, key in wanted.items() if key not in finished}
    ledger = _Ledger(missing, sets, tracker, {**tags, **repeating(repeats)}, lineage, adopt)
    if missing:
        classes_of = _ClassCounter(sets)
        plan = list(plan_chunks(list(missing), sets, classes_of, device))
        if classes_of.unbalanced:
            say(
                f"{classes_of.unbalanced} of {len(classes_of.known)} training sets keep uniform classes where balanced ones are asked for: "
                "equalising would leave a single class"
            )
        processes = min(compute.process_count, len(plan))
        with progress(sum(_cost(chunk, classes_of) for chunk in plan), "training") as advance:
            run_chunks = _one_process if device == "cuda" or processes == 1 else _many_processes
            try:
                with closing(run_chunks(plan, sets, device, processes, ledger.begin)) as done:
                    for chunk, results in done:
                        ledger.receive(chunk, results)
                        there = len(wanted) - len(missing) + len(ledger.ended)
                        advance(_cost(chunk, classes_of), f"{there} of {len(wanted)} runs")
            except BaseException as error:
                ledger.abandon(error)
                raise
    tracker.deliver()
    ended = {key: (tracker.run_id(run), status) for key, (run, status) in ledger.ended.items()}
    index = index_of(wanted, finished, ended)
    return Outcome(trained=len(ended) - len(ledger.failed), kept=len(wanted) - len(missing), failed=ledger.failed, index=index)


@dataclass
class _Open:
    """A run in the making."""

    run: str  # as the tracker names it
    started: float
    trained: dict[int, Trained] = field(default_factory=dict)  # by function


class _Ledger:
    """Runs from their first network's start to their last one's end."""

    def __init__(
        self,
        missing: Mapping[SyntheticSpec, str],
        sets: SyntheticSets,
        tracker: "Tracker",
        tags: Mapping[str, str],
        lineage: Mapping[str, Any] | None,
        adopt: bool,
    ) -> None:
        self.missing, self.sets, self.tracker, self.tags, self.lineage, self.adopt = missing, sets, tracker, tags, lineage, adopt
        self.open: dict[SyntheticSpec, _Open] = {}
        self.ended: dict[str, tuple[str, str]] = {}  # fingerprint -> run, status
        self.failed: dict[str, str] = {}

    def begin(self, chunk: Chunk) -> None:
        """Note that the networks of a chunk start now."""
        for spec in dict.fromkeys(member.spec for member in chunk):
            if spec not in self.open:
                with uninterrupted():
                    run = self.tracker.start(
                        spec,
                        fingerprint=self.missing[spec],
                        tags={**self.tags, "data_digest": self.sets.digest(spec)[:32]},
                        adopt=self.adopt,
                        lineage=self.lineage,
                    )
                    self.open[spec] = _Open(run, time.time())

    def receive(self, chunk: Chunk, results: Sequence[Trained]) -> None:
        """Take the trained networks of a chunk; runs that are complete with them are logged and closed."""
        for member, trained in zip(chunk, results, strict=True):
            run = self.open[member.spec]
            run.trained[member.function] = trained
            if len(run.trained) == self.sets.functions:
                with uninterrupted():
                    self._end(member.spec, run)
                    del self.open[member.spec]

    def _end(self, spec: SyntheticSpec, run: _Open) -> None:
        if diverged := [str(function) for function, trained in sorted(run.trained.items()) if not trained.finite]:
            reason = f"diverged on function {', '.join(diverged)}: weights are no longer finite (learning rate {spec.learning_rate:g})"
            self.tracker.stop(run.run, status="FAILED", reason=reason)
            self.failed[spec.name] = reason
        else:
            self.tracker.finish(run.run, result(run.trained, started=run.started, ended=time.time()))
        self.ended[self.missing[spec]] = (run.run, "FAILED" if diverged else "FINISHED")

    def abandon(self, error: BaseException) -> None:
        """Mark the runs in the making KILLED."""
        with uninterrupted():
            for run in self.open.values():
                with suppress(UserError):  # a full disk, perhaps the reason of all this: the next start finds them RUNNING
                    self.tracker.stop(run.run, status="KILLED", reason=why_stopped(error))
            self.tracker.deliver_shortly()


class _ClassCounter:
    """How many classes K a network's head has: 0 for reg, C for uniform ranges, fewer for equalised ones."""

    def __init__(self, sets: SyntheticSets) -> None:
        self.sets = sets
        self.known: dict[tuple[str, Sampling, int, int, int], int] = {}
        self.unbalanced = 0  # training sets that keep uniform ranges, since equalising would leave one class

    def __call__(self, member: Member) -> int:
        spec = member.spec
        if not spec.balanced:
            return spec.classes
        key = (spec.data_key, spec.sampling, member.function, spec.repetition, spec.classes)
        if key not in self.known:
            targets = self.sets.get(*key[:-1], "train")[1]
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self.known[key] = len(class_ranges(spec.classes, targets, balanced=True))
            self.unbalanced += bool(caught)
        return self.known[key]


def plan_chunks(specs: Sequence[SyntheticSpec], sets: SyntheticSets, classes_of: _ClassCounter, device: Device) -> Iterator[Chunk]:
    """Cut the networks of all runs into chunks that train side by side: equal in recipe, in K and in batches an epoch.

    Costly ones come first, so that all processes end together, and a wave of a few runs after another, so that runs end early.
    """
    by_size: dict[int, list[SyntheticSpec]] = defaultdict(list)
    for spec in specs:
        by_size[spec.classes].append(spec)
    for classes, alike in sorted(by_size.items(), reverse=True):
        most = most_together(classes, alike[0], device)
        wave = max(1, WAVE * most // sets.functions)
        for start in range(0, len(alike), wave):
            yield from _wave_chunks(alike[start : start + wave], sets, classes_of, device)


def _wave_chunks(specs: Sequence[SyntheticSpec], sets: SyntheticSets, classes_of: _ClassCounter, device: Device) -> Iterator[Chunk]:
    groups: dict[tuple[Recipe, int, int], Chunk] = defaultdict(list)
    for spec in specs:
        for function in range(sets.functions):
            member = Member(spec=spec, function=function)
            samples = sets.size(spec.data_key, spec.sampling, function, spec.repetition, "train")
            batches = samples // spec.batch_size
            if batches == 0:
                raise UserError(f"batch_size = {spec.batch_size}: {spec.name} has only {samples} training samples. Choose a smaller one.")
            groups[recipe(spec), classes_of(member), batches].append(member)
    for (_, classes, _), members in groups.items():
        most = most_together(classes, members[0].spec, device)
        members.sort(key=lambda member: member.spec.seed)  # stable: networks that share an order of samples stand together
        count = math.ceil(len(members) / most)
        yield from (members[index * len(members) // count : (index + 1) * len(members) // count] for index in range(count))


def most_together(classes: int, spec: SyntheticSpec, device: Device) -> int:
    """How many networks with K classes train side by side."""
    logits = max(1, classes) * spec.batch_size * (8 if spec.precision == "float64" else 4)
    return max(1, min(MOST_TOGETHER[device], LOGIT_BYTES[device] // logits))


def _cost(chunk: Chunk, classes_of: _ClassCounter) -> float:
    """About seconds, for the progress bar: a network costs 0.15 and 0.004 a class at 80 epochs."""
    return sum(0.15 + 0.004 * classes_of(member) for member in chunk) * chunk[0].spec.epochs / 80


Begin = Callable[[Chunk], None]
Done = Generator[tuple[Chunk, list[Trained]]]


def _one_process(plan: Sequence[Chunk], sets: SyntheticSets, device: Device, processes: int, begin: Begin) -> Done:
    worker.set_up(sets.prepared.folder, threads=1 if device == "cpu" else None)
    for chunk in plan:
        begin(chunk)
        yield chunk, worker.train_chunk(chunk, device)


def _many_processes(plan: Sequence[Chunk], sets: SyntheticSets, device: Device, processes: int, begin: Begin) -> Done:
    """One process a core, with one thread each: small matrices gain nothing from more. A chunk begins when a process is nearly free."""
    waiting, running = iter(plan), dict[Future[list[Trained]], Chunk]()
    with worker_pool(processes, worker.set_up, sets.prepared.folder, 1) as pool:
        while True:
            while len(running) <= processes and (chunk := next(waiting, None)) is not None:
                begin(chunk)
                running[pool.submit(worker.train_chunk, chunk, device)] = chunk
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
