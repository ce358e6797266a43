"""A plausible store of image runs, made up from a seed: what `Tracker.collect` and the runs' artifacts would return."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from regcls.errors import MissingError
from regcls.metrics import ShotGroups, evaluate
from regcls.params import Params
from regcls.params.single import SingleGrid
from regcls.reports.report import Report
from regcls.runs.grids import BestLambdas, all_specs
from regcls.tasks.images import published, report
from regcls.tasks.images.params import ImageData, Images, StandIn
from regcls.tasks.images.runs import ImageSpec, make_spec
from reports.made_up import small_params, sources, with_section

DATA = ImageData(
    source="raw",
    archives=("https://example.org/imdb_crop.tar",),
    layout="imdb-wiki",
    target="age",
    unit="years",
    columns={},
    size=32,
    exif=False,
    bits=None,
    duplicates="refuse",
    min_face_score=1.0,
    split_seed=666,
    split_most=12,
    test_share=0.2,
    validation_share=0.2,
    expected_images=None,
    stand_in=StandIn(images=240, seed=3),
)
AGES = np.arange(0, 101)
FEW_BELOW = 20  # training images per age


def with_grids(params: Params, **grids: SingleGrid) -> Params:
    return with_section(params, "imdb_wiki", grids=grids)


TABLE3 = SingleGrid(methods=("reg", "reg+cls", "reg+cls-bal"), classes=(10, 100), balanced_data=False, lambdas="default", seeds=2)
TABLE4 = SingleGrid(methods=("reg", "reg+cls"), classes=(100,), balanced_data=True, lambdas="default", seeds=2)
SEARCH = SingleGrid(methods=("reg+cls",), classes=(10, 100), balanced_data=False, lambdas=(0.1, 1.0, 10.0), seeds=1)


def small() -> Params:
    """The small parameters with these grids."""
    return with_grids(small_params(), table3=TABLE3, table4=TABLE4, lambda_search=SEARCH)


@dataclass(frozen=True, kw_only=True)
class MadeUpImages:
    """Replaces the prepared data."""

    training: np.ndarray  # targets
    tested: np.ndarray  # targets
    images: int  # in all splits

    @property
    def prepared(self) -> "MadeUpImages":
        return self

    @property
    def table(self) -> pd.DataFrame:
        return pd.DataFrame(index=range(self.images))

    def targets(self, split: str) -> np.ndarray:
        return {"train": self.training, "test": self.tested}[split]

    def rows(self, split: str) -> np.ndarray:
        return {"test": np.arange(1000, 1000 + len(self.tested))}[split]


class Store:
    """Runs on made-up test images; `images` and `few` change their number: without `few`, no test age is rare.

    `target_of` makes another target from an age.
    """

    def __init__(
        self,
        params: Params,
        dataset: str = "imdb_wiki",
        *,
        found: BestLambdas | None = None,
        few: bool = True,
        images: int = 4,
        target_of: Callable[[np.ndarray], np.ndarray] = lambda age: age,
    ) -> None:
        self.params, self.dataset, self.found, self.target_of = params, dataset, found or {}, target_of
        rng = np.random.default_rng(7)
        counts = np.round(420 * np.exp(-(((AGES - 34) / 17.0) ** 2))).astype(int)
        training = np.repeat(AGES, counts).astype(float)
        self.ages = np.repeat(AGES, np.where(counts < FEW_BELOW, 1 if few else 0, images)).astype(float)
        self.shots = ShotGroups.by_integer(training, many_above=100, few_below=FEW_BELOW).shot_of(self.ages)
        self.noise = rng.normal(0, 1, len(self.ages))
        targets = {"training": training, "tested": self.ages}
        self.data = MadeUpImages(
            **{name: target_of(ages).astype(np.float32) for name, ages in targets.items()}, images=published.COUNTS["images"]
        )
        self.fingerprints = prints(params.datasets[dataset], dataset, self.found)
        self.tables = {f"{index:032x}": self._predicted(spec) for index, spec in enumerate(self.fingerprints)}
        self.runs = self.tracked()

    def tracked(self) -> pd.DataFrame:
        """The runs with the metrics of their tables."""
        return pd.DataFrame([self._row(index, *item) for index, item in enumerate(self.fingerprints.items())])

    def _predicted(self, spec: ImageSpec) -> pd.DataFrame:
        """Predictions that a class loss improves for rare ages, less with `lam` 10."""
        hard = {"many": 7.0, "medium": 11.0, "few": 20.0}
        gain = {"many": 0.97, "medium": 0.9, "few": 0.82} if spec.lam is not None else dict.fromkeys(hard, 1.0)
        worse = 1.1 if spec.lam == 10 else 1.0
        own = np.random.default_rng([spec.seed, spec.classes, len(spec.method), spec.balanced_data]).normal(0, 0.25, len(self.ages))
        level = np.array([hard[shot] * gain[shot] * worse for shot in self.shots])
        prediction = self.target_of(self.ages + level * (0.9 * self.noise + own))
        rows = self.data.rows("test")
        table = pd.DataFrame({"row": rows, "path": [f"{row}.jpg" for row in rows], "target": self.data.tested})
        return table.assign(prediction=prediction.astype(np.float32))

    def _row(self, place: int, spec: ImageSpec, fingerprint: str) -> dict[str, Any]:
        """Tracked test metrics by shot group are arbitrary: no report uses them."""
        table = self.tables[f"{place:032x}"]
        errors = dict(evaluate(table["prediction"], table["target"], self.shots))
        return (
            {"run_id": f"{place:032x}", "run_name": spec.name, "status": "FINISHED", "fingerprint": fingerprint, "started": 1e9 + place}
            | asdict(spec)
            | {"lam": np.nan if spec.lam is None else spec.lam, "best_epoch": 3.0, "cpus": "2", "gpu": "none"}
            | {f"val/{name}": value * (1 if name.startswith("n/") else 0.97) for name, value in errors.items()}
            | {f"test/{name}": 99.0 if f"test/{name}" not in report.CHECKED else value for name, value in errors.items()}
        )

    def predictions(self, run_id: str) -> pd.DataFrame:
        if run_id not in self.tables:
            raise MissingError(f"run {run_id} has no file predictions.parquet")
        return self.tables[run_id]

    def report(self, **changed: Any) -> Report:
        """The report, optionally on other `runs`, `data` or files `kept` than the store's own."""
        defaults = {"params": self.params, "dataset": self.dataset, "data": self.data, "runs": self.runs}
        given = sources(**({**defaults, "kept": {"predictions.parquet": self.predictions}} | changed))
        return report.report(given, fingerprints=self.fingerprints, best_lambdas=self.found)

    def id_of(self, **where: Any) -> str:
        """The id of the one run with these values."""
        found = self.runs[np.logical_and.reduce([self.runs[key] == value for key, value in where.items()])]
        assert len(found) == 1
        return str(found["run_id"].iloc[0])


def prints(images: Images, dataset: str, found: BestLambdas) -> Mapping[ImageSpec, str]:
    return {spec: spec.digest()[:32] for spec in all_specs(make_spec, images, dataset, found)}
