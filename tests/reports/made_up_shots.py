"""Made-up runs with one network each, of no particular task, and the subject of a report. A run's id is cell-seed."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from regcls.metrics import SHOTS, Shot
from regcls.params.single import SingleGrid
from regcls.reports.measured import Runs
from regcls.reports.shot_differences import of_means, of_root_mean_squares
from regcls.reports.shot_subject import Metric, ShotTable, Subject
from regcls.words import counted

GROUPS = np.array(["medium", "many", "many", "many", "medium", "medium", "few", "few"])  # of the test images
CELLS = [("reg", 0, math.nan, ""), ("reg+cls", 10, 1.0, "1"), ("reg+cls", 100, 0.1, "0.1")]
GRID = SingleGrid(methods=("reg", "reg+cls"), classes=(10, 100), balanced_data=False, lambdas="default", seeds=3)


def in_group(shot: str) -> np.ndarray:
    return np.ones(len(GROUPS), bool) if shot == "all" else shot == GROUPS


@dataclass(frozen=True, kw_only=True)
class MadeUp:
    """`errors`: prediction − target by test image and run id, for differences; tables use `runs.values`."""

    subject: Subject
    errors: pd.DataFrame

    @property
    def runs(self) -> Runs:
        return self.subject.runs


def runs_of(seeds: int, missing: tuple[str, ...]) -> Runs:
    """The runs of CELLS without measurements: the first run of the second cell is `1-0`."""
    wanted = pd.DataFrame(
        [
            {"method": method, "classes": classes, "lam": lam, "weight": weight, "seed": seed, "run_id": f"{cell}-{seed}"}
            for seed in range(seeds)
            for cell, (method, classes, lam, weight) in enumerate(CELLS)
        ]
    )
    wanted = wanted.assign(fingerprint=wanted["run_id"], state=np.where(wanted["run_id"].isin(missing), "missing", "finished"))
    wanted["run_id"] = wanted["run_id"].where(wanted["state"] == "finished", "")
    ids = wanted.loc[wanted["state"] == "finished", "run_id"]
    return Runs(wanted=wanted, values=pd.DataFrame(index=ids.rename(None)))


def made_up(seeds: int = 3, *, missing: tuple[str, ...] = ()) -> MadeUp:
    """Runs of CELLS on eight test images: the more classes, the smaller their errors."""
    rng = np.random.default_rng(3)
    runs = runs_of(seeds, missing)
    errors = pd.DataFrame({run_id: rng.normal(0, 8 - 2 * int(run_id[0]), len(GROUPS)) for run_id in runs.values.index})
    for split in ("val", "test"):
        for error, power in (("mae", 1), ("mse", 2)):
            for shot in SHOTS:
                runs.values[f"{split}/{error}/{shot}"] = [
                    float(np.mean(np.abs(errors.loc[in_group(shot), run_id]) ** power)) for run_id in errors
                ]

    def losses(run_ids: Any) -> dict[str, np.ndarray]:
        found = errors[list(run_ids)].to_numpy().T
        return {"mae": np.abs(found), "mse": found**2}

    return MadeUp(subject=subject_of(runs, compare=of_means(losses, GROUPS)), errors=errors)


def with_another_loss() -> MadeUp:
    """reg, focal-r in place of reg+cls with 10 classes, and focal-r+cls in place of reg+cls with 100."""
    study = made_up()
    first, second = (study.runs.wanted["classes"] == classes for classes in (10, 100))
    study.runs.wanted.loc[first, ["method", "classes", "lam", "weight"]] = ["focal-r", 0, math.nan, ""]
    study.runs.wanted.loc[second, "method"] = "focal-r+cls"
    return study


def by_classes_alone() -> MadeUp:
    """hl-gauss in place of reg+cls with 10 classes."""
    study = made_up()
    study.runs.wanted.loc[study.runs.wanted["classes"] == 10, ["method", "lam", "weight"]] = ["hl-gauss", math.nan, ""]
    return study


def subject_of(runs: Runs, **changed: Any) -> Subject:
    mae, mse = (Metric(name=name, measured=f"test/{name}", title=name.upper()) for name in ("mae", "mse"))
    sizes: dict[Shot, tuple[str, ...]] = {shot: (f"{in_group(shot).sum()} images", "of people") for shot in SHOTS}
    defaults: dict[str, Any] = {
        "runs": runs,
        "grids": {"table3": GRID},
        "titles": {"table3": "Table 3: errors"},
        "main": ShotTable(suffix="", metrics=[mae, mse], caption="Errors on {data}."),
        "more": [],
        "samples": {False: "all images", True: "balanced data"},
        "published": lambda name: None,
        "sizes": sizes,
        "groups": "Many: all that is frequent.",
        "test_images": len(GROUPS),
        "compare": None,
        "constants": {},
        "negligible": 2.0,
        "tested": {"mae": "MAE", "mse": "MSE"},
        "meaning": "Above 0 it helps.",
        "independence": "Images are independent.",
        "judged": ("val/mse/all", "validation MSE"),
        "searched": {"val/mse/all": "validation MSE", "val/mae/all": "validation MAE"},
        "error": "MAE",
        "unit": "years",
        "few": lambda images: counted(images, "image"),
        "nothing_in_few": "No test image is in Few.",
        "digits": lambda value: 2,
    }
    return Subject(**(defaults | changed))


IMAGES = 14


@cache
def squares(run_id: str) -> dict[tuple[int, str], list[float]]:
    """Squared errors of the pixels of each (image, group except all): the same pixels for all runs."""
    cell, seed = map(int, run_id.split("-"))
    pixels = np.random.default_rng(1).poisson(20.0, (IMAGES, 3))
    own = np.random.default_rng([cell, seed])
    return {
        (image, shot): own.uniform(0.2, 3.0 - 0.6 * cell, pixels[image, group]).tolist()
        for image in range(IMAGES)
        for group, shot in enumerate(SHOTS[1:])
    }


def made_up_sums(seeds: int = 3, *, missing: tuple[str, ...] = ()) -> tuple[Runs, dict[str, np.ndarray]]:
    """Runs of CELLS, and by run id sizes and summed squared errors (T, G, 2) by image and group."""
    runs = runs_of(seeds, missing)
    sums = {}
    for run_id in runs.values.index:
        of_groups = np.array(
            [[[len(found), sum(found)] for shot in SHOTS[1:] for found in [squares(run_id)[image, shot]]] for image in range(IMAGES)]
        )
        sums[run_id] = np.concatenate([of_groups.sum(axis=1, keepdims=True), of_groups], axis=1)
    return runs, sums


def compared_by_image(sums: dict[str, np.ndarray]) -> Any:
    return of_root_mean_squares(sums, error="rmse")
