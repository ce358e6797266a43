"""regcls predict: the predictions of a tracked run for image files."""

import csv
import io
import os
import shutil
import sqlite3
from contextlib import closing

import mlflow
import numpy as np
import pytest
import torch
from PIL import Image

from regcls.cli import main
from regcls.params import Compute
from regcls.tasks import task_named
from regcls.tasks.depth.model import DepthPredictor, build_depth
from regcls.tasks.depth.runs import DepthSpec
from regcls.tasks.images.data import ImageSet
from regcls.tasks.task import PredictRequest
from regcls.tracking.run_table import typed
from regcls.tracking.tracker import Tracker
from regcls.training.checkpoint import Checkpoints
from tracked import SPEC

FEW = {"compute": {"processes": 1}, "imdb_wiki": {"training": {"epochs": 1, "milestones": []}}}


def make_project_with_a_run(make_faces, monkeypatch, *options):
    """A project with one finished run: its root, tracker, the run's id, and the paths of the test images as PNG files."""
    monkeypatch.setattr(Compute, "cores", 1)
    root = make_faces(FEW)
    monkeypatch.chdir(root)
    assert main(["run", "imdb_wiki", "--classes", "10", *options]) == 0
    tracker = Tracker(root, experiment="regcls")
    (run_id,) = tracker.finished("imdb_wiki").values()
    images = ImageSet(root / "data" / "imdb_wiki" / "prepared")
    (root / "faces").mkdir()
    files = [f"faces/{index}.png" for index in range(len(images.rows("test")))]
    for row, file in zip(images.rows("test"), files, strict=True):
        Image.fromarray(images.images[row]).save(root / file)
    return root, tracker, run_id, files


