"""Errors of runs on a table by part (fold), the choice of C and λ by validation rows, and differences to reg.

The unit of replication is the fold, each averaged over its seeds; with a single split, seeds and test rows.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls.metrics import SHOTS, evaluate
from regcls.params.shots import DensityShots
from regcls.relevance import RARE, Relevance, sera
from regcls.reports.measured import ROW
from regcls.reports.picking import Row, records
from regcls.reports.stats import FEWEST_IMAGES, NO_TEST, USELESS, decided, holm, over_folds, root_mean_squares, two_way, verdict
from regcls.tasks.table.data import TableSet
from regcls.tasks.table.params import HGB

GROUPS = (*SHOTS, "rare")
TESTED = ("rmse", "mae")  # errors whose differences are tested, by group
WHOLE = ("rmse", "mae", "r2", "sera")  # errors over all test rows


@dataclass(frozen=True, kw_only=True)
class Part:
    """The test rows of a part, and what their errors are measured by."""

    rows: NDArray[np.int64]
    targets: NDArray[np.float64]
    shots: NDArray[np.str_]  # of each row
    relevance: NDArray[np.float64]
    mean: float  # of the training targets
    median: float
    training: int  # rows

    def chosen(self, group: str) -> NDArray[np.bool_]:
        """Mask of the rows of a group of GROUPS."""
        if group == "all":
            return np.ones(len(self.rows), dtype=bool)
        return self.relevance > RARE if group == "rare" else self.shots == group

    def errors(self, predictions: NDArray[np.float64]) -> dict[str, float]:
        """`rmse/all`, `mae/few`, `r2/all` … of predictions of the rows; empty groups have none."""
        measured = dict(evaluate(predictions, self.targets, self.shots))
        errors, rare = predictions - self.targets, self.chosen("rare")
        if rare.any():
            measured |= {"rmse/rare": float(np.mean(errors[rare] ** 2)) ** 0.5, "mae/rare": float(np.mean(np.abs(errors[rare])))}
        spread = float(np.sum((self.targets - self.targets.mean()) ** 2))
        measured["r2/all"] = 1 - float(np.sum(errors**2)) / spread if spread > 0 else math.nan
        measured["sera/all"] = sera(errors, self.relevance)
        return measured


def parts_of(table: TableSet, shots: DensityShots) -> dict[str, Part]:
    """The parts of a table by name; groups and relevance are those of each part's own training targets."""
    parts = {}
    for name in table.parts:
        training, rows = table.targets[table.rows(name, "train")], table.rows(name, "test")
        targets = table.targets[rows]
        parts[name] = Part(
            rows=rows,
            targets=targets,
            shots=shots.groups(training).shot_of(targets),
            relevance=Relevance.of(training)(targets),
            mean=float(training.mean()),
            median=float(np.median(training)),
            training=len(training),
        )
    return parts


