"""Depth from the archive to the report with the commands of a user; and resuming after kill -9."""

import csv
import io
import os
import signal
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from torch.nn import functional as F

from conftest import overlay
from processes import runs, wait_until, with_status
from regcls.cli import main
from regcls.models.resnet import ResNet
from regcls.params import Compute
from regcls.tasks.depth.data import DepthSet
from regcls.tasks.depth.metrics import errors_of, sums_of
from regcls.tasks.depth.runs import DepthSpec
from regcls.tasks.depth.train import load_predictor
from regcls.tracking.tracker import Tracker
from tasks.depth.made_up_pairs import DATA, write_pairs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("signals", "one_core")]

DEPTH = {"datasets": ["nyud2"], "compute": {"processes": 1}}


@pytest.fixture
def regcls(monkeypatch, capsys):
    """Run a command in a project; return its exit code, stdout and stderr."""
    monkeypatch.setattr(Compute, "cores", 1)

    def run(root, *arguments):
        with monkeypatch.context() as patch:
            patch.chdir(root)
            patch.setattr(Tracker, "log_model", lambda *args, **kwargs: None)  # takes seconds and is tested elsewhere
            capsys.readouterr()
            return main(list(arguments)), *capsys.readouterr()

    return run


def change(root, changes):
    file = root / "params.yaml"
    file.write_text(yaml.safe_dump(overlay(yaml.safe_load(file.read_text()), changes), sort_keys=False))


def row_of(root, method):
    table = pd.read_csv(root / "reports" / "nyud2" / "table2.csv")
    return table[(table["source"] == "ours") & (table["method"] == method)].iloc[0]


def test_the_pipeline_goes_from_archive_to_tables_and_other_shot_groups(make_project, regcls):
    root = make_project(DEPTH)
    code, out, _ = regcls(root, "prepare", "nyud2")
    assert code == 0 and "test        8 images" in out
    code, _, output = regcls(root, "train", "nyud2")
    assert code == 0 and "2 runs trained, 0 were there already, 0 failed" in output
    assert regcls(root, "compare")[0] == 0
    page = (root / "reports" / "nyud2" / "index.html").read_text()
    assert "generated stand-in images" in page and "model selected on test" in page

    tracker = Tracker(root, experiment="regcls")
    run_id = next(row["run_id"] for row in tracker.collect("nyud2", DepthSpec).to_dict("records") if row["method"] == "reg")
    metrics, table = tracker.metrics(run_id), tracker.files.table(run_id, "sums.parquet")
    assert row_of(root, "reg")["rmse_val_all"] == pytest.approx(metrics["test/rmse/all"], rel=1e-6)
    assert {"checkpoints/best.pt", "checkpoints/best_on_test.pt", "checkpoints/last.pt", "examples.npz", "examples.png"} < set(
        tracker.files.sizes(run_id)
    )

    # Other limits: same runs, other tables.
    few = {"nyud2": {"shots": {"many": [[0, 20]], "medium": [[21, 99]]}}}
    change(root, few)
    code, _, output = regcls(root, "train", "nyud2")
    assert code == 0 and "0 runs trained, 2 were there already" in output
    assert regcls(root, "compare")[0] == 0
    limits = {"many": frozenset(range(21)), "medium": frozenset(range(21, 100))}
    expected = dict(errors_of(sums_of(table[table["selection"] == "val"]), limits))
    assert row_of(root, "reg")["rmse_val_many"] == pytest.approx(expected["rmse/many"], rel=1e-6)
    assert np.isnan(row_of(root, "reg")["rmse_val_few"]) and expected["n/few"] == 0


