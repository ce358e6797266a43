"""Runs of video progress: waves, the search for λ, diverging networks, an interruption."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from conftest import ROOT
from regcls.params import load_params
from regcls.tasks.sequences.runs import all_specs, search_specs
from regcls.tasks.sequences.study import found_lambdas, train_grids
from regcls.training import ensemble_study
from regcls.training.device import Place
from tasks.sequences.made_up_videos import MemoryTracker, made_up_videos

PARAMS = load_params(ROOT / "params.yaml")
CPU = replace(PARAMS.compute, device="cpu", processes=1)
WALKS = PARAMS.datasets["walks"]
VIDEO = replace(WALKS, training=replace(WALKS.training, epochs=2, milestones=(1,)))
TABLE5 = replace(VIDEO.grids["table5"], units=("percent",), splits=("s1", "s2"), classes=(10,), seeds=2)
SEARCH = replace(VIDEO.grids["lambda_search"], units=("percent",), classes=(10,), lambdas=(0.1, 100.0), seeds=1)


@pytest.fixture(scope="module")
def kind(tmp_path_factory):
    return made_up_videos(tmp_path_factory.mktemp("videos") / "prepared")


def video(lambdas="default", **training):
    grids = {"table5": replace(TABLE5, lambdas=lambdas), "lambda_search": replace(SEARCH, seeds=int(lambdas == "searched"))}
    return replace(VIDEO, grids=grids, training=replace(VIDEO.training, **training))


def make(kind, video, compute=CPU, tracker=None):
    tracker = tracker or MemoryTracker()
    return tracker, train_grids(video, kind, tracker, compute, {})


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for key, result in one.items():
        assert result.metrics == other[key].metrics
        assert all(np.array_equal(value, other[key].weights[name]) for name, value in result.weights.items())
        assert all(table.equals(other[key].tables[name]) for name, table in result.tables.items())


def test_every_run_of_the_grid_is_trained_once(kind):
    tracker, outcome = make(kind, video())
    specs = all_specs(video(), "breakfast", {})
    assert outcome.trained == len(specs) == len(tracker.results) == 5 * 2 * 2
    assert set(tracker.specs.values()) == set(specs)
    again = make(kind, video(), tracker=tracker)[1]
    assert (again.trained, again.kept) == (0, len(specs))
    assert [row["status"] for row in again.index] == ["FINISHED"] * len(specs)


@pytest.mark.parametrize("most", [1, 3])
def test_chunk_sizes_do_not_change_results(kind, monkeypatch, most):
    reference = make(kind, video())[0].results
    monkeypatch.setitem(ensemble_study.MOST_TOGETHER, "cpu", most)
    assert_equal(reference, make(kind, video())[0].results)


@pytest.mark.slow
def test_the_number_of_processes_does_not_change_results(kind):
    assert_equal(make(kind, video())[0].results, make(kind, video(), replace(CPU, processes=2))[0].results)


def test_unequal_activities_and_several_splits_train_together(kind):
    specs = [spec for spec in all_specs(video(), "breakfast", {}) if spec.method == "reg+cls"]
    chunk = next(ensemble_study.plan_chunks(kind, specs, Place(device="cpu", threads=1)))
    assert {(member.spec.split, member.part) for member in chunk} == {(split, part) for split in ("s1", "s2") for part in kind.parts}


def test_the_grid_uses_lambda_from_the_search(kind):
    tracker, outcome = make(kind, video("searched"))
    search = search_specs(video("searched"), "breakfast")
    errors = {(spec.split, spec.lam): tracker.results[key].metrics["val/rmse/all"] for key, spec in tracker.specs.items() if spec in search}
    splits = {split for split, _ in errors}
    best = {split: min((lam for known, lam in errors if known == split), key=lambda lam: errors[split, lam]) for split in splits}
    trained = [spec for spec in tracker.specs.values() if spec not in search]
    assert len(errors) == 2 * len(splits) == len(search)
    assert {(spec.split, spec.lam) for spec in trained if spec.classes} == {(split, best[split]) for split in ("s1", "s2")}
    assert outcome.trained == len(tracker.results) == len(outcome.index) == len(search) + 5 * 2 * 2


def test_diverged_lambdas_never_win_and_an_incomplete_search_finds_none(kind):
    specs = [spec for spec in search_specs(video("searched"), "breakfast") if spec.split == "s1"]
    one, other = ensemble_study.fingerprints(kind, specs).values()
    first, second = (spec.lam for spec in specs)
    runs = pd.DataFrame([{"fingerprint": one, "status": "FAILED", "diverged": 1.0, "val/rmse/all": np.nan}])
    assert found_lambdas(video("searched"), kind, runs) == {}
    assert set(found_lambdas(video("searched"), kind, runs, {other: 0.3}).values()) == {second}
    assert set(found_lambdas(video("searched"), kind, pd.DataFrame(), {one: 0.2, other: 0.3}).values()) == {first}


def test_a_diverging_run_fails_and_names_the_activities(kind):
    tracker, outcome = make(kind, video(optimizer="sgd", learning_rate=1e6))
    diverged = [key for key, spec in tracker.specs.items() if spec.method == "reg"]
    assert {tracker.stopped[key] for key in diverged} == {
        ("FAILED", "diverged on activity coffee, tea: weights are no longer finite (learning rate 1e+06)")
    }
    assert all(tracker.metrics[key] == {"diverged": 1.0} for key in diverged)
    assert {key for key, spec in tracker.specs.items() if spec.method == "random"} <= tracker.results.keys()
    assert len(outcome.failed) == len(tracker.stopped)


def test_an_interruption_keeps_finished_runs_and_kills_open_ones(kind, monkeypatch):
    monkeypatch.setitem(ensemble_study.MOST_TOGETHER, "cpu", 3)
    real, calls = ensemble_study.ensemble_worker.train_chunk, []

    def interrupted(place, chunk, device):
        calls.append(chunk)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(place, chunk, device)

    monkeypatch.setattr(ensemble_study.ensemble_worker, "train_chunk", interrupted)
    tracker = MemoryTracker()
    with pytest.raises(KeyboardInterrupt):
        make(kind, video(), tracker=tracker)
    assert tracker.results and tracker.stopped
    assert {status for status, _ in tracker.stopped.values()} == {"KILLED"}
    assert tracker.results.keys() | tracker.stopped.keys() == tracker.specs.keys()
