"""Video progress from the archive to the report with the commands of a user; and resuming after kill -9."""

import json
import os
import signal
import sys

import numpy as np
import pandas as pd
import pytest

from processes import runs, wait_until, with_status
from regcls.cli import main
from regcls.params import Compute
from regcls.tasks.sequences.data import SequenceSet
from regcls.tasks.sequences.runs import SequenceSpec
from regcls.tracking.tracker import Tracker

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("signals", "one_core")]

VIDEO = {"datasets": ["breakfast"], "compute": {"processes": 1}}


@pytest.fixture
def regcls(monkeypatch, capsys):
    """Run a command in a project; return its exit code, stdout and stderr."""
    monkeypatch.setattr(Compute, "cores", 1)

    def run(root, *arguments):
        with monkeypatch.context() as patch:
            patch.chdir(root)
            capsys.readouterr()
            return main(list(arguments)), *capsys.readouterr()

    return run


def test_the_pipeline_goes_from_archive_to_table_5(make_project, regcls):
    root = make_project(VIDEO)
    code, out, _ = regcls(root, "prepare", "breakfast")
    assert code == 0 and "videos of 4 persons" in out
    code, _, output = regcls(root, "train", "breakfast")
    assert code == 0 and "10 runs trained, 0 were there already, 0 failed" in output
    code, _, output = regcls(root, "train", "breakfast")
    assert "0 runs trained, 10 were there already" in output
    assert regcls(root, "compare")[0] == 0
    assert "generated stand-in videos" in (root / "reports" / "breakfast" / "index.html").read_text()

    # The printed numbers, from only the predictions and the prepared lengths.
    tracker, lengths = (
        Tracker(root, experiment="regcls"),
        SequenceSet(root / "data" / "breakfast" / "prepared").table.set_index("video")["frames"],
    )
    table = tracker.collect("breakfast", SequenceSpec)
    run = table[(table["method"] == "reg+cls") & (table["unit"] == "percent")].iloc[0]
    predictions = tracker.files.table(run["run_id"], "predictions.parquet")
    progress = predictions["frame"] / predictions["video"].astype(str).map(lengths)
    squared = (predictions["prediction"] - progress) ** 2
    by_activity = np.sqrt(squared.groupby(predictions["activity"], observed=True).mean())
    assert run["test/rmse/all"] == pytest.approx(by_activity.mean(), rel=1e-5)
    assert run["test/rmse/std"] == pytest.approx(by_activity.std(), rel=1e-4)
    shown = pd.read_csv(root / "reports" / "breakfast" / "table5a.csv")
    ours = shown[(shown["source"] == "ours") & (shown["method"] == "reg+cls") & (shown["split"] == "s1")].iloc[0]
    assert ours["rmse"] == pytest.approx(100 * by_activity.mean(), rel=1e-5)


def test_lambda_is_searched_first_and_used_by_the_grid(make_project, regcls):
    grids = {
        "table5": {"methods": ["reg", "reg+cls"], "units": ["percent"], "lambdas": "searched"},
        "lambda_search": {"units": ["percent"], "seeds": 1},
    }
    root = make_project(VIDEO | {"breakfast": {"grids": grids}})
    assert regcls(root, "prepare", "breakfast")[0] == 0
    code, _, output = regcls(root, "train", "breakfast")
    assert code == 0 and "4 runs trained" in output
    table = Tracker(root, experiment="regcls").collect("breakfast", SequenceSpec)
    searched = table[table["held_out"]].set_index("lam")["val/rmse/all"]
    (chosen,) = table[(table["method"] == "reg+cls") & ~table["held_out"]]["lam"]
    assert sorted(searched.index) == [1.0, 100.0] and chosen == searched.idxmin()
    assert regcls(root, "compare")[0] == 0


def test_a_single_run_and_its_rerun_agree(make_project, regcls):
    root = make_project(VIDEO)
    code, _, output = regcls(root, "run", "breakfast", "--unit", "frames", "--method", "kukleva")
    assert code == 0 and "kukleva s0 · breakfast frames s1: trained, test RMSE" in output
    (run_id,) = Tracker(root, experiment="regcls").finished("breakfast").values()
    code, out, _ = regcls(root, "rerun", run_id[:8])
    assert code == 0 and "final metrics are equal" in out
    code, _, output = regcls(root, "run", "breakfast", "--method", "random", "--epochs", "3")
    assert code == 2 and "method random is not trained" in output


def test_after_kill_9_only_unfinished_runs_are_trained(make_project, regcls, start):
    changes = {"breakfast": {"training": {"epochs": 30}, "grids": {"table5": {"seeds": 3}}}}
    root = make_project(VIDEO | changes)
    assert regcls(root, "prepare", "breakfast")[0] == 0
    process = start(root, sys.executable, "-m", "regcls", "train", "breakfast")

    def halfway():
        assert process.poll() is None, (root / "output.txt").read_text()
        return (root / "mlflow.db").exists() and len(with_status(root, "FINISHED")) >= 3

    wait_until(halfway, "three finished runs")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = with_status(root, "FINISHED")
    assert 3 <= len(kept) < 30
    code, _, output = regcls(root, "train", "breakfast")
    assert code == 0 and f"{30 - len(kept)} runs trained, {len(kept)} were there already, 0 failed" in output
    index = json.loads((root / "runs" / "breakfast.json").read_text())
    assert {entry["run_id"] for entry in index} == with_status(root, "FINISHED") >= kept
    assert len(index) == 30 and len({fingerprint for _, status, fingerprint in runs(root) if status == "FINISHED"}) == 30
