"""The train stage of runs of many small networks: which runs are wanted, which are there already, and making the rest."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from regcls.errors import UserError
from regcls.params import Compute
from regcls.processes import uninterrupted, worker_pool
from regcls.progress import Advance, progress, say
from regcls.runs import RunResult, fingerprint
from regcls.training import ensemble_worker as worker
from regcls.training.device import Device, device_for
from regcls.training.ensemble import Recipe, Trained
from regcls.training.ensemble_data import padded_to
from regcls.training.ensemble_networks import Member, Networks, Spec
from regcls.training.outcome import Outcome, index_of, repeating, why_stopped

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

    from regcls.tracking.tracker import Tracker

Chunk = list[Member[Spec]]
OnEnd = Callable[[str, RunResult | None], None]  # fingerprint, and the result of a run, None if it has diverged

CACHE_BYTES = {"cpu": 2**21, "cuda": 2**31}  # of a chunk's logits or parameters: what stays in a core's cache; what keeps a GPU busy
MOST_TOGETHER = {"cpu": 50, "cuda": 4000}  # networks
WAVE_CHUNKS = 12  # whose runs are in the making at once: an interruption loses no more
LOOK_EVERY = 0.5  # seconds, for what the processes say of their epochs
WAVE_STEPS = {"cpu": 2**24, "cuda": 2**28}  # nor more than the runs with so many steps, of all their networks; minutes


def fingerprints(networks: Networks[Spec], specs: Sequence[Spec]) -> dict[Spec, str]:
    """The fingerprint of every run, from its spec, the data that it sees and the code as it stands."""
    return {spec: fingerprint(spec, data_digest=networks.digest(spec), code_digest=networks.result_code()) for spec in specs}


def train_runs(
    networks: Networks[Spec],
    wanted: Mapping[Spec, str],
    tracker: "Tracker",
    compute: Compute,
    tags: Mapping[str, str],
    *,
    lineage: Mapping[str, Any] | None = None,
    adopt: bool = False,
    repeats: str | None = None,
    on_end: OnEnd = lambda key, result: None,
) -> Outcome:
    """Train and track every run of `wanted` (spec -> fingerprint) that the store does not hold as FINISHED.

    `tags` and `lineage`: what they come from, see Tracker.start. `adopt` logs into the run that `mlflow run` has opened, and trains even
    if an equal one exists: it must not stay empty. `repeats`: the id of a run that is to be made once more, whatever the store holds.
    `on_end` is told of every run that was made.

    Raises:
        UserError: no GPU where one is asked for, or a training process was ended from outside.
        KeyboardInterrupt: open runs are marked KILLED, finished ones are kept.
    """
    device = device_for(compute.device)
    finished = {} if repeats or (adopt and tracker.adopted_run) else tracker.finished(networks.dataset)
    missing = {spec: key for spec, key in wanted.items() if key not in finished}
    threads = 1 if device == "cpu" else compute.cores  # small matrices gain nothing from more
    ledger = _Ledger(
        networks=networks,
        missing=missing,
        tracker=tracker,
        tags={**tags, **repeating(repeats), "threads": str(threads)},
        lineage=lineage,
        adopt=adopt,
        on_end=on_end,
    )
    if missing:
        plan = list(plan_chunks(networks, list(missing), device))
        for remark in networks.remarks():
            say(remark)
        processes = 1 if device == "cuda" else min(compute.process_count, len(plan))
        costs = [_cost(chunk, networks) for chunk in plan]
        with progress(sum(costs), "training") as advance:
            bar = _Bar(advance, costs, [networks.recipe(chunk[0].spec).epochs for chunk in plan])
            how = _How(networks=networks, device=device, processes=processes, threads=threads, begin=ledger.begin, heard=bar.heard)
            try:
                with closing(_one_process(plan, how) if processes == 1 else _many_processes(plan, how)) as done:
                    for place, results in done:
                        ledger.receive(plan[place], results)
                        there = len(wanted) - len(missing) + len(ledger.ended)
                        bar.done(place, f"{there} of {len(wanted)} runs")
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
    trained: dict[str, Trained] = field(default_factory=dict)  # by part


@dataclass(frozen=True, kw_only=True)
class _Ledger:
    """Runs from their first network's start to their last one's end."""

    networks: Networks[Any]
    missing: Mapping[Any, str]  # spec -> fingerprint
    tracker: "Tracker"
    tags: Mapping[str, str]
    lineage: Mapping[str, Any] | None
    adopt: bool
    on_end: OnEnd
    open: dict[Any, _Open] = field(default_factory=dict)  # by spec
    ended: dict[str, tuple[str, str]] = field(default_factory=dict)  # fingerprint -> run, status
    failed: dict[str, str] = field(default_factory=dict)  # name -> reason

    def begin(self, chunk: Chunk[Any]) -> None:
        """Note that the networks of a chunk start now."""
        for spec in dict.fromkeys(member.spec for member in chunk):
            if spec not in self.open:
                with uninterrupted():
                    run = self.tracker.start(
                        spec,
                        fingerprint=self.missing[spec],
                        tags={**self.tags, "data_digest": self.networks.digest(spec)[:32]},
                        adopt=self.adopt,
                        lineage=self.lineage,
                    )
                    self.open[spec] = _Open(run, time.time())

    def receive(self, chunk: Chunk[Any], results: Sequence[Trained]) -> None:
        """Take the trained networks of a chunk; runs that are complete with them are logged and closed."""
        for member, trained in zip(chunk, results, strict=True):
            run = self.open[member.spec]
            run.trained[member.part] = trained
            if len(run.trained) == len(self.networks.parts):
                with uninterrupted():
                    self._end(member.spec, run)
                    del self.open[member.spec]

    def _end(self, spec: Any, run: _Open) -> None:
        key, result = self.missing[spec], None
        if diverged := [part for part in self.networks.parts if not run.trained[part].finite]:
            where = f"{self.networks.part_name} {', '.join(diverged)}"
            reason = f"diverged on {where}: weights are no longer finite (learning rate {spec.learning_rate:g})"
            self.tracker.log_metrics(run.run, [("diverged", 1.0, spec.epochs, time.time())])
            self.tracker.stop(run.run, status="FAILED", reason=reason)
            self.failed[spec.name] = reason
        else:
            result = self.networks.result(spec, run.trained, started=run.started, ended=time.time())
            self.tracker.finish(run.run, result)
        self.ended[key] = (run.run, "FAILED" if diverged else "FINISHED")
        self.on_end(key, result)

    def abandon(self, error: BaseException) -> None:
        """Mark the runs in the making KILLED."""
        with uninterrupted():
            for run in self.open.values():
                with suppress(UserError):  # a full disk, perhaps the reason of all this: the next start finds them RUNNING
                    self.tracker.stop(run.run, status="KILLED", reason=why_stopped(error))
            self.tracker.deliver_shortly()


def plan_chunks(networks: Networks[Spec], specs: Sequence[Spec], device: Device) -> Iterator[Chunk[Spec]]:
    """Cut the networks of all runs into chunks that train side by side: equal in recipe and in R, the rows of the class head.

    Costly ones come first, so that all processes end together, and a wave of a few runs after another, so that runs end early.

    Raises:
        UserError: a training set that does not fill one batch.
    """
    by_size: dict[int, list[Spec]] = defaultdict(list)
    for spec in specs:
        by_size[spec.classes].append(spec)
    for classes, alike in sorted(by_size.items(), reverse=True):
        alike.sort(key=networks.order)
        most = most_together(classes, networks.recipe(alike[0]), device, inputs=networks.inputs)
        start = steps = 0
        for end, spec in enumerate(alike):
            added = sum(_batches(networks, Member(spec=spec, part=part)) for part in networks.parts) * spec.epochs
            if end > start and (steps + added > WAVE_STEPS[device] or (end - start + 1) * len(networks.parts) > WAVE_CHUNKS * most):
                yield from _wave_chunks(networks, alike[start:end], device)
                start, steps = end, 0
            steps += added
        yield from _wave_chunks(networks, alike[start:], device)


def _wave_chunks(networks: Networks[Spec], specs: Sequence[Spec], device: Device) -> Iterator[Chunk[Spec]]:
    groups: dict[tuple[Recipe, bool, int], Chunk[Spec]] = defaultdict(list)
    for spec in specs:
        for part in networks.parts:
            member = Member(spec=spec, part=part)
            # Uniform classes need neither padding nor draws, so they stand apart from balanced ones.
            groups[networks.recipe(spec), spec.balanced, _head_rows(networks, member)].append(member)
    for (recipe, _, rows), members in groups.items():
        most = most_together(rows, recipe, device, inputs=networks.inputs)
        # Equally many steps an epoch, best on the same samples: they go through an epoch together, and share it.
        members.sort(key=lambda member: (-_batches(networks, member), networks.samples(member), member.spec.seed))
        count = math.ceil(len(members) / most)
        yield from (members[index * len(members) // count : (index + 1) * len(members) // count] for index in range(count))


def _batches(networks: Networks[Spec], member: Member[Spec]) -> int:
    """Steps an epoch."""
    spec, samples = member.spec, networks.samples(member)
    steps = networks.recipe(spec).steps(samples)
    if not steps and spec.epochs:
        raise UserError(f"batch_size = {spec.batch_size}: {spec.name} has only {samples} training samples. Choose a smaller one.")
    return steps


def _head_rows(networks: Networks[Spec], member: Member[Spec]) -> int:
    return max(networks.head_classes(member), padded_to(member.spec.classes, member.spec.batch_size))


def most_together(rows: int, recipe: Recipe, device: Device, *, inputs: int) -> int:
    """How many networks with R rows in the head train side by side: by a batch's logits, or by parameters with what the optimiser keeps."""
    number = 8 if recipe.precision == "float64" else 4
    h1, h2 = recipe.hidden
    params = h1 * (inputs + 1) + h2 * (h1 + 1) + (1 + rows) * (h2 + 1)
    bytes_each = number * max(max(1, rows) * recipe.batch_size, 5 * params)
    return max(1, min(MOST_TOGETHER[device], CACHE_BYTES[device] // bytes_each))


def _cost(chunk: Chunk[Spec], networks: Networks[Spec]) -> float:
    """About steps of a network without classes, for the progress bar."""
    return sum((1 + member.spec.epochs * _batches(networks, member)) * (1 + _head_rows(networks, member) / 40) for member in chunk)


class _Bar:
    """How far the chunks of a plan are, epoch by epoch: one may take many minutes."""

    def __init__(self, advance: Advance, costs: Sequence[float], epochs: Sequence[int]) -> None:
        self.advance, self.costs, self.epochs, self.left, self.note = advance, costs, epochs, list(costs), ""

    def heard(self, place: int, epochs: int) -> None:
        """The chunk at `place` of the plan has gone through some more epochs."""
        self._move(place, self.costs[place] * epochs / self.epochs[place])

    def done(self, place: int, note: str) -> None:
        """It is through, and its runs as far as they are whole are logged."""
        self.note = note
        self._move(place, self.left[place])

    def _move(self, place: int, amount: float) -> None:
        amount = min(amount, self.left[place])
        self.left[place] -= amount
        self.advance(amount, self.note)


@dataclass(frozen=True, kw_only=True)
class _How:
    """How the chunks of a plan are trained, and who is told: `begin` of a chunk, `heard` of its place and of epochs."""

    networks: Networks[Any]
    device: Device
    processes: int
    threads: int
    begin: Callable[[Chunk[Any]], None]
    heard: Callable[[int, int], None]


Plan = Sequence[Chunk[Any]]
Done = Generator[tuple[int, list[Trained]]]  # places in the plan


def _one_process(plan: Plan, how: _How) -> Done:
    worker.set_up(how.networks.reopened(), how.threads, lambda event: how.heard(*event))
    for place, chunk in enumerate(plan):
        how.begin(chunk)
        yield place, worker.train_chunk(place, chunk, how.device)


def _many_processes(plan: Plan, how: _How) -> Done:
    """Processes beside each other. A chunk begins when one of them is nearly free."""
    waiting, running = iter(enumerate(plan)), dict[Future[list[Trained]], int]()
    events: SimpleQueue[tuple[int, int]] = get_context("spawn").SimpleQueue()
    with worker_pool(how.processes, worker.set_up, how.networks.reopened(), how.threads, events.put) as pool:
        while True:
            while len(running) <= how.processes and (following := next(waiting, None)) is not None:
                place, chunk = following
                how.begin(chunk)
                running[pool.submit(worker.train_chunk, place, chunk, how.device)] = place
            if not running:
                return
            done = wait(running, timeout=LOOK_EVERY, return_when=FIRST_COMPLETED).done
            while not events.empty():
                how.heard(*events.get())
            for future in list(done)[:1]:  # one at a time: its process gets the next chunk before another one's results are logged
                yield running.pop(future), future.result()
