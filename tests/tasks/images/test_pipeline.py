"""Training on images in real processes that are killed or meet a full disk or damaged files, and resume; and from images to the report."""

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from conftest import overlay
from face_runs import EPOCHS, ONE_RUN, start_training, states, uninterrupted_run, wait_until_halfway
from processes import DEADLINE, runs, session, wait_until, with_status
from regcls.cli import main
from regcls.metrics import METRICS
from regcls.params import load_params
from regcls.runs.grids import all_specs
from regcls.tasks.images.code import result_code
from regcls.tasks.images.data import ImageSet
from regcls.tasks.images.runs import ImageSpec, make_spec
from regcls.tracking.tracker import Tracker
from regcls.training.single_study import fingerprints

pytestmark = pytest.mark.usefixtures("signals")


@pytest.fixture
def root(make_faces, one_core):
    return make_faces(ONE_RUN)


@pytest.fixture
def train(monkeypatch, capsys):
    """Run `regcls train imdb_wiki` in this process; return its exit code and output."""

    def train(root):
        with monkeypatch.context() as patch:
            patch.chdir(root)
            patch.setattr(Tracker, "log_model", lambda *args, **kwargs: None)  # takes seconds and is tested elsewhere
            capsys.readouterr()
            return main(["train", "imdb_wiki"]), capsys.readouterr().err

    return train


@pytest.fixture
def regcls(monkeypatch, capsys, one_core):
    """Run a command in a project; return its exit code, stdout and stderr."""

    def run(root, *arguments):
        with monkeypatch.context() as patch:
            patch.chdir(root)
            patch.setattr(Tracker, "log_model", lambda *args, **kwargs: None)
            capsys.readouterr()
            return main(list(arguments)), *capsys.readouterr()

    return run


def change(root, changes):
    file = root / "params.yaml"
    file.write_text(yaml.safe_dump(overlay(yaml.safe_load(file.read_text()), changes), sort_keys=False))


@pytest.fixture
def uninterrupted(root, tmp_path):
    return uninterrupted_run(root, tmp_path)[1]


def assert_finished_once_with(root, weights, run_id):
    """Assert that `run_id` is the only run, FINISHED, complete, listed, and has `weights`."""
    ((found, status, fingerprint),) = runs(root)
    assert (found, status) == (run_id, "FINISHED")
    (entry,) = json.loads((root / "runs" / "imdb_wiki.json").read_text())
    assert (entry["run_id"], entry["status"], entry["fingerprint"]) == (run_id, "FINISHED", fingerprint)
    last = torch.load(root / "mlartifacts" / "0" / run_id / "artifacts" / "checkpoints" / "last.pt", weights_only=True)
    assert last["weights"].keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in last["weights"].items())
    assert [epoch["number"] for epoch in last["history"]] == list(range(1, EPOCHS + 1))
    assert not [file for file in (root / ".regcls" / "checkpoints").rglob("*") if file.is_file()]


