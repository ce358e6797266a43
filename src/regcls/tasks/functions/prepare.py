"""Generates the controlled 1D data of section 2.1: ten sums of two sines, three settings, four samplings, five repetitions.

Draws follow the order of the authors' released generator, with the same seeds and NumPy's legacy generator, so that all samples equal
theirs bit for bit: results are comparable with released_1d.csv panel by panel.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np
import pandas as pd
from numpy.random import RandomState
from numpy.typing import NDArray

from regcls.data.splits import SPLITS, Split
from regcls.data.store import deciding_parameters, write_prepared
from regcls.errors import UserError
from regcls.processes import check_memory, worker_pool
from regcls.tasks.functions.params import FunctionData, Sampling, Setting
from regcls.tasks.functions.runs import data_key

OOD_ORDER: tuple[Split, ...] = ("train", "test", "val")  # order of some of the release's draws
Array = NDArray[np.float64]
Drawn = tuple[list[NDArray[np.float32]], list[dict[str, object]]]  # pieces (2, n) of an array, and their table rows

BINS = 1024  # of y, from which equally many samples are picked
CANDIDATES = 100_000  # uniform draws of x to pick samples from
LOW, HIGH = -1.0, 1.0  # range of x
REGIONS = 9  # of x, assigned in turn to train, val and test (out-of-distribution setting)


@dataclass(frozen=True)
class SineSum:
    """f(x) = a sin(cx) + b sin(dx) with b = 1.5 − a, d = c // 3."""

    a: float
    c: int

    def __call__(self, x: Array) -> Array:
        """Evaluate f at x, of any shape."""
        return self.a * np.sin(self.c * x) + (1.5 - self.a) * np.sin(self.c // 3 * x)


class Peak(NamedTuple):
    """Numbers of samples that an imbalanced draw takes from the peak region and from the whole range."""

    per_bin: int  # drawn from each bin of the peak region, in total more than are kept
    kept: int  # maximum number kept of those
    floor: int  # drawn from each bin of the whole range

    @classmethod
    def plan(cls, samples: int, share: Literal["released"] | float, *, floor: int) -> "Peak":
        """Plan for `samples` in total. The release keeps samples − bins − floor in the peak and adds floor + 1 per bin, about 90 : 10."""
        if share == "released":
            return cls(per_bin=(samples - BINS * floor) // BINS * 2, kept=samples - BINS - floor, floor=floor + 1)
        kept = round(share * samples)
        return cls(per_bin=-(-kept // BINS) * 2, kept=kept, floor=max(1, round((samples - kept) / BINS)))


def _pick(draws: RandomState, y: Array, edges: Array, per_bin: int) -> NDArray[np.intp]:
    """Draw indices into y, `per_bin` with replacement from each non-empty bin between `edges`."""
    bins = np.searchsorted(edges, y, side="right") - 1
    bins[y == edges[-1]] = BINS - 1
    inside = np.flatnonzero((bins >= 0) & (bins < BINS))
    bins = bins[inside].astype(np.int16)
    order = inside[np.argsort(bins, kind="stable")]  # by bin, within a bin in the order drawn
    ends = np.cumsum(np.bincount(bins, minlength=BINS))
    picked = []
    start = 0
    for end in ends.tolist():
        if end > start:
            picked.append(order[start + draws.randint(0, end - start, per_bin)])
        start = end
    return np.concatenate(picked) if picked else np.empty(0, dtype=np.intp)


def _uniform(draws: RandomState, f: SineSum, samples: int, *, low: float = LOW, high: float = HIGH, noise: float = 0.0) -> Array:
    """Draw x with uniform (noisy) targets: equally many from each of the 1024 bins of y."""
    x = draws.uniform(low, high, CANDIDATES)
    y = f(x) + (draws.normal(0.0, noise, CANDIDATES) if noise else 0.0)
    return x[_pick(draws, y, np.linspace(y.min(), y.max(), BINS + 1), samples // BINS + 1)]


def _imbalanced(
    draws: RandomState, f: SineSum, plan: Peak, width: float, *, low: float = LOW, high: float = HIGH, peak: float | None = None
) -> tuple[Array, float]:
    """Draw x with a frequent range of y; return x and the peak's y. If peak ± width · range exceeds f's range, it has fewer samples."""
    x = draws.uniform(low, high, CANDIDATES)
    y = f(x)
    least, most = float(y.min()), float(y.max())
    if peak is None:
        peak = draws.uniform(least, most)
    picked = np.empty(0, dtype=np.intp)
    if least < peak < most:
        half = width * (most - least)
        picked = _pick(draws, y, np.linspace(peak - half, peak + half, BINS + 1), plan.per_bin)
        order = np.arange(len(picked))
        draws.shuffle(order)
        picked = picked[order[: plan.kept]]
    floor = _pick(draws, y, np.linspace(least, most, BINS + 1), plan.floor)
    return x[np.concatenate([picked, floor])], peak


class Sample(NamedTuple):
    """One data set: x and y by split, and its peak's y (NaN for uniform)."""

    x: dict[Split, Array]
    y: dict[Split, Array]
    peak: float


def draw(data: FunctionData, setting: Setting, noise: float, f: SineSum, seed: int) -> dict[Sampling, Sample]:
    """Draw the data sets of a function as the release does, one for each of `data.samplings`; the generator is reseeded for each.

    Raises:
        UserError: in the ood setting, the function has no value in common between the regions of the three splits.
    """
    if setting == "ood":
        return {sampling: sample for sampling, sample in _draw_ood(data, f, seed) if sampling in data.samplings}
    return {sampling: _draw(data, noise, sampling, f, seed) for sampling in data.samplings}


def _draw(data: FunctionData, noise: float, sampling: Sampling, f: SineSum, seed: int) -> Sample:
    draws, peak = RandomState(seed), float("nan")
    if sampling == "uniform":
        pool = _uniform(draws, f, data.samples, noise=noise)
    else:
        pool, peak = _imbalanced(draws, f, Peak.plan(data.samples, data.peak_share, floor=5), data.peak_width[sampling])
    order = np.arange(len(pool))
    draws.shuffle(order)
    parts = np.split(order, [len(pool) // 3, 2 * len(pool) // 3])
    x = {split: pool[part] for split, part in zip(SPLITS, parts, strict=True)}
    return Sample(x, {split: f(values) + (draws.normal(0.0, noise, len(values)) if noise else 0.0) for split, values in x.items()}, peak)


def _draw_ood(data: FunctionData, f: SineSum, seed: int) -> Iterator[tuple[Sampling, Sample]]:
    """Draw all samplings up to the last one requested; each split comes from three of the nine regions, which depend on the seed alone.

    The release draws the peak of an imbalanced set from between the extremes of draws made before seeding, so they depend on the
    generator's state after the previous data set.
    """
    regions, draws = ood_regions(seed), RandomState(seed)
    for sampling in get_args(Sampling)[: 1 + max(map(get_args(Sampling).index, data.samplings))]:
        y = f(draws.uniform(LOW, HIGH, data.samples))
        draws.seed(seed)
        x, peak = _ood_x(data, sampling, f, regions, draws, extremes=(float(y.min()), float(y.max())))
        yield sampling, Sample(x, {split: f(values) for split, values in x.items()}, peak)


def _ood_x(
    data: FunctionData,
    sampling: Sampling,
    f: SineSum,
    regions: Mapping[Split, list[tuple[float, float]]],
    draws: RandomState,
    *,
    extremes: tuple[float, float],
) -> tuple[dict[Split, Array], float]:
    """Draw x of the three splits; return it and the peak, which is between `extremes`."""
    rounds = range(REGIONS // len(SPLITS))
    parts: dict[Split, list[Array]] = {split: [] for split in SPLITS}
    peak = float("nan")
    if sampling == "uniform":
        for index, split in itertools.product(rounds, OOD_ORDER):
            low, high = regions[split][index]
            parts[split].append(_uniform(draws, f, data.samples // REGIONS, low=low, high=high))
    else:
        peak, regions_with_peak = _shared_peak(draws, f, regions, extremes)
        for index, split in itertools.product(rounds, SPLITS):
            low, high = regions[split][index]
            plan = Peak.plan(data.samples // (len(SPLITS) * regions_with_peak[split]), data.peak_share, floor=1)
            parts[split].append(_imbalanced(draws, f, plan, data.peak_width[sampling], low=low, high=high, peak=peak)[0])
    return {split: np.concatenate(pieces) for split, pieces in parts.items()}, peak


def ood_regions(seed: int) -> dict[Split, list[tuple[float, float]]]:
    """The x-intervals of each split in the ood setting: nine, extended to the right by |N(0, length / 4)|, assigned in turn."""
    length = (HIGH - LOW) / REGIONS
    borders = np.arange(LOW, HIGH + length / 4, length)
    ends = np.minimum(borders[1:] + np.abs(RandomState(seed).normal(0, length / 4, REGIONS)), HIGH)
    pairs = list(zip(borders[:-1].tolist(), ends.tolist(), strict=True))
    return {split: pairs[index :: len(SPLITS)] for index, split in enumerate(SPLITS)}


def _shared_peak(
    draws: RandomState, f: SineSum, regions: Mapping[Split, list[tuple[float, float]]], extremes: tuple[float, float]
) -> tuple[float, dict[Split, int]]:
    """Draw a y between `extremes` that f takes in all three splits; return it and the number of regions of each split that have it."""
    for _ in range(100):  # the paper's functions need a few
        peak = draws.uniform(*extremes)
        regions_with_peak: dict[Split, int] = dict.fromkeys(SPLITS, 0)
        for index, split in itertools.product(range(REGIONS // len(SPLITS)), OOD_ORDER):
            y = f(draws.uniform(*regions[split][index], CANDIDATES))
            regions_with_peak[split] += bool(y.min() <= peak <= y.max())
        if all(regions_with_peak.values()):
            return peak, regions_with_peak
    raise UserError(f"function a = {f.a}, c = {f.c} has no value in common in training, validation and test regions: no ood set")


def data_sets(data: FunctionData) -> dict[str, tuple[Setting, float]]:
    """Name -> (setting, σ) of each prepared file; names are `clean`, `noisy-0.1`, `ood`."""
    return {
        data_key(setting, noise): (setting, noise) for setting in data.settings for noise in (data.noise if setting == "noisy" else (0.0,))
    }


def _draw_repetition(data: FunctionData, work: tuple[str, int]) -> Drawn:
    """Draw all samplings and functions of one repetition of a file."""
    key, repetition = work
    setting, noise = data_sets(data)[key]
    drawn = [draw(data, setting, noise, SineSum(a, c), data.data_seeds[repetition]) for a, c in data.functions]
    pieces, rows = [], []
    for sampling, (function, samples), split in itertools.product(data.samplings, enumerate(drawn), SPLITS):
        sample = samples[sampling]
        pieces.append(np.stack([sample.x[split], sample.y[split]]).astype(np.float32))
        digest = hashlib.sha256(pieces[-1].tobytes()).hexdigest()
        rows.append({"data": key, "sampling": sampling, "function": function, "repetition": repetition, "split": split,
                     "peak": sample.peak, "samples": pieces[-1].shape[1], "sha256": digest})  # fmt: skip
    return pieces, rows


class Progress(Protocol):
    """Iterates over `total` items and shows the progress."""

    def __call__(self, items: Iterable[Drawn], total: int, label: str) -> Iterable[Drawn]: ...


def prepare(data: FunctionData, folder: Path, *, processes: int, progress: Progress) -> pd.DataFrame:
    """Draw all data sets and write them to `folder`: a float32 array (2, N) of x and y per setting, and a table of their parts.

    Raises:
        UserError: the disk is full, the folder is not writable, or a worker was killed.
    """
    work = list(itertools.product(data_sets(data), range(data.repetitions)))
    drawn_at_once = len(work) * len(data.functions) * len(data.samplings) * data.samples
    needed = 2 * 2 * 4 * drawn_at_once + 64 * data.samples * processes  # x and y in float32, joined once; float64 and indices while drawn
    check_memory(needed, f"drawing {data.samples:,} samples of each function")
    arrays: dict[str, list[NDArray[np.float32]]] = {key: [] for key in data_sets(data)}
    rows: list[dict[str, object]] = []
    with worker_pool(processes) if processes > 1 else nullcontext() as pool:
        drawn = (pool.map if pool else map)(partial(_draw_repetition, data), work)
        for (key, _), (pieces, piece_rows) in zip(work, progress(drawn, len(work), "drawing 1D data"), strict=True):
            arrays[key] += pieces
            rows += piece_rows
    table = pd.DataFrame(rows)
    table["stop"] = table.groupby("data", sort=False)["samples"].cumsum()
    table["start"] = table["stop"] - table["samples"]
    joined = {key: np.concatenate(pieces, axis=1) for key, pieces in arrays.items()}
    write_prepared(folder, arrays=joined, table=table, made_from=deciding_parameters(data))
    return table
