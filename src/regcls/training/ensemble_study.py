"""The train stage for runs of many small networks: finds the runs that are not tracked as FINISHED, and trains them."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from regcls.errors import UserError
from regcls.params import Compute
from regcls.processes import uninterrupted
from regcls.progress import Advance, progress, say
from regcls.runs import RunResult, fingerprint
from regcls.training import ensemble_worker, worker
from regcls.training.device import Device, Place, check_device_memory
from regcls.training.ensemble import Recipe, Trained
from regcls.training.ensemble_data import padded_to
from regcls.training.ensemble_networks import Member, Networks, Spec
from regcls.training.outcome import Outcome, index_of, repeating, why_stopped
from regcls.training.places import are_here, places_for, pool_at, smallest

if TYPE_CHECKING:
    from regcls.tracking.tracker import Tracker

Chunk = list[Member[Spec]]
OnEnd = Callable[[str, RunResult | None], None]  # fingerprint and result of a run; None: it diverged

CACHE_BYTES = {"cpu": 2**21, "cuda": 2**31}  # of a chunk's logits or parameters: fits a core's cache; keeps a GPU busy
MOST_TOGETHER = {"cpu": 50, "cuda": 4000}  # networks
# Limits on a wave, the runs in progress at once: an interruption loses no more.
WAVE_CHUNKS = 12
WAVE_STEPS = {"cpu": 2**24, "cuda": 2**28}  # of all networks together; a few minutes
POLL_SECONDS = 0.1  # for progress reports of the worker processes


def fingerprints(networks: Networks[Spec], specs: Sequence[Spec]) -> dict[Spec, str]:
    """The fingerprint of every run, from its spec, its data and the current code."""
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
    """Train and track every run of `wanted` (spec -> fingerprint) that is not FINISHED in the store.

    `tags`, `lineage`: see Tracker.start. `adopt` logs into the run that `mlflow run` has opened, and trains even if an equal one exists:
    it must not stay empty. `repeats`: id of a run to repeat, even though it is finished. `on_end` is called for every trained run.

    Raises:
        UserError: fewer GPUs than required, or a worker process was killed.
        KeyboardInterrupt: open runs are marked KILLED, finished ones are kept.
    """
    # On the CPU, small matrices gain nothing from more threads.
    places = [replace(place, threads=1) if place.device == "cpu" else place for place in places_for(compute, tracker.root)]
    finished = {} if repeats or (adopt and tracker.adopted_run) else tracker.finished(networks.dataset)
    missing = {spec: key for spec, key in wanted.items() if key not in finished}
    ledger = _Ledger(
        networks=networks,
        missing=missing,
        tracker=tracker,
        tags={**tags, **repeating(repeats), "threads": str(places[0].threads)},
        lineage=lineage,
        adopt=adopt,
        on_end=on_end,
    )
    if missing:
        plan = list(plan_chunks(networks, list(missing), smallest(places)))
        for remark in networks.remarks():
            say(remark)
        costs = [cost(chunk, networks) for chunk in plan]
        with progress(sum(costs), "training") as advance:
            bar = _Bar(advance, costs, [networks.recipe(chunk[0].spec).epochs for chunk in plan])
            setup = _Setup(networks=networks, places=places[: len(plan)], begin=ledger.begin, report_epochs=bar.report_epochs)
            try:
                with closing(_one_process(plan, setup) if are_here(setup.places) else _many_processes(plan, setup)) as chunk_results:
                    for index, (results, gpu) in chunk_results:
                        ledger.receive(plan[index], results, gpu)
                        finished_count = len(wanted) - len(missing) + len(ledger.ended)
                        bar.report_end(index, f"{finished_count} of {len(wanted)} runs")
            except BaseException as error:
                ledger.abandon(error)
                raise
    tracker.deliver()
    ended = {key: (tracker.run_id(run), status) for key, (run, status) in ledger.ended.items()}
    run_index = index_of(wanted, finished, ended)
    return Outcome(trained=len(ended) - len(ledger.failed), kept=len(wanted) - len(missing), failed=ledger.failed, index=run_index)


@dataclass
class _OpenRun:
    """A run in progress."""

    run: str  # the tracker's name for it
    started: float  # Unix seconds
    trained: dict[str, Trained] = field(default_factory=dict)  # by part
    gpus: set[str] = field(default_factory=set)  # names of those that have trained its networks


@dataclass(frozen=True, kw_only=True)
class _Ledger:
    """Tracks runs from the start of their first network to the end of their last."""

    networks: Networks[Any]
    missing: Mapping[Any, str]  # spec -> fingerprint
    tracker: "Tracker"
    tags: Mapping[str, str]
    lineage: Mapping[str, Any] | None
    adopt: bool
    on_end: OnEnd
    open: dict[Any, _OpenRun] = field(default_factory=dict)  # by spec
    ended: dict[str, tuple[str, str]] = field(default_factory=dict)  # fingerprint -> run, status
    failed: list[tuple[str, str]] = field(default_factory=list)  # name and reason

    def begin(self, chunk: Chunk[Any]) -> None:
        """Start the runs whose first networks are in `chunk`."""
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
                    self.open[spec] = _OpenRun(run, time.time())

    def receive(self, chunk: Chunk[Any], results: Sequence[Trained], gpu: str) -> None:
        """Take the networks of a chunk, trained on `gpu` (empty: the CPU); log and close the runs that they complete."""
        for member, trained in zip(chunk, results, strict=True):
            run = self.open[member.spec]
            run.trained[member.part] = trained
            run.gpus |= {gpu} - {""}
            if len(run.trained) == len(self.networks.parts):
                with uninterrupted():
                    self._end(member.spec, run)
                    del self.open[member.spec]

    def _end(self, spec: Any, run: _OpenRun) -> None:
        key, result = self.missing[spec], None
        if run.gpus:  # not all of a machine need be of one kind
            self.tracker.log_tags(run.run, {"gpu": ", ".join(sorted(run.gpus))})
        if diverged := [part for part in self.networks.parts if not run.trained[part].finite]:
            parts = f"{self.networks.part_name} {', '.join(diverged)}"
            reason = f"diverged on {parts}: weights are no longer finite (learning rate {spec.learning_rate:g})"
            self.tracker.log_metrics(run.run, [("diverged", 1.0, spec.epochs, time.time())])
            self.tracker.stop(run.run, status="FAILED", reason=reason)
            self.failed.append((spec.name, reason))
        else:
            result = self.networks.result(spec, run.trained, started=run.started, ended=time.time())
            self.tracker.finish(run.run, result)
        self.ended[key] = (run.run, "FAILED" if diverged else "FINISHED")
        self.on_end(key, result)

    def abandon(self, error: BaseException) -> None:
        """Mark the runs in progress KILLED."""
        with uninterrupted():
            for run in self.open.values():
                with suppress(UserError):  # a full disk, perhaps the cause of `error`: the next start finds them RUNNING
                    self.tracker.stop(run.run, status="KILLED", reason=why_stopped(error))
            self.tracker.deliver_shortly()


def plan_chunks(networks: Networks[Spec], specs: Sequence[Spec], place: Place) -> Iterator[Chunk[Spec]]:
    """Cut the networks of all runs into chunks that train together at a place: equal recipe and equal R, the rows of the class head.

    Costly chunks come first, so that all processes finish at about the same time; chunks come in waves of a few runs, so that the first
    runs finish early.

    Raises:
        UserError: a training set does not fill one batch, or a network does not fit into the memory.
    """
    device = place.device
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
                yield from _wave_chunks(networks, alike[start:end], place)
                start, steps = end, 0
            steps += added
        yield from _wave_chunks(networks, alike[start:], place)


def _wave_chunks(networks: Networks[Spec], specs: Sequence[Spec], place: Place) -> Iterator[Chunk[Spec]]:
    groups: dict[tuple[Recipe, bool, int], Chunk[Spec]] = defaultdict(list)
    for spec in specs:
        for part in networks.parts:
            member = Member(spec=spec, part=part)
            # Uniform classes need neither padding nor draws for ρ, so they do not share chunks with balanced ones.
            groups[networks.recipe(spec), spec.balanced, _head_rows(networks, member)].append(member)
    for (recipe, _, rows), members in groups.items():
        # Activations, logits and their gradients, at least four arrays; parameters, gradients, and averages of the optimizer.
        check_device_memory(4 * _bytes(rows, recipe, inputs=networks.inputs), f"training {members[0].spec.name}", place)
        most = most_together(rows, recipe, place.device, inputs=networks.inputs)
        # Adjacent networks have the same number of steps per epoch, if possible on the same samples: they train in step and share data.
        members.sort(key=lambda member: (-_batches(networks, member), networks.samples(member), member.spec.seed))
        count = math.ceil(len(members) / most)
        yield from (members[index * len(members) // count : (index + 1) * len(members) // count] for index in range(count))


def _batches(networks: Networks[Spec], member: Member[Spec]) -> int:
    """Steps per epoch."""
    spec, samples = member.spec, networks.samples(member)
    steps = networks.recipe(spec).steps(samples)
    if not steps and spec.epochs:
        raise UserError(f"batch_size = {spec.batch_size}: {spec.name} has only {samples} training samples. Choose a smaller one.")
    return steps


def _head_rows(networks: Networks[Spec], member: Member[Spec]) -> int:
    return max(networks.head_classes(member), padded_to(member.spec.classes, member.spec.batch_size))


def most_together(rows: int, recipe: Recipe, device: Device, *, inputs: int) -> int:
    """How many networks with R = `rows` train together."""
    return max(1, min(MOST_TOGETHER[device], CACHE_BYTES[device] // _bytes(rows, recipe, inputs=inputs)))


def _bytes(rows: int, recipe: Recipe, *, inputs: int) -> int:
    """The size of a network with R = `rows`: of the logits of a batch, or of parameters and optimiser state, whichever is larger."""
    item_size = 8 if recipe.precision == "float64" else 4
    h1, h2 = recipe.hidden
    params = h1 * (inputs + 1) + h2 * (h1 + 1) + (1 + rows) * (h2 + 1)
    return item_size * max(max(1, rows) * recipe.batch_size, 5 * params)


def cost(chunk: Chunk[Spec], networks: Networks[Spec]) -> float:
    """Cost of training, for progress and plans: roughly in steps of a network without classes."""
    return sum((1 + member.spec.epochs * _batches(networks, member)) * (1 + _head_rows(networks, member) / 40) for member in chunk)


class _Bar:
    """Progress of the chunks of a plan, epoch by epoch: a chunk may take many minutes."""

    def __init__(self, advance: Advance, costs: Sequence[float], epochs: Sequence[int]) -> None:
        self.advance, self.costs, self.epochs, self.left, self.note = advance, costs, epochs, list(costs), ""

    def report_epochs(self, index: int, epochs: int) -> None:
        """The chunk at `index` of the plan has finished `epochs` more epochs."""
        self._move(index, self.costs[index] * epochs / self.epochs[index])

    def report_end(self, index: int, note: str) -> None:
        """The chunk at `index` is trained, and the runs that it completes are logged."""
        self.note = note
        self._move(index, self.left[index])

    def _move(self, index: int, amount: float) -> None:
        amount = min(amount, self.left[index])
        self.left[index] -= amount
        self.advance(amount, self.note)


@dataclass(frozen=True, kw_only=True)
class _Setup:
    """How to train the chunks of a plan, and callbacks: before a chunk starts, and after epochs (index in the plan, number of epochs)."""

    networks: Networks[Any]
    places: Sequence[Place]
    begin: Callable[[Chunk[Any]], None]
    report_epochs: Callable[[int, int], None]


Plan = Sequence[Chunk[Any]]
TrainedChunk = tuple[list[Trained], str]  # and the name of the GPU, if it is one
ChunkResults = Generator[tuple[int, TrainedChunk]]  # index in the plan, and the chunk


def _one_process(plan: Plan, setup: _Setup) -> ChunkResults:
    (place,) = setup.places
    torch.set_num_threads(place.threads)
    worker.set_up(reports=setup.report_epochs, asks=lambda: False, says=say)
    ensemble_worker.set_up(setup.networks.reopened())
    for index, chunk in enumerate(plan):
        setup.begin(chunk)
        yield index, ensemble_worker.train_chunk(index, chunk, place.device)


def _many_processes(plan: Plan, setup: _Setup) -> ChunkResults:
    """Train chunks in a process at each place. One chunk more than there are places is submitted, so that none waits for the next."""
    waiting, running = iter(enumerate(plan)), dict[Future[TrainedChunk], int]()
    with pool_at(setup.places, ensemble_worker.set_up, setup.networks.reopened()) as pool:
        while True:
            while len(running) <= len(setup.places) and (following := next(waiting, None)) is not None:
                index, chunk = following
                setup.begin(chunk)
                name = " and ".join(dict.fromkeys(member.spec.name for member in (chunk[0], chunk[-1])))
                running[pool.submit(ensemble_worker.train_chunk, index, chunk, setup.places[0].device, name=name)] = index
            if not running:
                return
            done = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED).done
            for event in pool.events():
                setup.report_epochs(*event)
            for future in list(done)[:1]:  # one at a time: its process gets the next chunk before further results are logged
                yield running.pop(future), future.result()
