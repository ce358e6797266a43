"""A plausible store of depth runs, made up from a seed: what `Tracker.collect` and the runs' artifacts would return."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from regcls.errors import MissingError
from regcls.metrics import SHOTS
from regcls.params import Params
from regcls.params.single import SingleGrid
from regcls.reports.report import Report
from regcls.runs.grids import BestLambdas, all_specs
from regcls.tasks.depth import published, report
from regcls.tasks.depth.data import DEEPEST, LEVELS_PER_METRE, PER_METRE, level_buckets
from regcls.tasks.depth.params import by_bucket
from regcls.tasks.depth.runs import DepthSpec, make_spec
from regcls.tasks.depth.sums import BUCKETS, COLUMNS
from reports.made_up import small_params, sources, with_section

FIRST = 7  # bucket: nothing is nearer than 0.7 m


def with_grids(params: Params, **grids: SingleGrid) -> Params:
    return with_section(params, "nyud2", grids=grids)


def levels() -> np.ndarray:
    """Training pixels by 8-bit level: most at 2 to 4 m, a tail, and many not measured."""
    metres = np.arange(256) / 25.5
    counts = np.round(4e6 * np.exp(-(((metres - 2.7) / 1.9) ** 2)) + 3e4 * np.exp(-metres / 3)).astype(np.int64)
    return np.where(metres < 0.7, 0, counts) + (np.arange(256) == 0) * 5_000_000


TABLE2 = SingleGrid(methods=("reg", "reg+cls", "reg+cls-bal"), classes=(10, 100), balanced_data=False, lambdas="default", seeds=2)
TABLE4 = SingleGrid(methods=("reg", "reg+cls"), classes=(100,), balanced_data=True, lambdas="default", seeds=2)
SEARCH = SingleGrid(methods=("reg+cls",), classes=(10, 100), balanced_data=False, lambdas=(0.1, 1.0, 10.0), seeds=1)


def small() -> Params:
    """The small parameters with these grids."""
    return with_grids(small_params(), table2=TABLE2, table4=TABLE4, lambda_search=SEARCH)


@dataclass(frozen=True, kw_only=True)
class MadeUpRooms:
    """Replaces the prepared data."""

    training: int = published.COUNTS["training images"]  # including those for validation
    tested: int = published.COUNTS["test images"]
    has_drawn_mask: bool = False
    tests_all: bool = False
    deepest: float = DEEPEST
    per_unit: float = PER_METRE
    pixels: tuple[tuple[int, ...], ...] = ()  # by bucket, of the test images from the fourth on; the others have none

    def rows(self, split: str) -> range:
        return range({"train": self.training - self.training // 5, "val": self.training // 5, "test": self.tested}[split])

    @property
    def test_mask(self) -> np.ndarray:
        return self.test_depth > 0

    @property
    def test_depth(self) -> np.ndarray:
        """In the middle of each bucket, in millimetres."""
        by_image = [np.repeat(50 + 100 * np.arange(BUCKETS), counts) for counts in self.pixels]
        depth = np.zeros((self.tested, 1, max(map(len, by_image), default=1)), np.uint16)
        for image, millimetres in enumerate(by_image, start=3):
            depth[image, 0, : len(millimetres)] = millimetres
        return depth

    def levels(self, split: str) -> np.ndarray:
        return {"train": levels()}[split]

    @property
    def depths(self) -> np.ndarray:
        return np.arange(256) / LEVELS_PER_METRE

    def training_pixels(self) -> np.ndarray:
        return level_buckets(self.levels("train"), self.depths, self.deepest)

    def test_targets(self, where: Any) -> np.ndarray:
        return self.test_depth[where].astype(np.float32) / self.per_unit


class Store:
    """Runs on `images` made-up test images; without `few`, no test pixel is rare."""

    def __init__(self, params: Params, *, found: BestLambdas | None = None, few: bool = True, images: int = 12) -> None:
        self.params, self.found = params, found or {}
        rng = np.random.default_rng(7)
        self.shots = np.array(by_bucket(params.datasets["nyud2"].shots.groups(MadeUpRooms().training_pixels())))
        pixels = rng.poisson(30.0, (images, BUCKETS)).astype(float)
        pixels[:, :FIRST] = 0  # no image has all depths
        pixels[np.arange(BUCKETS) // 10 % 5 == np.arange(images)[:, None] % 5] = 0
        if not few:
            pixels[:, self.shots == "few"] = 0
        self.pixels, self.noise = pixels, np.exp(rng.normal(0, 0.3, (images, BUCKETS)))
        self.fingerprints = prints(params, self.found)
        self.tables = {f"{index:032x}": self._summed(spec) for index, spec in enumerate(self.fingerprints)}
        self.runs = pd.DataFrame([self._row(index, *item) for index, item in enumerate(self.fingerprints.items())])

    def _summed(self, spec: DepthSpec) -> pd.DataFrame:
        """Errors that a class loss reduces for rare depths, less with `lam` 10."""
        hard = {"many": 0.55, "medium": 0.95, "few": 2.2}
        gain = {"many": 1.02, "medium": 0.99, "few": 0.9} if spec.lam is not None else dict.fromkeys(hard, 1.0)
        level = np.array([hard[shot] * gain[shot] * (1.1 if spec.lam == 10 else 1.0) for shot in self.shots])
        depth = (np.arange(BUCKETS) + 0.5) / 10
        parts = []
        for selection, factor in (("val", 1.0), ("test", 0.95)):
            own = np.random.default_rng([spec.seed, spec.classes, len(spec.method), spec.balanced_data, len(selection)])
            rmse = level * factor * self.noise * np.exp(own.normal(0, 0.05, self.noise.shape) + own.normal(0, 0.03))
            relative = rmse / depth
            shares = [np.exp(-relative / limit) for limit in (0.25, 0.56, 0.95)]
            each = [np.ones_like(rmse), rmse**2, 0.8 * rmse, 0.8 * relative, 0.3 * relative, *shares]
            image, bucket = np.nonzero(self.pixels)
            sums = {name: (self.pixels * value)[image, bucket] for name, value in zip(COLUMNS, each, strict=True)}
            parts.append(pd.DataFrame({"selection": selection, "image": image + 3, "bucket": bucket} | sums))
        return pd.concat(parts, ignore_index=True).astype({"selection": "category"})

    def _row(self, place: int, spec: DepthSpec, fingerprint: str) -> dict[str, Any]:
        table = self.tables[f"{place:032x}"]
        sums = table.groupby("selection", observed=True)[["n", "squared"]].sum()
        by_selection = np.sqrt(sums["squared"] / sums["n"])
        rmse = float(by_selection["val"])
        return (
            {"run_id": f"{place:032x}", "run_name": spec.name, "status": "FINISHED", "fingerprint": fingerprint, "started": 1e9 + place}
            | asdict(spec)
            | {"lam": np.nan if spec.lam is None else spec.lam, "best_epoch": 3.0, "best_epoch_on_test": 2.0, "cpus": "2", "gpu": "none"}
            | {"val/rmse/all": 0.97 * rmse, "val/mae/all": 0.7 * rmse}
            | {f"test/rmse/{shot}": 99.0 for shot in SHOTS}  # recomputed by the report
            | {"test/rmse/all": rmse, "selected_on_test/test/rmse/all": float(by_selection["test"])}
        )

    def sums(self, run_id: str) -> pd.DataFrame:
        if run_id not in self.tables:
            raise MissingError(f"run {run_id} has no file sums.parquet")
        return self.tables[run_id]

    def examples(self, run_id: str, size: tuple[int, int] = (56, 76), count: int = 2) -> dict[str, np.ndarray]:
        """Receding walls with a box in front."""
        down, right = np.mgrid[0 : 1 : size[0] * 1j, 0 : 1 : size[1] * 1j]
        truth = np.stack([1000 + 5500 * (1 - down) * (0.4 + right * 0.2 * index) for index in range(count)])
        truth[:, size[0] // 2 : size[0] // 2 + 12, 10:30] = 1400
        noise = np.random.default_rng(int(run_id, 16)).normal(1, 0.12, truth.shape)
        shade = 255 * np.exp(-truth / 6000)[..., None] * np.array([1.0, 0.9, 0.75])
        measured = truth.copy()
        measured[:, :3] = 0
        return {
            "rows": np.array([3, 5, 6, 9, 11])[:count],
            "images": shade.astype(np.uint8),
            "truth": measured.astype(np.uint16),
            "prediction": (truth * noise).astype(np.uint16),
        }

    def report(self, **changed: Any) -> Report:
        """The report, optionally on other `runs`, `data` or files `kept` than the store's own."""
        defaults = {"params": self.params, "dataset": "nyud2", "data": self.rooms(), "runs": self.runs, "kept": self.kept()}
        return report.report(sources(**(defaults | changed)), fingerprints=self.fingerprints, best_lambdas=self.found)

    def rooms(self, **changed: Any) -> MadeUpRooms:
        """The prepared data."""
        return MadeUpRooms(pixels=tuple(map(tuple, self.pixels.astype(int).tolist())), **changed)

    def kept(self, **changed: Any) -> dict[str, Any]:
        """The files of runs; `sums` and `examples` replace them."""
        return {"sums.parquet": changed.get("sums", self.sums), report.EXAMPLES: changed.get("examples", self.examples)}

    def id_of(self, **where: Any) -> str:
        """The id of the one run with these values."""
        found = self.runs[np.logical_and.reduce([self.runs[key] == value for key, value in where.items()])]
        assert len(found) == 1
        return str(found["run_id"].iloc[0])


def prints(params: Params, found: BestLambdas) -> Mapping[DepthSpec, str]:
    return {spec: spec.digest()[:32] for spec in all_specs(make_spec, params.datasets["nyud2"], "nyud2", found)}
