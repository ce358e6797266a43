"""Cost of preparing video features: seconds and frames/s from text files to prepared data, compared with numpy.loadtxt.

    python benchmarks/features.py [--frames 3600000] [--videos 1712] [--processes 2] [--folder /tmp]

Files as Breakfast has them, by default as many and as large (5.9 GB of text): 64 columns, numbers as NumPy writes them. Their lines repeat
those of generated walks. Aim: under 5 minutes on two cores for all of Breakfast. numpy.loadtxt reads some of the same files on one core,
before and after, in the same run.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from regcls.progress import tracked
from regcls.tasks.sequences.data import SequenceSet
from regcls.tasks.sequences.params import ACTIVITIES, SequenceData, SequenceStandIn
from regcls.tasks.sequences.prepare import prepare
from regcls.tasks.sequences.stand_in import Walk, features, text

LINES = 20000  # different ones
PLAIN_FRAMES = 20000  # read with numpy.loadtxt before and after, approximately
PERSONS = range(3, 55)


def write_files(raw: Path, frames: int, videos: int) -> list[Path]:
    """Write `videos` files with `frames` lines in total; lengths differ by a factor of up to 15."""
    lines = text(features(Walk(3, "cam01", "tea", LINES), seed=0, index=0)).splitlines(keepends=True)
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.2, 1, videos) ** 2
    ends = np.rint(np.cumsum(shares) / shares.sum() * frames).astype(int)
    names = [(activity, person, camera) for camera in range(10) for person in PERSONS for activity in ACTIVITIES][:videos]
    written = []
    for (activity, person, camera), count in zip(names, tracked(np.diff(ends, prepend=0), videos, "writing files"), strict=True):
        file = raw / activity / f"P{person:02d}_cam{camera:02d}_P{person:02d}_{activity}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as handle:
            first = int(rng.integers(LINES))
            handle.writelines(lines[(first + line) % LINES] for line in range(count))
        written.append(file)
    return written


def plain(files: list[Path]) -> tuple[int, float]:
    """Frames and seconds of numpy.loadtxt, for as many files as have PLAIN_FRAMES."""
    frames, started = 0, time.perf_counter()
    for file in files:
        if frames >= PLAIN_FRAMES:
            break
        frames += len(np.loadtxt(file, dtype=np.float32))
    return frames, time.perf_counter() - started


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3600000, help="lines in all (3600000)")
    parser.add_argument("--videos", type=int, default=1712, help="files (1712)")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="worker processes (one a core)")
    parser.add_argument("--folder", type=Path, help="where the files are made, and removed again (the system's for temporary files)")
    options = parser.parse_args()
    data = SequenceData(
        source="raw",
        archives=(),
        test_persons={"s1": (3, 15), "s2": (16, 28), "s3": (29, 41), "s4": (42, 54)},
        validation_share=1 / 3,
        split_seed=0,
        expected_videos=options.videos,
        stand_in=SequenceStandIn(persons=4, frames=40, seed=0),
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        raw, prepared = Path(folder) / "raw", Path(folder) / "prepared"
        files = write_files(raw, options.frames, options.videos)
        size = sum(file.stat().st_size for file in files)
        before = plain(files)
        clock = time.perf_counter()
        prepare(data, prepared, raw=raw, dataset="breakfast", processes=options.processes)
        seconds = time.perf_counter() - clock
        after = plain(files[::-1])
        found = len(SequenceSet(prepared).features)
    rates = [frames / took for frames, took in (before, after)]
    rate = found / seconds
    here, worker = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"prepare     {seconds:.1f} s for {found} frames of {len(files)} videos ({size / 1e9:.2f} GB of text): {rate:.0f} frames/s")
    print(f"            with {options.processes} processes, checksums and the disk included (aim: under 300 s for 3600000 frames)")
    print(
        f"loadtxt     {rates[0]:.0f} frames/s before, {rates[1]:.0f} after, on one core: {2 * found / sum(rates):.0f} s for as many frames"
    )
    print(f"memory      {here:.0f} MB here, {worker:.0f} MB in the largest worker; the array has {found * 256 / 2**20:.0f} MB")
    print(f"machine     load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
