"""Means over seeds, splits and activities, and what a class loss changes: tested over activities.

The unit of replication is the activity: each has its own videos and networks. Seeds and splits of one activity share its videos.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from regcls.reports.picking import records
from regcls.reports.stats import holm, one_sample, paired
from regcls.reports.video_collect import CELL, ERRORS, ROW, SHOWN, SequenceRuns, in_order
from regcls.tasks.sequences.params import Sequences, Unit

LEVEL = 0.05  # of Holm-adjusted p, below which a difference is called clear
EVERY = "all"  # in place of a split: the mean over splits


def cells(runs: SequenceRuns, names: Sequence[str] = ERRORS, *, ddof: int = 1) -> pd.DataFrame:
    """A row a cell that was asked for, empty ones included.

    CELL; seeds and seeds_wanted (counts); for each error its mean over activities, as `rmse`, and `rmse_std`, the standard deviation over
    activities (n − `ddof` below; NaN where that is 0), each activity averaged over seeds first. NaN without seeds.
    """
    rows = []
    key: Any  # pandas-stubs know it as a tuple of Hashable
    for key, cell in runs.wanted.groupby(CELL, sort=False):
        found = list(runs.run_ids(cell).values())
        row = dict(zip(CELL, key, strict=True)) | {"seeds": len(found), "seeds_wanted": len(cell)}
        for name in names:
            by_activity = runs.errors[name].loc[found].mean()
            row |= {name: by_activity.mean(), f"{name}_std": by_activity.std(ddof=ddof)}
        rows.append(row)
    columns = [*CELL, "seeds", "seeds_wanted", *(each for name in names for each in (name, f"{name}_std"))]
    return in_order(pd.DataFrame(rows, columns=columns))


def by_activity(runs: SequenceRuns) -> pd.DataFrame:
    """Test RMSE of each activity, the mean over splits (each over its seeds first), a row a (ROW): ROW, runs, runs_wanted (counts), then a
    column an activity and `mean` over them.
    """
    rows = []
    key: Any
    for key, part in runs.wanted.groupby(ROW, sort=False):
        found = [list(runs.run_ids(cell).values()) for _, cell in part.groupby("split", sort=True)]
        errors = [runs.errors["rmse"].loc[ids].mean() for ids in found if ids]
        means = pd.concat(errors, axis=1).mean(axis=1) if errors else pd.Series(np.nan, index=runs.activities)
        counts = {"runs": sum(map(len, found)), "runs_wanted": len(part)}
        rows.append(dict(zip(ROW, key, strict=True)) | counts | means.to_dict() | {"mean": means.mean()})
    return in_order(pd.DataFrame(rows, columns=[*ROW, "runs", "runs_wanted", *runs.activities, "mean"]))


def differences(runs: SequenceRuns) -> pd.DataFrame:
    """RMSE(reg) − RMSE(method) of runs with one unit, above 0 the class loss helps: a row a (ROW with classes, split or EVERY).

    split, ROW; activities, seeds and splits (counts; seeds: the smallest number of common ones); reg and other, the two means over
    activities; gap; low, high, p: 95 % interval and paired t-test over activities, each averaged over the seeds that both have (and for
    EVERY over the splits that have such). relative, relative_low, relative_high, relative_p: the same of the difference in percent of
    reg's error on the activity. p_holm and relative_p_holm: adjusted over all rows; answer: what the test in the unit's own scale says
    (`deciding`). No rows where reg is not asked for.
    """
    unit: Unit = runs.wanted["unit"].iloc[0]
    reg_rows = runs.wanted[runs.wanted["method"] == "reg"]
    rows = []
    key: Any
    for key, part in runs.wanted[runs.wanted["classes"] > 0].groupby(ROW, sort=False):
        if reg_rows.empty:
            break
        pairs = {split: _pair(runs, reg_rows, cell) for split, cell in part.groupby("split", sort=True)}
        what = dict(zip(ROW, key, strict=True))
        rows += [{"split": split} | what | _difference([pair]) for split, pair in pairs.items()]
        if len(pairs) > 1:
            rows.append({"split": EVERY} | what | _difference(list(pairs.values())))
    names = ["activities", "seeds", "splits", "reg", "other", "gap", "low", "high", "p"]
    relative = [f"relative{end}" for end in ("", "_low", "_high", "_p")]
    table = pd.DataFrame(rows, columns=["split", *ROW, *names, *relative])
    table["p_holm"] = np.array(holm(table["p"].tolist()), dtype=float)
    table["relative_p_holm"] = np.array(holm(table["relative_p"].tolist()), dtype=float)
    table["answer"] = [answer(row, deciding(unit)) for row in records(table)]
    return table


def deciding(unit: Unit) -> str:
    """What decides whether the class loss helps: frames grow with the length of an activity's videos, so there the relative difference."""
    return "gap" if unit == "percent" else "relative"