def constants(parts: Mapping[str, Part]) -> dict[str, pd.DataFrame]:
    """The errors by part (rows) of predicting the mean and the median of the training targets."""
    by_name = {}
    for name in ("mean", "median"):
        errors = {key: part.errors(np.full(len(part.rows), getattr(part, name))) for key, part in parts.items()}
        by_name[f"{name} of training targets"] = pd.DataFrame(errors).T
    return by_name


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Runs and their errors, whatever trained them.

    `runs`: a row per finished run: run_id, ROW, seed. `validation`: RMSE on validation rows, a row per run id, a column per part.
    `errors`: (run id, part) -> error by name. `predictions`: (run id, part) -> (n,).
    """

    parts: Mapping[str, Part]
    runs: pd.DataFrame
    validation: pd.DataFrame
    errors: Mapping[tuple[str, str], Mapping[str, float]]
    predictions: Mapping[tuple[str, str], NDArray[np.float64]]

    @cached_property
    def choices(self) -> pd.DataFrame:
        """The cell of each method with the lowest validation RMSE, mean over seeds, in each part: method, part, ROW, by_seed.

        by_seed: seed -> run id. Only cells with the most seeds compete.
        """
        rows = []
        for _, runs in self.runs.groupby("method", sort=False):
            cells: dict[Any, dict[int, str]] = {
                key: dict(zip(cell["seed"], cell["run_id"], strict=True)) for key, cell in runs.groupby(ROW, sort=False)
            }
            most = max(map(len, cells.values()))
            full = {key: by_seed for key, by_seed in cells.items() if len(by_seed) == most}
            for part in self.parts:
                means = {key: float(self.validation.loc[list(by_seed.values()), part].mean()) for key, by_seed in full.items()}
                best = min(means, key=means.__getitem__)
                rows.append(dict(zip(ROW, best, strict=True)) | {"part": part, "by_seed": full[best]})
        return pd.DataFrame(rows, columns=[*ROW, "part", "by_seed"])

    @cached_property
    def by_part(self) -> pd.DataFrame:
        """Errors of each method by part, mean over the seeds of its choice there; indexed by (method, part), a column per error."""
        rows = {
            (row["method"], row["part"]): pd.DataFrame([self.errors[run_id, row["part"]] for run_id in row["by_seed"].values()]).mean()
            for row in records(self.choices)
        }
        return pd.DataFrame(rows).T

    def differences(self, *, negligible: float) -> pd.DataFrame:
        """gap = error(reg) − error(method): a row per (error, group, method with another loss).

        Columns: error, group, method, reg and other (means), gap, relative (percent of reg's), low, high, p (95 % interval and p), rows
        (test rows of the group), folds, seeds; p_holm, adjusted over the methods of each (error, group); answer. `negligible`: percent of
        reg's error, see `_answer`. Empty without reg.
        """
        errors, methods = self.by_part, list(dict.fromkeys(self.choices["method"]))
        by_seed = {(row["method"], row["part"]): row["by_seed"] for row in records(self.choices)}
        rows = []
        for error in TESTED if "reg" in methods else ():
            for group in GROUPS:
                found = [
                    {"error": error, "group": group, "method": method} | self._difference(error, group, method, errors, by_seed)
                    for method in methods
                    if method not in ("reg", HGB)
                ]
                for row, p in zip(found, holm([row["p"] for row in found]), strict=True):
                    row["p_holm"] = float(p)
                    row["answer"] = _answer(row, negligible, units=row["folds"] if len(self.parts) > 1 else row["seeds"])
                rows += found
        names = ["error", "group", "method", "reg", "other", "gap", "relative", "low", "high", "p", "rows", "folds", "seeds"]
        table = pd.DataFrame(rows, columns=[*names, "p_holm", "answer"])
        useless = table["error"].isin({error for error in TESTED if self._is_useless(error, errors)}) & table["p"].notna()
        table["answer"] = table["answer"].mask(useless, "no verdict").mask(useless & (table["group"] == "all"), USELESS)
        return table

    def _difference(
        self, error: str, group: str, method: str, errors: pd.DataFrame, by_seed: Mapping[tuple[str, str], Mapping[int, str]]
    ) -> dict[str, Any]:
        name = f"{error}/{group}"
        both = [errors.loc[side][name] if name in errors else pd.Series(dtype=float) for side in ("reg", method)]
        pairs = pd.concat(both, axis=1, keys=["reg", "other"]).dropna()
        gaps = (pairs["reg"] - pairs["other"]).to_numpy(dtype=float)
        reg_runs, own_runs = (by_seed[side, next(iter(self.parts))] for side in ("reg", method))
        common = sorted(reg_runs.keys() & own_runs.keys())
        rows = sum(int(part.chosen(group).sum()) for part in self.parts.values())
        counts = {"rows": rows, "folds": len(gaps), "seeds": len(common)}
        if not len(gaps):
            return {"reg": math.nan, "other": math.nan, "gap": math.nan, "relative": math.nan} | _bounds(NO_TEST) | counts
        if len(self.parts) > 1:
            bounds = over_folds(gaps, ratio=self.ratio) if rows >= FEWEST_IMAGES else NO_TEST
        else:
            sides = ([runs[seed] for seed in common] for runs in (reg_runs, own_runs))
            bounds = two_way(self._effects(error, group, *sides)) if rows >= FEWEST_IMAGES and common else NO_TEST
        reg, other = float(pairs["reg"].mean()), float(pairs["other"].mean())
        return {"reg": reg, "other": other, "gap": reg - other, "relative": 100 * (reg - other) / reg} | _bounds(bounds) | counts

    @property
    def ratio(self) -> float:
        """Test rows per training row."""
        return float(np.mean([len(part.rows) / part.training for part in self.parts.values()]))

    def _effects(self, error: str, group: str, reg: Sequence[str], other: Sequence[str]) -> NDArray[np.float64]:
        """The differences by seed and test row (S, T) of the only part, whose mean is the gap."""
        part = self.parts["split"]
        chosen, sides = part.chosen(group), []
        for side in (reg, other):
            found = np.stack([self.predictions[run_id, "split"] for run_id in side])[:, chosen] - part.targets[chosen]
            if error == "mae":
                sides.append(np.abs(found))
            else:
                values, influence = root_mean_squares(np.stack([np.ones_like(found), found**2], axis=2))
                sides.append(values[:, None] + influence)
        return np.asarray(sides[0] - sides[1])

    def _is_useless(self, error: str, errors: pd.DataFrame) -> bool:
        """Whether reg is no better over all test rows than the best constant."""
        best = min(float(table[f"{error}/all"].mean()) for table in constants(self.parts).values())
        return bool(errors.loc["reg"][f"{error}/all"].mean() >= best)


def _bounds(bounds: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("low", "high", "p"), bounds, strict=True))


def _answer(row: Row, negligible: float, *, units: int) -> str:
    """The outcome of the tests of a row; see `stats.decided`."""
    answer = verdict(row["gap"], row["p_holm"], units) if row["rows"] else "no rows"
    return decided(answer, low=row["low"], high=row["high"], reg=row["reg"], negligible=negligible)


def chosen_texts(choices: pd.DataFrame, method: str) -> tuple[str, str]:
    """The chosen class counts and λ of a method over its parts, most frequent first: `10 (4), 50 (1)`."""
    own = choices[choices["method"] == method]
    return _counts(own["classes"].map(lambda classes: str(classes or ""))), _counts(own["weight"])


def _counts(texts: pd.Series) -> str:
    counts = texts[texts != ""].value_counts()
    ordered = sorted(counts.items(), key=lambda item: (-item[1], float(str(item[0]))))
    return ", ".join(f"{text} ({count})" if len(ordered) > 1 else str(text) for text, count in ordered)


def at_edges(choices: pd.DataFrame, runs: pd.DataFrame) -> Iterator[str]:
    """A sentence for each method whose λ is at an end of its grid in at least half of the folds."""
    for method, own in choices.groupby("method", sort=False):
        weights = sorted({weight for weight in runs.loc[runs["method"] == method, "weight"] if weight}, key=float)
        for end, where, factor in ((0, "lowest", "a tenth"), (-1, "highest", "ten times")):
            times = int((own["weight"] == weights[end]).sum()) if len(weights) > 1 else 0
            if 2 * times >= len(own):
                chosen = f"is chosen in {times} of {len(own)} folds"
                yield f"{method}: λ {weights[end]}, the {where} of the grid, {chosen}: try {factor} of it too"
