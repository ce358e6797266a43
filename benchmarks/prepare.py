"""Cost of preparing images: images/s of one core that only decodes, images/s of all cores into prepared data, and memory.

    python benchmarks/prepare.py [--images 12000] [--original 250] [--size 224] [--processes 16]

500 generated portraits in archives like those of IMDB-WIKI, read again and again. Aim: at least 80 % of processes × one core's rate. All is
timed in one run, one core before and after. On a machine that others use as well, or whose cores share parts, two processes are never twice
as fast as one: `limit` is the rate of as many processes that only decode, side by side, just before.
"""

import argparse
import itertools
import os
import resource
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from regcls.data.archives import Holder, Place
from regcls.data.images import decode, write_images
from regcls.data.store import prepared_writer
from regcls.tasks.images.params import StandIn
from regcls.tasks.images.stand_in import write_archives

PORTRAITS = 500
END = b"\xff\xd9"  # of a whole JPEG
SECONDS = 5.0  # of the timing of one core


@dataclass(frozen=True)
class Cost:
    """Cost of `images` images: wall-clock and processor seconds."""

    images: int
    clock: float
    processor: float


def one_core(places: list[Place], size: int) -> Cost:
    """Decode and resize only, in this process, with the files' content in memory."""
    contents = itertools.cycle([place.read() for place in places])
    decoded, clock, processor = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - clock < SECONDS:
        decode(next(contents), size)
        decoded += 1
    return Cost(decoded, time.perf_counter() - clock, time.process_time() - processor)


def all_cores(folder: Path, places: list[Place], size: int, processes: int) -> tuple[Cost, float]:
    """From archive to prepared data with worker processes, including their start; and the seconds for checksums and disk after that."""
    table = pd.DataFrame({"path": "", "row": range(len(places))})
    with prepared_writer(folder, made_from={}) as writer:
        clock, processor = time.perf_counter(), processor_seconds()
        write_images(writer, places, size=size, processes=processes)
        cost = Cost(len(places), time.perf_counter() - clock, processor_seconds() - processor)
        writer.save_table(table)
        clock = time.perf_counter()
    return cost, time.perf_counter() - clock


def limit(places: list[Place], size: int, processes: int) -> float:
    """images/s of `processes` that only decode, in parallel."""
    with get_context("spawn").Pool(processes) as pool:
        costs = pool.starmap(one_core, [(places, size)] * processes, chunksize=1)
    return sum(cost.images / cost.clock for cost in costs)


def processor_seconds() -> float:
    """Processor time of this process and of its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12000, help="images to prepare (12000)")
    parser.add_argument("--original", type=int, default=250, help="pixels of a side in the archives (250)")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side when prepared (224)")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="worker processes (one a core)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_archives(Path(folder), StandIn(images=PORTRAITS, seed=0), size=options.original, processes=options.processes)
        archive = Holder(Path(folder), "imdb_crop", remedy="")
        found = [archive.place(path) for path in archive.names()]
        portraits = [place for place in found if place and place.read().endswith(END)]
        places = list(itertools.islice(itertools.cycle(portraits), options.images))
        before = one_core(portraits, options.size)
        most = limit(portraits, options.size, options.processes)
        cost, after_it = all_cores(Path(folder) / "prepared", places, options.size, options.processes)
        after = one_core(portraits, options.size)
        array = (Path(folder) / "prepared" / "images.npy").stat().st_size / 2**20
    rates = [alone.images / alone.clock for alone in (before, after)]
    rate, share = cost.images / cost.clock, cost.images / cost.clock / (sum(rates) / 2 * options.processes)
    by_processor = (before.processor + after.processor) / (before.images + after.images) / (cost.processor / cost.images)
    here, worker = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"one core    {rates[0]:.0f} images/s before, {rates[1]:.0f} after; {options.original} -> {options.size} pixels")
    print(f"prepare     {rate:.0f} images/s: {cost.images} in {cost.clock:.1f} s with {options.processes} processes, their start included;")
    print(f"            then {after_it:.1f} s for checksums and the disk")
    print(f"share       {share:.0%} of processes × one core by the clock (aim 80 %), {by_processor:.0%} by processor time")
    print(f"limit       {most:.0f} images/s of {options.processes} processes that only decode: prepare reaches {rate / most:.0%} of it")
    print(f"memory      {here:.0f} MB here, {worker:.0f} MB in the largest worker; the array has {array:.0f} MB")
    print(f"machine     load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
