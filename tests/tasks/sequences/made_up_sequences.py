"""A plausible store of video runs, made up from a seed: what `Tracker.collect` and the runs' artifacts would return."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from regcls.errors import MissingError
from regcls.params import Params
from regcls.reports.report import Report
from regcls.tasks.sequences import report
from regcls.tasks.sequences.params import SequenceGrid, Sequences
from regcls.tasks.sequences.runs import BestLambdas, SequenceSpec, all_specs
from reports.made_up import small_params, sources, with_section

ACTIVITIES = ("cereals", "coffee", "friedegg", "juice", "milk", "pancake", "salat", "sandwich", "scrambledegg", "tea")
LEVEL = {"random": 0.58, "kukleva": 0.22, "reg": 0.23, "reg+cls": 0.2, "reg+cls-bal": 0.202}  # of RMSE in percent
OTHER_LEVEL = 0.21
TEST_PERSONS = {"s1": (3, 15), "s2": (16, 28), "s3": (29, 41), "s4": (42, 54)}
SPAN = {"percent": 1.0, "frames": 150.0}


def with_grids(params: Params, **grids: SequenceGrid) -> Params:
    return with_section(params, "breakfast", grids=grids)


def with_training(params: Params, **values: Any) -> Params:
    return with_section(params, "breakfast", training=replace(params.datasets["breakfast"].training, **values))


def made_up_lengths(activities: tuple[str, ...] = ACTIVITIES) -> dict[str, int]:
    """Lengths of videos of eight persons, longer for later activities."""
    rng = np.random.default_rng(5)
    return {
        f"P{person:02d}_cam01_P{person:02d}_{activity}": int(200 * (1 + index) * rng.lognormal(0, 0.4))
        for index, activity in enumerate(activities)
        for person in (3, 9, 16, 22, 29, 35, 42, 50)
    }


TABLE5 = SequenceGrid(
    methods=("random", "kukleva", "reg", "reg+cls", "reg+cls-bal"),
    classes=(100,),
    units=("percent", "frames"),
    splits=("s1", "s2"),
    lambdas="default",
    seeds=2,
)
SEARCH = SequenceGrid(
    methods=("reg+cls",), classes=(100,), units=("percent", "frames"), splits=("s1",), lambdas=(1.0, 10.0, 100.0), seeds=1
)


def small() -> Params:
    """The small parameters with these grids."""
    return with_grids(small_params(), table5=TABLE5, lambda_search=SEARCH)


@dataclass(frozen=True, kw_only=True)
class MadeUpVideos:
    """Replaces the prepared data."""

    lengths: Mapping[str, int]  # frames by video
    activities: tuple[str, ...]

    @property
    def table(self) -> pd.DataFrame:
        return pd.DataFrame({"video": list(self.lengths), "frames": list(self.lengths.values())})

    def videos(self, activity: str, split: str, part: str, *, held_out: bool) -> pd.DataFrame:
        rows = self.table[self.table["video"].str.endswith(f"_{activity}")]
        tested = rows["video"].str[1:3].astype(int).between(*TEST_PERSONS[split])
        return rows[tested if part == "test" else ~tested]


class Store:
    """Runs that differ by activity, split and seed; a class loss helps, and a λ of 1 is worse."""

    def __init__(self, params: Params, *, found: BestLambdas | None = None, activities: tuple[str, ...] = ACTIVITIES) -> None:
        self.params, self.found, self.activities = params, found or {}, activities
        self.lengths = made_up_lengths(activities)
        self.fingerprints = prints(params.datasets["breakfast"], self.found)
        self.specs = {f"{index:032x}": spec for index, spec in enumerate(self.fingerprints)}
        self.runs = pd.DataFrame([self._row(run_id, spec) for run_id, spec in self.specs.items()])

    def _row(self, run_id: str, spec: SequenceSpec) -> dict[str, Any]:
        own = np.random.default_rng([spec.seed, int(spec.split[1]), len(spec.method), spec.unit == "frames"])
        errors = (
            LEVEL.get(spec.method, OTHER_LEVEL)
            * SPAN[spec.unit]
            * (1 + 0.05 * np.arange(len(self.activities)) + own.normal(0, 0.02, len(self.activities)))
        )
        errors *= 1.1 if spec.lam == 1 else 1.0
        metrics = {"test/rmse": errors, "test/rmse_batch40": 0.9 * errors, "train/mse": errors**2}
        metrics |= {"val/rmse": 1.02 * errors} if spec.held_out else {}
        place = int(run_id, 16)
        row = {
            "run_id": run_id,
            "run_name": spec.name,
            "status": "FINISHED",
            "fingerprint": self.fingerprints[spec],
            "started": 1e9 + place,
        }
        row |= asdict(spec) | {"lam": np.nan if spec.lam is None else spec.lam, "cpus": "2", "gpu": "none"}
        for name, values in metrics.items():
            row |= {f"{name}/all": values.mean()} | {f"{name}/{a}": value for a, value in zip(self.activities, values, strict=True)}
        return row

    def predictions(self, run_id: str) -> pd.DataFrame:
        """Predictions for the test videos of the run's split: shrunk towards the middle, and noisy."""
        if run_id not in self.specs:
            raise MissingError(f"run {run_id} has no file predictions.parquet")
        spec = self.specs[run_id]
        first, last = self.params.datasets["breakfast"].data.test_persons[spec.split]
        parts = []
        for video, frames in self.lengths.items():
            if first <= int(video[1:3]) <= last:
                true = np.arange(frames) / (frames if spec.unit == "percent" else 1)
                noise = np.random.default_rng(frames).normal(0, 0.3 * true.max(), frames)
                near = 0.3 if spec.method == "reg" else 0.5
                prediction = true.mean() + near * (true - true.mean()) + (1 - near) * noise
                parts.append(
                    pd.DataFrame({"video": video, "frame": np.arange(frames, dtype=np.int32), "prediction": np.float32(prediction)})
                )
        table = pd.concat(parts, ignore_index=True)
        table["activity"] = table["video"].str.rsplit("_").str[-1]
        true = table["frame"] / (table["video"].map(self.lengths) if spec.unit == "percent" else 1)
        error = table["prediction"] - true
        rmse = (error**2).groupby(table["activity"]).transform("mean") ** 0.5
        row = self.runs.set_index("run_id").loc[run_id]
        tracked = table["activity"].map({activity: row[f"test/rmse/{activity}"] for activity in self.activities})
        table["prediction"] = np.float32(true + error * tracked.astype(float) / rmse)
        return table.astype({"activity": "category", "video": "category"})

    def report(self, **changed: Any) -> Report:
        """The report, optionally with other `runs` than the store's own, or without the runs' files."""
        defaults = {"params": self.params, "dataset": "breakfast", "runs": self.runs, "kept": {report.PREDICTIONS: self.predictions}}
        videos = MadeUpVideos(lengths=self.lengths, activities=self.activities)
        return report.report(sources(**({"data": videos} | defaults | changed)), fingerprints=self.fingerprints, best_lambdas=self.found)

    def where(self, **values: Any) -> pd.Series:
        """A mask of the runs with these values."""
        return pd.Series(np.logical_and.reduce([self.runs[key] == value for key, value in values.items()]), index=self.runs.index)


def prints(video: Sequences, found: BestLambdas) -> Mapping[SequenceSpec, str]:
    return {spec: spec.digest()[:32] for spec in all_specs(video, "breakfast", found)}
