"""Differences to reg where each run is one network, tested over seeds and test images. Legend: T test images, S seeds."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls.metrics import SHOTS
from regcls.reports.measured import ROW, Runs, by_seed
from regcls.reports.picking import Row, records
from regcls.reports.stats import FEWEST_IMAGES, NO_TEST, decided, holm, root_mean_squares, two_way, verdict

# (run ids of reg, run ids of another cell with the same seeds in the same order) -> a row per (error, shot group): see `differences`.
Compare = Callable[[Sequence[str], Sequence[str]], Iterable[Row]]


def differences(runs: Runs, compare: Compare, *, negligible: float) -> pd.DataFrame:
    """gap = error(reg) − error(method), over the seeds that both have: a row per (cell except reg, error, shot group).

    Columns: ROW; from `compare`: error, shot, reg and other (the two means), gap, images and seeds (counts), low, high and p (95 % interval
    and p of `stats.two_way`); p_holm, adjusted over all rows; answer: the verdict (`stats.decided`). Empty if reg is not requested.
    """
    seeds = {key: by_seed(cell) for key, cell in runs.wanted.groupby(ROW, sort=False)}
    reg = next((run_ids for key, run_ids in seeds.items() if key[0] == "reg"), None)
    rows: list[dict[str, Any]] = []
    for key, own in seeds.items():
        if reg is None or key[0] == "reg":
            continue
        common = sorted(reg.keys() & own.keys())
        rows += [dict(zip(ROW, key, strict=True)) | dict(row) for row in compare([reg[s] for s in common], [own[s] for s in common])]
    table = pd.DataFrame(rows, columns=[*ROW, "error", "shot", "reg", "other", "gap", "images", "seeds", "low", "high", "p"])
    table["p_holm"] = holm(table["p"].tolist())
    table["answer"] = [answer_of(row, negligible) for row in records(table)]
    parts = [runs.in_order(part.reset_index()).set_index("index") for _, part in table.groupby("error", sort=True)]
    return pd.concat(parts).reset_index(drop=True) if parts else table


def answer_of(row: Row, negligible: float) -> str:
    """The outcome of the test of a row with its p_holm; see `stats.decided`."""
    answer = verdict(row["gap"], row["p_holm"], row["seeds"]) if row["images"] else "no images"
    return decided(answer, low=row["low"], high=row["high"], reg=row["reg"], negligible=negligible)


def of_means(losses: Callable[[Sequence[str]], Mapping[str, NDArray[np.float64]]], shots: NDArray[np.str_]) -> Compare:
    """Comparison of means over images. `losses`: run ids -> error -> (S, T); `shots` (T,): shot group of each image."""

    def compare(reg: Sequence[str], other: Sequence[str]) -> Iterator[Row]:
        sides = [losses(run_ids) for run_ids in (reg, other)]
        for error in sides[0]:
            for shot in SHOTS:
                chosen = np.ones(len(shots), bool) if shot == "all" else shots == shot
                ours, theirs = (side[error][:, chosen] for side in sides)
                images = max(int(chosen.sum()), 1)
                yield {"error": error, "shot": shot} | _tested(ours.sum(axis=1) / images, theirs.sum(axis=1) / images, ours - theirs)

    return compare


def of_root_mean_squares(sums: Mapping[str, NDArray[np.float64]], *, error: str) -> Compare:
    """Comparison of RMSE over the pixels of all images; `sums`: run id -> (T, G, 2) sizes and summed squared errors by shot group."""

    def compare(reg: Sequence[str], other: Sequence[str]) -> Iterator[Row]:
        first = next(iter(sums.values()), np.zeros((0, len(SHOTS), 2)))
        for group, shot in enumerate(SHOTS):
            chosen = first[:, group, 0] > 0
            empty = np.empty((0, int(chosen.sum()), 2))
            (ours, our_influence), (theirs, their_influence) = (
                root_mean_squares(np.stack([sums[run_id][chosen, group] for run_id in side]) if side else empty) for side in (reg, other)
            )
            effects = (ours - theirs)[:, None] + our_influence - their_influence
            yield {"error": error, "shot": shot} | _tested(ours, theirs, effects, fewest=FEWEST_IMAGES)

    return compare


def _tested(reg: NDArray[np.float64], other: NDArray[np.float64], effects: NDArray[np.float64], *, fewest: int = 2) -> dict[str, Any]:
    """A row of `differences`, from the errors (S,) of two methods by seed, and the differences (S, T) by seed and image."""
    seeds, images = effects.shape
    counts = {"images": images, "seeds": seeds}
    if not effects.size:
        return counts
    low, high, p = two_way(effects) if images >= fewest else NO_TEST
    means = {"reg": float(reg.mean()), "other": float(other.mean()), "gap": float((reg - other).mean())}
    return counts | means | {"low": low, "high": high, "p": p}