def test_the_depth_map_of_an_image_file_is_that_of_the_run(make_project, regcls, tmp_path):
    root = make_project(DEPTH)
    assert regcls(root, "run", "nyud2", "--classes", "10")[0] == 0
    tracker = Tracker(root, experiment="regcls")
    (run_id,) = tracker.finished("nyud2").values()
    image = DepthSet(root / "data" / "nyud2" / "prepared").train_images[0]
    Image.fromarray(image).resize((96, 72), Image.Resampling.BICUBIC).save(root / "room.png")  # the network sees it scaled down again
    (root / "notes.txt").write_text("no image")
    code, out, output = regcls(root, "predict", run_id[:8], "room.png", "notes.txt", "--folder", "maps")
    assert code == 2 and "notes.txt: not an image of a known format" in output
    (line,) = csv.DictReader(io.StringIO(out))
    with Image.open(root / "maps" / "room_depth.png") as depth, Image.open(root / "maps" / "room_depth_colour.png") as colour:
        found = np.asarray(depth).astype(float) / 1000
        assert (depth.mode, depth.size, colour.mode, colour.size) == ("I;16", (96, 72), "RGB", (96, 72))
    assert float(line["nearest"]) == pytest.approx(found.min(), abs=2e-3) and float(line["farthest"]) == pytest.approx(
        found.max(), abs=2e-3
    )

    predictor = load_predictor(tracker.files.fetch(run_id, "checkpoints/best.pt", tmp_path), model="resnet18", width=2, align_corners=True)
    with Image.open(root / "room.png") as room:
        seen = np.asarray(room.resize((48, 36), Image.Resampling.BILINEAR))
    with torch.inference_mode():
        expected = F.interpolate(predictor(torch.from_numpy(seen[None].copy()))[None], size=(72, 96), mode="bilinear", align_corners=True)
    np.testing.assert_allclose(found, expected[0, 0].clamp(min=0), atol=1e-3)

    (root / "maps").mkdir(exist_ok=True)
    Image.fromarray(image).save(root / "maps" / "room.png")
    code, _, output = regcls(root, "predict", run_id[:8], "room.png", "maps/room.png")
    assert code == 2 and "room.png and maps/room.png have the same name" in output


@pytest.mark.parametrize("kind", DATA)
def test_own_pairs_go_from_a_csv_to_a_report_and_predictions(make_project, regcls, kind):
    own = {
        "like": "nyud2",
        "data": DATA[kind] | {"source": "raw", "layout": "csv", "target": "distance", "unit": "yd", "deepest": "data", "archives": []},
        "training": {"class_range": "data", "depth_resampling": "measured"},
        "shots": {"by": "density"},
        "grids": {"table2": {"methods": ["reg", "reg+cls-bal"]}},
        "published": None,
    }
    root = make_project(DEPTH | {"datasets": ["own"], "own": own})
    write_pairs(root / "data" / "own" / "raw", kind)
    code, out, _ = regcls(root, "prepare", "own")
    assert code == 0 and "train      12 images of 3 scenes" in out and "test        8 images" in out
    code, _, output = regcls(root, "train", "own")
    assert code == 0 and "2 runs trained, 0 were there already, 0 failed" in output, output
    assert regcls(root, "compare")[0] == 0
    page = (root / "reports" / "own" / "index.html").read_text()
    assert "predicts the distance of every pixel" in page and "Test RMSE (yd)" in page and "all measured test pixels" in page
    assert "(m)" not in page and "0.1 m" not in page and "metres" not in page
    table = pd.read_csv(root / "reports" / "own" / "error_by_depth.csv")
    opened = DepthSet(root / "data" / "own" / "prepared")
    assert table["depth_to"].max() == pytest.approx(opened.deepest) and (table["drawn"] == "bar").sum() == 100
    bars = table[table["drawn"] == "bar"]
    assert bars["training_pixels"].tolist() == opened.training_pixels().tolist() and set(bars["shot"]) >= {"many", "few"}

    run_id = next(iter(Tracker(root, experiment="regcls").finished("own").values()))
    code, out, output = regcls(root, "predict", run_id[:8], "data/own/raw/images/000.png", "--folder", "maps")
    assert code == 0 and f"value × {DATA[kind]['depth_scale']:g}" in output
    (line,) = csv.DictReader(io.StringIO(out))
    with Image.open(root / "maps" / "000_depth.png") as depth:
        found = np.asarray(depth) * DATA[kind]["depth_scale"]
    assert float(line["farthest"]) == pytest.approx(found.max(), abs=DATA[kind]["depth_scale"])