@pytest.fixture
def killed(root, start):
    """The id of a run whose process group was killed during training."""
    process = start_training(start, root)
    wait_until_halfway(root, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    ((run_id, status, _),) = runs(root)
    assert status == "RUNNING" and len(states(root)) >= 2
    return run_id


@pytest.mark.slow
def test_after_kill_9_the_run_resumes_and_ends_with_the_same_weights(root, killed, train, uninterrupted):
    newest = states(root)[-1].stem
    code, output = train(root)
    assert code == 0, output
    assert "marked 1 runs of a dead process as KILLED" in output
    assert f"resumes from {newest}.pt: epoch {int(newest[6:11]) + 1}, batch 1" in output
    assert "1 runs trained, 0 were there already, 0 failed" in output
    assert_finished_once_with(root, uninterrupted, killed)
    assert train(root)[0] == 0
    assert_finished_once_with(root, uninterrupted, killed)


@pytest.mark.slow
def test_missing_images_and_damaged_checkpoints_lose_nothing(root, killed, train, uninterrupted):
    images = root / "data" / "imdb_wiki" / "prepared" / "images.npy"
    kept = {file: file.read_bytes() for file in (root / ".regcls" / "checkpoints").rglob("*") if file.is_file()}
    shutil.move(images, root / "elsewhere.npy")
    code, output = train(root)
    assert code == 2
    (line,) = output.splitlines()
    assert line.startswith(f"regcls: error: {images} is damaged: it has 0 bytes instead of ")
    assert line.endswith("Prepare it again with: regcls prepare imdb_wiki")
    assert {file: file.read_bytes() for file in kept} == kept
    shutil.move(root / "elsewhere.npy", images)

    before, newest = (file.with_suffix(".pt") for file in states(root)[-2:])
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    code, output = train(root)
    assert code == 0, output
    assert f"checkpoint {newest.stem}: its checksum does not match; using the one before it" in output
    assert f"resumes from {before.name}" in output
    assert_finished_once_with(root, uninterrupted, killed)


@pytest.mark.slow
def test_a_full_disk_is_a_clear_error_and_training_can_resume(root, start, train, uninterrupted):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    params = load_params(root / "params.yaml")
    specs = all_specs(make_spec, params.datasets["imdb_wiki"], "imdb_wiki", {})
    ((_, fingerprint),) = fingerprints(specs, ImageSet(root / "data" / "imdb_wiki" / "prepared"), result_code()).items()
    folder = root / ".regcls" / "checkpoints" / "imdb_wiki" / fingerprint
    folder.mkdir(parents=True)
    # The temporary file of the third state. The shell becomes the training process, with the same process id.
    full = f'ln -s /dev/full "{folder}/.state-00003-0000000.pt.$$.part" && exec "{sys.executable}" -m regcls train imdb_wiki'
    process = start(root, "sh", "-c", full)
    assert process.wait(DEADLINE) == 2
    last = (root / "output.txt").read_text().splitlines()[-1]
    expected = (
        f"no space left on the disk while writing {folder}/state-00003-0000000.pt; nothing was replaced. Free some space and start again."
    )
    assert last == f"regcls: error: {expected}"
    (run_id,) = with_status(root, "KILLED")
    assert [file.stem for file in states(root)] == ["state-00001-0000000", "state-00002-0000000"]
    code, output = train(root)
    assert code == 0 and "resumes from state-00002-0000000.pt: epoch 3, batch 1" in output
    assert_finished_once_with(root, uninterrupted, run_id)


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_parallel_runs_stop_on_a_signal_and_resume(make_faces, start, train, number, code):
    both = {"imdb_wiki": {"grids": {"table3": {"methods": ["reg", "reg+cls"]}}}, "compute": {"processes": 2}}
    root = make_faces(overlay(ONE_RUN, both))
    process = start_training(start, root)
    wait_until_halfway(root, process)
    os.killpg(process.pid, number)  # like a terminal and systemd
    assert process.wait(DEADLINE) == code
    wait_until(lambda: not session(process), "the end of the workers")
    assert "Traceback" not in (root / "output.txt").read_text()
    begun = {run_id for run_id, _, _ in runs(root)}
    assert len(begun) == 2 and with_status(root, "KILLED") == begun
    change(root, {"compute": {"processes": 1}})  # here: starting workers takes longer than the rest
    status, output = train(root)
    assert status == 0 and "2 runs trained, 0 were there already, 0 failed" in output and "resumes from" in output
    assert with_status(root, "FINISHED") == begun


def row_of(root, method):
    table = pd.read_csv(root / "reports" / "imdb_wiki" / "table3.csv")
    return table[(table["source"] == "ours") & (table["method"] == method)].iloc[0]


LIMITS = {
    "integer": {"by": "integer", "many_above": 3, "few_below": 2},
    "density": {"by": "density", "bins": 5, "many_above": 1.0, "few_below": 0.5},
}


@pytest.mark.slow
def test_the_pipeline_makes_tables_and_takes_other_groups_and_metrics(make_faces, regcls, monkeypatch):
    root = make_faces({"datasets": ["imdb_wiki"], "imdb_wiki": {"grids": {"table3": {"methods": ["reg"]}}}})
    code, _, output = regcls(root, "train", "imdb_wiki")
    assert code == 0 and "1 runs trained, 0 were there already, 0 failed" in output
    tracker = Tracker(root, experiment="regcls")
    (run_id,) = tracker.finished("imdb_wiki").values()
    table, metrics = tracker.files.table(run_id, "predictions.parquet"), tracker.metrics(run_id)
    errors = np.abs(table["prediction"].astype(float) - table["target"].astype(float))
    assert metrics["test/mae/all"] == pytest.approx(errors.mean()) and {"val/mse/all", "val/n/few", "test/gm/few"} <= set(metrics)
    assert {"epochs/val/mae/few", "epochs/train/loss", "epochs/learning_rate"} <= set(metrics) and "epochs/val/n/few" not in metrics

    monkeypatch.setitem(METRICS, "worst", lambda errors: float(np.max(np.abs(errors))))
    training = ImageSet(root / "data" / "imdb_wiki" / "prepared").targets("train")
    for limits in LIMITS.values():
        change(root, {"imdb_wiki": {"shots": limits}})
        code, _, output = regcls(root, "train", "imdb_wiki")
        assert code == 0 and "0 runs trained, 1 were there already" in output
        code, _, output = regcls(root, "compare")
        assert code == 0 and "stale" not in output and "hole" not in output
        groups = load_params(root / "params.yaml").datasets["imdb_wiki"].shots.groups(training).shot_of(table["target"])
        assert {"many", "few"} <= set(groups)
        for shot in ("many", "few"):
            assert row_of(root, "reg")[f"mae_{shot}"] == pytest.approx(errors[groups == shot].mean(), rel=1e-6)
        more = pd.read_csv(root / "reports" / "imdb_wiki" / "table3_more.csv")
        assert more.query("source == 'ours'")["worst_all"].tolist() == pytest.approx([errors.max()], rel=1e-6)
    assert tracker.metrics(run_id) == metrics and tracker.find(run_id).tags["shots"] == "integer: many_above 6, few_below 4"


@pytest.mark.slow
def test_a_rerun_with_other_shot_groups_says_so_and_compares_the_rest(make_faces, regcls):
    root = make_faces({"datasets": ["imdb_wiki"]})
    assert regcls(root, "run", "imdb_wiki", "--method", "reg")[0] == 0
    ((run_id, _, _),) = runs(root)
    change(root, {"imdb_wiki": {"shots": LIMITS["density"]}})
    code, out, output = regcls(root, "rerun", run_id[:8])
    assert code == 0 and "shot groups: then integer: many_above 6, few_below 4, now density: bins 5, many_above 1, few_below 0.5" in output
    assert "final metrics are equal" in out


@pytest.mark.slow
def test_a_csv_of_prices_leads_to_a_report_on_prices(make_project, regcls):
    section = {
        "like": "portraits", "title": "House prices", "published": None,
        "data": {"source": "raw", "layout": "csv", "target": "price", "unit": "$", "size": 32},
        "training": {"targets": "standardised", "class_range": "data", "epochs": 1, "milestones": [], "width": 2, "pad": 4, "batch_size": 16},
        "shots": LIMITS["density"],
        "grids": {"table3": {"methods": ["reg", "reg+cls"], "classes": [10], "lambdas": "default", "seeds": 1}, "table4": {"seeds": 0}, "lambda_search": {"lambdas": [1.0], "seeds": 0}},
    }  # fmt: skip
    root = make_project({"datasets": ["houses"], "houses": section})
    raw = root / "data" / "houses" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for n, price in enumerate(np.geomspace(22_000, 5_858_000, 90)):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(raw / f"{n}.png")
        lines.append(f"{n}.png,{price:.0f},{('train', 'train', 'train', 'val', 'test')[n % 5]}")
    (raw / "houses.csv").write_text("\n".join(["path,price,split", *lines]) + "\n")
    for command in (["prepare", "houses"], ["train", "houses"], ["compare"]):
        code, _, output = regcls(root, *command)
        assert code == 0, output
    tracker = Tracker(root, experiment="regcls")
    kept = tracker.collect("houses", ImageSpec).set_index("method")
    assert kept["class_range"].to_dict() == {"reg": (0.0, 0.0), "reg+cls": ()} and set(kept["status"]) == {"FINISHED"}
    assert tracker.find(kept["run_id"]["reg+cls"]).params["class_range"] == "none"
    page = (root / "reports" / "houses" / "index.html").read_text()
    assert "2 of 2" in page and "MAE ($)" in page and not re.search(r"\b(ages?|years?)\b", re.sub(r"base64,[^\"]*", "", page))