def answer(row: Mapping[str, Any], name: str) -> str:
    """What the test of `gap` or of `relative` says, in a word or two."""
    p = row["p_holm"] if name == "gap" else row["relative_p_holm"]
    if not row["seeds"]:
        return "no runs"
    if np.isnan(p):
        return "not tested"
    if p >= LEVEL:
        return "not clear"
    return "helps" if row[name] > 0 else "hurts"


Pair = tuple[np.ndarray, np.ndarray, int]  # RMSE of reg and of the method by activity (A,), and how many seeds both have


def _pair(runs: SequenceRuns, reg: pd.DataFrame, cell: pd.DataFrame) -> Pair:
    theirs, ours = runs.run_ids(reg[reg["split"] == cell["split"].iloc[0]]), runs.run_ids(cell)
    common = sorted(theirs.keys() & ours.keys())
    sides = [runs.errors["rmse"].loc[[side[seed] for seed in common]].mean().to_numpy(dtype=float) for side in (theirs, ours)]
    return sides[0], sides[1], len(common)


def _difference(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Of some splits together: those without common seeds are left out, and not counted."""
    usable = [pair for pair in pairs if pair[2]]
    counts = {"activities": len(pairs[0][0]), "seeds": min((pair[2] for pair in usable), default=0), "splits": len(usable)}
    if not usable:
        return counts
    reg, other = (np.mean(sides, axis=0) for sides in ([pair[0] for pair in usable], [pair[1] for pair in usable]))
    test = asdict(paired(reg.tolist(), other.tolist()))
    relative = 100.0 * (reg - other) / reg
    low, high, p = one_sample(relative, against=0.0)
    means = {"reg": float(reg.mean()), "other": float(other.mean())} | {name: test[name] for name in ("gap", "low", "high", "p")}
    return counts | means | {"relative": float(relative.mean()), "relative_low": low, "relative_high": high, "relative_p": p}


def main_row(video: Sequences, table: pd.DataFrame, unit: Unit, method: str) -> Mapping[str, Any] | None:
    """ROW of the class count and λ that stands for a method: what params.yaml's `run:` and `training:` say, else the first of the grid.

    Never chosen by an error: all training videos are trained on, so that only test videos are left.
    """
    rows = table[(table["method"] == method) & (table["classes"] > 0)]
    if rows.empty:
        return None
    usual = (rows["classes"] == video.run.classes, rows["weight"] == f"{video.training.lam[unit]:g}")
    ranked = rows.assign(first=~usual[0], second=~usual[1]).sort_values(["first", "second"], kind="stable")
    return records(ranked[ROW])[0]


def progress_curves(
    predictions: Mapping[str, pd.DataFrame], videos: Sequence[str], lengths: Mapping[str, int], unit: Unit, *, points: int
) -> pd.DataFrame:
    """Progress of videos over their frames: video, method (`true` is the target), frame, progress (% or frames).

    `predictions`: by method, of runs with this unit. Of each curve every so many frames are kept, `points` at most, the first and the last
    among them.
    """
    parts = []
    for video in videos:
        frames = np.unique(np.linspace(0, lengths[video] - 1, points).round().astype(int))
        whole = lengths[video] if unit == "percent" else 1
        parts.append(pd.DataFrame({"video": video, "method": "true", "frame": frames, "progress": SHOWN[unit] * frames / whole}))
        for method, table in predictions.items():
            found = table[table["video"] == video].set_index("frame")["prediction"].reindex(frames)
            parts.append(pd.DataFrame({"video": video, "method": method, "frame": frames, "progress": SHOWN[unit] * found.to_numpy()}))
    return pd.concat(parts, ignore_index=True)


def video_error(table: pd.DataFrame, video: str, lengths: Mapping[str, int], unit: Unit) -> float:
    """RMSE of a run's predictions over all frames of a video, in % or in frames."""
    here = table[table["video"] == video]
    whole = lengths[video] if unit == "percent" else 1
    return float(SHOWN[unit] * np.sqrt(np.mean((here["prediction"].to_numpy(dtype=float) - here["frame"].to_numpy() / whole) ** 2)))
