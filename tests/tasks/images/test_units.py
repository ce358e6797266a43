"""The unit of the targets decides no verdict: real networks are trained on targets in two units."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from regcls.data.splits import Split
from regcls.params import Params
from regcls.params.single import SingleGrid
from regcls.reports.report import Report
from regcls.runs.grids import all_specs
from regcls.tasks.images import report
from regcls.tasks.images.data import ImageSet
from regcls.tasks.images.params import DensityShots
from regcls.tasks.images.runs import make_spec
from regcls.tasks.images.train import ImageJob, train_run
from reports.made_up import csv, sources, with_section
from training.hooks import Hooks

pytestmark = pytest.mark.usefixtures("one_thread")

GRID = SingleGrid(methods=("reg", "reg+cls"), classes=(10,), balanced_data=False, lambdas="default", seeds=3)
SHOTS = DensityShots(by="density", bins=10, many_above=1.0, few_below=0.5)


def trained(params: Params, prepared: Path, checkpoints: Path) -> Report:
    """The report on the runs of GRID, with standardised targets."""
    data, section = ImageSet(prepared), params.datasets["imdb_wiki"]
    training = replace(section.training, targets="standardised", class_range="data", learning_rate=0.01, epochs=4)
    own = with_section(params, "imdb_wiki", training=training, grids={"table3": GRID}, shots=SHOTS)
    rows, tables, specs = (
        list[dict[str, Any]](),
        dict[str, pd.DataFrame](),
        all_specs(make_spec, own.datasets["imdb_wiki"], "imdb_wiki", {}),
    )
    for spec in specs:
        compute: dict[str, Any] = {"device": "cpu", "loaders": 0, "channels_last": True, "compiled": False, "checkpoint_minutes": 10.0}
        paths: dict[str, Any] = {"prepared": prepared, "data_digest": data.digest, "checkpoints": checkpoints / spec.digest()}
        result = train_run(ImageJob(spec=spec, fingerprint=spec.digest(), shots=SHOTS, **paths, **compute), Hooks(), lambda text: None)
        tables[spec.name] = result.tables["predictions.parquet"]
        row = {"run_id": spec.name, "status": "FINISHED", "fingerprint": spec.digest(), "started": len(rows)}
        rows.append(row | asdict(spec) | dict(result.metrics))
    given = sources(own, "imdb_wiki", data=data, runs=pd.DataFrame(rows), kept={report.PREDICTIONS: lambda run_id: tables[run_id]})
    return report.report(given, fingerprints={spec: spec.digest() for spec in specs}, best_lambdas={})


def brightness(images: ImageSet, split: Split) -> np.ndarray:
    """A target that networks learn fast; whole numbers, so that the other unit has no rounding."""
    return np.float32(images.images[images.rows(split)].mean(axis=(1, 2, 3)).round())


def in_another_unit(images: ImageSet, split: Split) -> np.ndarray:
    return brightness(images, split) * np.float32(100_000) + np.float32(20_000_000)


@pytest.mark.slow
def test_another_unit_of_the_targets_changes_no_verdict(
    params: Params, prepared_faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = []
    for targets in (brightness, in_another_unit):
        monkeypatch.setattr(ImageSet, "targets", targets)
        reports.append(trained(params, prepared_faces / "data" / "imdb_wiki" / "prepared", tmp_path / targets.__name__))
    first, second = (csv(each, "table3_differences") for each in reports)
    assert second["answer"].tolist() == first["answer"].tolist() and {"cannot be told", "no difference above 2 %", "helps", "hurts"} & set(
        first["answer"]
    )
    assert [line.overall.answer for line in reports[1].lines] == [line.overall.answer for line in reports[0].lines]
    factor = first["error"].map({"mae": 1e5, "mse": 1e10})
    for name in ("reg", "other", "gap", "low", "high"):
        np.testing.assert_allclose(second[name] / factor, first[name], rtol=0, atol=1e-4 * first["reg"].max())
    np.testing.assert_allclose(second["p"], first["p"], rtol=1e-3)