@pytest.fixture
def threads():
    """Restores the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def project(request, make_faces, monkeypatch, threads):
    monkeypatch.setattr(Tracker, "log_model", lambda *args, **kwargs: None)  # takes seconds and is not used here
    return make_project_with_a_run(make_faces, monkeypatch, "--targets", getattr(request, "param", "raw"))


def predict(capsys, *arguments):
    """Run `regcls predict`; return its exit code, csv rows and stderr."""
    capsys.readouterr()
    code = main(["predict", *arguments])
    out, err = capsys.readouterr()
    return code, list(csv.reader(io.StringIO(out))), err


@pytest.mark.parametrize("project", ["raw", "standardised"], indirect=True)
def test_predictions_for_image_files_equal_those_of_the_run(project, capsys):
    _root, tracker, run_id, files = project
    table = tracker.files.table(run_id, "predictions.parquet")
    code, (header, *rows), err = predict(capsys, run_id[:8], *files)  # more than are read at a time
    assert (code, header) == (0, ["image", "prediction"])
    assert [name for name, _ in rows] == files
    np.testing.assert_allclose([float(value) for _, value in rows], table["prediction"], rtol=1e-3)
    assert "predicting: 100 %" in err

    assert tracker.find(run_id).params["targets"] == "raw" or table["prediction"].min() > 5  # years, not standard deviations

    last = predict(capsys, run_id, files[0], "--checkpoint", "last")  # of a single epoch, which is thus the best
    assert last[:2] == (0, [header, rows[0]])


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
def test_a_run_by_classes_alone_predicts_without_its_data_also_from_its_logged_model_and_can_be_repeated(make_faces, monkeypatch, capsys):
    root, tracker, run_id, files = make_project_with_a_run(make_faces, monkeypatch, "--method", "hl-gauss")
    expected = tracker.files.table(run_id, "predictions.parquet")["prediction"]
    shutil.move(root / "data", root / "elsewhere")
    code, (_, *rows), _ = predict(capsys, run_id[:8], *files)
    assert code == 0 and [name for name, _ in rows] == files
    np.testing.assert_allclose([float(value) for _, value in rows], expected, rtol=1e-3)
    model = next((root / "mlartifacts").rglob("MLmodel")).parent
    pixels = np.stack([np.asarray(Image.open(root / file)) for file in files])
    np.testing.assert_allclose(mlflow.pyfunc.load_model(str(model)).predict(pixels), expected, rtol=1e-3)
    shutil.move(root / "elsewhere", root / "data")
    assert main(["rerun", run_id]) == 0
    assert "final metrics are equal" in capsys.readouterr().out


def test_unreadable_images_are_reported_and_the_others_predicted(project, capsys):
    root, _, run_id, files = project
    (root / "notes.txt").write_text("no image")
    code, (_, *rows), err = predict(capsys, run_id, files[0], "notes.txt", "nowhere.png", files[0])
    assert code == 2
    assert [name for name, _ in rows] == [files[0], files[0]] and rows[0] == rows[1]
    assert "notes.txt: not an image of a known format\n" in err and "nowhere.png: there is no such file\n" in err
    assert err.endswith("regcls: error: 2 of 4 images could not be read; they are named above\n")


def test_what_has_no_end_or_is_too_large_is_not_read(project, capsys):
    root, _, run_id, files = project
    os.mkfifo(root / "pipe.jpg")
    with (root / "disk.jpg").open("wb") as file:
        file.truncate(2**31)
    code, (_, *rows), err = predict(capsys, run_id, "/dev/zero", "pipe.jpg", ".", "disk.jpg", files[0])
    assert (code, [name for name, _ in rows]) == (2, [files[0]])
    for name in ("/dev/zero", "pipe.jpg", "."):
        assert f"{name}: not a file, but a folder, a device or a pipe\n" in err
    assert "disk.jpg: larger than 512 MiB\n" in err


def test_images_of_any_size_and_format_are_accepted(project, capsys):
    root, _, run_id, files = project
    Image.open(root / files[0]).convert("L").resize((200, 150)).save(root / "large.jpg")
    code, (_, *rows), _ = predict(capsys, run_id, "large.jpg")
    assert code == 0 and np.isfinite(float(rows[0][1]))


@pytest.mark.parametrize("change, applied", [("UPDATE params SET value = 'true'", True), ("SELECT 1 FROM params", False), ("DELETE FROM params", False)])  # fmt: skip
def test_images_are_turned_upright_if_those_of_the_run_were(project, capsys, change, applied):
    root, _, run_id, files = project
    with closing(sqlite3.connect(root / "mlflow.db")) as connection, connection:
        connection.execute(f"{change} WHERE key = 'exif'")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(root / files[0]).save(root / "lying.png", exif=exif)
    Image.open(root / files[0]).transpose(Image.Transpose.ROTATE_270).save(root / "upright.png")
    _, (_, *rows), _ = predict(capsys, run_id, "lying.png", "upright.png", files[0])
    lying, upright, stored = (value for _, value in rows)
    assert (lying == upright, lying == stored) == (applied, not applied)


@pytest.mark.parametrize("bits", ["12", "16", None])
def test_16_bit_images_are_read_with_the_bits_of_the_run(project, capsys, bits):
    root, _, run_id, files = project
    with closing(sqlite3.connect(root / "mlflow.db")) as connection, connection:
        connection.execute(
            "DELETE FROM params WHERE key = 'bits'" if bits is None else f"UPDATE params SET value = {bits} WHERE key = 'bits'"
        )
    grey = np.asarray(Image.open(root / files[0]).convert("L"))
    Image.fromarray(grey).save(root / "8.png")
    Image.fromarray(grey.astype(np.uint16) << 4).save(root / "12.png")
    _, (_, (_, plain), (_, twelve)), _ = predict(capsys, run_id, "8.png", "12.png")
    assert (plain == twelve) == (bits == "12")


def test_an_unknown_or_ambiguous_run_is_a_clear_error(project, capsys, monkeypatch):
    root, tracker, run_id, files = project
    code, rows, err = predict(capsys, "0123456789", files[0])
    assert (code, rows) == (2, []) and "no run in sqlite:///" in err and "'0123456789'" in err
    other = tracker._client.create_run(tracker.experiment_id).info.run_id
    while other[0] != run_id[0]:
        other = tracker._client.create_run(tracker.experiment_id).info.run_id
    shared = run_id[0]
    code, rows, err = predict(capsys, shared, files[0])
    assert (code, rows) == (2, []) and f"runs in sqlite:///{root}/mlflow.db with an id that begins with '{shared}'" in err


def test_a_folder_is_refused_if_no_file_would_be_written(project, capsys):
    _, _, run_id, files = project
    code, rows, err = predict(capsys, run_id, files[0], "--folder", "maps")
    assert (code, rows) == (2, []) and "its predictions are printed, not written to files. Leave out --folder maps" in err


def test_a_run_of_the_1d_study_is_refused(project, capsys):
    _, tracker, _, files = project
    run_id = tracker.start(SPEC, fingerprint="g", tags={})
    code, rows, err = predict(capsys, run_id, files[0])
    assert (code, rows) == (2, [])
    assert f"run {run_id} has no images as input: regcls predict is for runs on images and depth" in err


def test_a_run_of_an_earlier_version_is_refused(project, capsys):
    _, tracker, run_id, files = project
    tracker._client.delete_tag(run_id, "task")
    code, rows, err = predict(capsys, run_id, files[0])
    assert (code, rows) == (2, []) and f"run {run_id} is on imdb_wiki, made by an earlier version of regcls" in err


def test_a_missing_or_damaged_checkpoint_is_a_clear_error(project, capsys):
    root, _, run_id, files = project
    file = root / "mlartifacts" / "0" / run_id / "artifacts" / "checkpoints" / "best.pt"
    file.write_bytes(file.read_bytes()[:1000])
    code, rows, err = predict(capsys, run_id, files[0])
    assert (code, rows) == (2, []) and "best.pt is damaged or not a regcls checkpoint" in err
    shutil.rmtree(file.parent)
    code, rows, err = predict(capsys, run_id, files[0])
    assert (code, rows) == (2, []) and f"run {run_id} has no file checkpoints/best.pt" in err


@pytest.mark.parametrize(("recorded", "used"), [("True", True), ("False", False)])
def test_the_predictor_of_a_stored_run_has_its_own_align_corners(recorded, used, tmp_path):
    torch.manual_seed(0)
    network = build_depth("resnet18", width=2, classes=0, align_corners=used)
    checkpoints = Checkpoints(tmp_path / "run", fingerprint="f")
    checkpoints.save_best(network.state_dict(), epoch=1)
    pixels = np.random.default_rng(0).integers(0, 256, (36, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "room.png")
    params = {"model": "resnet18", "width": "2", "short_side": "36", "align_corners": recorded}
    spec, file = typed(params, DepthSpec), checkpoints.best_file(1)
    request = PredictRequest(
        run_id="r", spec=spec, checkpoint=lambda: file, device="cpu", images=[tmp_path / "room.png"], folder=tmp_path / "maps"
    )
    assert task_named("depth").predict(request) == []
    with Image.open(tmp_path / "maps" / "room_depth.png") as depth, torch.inference_mode():
        expected = DepthPredictor(network)(torch.from_numpy(pixels[None]))[0].clamp(min=0)
        np.testing.assert_allclose(np.asarray(depth) / 1000, expected, atol=1e-3)
