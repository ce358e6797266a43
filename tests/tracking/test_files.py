"""Files of a run come back from the store, and its model predicts where this project is not installed."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient

from regcls.errors import UserError
from regcls.models.predictor import Predictor, build
from regcls.models.standardised import build_scaled
from regcls.params import load_params
from regcls.runs.grids import single_spec
from regcls.tasks.images.params import ImageOptions
from regcls.tasks.images.runs import make_spec
from regcls.tracking import files as files_module
from regcls.tracking.files import save_model
from regcls.tracking.tracker import Tracker


@pytest.fixture
def tracker(make_faces):
    return Tracker(make_faces(), experiment="regcls")


@pytest.fixture
def run_id(tracker):
    spec = single_spec(make_spec, load_params(tracker.root / "params.yaml").datasets["imdb_wiki"], "imdb_wiki", ImageOptions())
    return tracker.start(spec, fingerprint="f", tags={})


def test_files_come_back_under_their_path(tracker, run_id, tmp_path):
    (tmp_path / "state-00001.pt").write_bytes(b"weights")
    tracker.log_files(run_id, {"checkpoints/best.pt": tmp_path / "state-00001.pt", "top.pt": tmp_path / "state-00001.pt"})
    (tmp_path / "state-00001.pt").write_bytes(b"of another epoch")
    for path in ("checkpoints/best.pt", "top.pt"):
        (tmp_path / "fetched").mkdir(exist_ok=True)
        found = tracker.files.fetch(run_id, path, tmp_path / "fetched")
        assert found.name == Path(path).name and found.read_bytes() == b"weights"
    assert (tracker.root / "mlartifacts" / "0" / run_id / "artifacts" / "checkpoints" / "best.pt").is_file()  # not a link


def test_a_file_logged_again_is_replaced(tracker, run_id, tmp_path):
    for content in ("first and longer", "second"):
        (tmp_path / "file").write_text(content)
        tracker.log_files(run_id, {"some/file": tmp_path / "file"})
    assert tracker.files.fetch(run_id, "some/file", tmp_path).read_text() == "second"


def test_a_file_that_does_not_fit_into_tmpdir_is_a_clear_error(tracker, run_id, monkeypatch):
    tracker.log_table(run_id, "predictions.parquet", pd.DataFrame({"row": [3, 1]}))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(100))
    with pytest.raises(UserError, match=f"no space left in {tempfile.gettempdir()}, the folder of temporary files"):
        tracker.files.table(run_id, "predictions.parquet")


def test_json_and_tables_come_back(tracker, run_id, tmp_path):
    table = pd.DataFrame({"row": [3, 1], "path": ["a/ö.jpg", "b.jpg"], "prediction": np.array([0.5, np.nan], dtype=np.float32)})
    tracker.log_table(run_id, "predictions.parquet", table)
    pd.testing.assert_frame_equal(tracker.files.table(run_id, "predictions.parquet"), table)
    tracker.log_json(run_id, "diverged.json", {"epoch": 2, "rows": [1, 2]})
    assert tracker.files.fetch(run_id, "diverged.json", tmp_path).read_text().startswith('{\n  "epoch": 2')


def test_a_missing_file_and_a_missing_run_are_clear_errors(tracker, run_id, tmp_path):
    with pytest.raises(UserError, match=rf"run {run_id} has no file checkpoints/best\.pt.*deleted"):
        tracker.files.fetch(run_id, "checkpoints/best.pt", tmp_path)
    with pytest.raises(UserError, match="0123"):
        tracker.files.fetch("0123", "checkpoints/best.pt", tmp_path)
    with pytest.raises(UserError, match=rf"run {run_id} has no file predictions\.parquet"):
        tracker.files.table(run_id, "predictions.parquet")


def test_a_damaged_table_is_a_clear_error(tracker, run_id, tmp_path):
    (tmp_path / "damaged").write_bytes(b"PAR1 and no more")
    tracker.log_files(run_id, {"predictions.parquet": tmp_path / "damaged"})
    with pytest.raises(UserError, match=rf"predictions\.parquet of run {run_id} is damaged\."):
        tracker.files.table(run_id, "predictions.parquet")


def test_a_full_disk_is_a_clear_error(tracker, run_id, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    (tmp_path / "file").write_text("content")
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(UserError, match=r"no space left on the disk while writing checkpoints/best\.pt"):
        tracker.log_files(run_id, {"checkpoints/best.pt": tmp_path / "file"})


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
ELSEWHERE = """
import sys, warnings
warnings.simplefilter("ignore")
sys.modules["regcls"] = None  # not to be imported
import mlflow, numpy as np
images = np.load("images.npy")
model = mlflow.pyfunc.load_model(sys.argv[1])
print(model.metadata.signature)
np.save("predicted.npy", np.concatenate([model.predict(images), model.predict(images[:1])]))
"""


@pytest.mark.slow
def test_the_model_of_a_run_predicts_without_this_project(tracker, run_id, tmp_path):
    torch.manual_seed(0)
    predictor = Predictor(build("resnet18", width=2, classes=0))
    tracker.log_model(run_id, predictor, example=IMAGES[:2], points=[], step=3)
    assert "MLFLOW_TRACKING_URI" not in os.environ
    tracker.log_model(run_id, predictor, example=IMAGES[:2], points=[], step=3)  # once a run
    (model,) = tracker._client.search_logged_models([tracker.experiment_id])
    (output,) = tracker._client.get_run(run_id).outputs.model_outputs
    assert (model.model_id, model.source_run_id, model.name, output.step) == (output.model_id, run_id, "model", 3)

    here = tmp_path / "elsewhere"
    here.mkdir()
    np.save(here / "images.npy", IMAGES)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, model.artifact_location],
        cwd=here, env=environment | {"MLFLOW_TRACKING_URI": f"sqlite:///{here}/own.db"}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Tensor('uint8', (-1, 32, 32, 3))" in result.stdout and "Tensor('float32', (-1,))" in result.stdout
    with torch.inference_mode():
        expected = predictor(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(np.load(here / "predicted.npy"), [*expected, expected[0]], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_models_of_one_architecture_are_traced_once_with_their_own_weights(tmp_path, monkeypatch):
    traced, export = [], torch.export.export
    monkeypatch.setattr(files_module, "_programs", {})
    monkeypatch.setattr(torch.export, "export", lambda *args, **kwargs: (traced.append(args), export(*args, **kwargs))[1])
    expected = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        predictor = Predictor(build("resnet18", width=2, classes=0))
        save_model(predictor, tmp_path / str(seed), example=IMAGES[:2])
        expected.append(predictor(torch.from_numpy(IMAGES)).detach().numpy())
    assert len(traced) == 1 and not np.allclose(*expected)
    for seed in (0, 1):
        np.testing.assert_allclose(
            mlflow.pyfunc.load_model(str(tmp_path / str(seed))).predict(IMAGES), expected[seed], rtol=1e-4, atol=1e-4
        )


@pytest.mark.slow
def test_a_model_of_standardised_targets_has_its_own_scale(tmp_path):
    for name, scale in {"raw": None, "years": (40.0, 20.0), "dollars": (1e6, 5e5)}.items():  # of one architecture, but for the scale
        torch.manual_seed(0)
        predictor = Predictor(build_scaled("resnet18", width=2, classes=0, scale=scale))
        save_model(predictor, tmp_path / name, example=IMAGES[:2])
        (mean, std), z = scale or (0.0, 1.0), Predictor(build_scaled("resnet18", width=2, classes=0, scale=None))
        z.network.load_state_dict(predictor.network.state_dict(), strict=False)
        expected = mean + std * z(torch.from_numpy(IMAGES)).detach().numpy()
        np.testing.assert_allclose(mlflow.pyfunc.load_model(str(tmp_path / name)).predict(IMAGES), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_an_incompletely_stored_model_is_stored_again(tracker, run_id, monkeypatch):
    predictor = Predictor(build("resnet18", width=2, classes=0))
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_model_artifacts", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            tracker.log_model(run_id, predictor, example=IMAGES[:2], points=[], step=1)
    tracker.log_model(run_id, predictor, example=IMAGES[:2], points=[], step=1)
    states = {model.model_id: str(model.status) for model in tracker._client.search_logged_models([tracker.experiment_id])}
    assert list(states.values()) == ["READY"], states
