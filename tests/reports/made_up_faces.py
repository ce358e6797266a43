"""A plausible store of runs on faces, made up from a seed: what `Tracker.collect` and the artifacts of its runs would give."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from regcls.errors import UserError
from regcls.metrics import evaluate, shot_of
from regcls.params import Params
from regcls.params.single import SingleGrid
from regcls.reports import faces as face_reports
from regcls.reports.published import PAPER_COUNTS
from regcls.reports.report import Report
from regcls.runs.grids import Found, all_specs
from regcls.tasks.images.params import Images
from regcls.tasks.images.runs import ImageSpec, make_spec
from reports.made_up import MadeUpLinks, small_params, with_section

LIMITS = {"many_above": 100, "few_below": 20}
AGES = np.arange(0, 101)


def with_grids(params: Params, **grids: SingleGrid) -> Params:
    return with_section(params, "imdb_wiki", grids=grids)


TABLE3 = SingleGrid(methods=("reg", "reg+cls", "reg+cls-bal"), classes=(10, 100), balanced_data=False, lambdas="default", seeds=2)
TABLE4 = SingleGrid(methods=("reg", "reg+cls"), classes=(100,), balanced_data=True, lambdas="default", seeds=2)
SEARCH = SingleGrid(methods=("reg+cls",), classes=(10, 100), balanced_data=False, lambdas=(0.1, 1.0, 10.0), seeds=1)


def small() -> Params:
    """The small parameters with these grids."""
    return with_grids(small_params(), table3=TABLE3, table4=TABLE4, lambda_search=SEARCH)


class Store:
    """Runs on made-up test images; `images` and `few` change their number: without `few` no test age is rare."""

    def __init__(
        self, params: Params, dataset: str = "imdb_wiki", *, found: Found | None = None, few: bool = True, images: int = 4
    ) -> None:
        self.params, self.dataset, self.found = params, dataset, found or {}
        rng = np.random.default_rng(7)
        counts = np.round(420 * np.exp(-(((AGES - 34) / 17.0) ** 2))).astype(int)
        self.training_counts = {int(age): int(count) for age, count in zip(AGES, counts, strict=True) if count}
        rare = counts < LIMITS["few_below"]
        ages = np.repeat(AGES, np.where(rare, 1 if few else 0, images))
        self.targets = ages.astype(float)
        self.shots = shot_of(self.targets, self.training_counts, **LIMITS)
        self.noise = rng.normal(0, 1, len(ages))
        self.fingerprints = prints(params.datasets[dataset], dataset, self.found)
        self.tables = {f"{place:032x}": self._predicted(spec) for place, spec in enumerate(self.fingerprints)}
        self.runs = pd.DataFrame([self._row(place, *item) for place, item in enumerate(self.fingerprints.items())])

    def _predicted(self, spec: ImageSpec) -> pd.DataFrame:
        """A class loss takes error away from rare ages; `lam` 10 is worse."""
        hard = {"many": 7.0, "medium": 11.0, "few": 20.0}
        gain = {"many": 0.97, "medium": 0.9, "few": 0.82} if spec.lam is not None else dict.fromkeys(hard, 1.0)
        worse = 1.1 if spec.lam == 10 else 1.0
        own = np.random.default_rng([spec.seed, spec.classes, len(spec.method), spec.balanced_data]).normal(0, 0.25, len(self.targets))
        level = np.array([hard[shot] * gain[shot] * worse for shot in self.shots])
        prediction = self.targets + level * (0.9 * self.noise + own)
        rows = np.arange(1000, 1000 + len(self.targets))
        table = pd.DataFrame({"row": rows, "path": [f"{row}.jpg" for row in rows], "target": self.targets.astype(np.float32)})
        return table.assign(prediction=prediction.astype(np.float32), shot=self.shots)

    def _row(self, place: int, spec: ImageSpec, fingerprint: str) -> dict[str, Any]:
        table = self.tables[f"{place:032x}"]
        errors = dict(evaluate(table["prediction"], table["target"], table["shot"]))
        return (
            {"run_id": f"{place:032x}", "run_name": spec.name, "status": "FINISHED", "fingerprint": fingerprint, "started": 1e9 + place}
            | asdict(spec)
            | {"lam": np.nan if spec.lam is None else spec.lam, "best_epoch": 3.0, "cpus": "2", "gpu": "none"}
            | {
                f"{split}_{name}": value * (factor if not name.startswith("n_") else 1)
                for split, factor in (("val", 0.97), ("test", 1.0))
                for name, value in errors.items()
            }
        )

    def predictions(self, run_id: str) -> pd.DataFrame:
        if run_id not in self.tables:
            raise UserError(f"run {run_id} has no file predictions.parquet")
        return self.tables[run_id]

    def report(self, **changed: Any) -> Report:
        usual: dict[str, Any] = {
            "params": self.params,
            "dataset": self.dataset,
            "runs": self.runs,
            "fingerprints": self.fingerprints,
            "found": self.found,
            "predictions": self.predictions,
            "training_counts": self.training_counts,
            "counts": PAPER_COUNTS["imdb_wiki"],
            "links": MadeUpLinks(),
            "provenance": {"git commit": "abc<1>"},
        }
        return face_reports.report(**(usual | changed))

    def id_of(self, **where: Any) -> str:
        """The id of the only run with these values."""
        found = self.runs[np.logical_and.reduce([self.runs[key] == value for key, value in where.items()])]
        assert len(found) == 1
        return str(found["run_id"].iloc[0])


def prints(faces: Images, dataset: str, found: Found) -> Mapping[ImageSpec, str]:
    return {spec: spec.digest()[:32] for spec in all_specs(make_spec, faces, dataset, found)}
