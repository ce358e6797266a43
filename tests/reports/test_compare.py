"""The compare stage: from prepared data and tracked runs to reports/, whatever a data set lacks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from regcls.data.store import deciding_parameters, prepared_folder, write_prepared
from regcls.errors import UserError
from regcls.params import Params, load_params
from regcls.pipeline import compare as stage
from regcls.training import single_study
from reports.made_up import MadeUpTracker
from tasks.images.made_up_images import Store

SMALL = {
    "datasets": ["functions", "imdb_wiki"],
    "imdb_wiki": {
        "grids": {
            "table3": {"methods": ["reg", "reg+cls", "reg+cls-bal"], "classes": [10], "lambdas": "default", "seeds": 1},
            "table4": {"seeds": 0},
            "lambda_search": {"seeds": 0},
        }
    },
}


class FakeTracker(MadeUpTracker):
    """The made-up store of images in place of MLflow."""

    def __init__(self, store: Store) -> None:
        super().__init__({"predictions.parquet": store.predictions})
        self.runs = store.runs

    def collect(self, dataset: str, kind: type) -> pd.DataFrame:
        return self.runs if dataset == "imdb_wiki" else pd.DataFrame()


@pytest.fixture
def project(make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Params]:
    root = make_project(SMALL)
    params = load_params(root / "params.yaml")
    store = Store(params)

    def fingerprints(specs: Any, images: Any, code: str, origin: Any) -> dict[Any, str]:
        return {spec: store.fingerprints[spec] for spec in specs}

    monkeypatch.setattr(stage, "Tracker", lambda root, experiment: FakeTracker(store))
    monkeypatch.setattr(single_study, "fingerprints", fingerprints)
    return root, params


def prepare_images(root: Path, params: Params) -> None:
    """Prepare three training images and the targets of the test images; the runs are made up."""
    training = pd.DataFrame({"path": list("abc"), "target": np.float32([30, 30, 31]), "split": "train", "row": range(3)})
    made_up = Store(params).data
    tested = pd.DataFrame({"path": "", "target": made_up.tested, "split": "test", "row": made_up.rows("test")})
    table = pd.concat([training, tested], ignore_index=True)
    images = {"images": np.zeros((3, 8, 8, 3), np.uint8)}
    made_from = deciding_parameters(params.datasets["imdb_wiki"].data)
    write_prepared(prepared_folder(root, "imdb_wiki"), arrays=images, table=table, made_from=made_from)


def test_an_unprepared_data_set_does_not_stop_the_others(project: tuple[Path, Params], capsys: pytest.CaptureFixture[str]) -> None:
    root, params = project
    prepare_images(root, params)
    stage.compare(params, root)
    output = capsys.readouterr().err
    assert "functions: left out, because there is no prepared data in" in output and "regcls prepare functions" in output
    assert "reg+cls with 10 classes, λ " in (root / "reports/imdb_wiki/index.html").read_text()
    metrics = json.loads((root / "reports/metrics.json").read_text())
    assert metrics["functions"] is None and metrics["imdb_wiki"]["runs"]["finished"] == 3


def test_without_prepared_data_the_error_names_every_data_set(project: tuple[Path, Params]) -> None:
    root, params = project
    with pytest.raises(UserError, match=r"(?s)functions: there is no prepared data.*imdb_wiki: there is no prepared data"):
        stage.compare(params, root)
    assert not (root / "reports").exists()


def test_a_failing_store_is_an_error_and_keeps_the_previous_reports(project: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch) -> None:
    root, params = project
    prepare_images(root, params)
    stage.compare(params, root)
    before = (root / "reports/index.html").read_bytes()

    def fails(self: FakeTracker, dataset: str, kind: type) -> pd.DataFrame:
        raise UserError("the server does not answer")

    monkeypatch.setattr(FakeTracker, "collect", fails)
    with pytest.raises(UserError, match=r"^the server does not answer$"):
        stage.compare(params, root)
    assert (root / "reports/index.html").read_bytes() == before