@pytest.fixture
def uninterrupted(make_project, regcls, tmp_path):
    root = make_project(overlay(DEPTH, LONG), tmp_path / "undisturbed")
    assert regcls(root, "prepare", "nyud2")[0] == 0
    assert regcls(root, "train", "nyud2")[0] == 0
    return root


LONG = {"nyud2": {"training": {"epochs": 6}, "grids": {"table2": {"methods": ["reg+cls-bal"]}}}}


def test_after_kill_9_a_run_resumes_with_the_same_selections(uninterrupted, make_project, regcls, start):
    root = make_project(overlay(DEPTH, LONG))
    assert regcls(root, "prepare", "nyud2")[0] == 0
    process = start(root, sys.executable, "-m", "regcls", "train", "nyud2")

    def halfway():
        assert process.poll() is None, (root / "output.txt").read_text()
        return any(file.name >= "state-00002" for file in (root / ".regcls" / "checkpoints").glob("*/*/state-*.json"))

    wait_until(halfway, "a state of the second epoch")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (run_id,) = with_status(root, "RUNNING")
    code, _, output = regcls(root, "train", "nyud2")
    assert code == 0 and "resumes from state-0000" in output
    ((found, status, _),) = runs(root)
    assert (found, status) == (run_id, "FINISHED")

    here, there = (Tracker(folder, experiment="regcls") for folder in (root, uninterrupted))
    ((other, _, _),) = runs(uninterrupted)
    timed = {"images_per_second", "waiting_share"}
    metrics = [
        {name: value for name, value in tracker.metrics(of).items() if name not in timed}
        for tracker, of in ((here, run_id), (there, other))
    ]
    assert metrics[0] == metrics[1]
    assert any(name.startswith("selected_on_test/") for name in metrics[0])
    pd.testing.assert_frame_equal(here.files.table(run_id, "sums.parquet"), there.files.table(other, "sums.parquet"))


def test_unusable_weights_leave_no_run_and_changed_weights_make_another(make_project, regcls, tmp_path):
    root = make_project(overlay(DEPTH, {"nyud2": {"training": {"epochs": 1}}}))
    assert regcls(root, "prepare", "nyud2")[0] == 0
    file = tmp_path / "encoder.pth"
    code, _, output = regcls(root, "run", "nyud2", "--method", "reg", "--weights", str(file))
    assert code == 2 and "there is no such file" in output
    torch.save(ResNet(18, width=4).state_dict(), file)
    code, _, output = regcls(root, "run", "nyud2", "--method", "reg", "--weights", str(file))
    assert code == 2 and "not a checkpoint of ResNet-18 with width 2" in output
    assert runs(root) == []

    for seed, expected in ((0, "trained"), (0, "was there already"), (1, "trained")):
        torch.manual_seed(seed)
        torch.save(ResNet(18, width=2).state_dict(), file)
        code, _, output = regcls(root, "run", "nyud2", "--method", "reg", "--weights", str(file))
        assert code == 0 and f"{expected}, test RMSE" in output
    tracker = Tracker(root, experiment="regcls")
    tags = [tracker.find(run_id).tags["weights_sha256"] for run_id, _, _ in runs(root)]
    assert len(tags) == len(set(tags)) == 2


def test_a_rerun_with_other_shot_groups_says_so_and_compares_the_rest(make_project, regcls):
    root = make_project(overlay(DEPTH, {"nyud2": {"training": {"epochs": 1}}}))
    assert regcls(root, "run", "nyud2", "--method", "reg")[0] == 0
    ((run_id, _, _),) = runs(root)
    change(root, {"nyud2": {"shots": {"many": [[0, 20]], "medium": [[21, 99]]}}})
    code, out, output = regcls(root, "rerun", run_id[:8])
    assert code == 0 and "shot groups: then many 9-45" in output and "now many 0-20; medium 21-99" in output
    assert "final metrics are equal" in out
