"""Runs on faces in a real SQLite store: trained once, resumed after interruptions, diverging on their own."""

import json
import os
import shutil
import signal
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from conftest import overlay
from regcls.errors import UserError
from regcls.params import Compute, load_params
from regcls.runs import grids as image_runs
from regcls.runs.grids import all_specs, single_spec
from regcls.tasks import task_named
from regcls.tasks.images.data import ImageSet
from regcls.tasks.images.params import ImageOptions
from regcls.tasks.images.runs import ImageSpec, make_spec
from regcls.tracking.tracker import Tracker
from regcls.training import single_study
from regcls.training.single_study import Study, train_grids, train_runs
from training import fake_gpus

NAME = "imdb_wiki"


@pytest.fixture(autouse=True)
def one_core_per_run(monkeypatch):
    """One core per run: threads cost more than they gain here."""
    monkeypatch.setattr(Compute, "cores", 1)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def models(monkeypatch):
    """Ids of runs with a logged model: real logging takes seconds and is tested in tests/tracking/test_files.py."""
    logged = []

    def log_model(tracker, run, module, *, example, points, step):
        logged.append((run, example.shape, step))

    monkeypatch.setattr(Tracker, "log_model", log_model)
    return logged


class Project:
    """A project's parameters, data and store, opened as a new process would."""

    def __init__(self, root):
        self.root, self.params = root, load_params(root / "params.yaml")
        self.faces = self.params.datasets["imdb_wiki"]
        self.images = ImageSet(root / "data" / NAME / "prepared")
        self.tracker = Tracker(root, experiment="regcls")
        self.trainer = task_named("images").trainer(self.faces, root)

    def compute(self, **changes):
        self.params = replace(self.params, compute=replace(self.params.compute, **changes))

    def spec(self, **changes):
        return replace(single_spec(make_spec, self.faces, NAME, ImageOptions(classes=10)), **changes)

    def study(self, **changes):
        common = {"tracker": self.tracker, "compute": self.params.compute, "tags": {"git_commit": "c"}, "state_epochs": 1}
        prepared, samples = self.images.prepared.folder, len(self.images.rows("train"))
        return Study(trainer=self.trainer, dataset=NAME, data=self.images, prepared=prepared, samples=samples, **common, **changes)

    def train(self, *specs, **changes):
        return train_runs(specs, self.study(**changes))

    def train_grids(self):
        return train_grids(make_spec, self.faces, self.study())

    def forget(self):
        """The numbers of all runs, which are deleted."""
        before = numbers(self.runs())
        for run_id in self.runs()["run_id"]:
            self.tracker._client.delete_run(run_id)
        return before

    def runs(self):
        return self.tracker.collect(NAME, ImageSpec)

    def history(self, run_id, name):
        return [(point.step, point.value) for point in self.tracker._client.get_metric_history(run_id, name)]

    def tags(self, run_id):
        return self.tracker._client.get_run(run_id).data.tags

    def checkpoints(self):
        return [file for file in (self.root / ".regcls" / "checkpoints").rglob("*") if file.is_file()]


@pytest.fixture
def open_project(make_faces):
    return lambda changes=None: Project(make_faces(changes))


def numbers(table):
    """Metrics by fingerprint, without timings."""
    columns = [name for name in table.columns if name.startswith(("val_", "test_", "epochs/", "best_"))]
    return table.set_index("fingerprint")[columns].sort_index()


def test_every_run_of_the_grids_is_trained_once(open_project, models, capsys):
    project = open_project()
    wanted = all_specs(make_spec, project.faces, NAME, {})
    outcome = project.train_grids()
    assert (outcome.trained, outcome.kept, outcome.failed) == (2, 0, []) and len(wanted) == 2
    table = project.runs()
    assert table["status"].tolist() == ["FINISHED"] * 2
    assert [entry["name"] for entry in outcome.index] == [spec.name for spec in wanted]
    assert {entry["run_id"]: entry["fingerprint"] for entry in outcome.index} == dict(
        zip(table["run_id"], table["fingerprint"], strict=True)
    )
    assert [run_id for run_id, _, _ in models] == table["run_id"].tolist()
    assert {shape for _, shape, _ in models} == {(2, 32, 32, 3)}
    assert not project.checkpoints()
    assert "training: 100 %" in capsys.readouterr().err

    again = project.train_grids()
    assert (again.trained, again.kept, again.index) == (0, 2, outcome.index)
    pd.testing.assert_frame_equal(project.runs(), table)
    assert len(models) == 2


def test_a_run_stores_its_history_metrics_and_files(open_project, tmp_path):
    project = open_project()
    spec = project.spec(epochs=3)
    (entry,) = project.train(spec).index
    run_id = entry["run_id"]
    metrics, files = project.tracker.metrics(run_id), project.tracker.files
    assert [step for step, _ in project.history(run_id, "epochs/learning_rate")] == [1, 2, 3]
    by_epoch = dict(project.history(run_id, "epochs/val/mse/all"))
    assert metrics["best_epoch"] == min(by_epoch, key=by_epoch.get)
    assert metrics["val/mse/all"] == min(by_epoch.values())
    predictions = files.table(run_id, "predictions.parquet")
    assert metrics["test/mae/all"] == pytest.approx(np.abs(predictions["prediction"] - predictions["target"]).mean())
    contents = {name: torch.load(files.fetch(run_id, f"checkpoints/{name}.pt", tmp_path), weights_only=True) for name in ("best", "last")}
    assert contents["best"]["epoch"] == metrics["best_epoch"] and contents["last"]["position"]["epoch"] == 3
    tags = project.tags(run_id)
    assert (tags["git_commit"], tags["dataset"], tags["balanced_data"]) == ("c", NAME, "false")
    assert tags["data_digest"] == project.images.digest[:32]


@pytest.mark.slow
def test_the_number_of_processes_does_not_change_results(open_project):
    project = open_project()
    specs = [project.spec(seed=seed) for seed in (0, 1, 2)]
    project.train(*specs)
    alone = project.forget()
    project.compute(processes=2)
    outcome = project.train(*specs)
    assert outcome.trained == 3
    pd.testing.assert_frame_equal(numbers(project.runs()), alone, check_exact=True)


@pytest.fixture
def on_fake_gpus(open_project):
    """A project whose runs train on GPUs that are not there: see fake_gpus."""
    project = open_project({"compute": {"device": "auto"}})
    project.trainer = replace(project.trainer, train=fake_gpus.train_images)
    return project


def on_the_cpu(project, *specs):
    """The numbers of runs that are trained on the CPU, and deleted."""
    other = Project(project.root)
    other.compute(device="cpu")
    other.train(*specs)
    return other.forget()


@pytest.mark.slow
def test_each_gpu_trains_one_run_at_a_time_with_the_same_results(on_fake_gpus, monkeypatch):
    project, specs = on_fake_gpus, [on_fake_gpus.spec(seed=seed) for seed in range(4)]
    expected = on_the_cpu(project, *specs)
    fake_gpus.plug_in(monkeypatch, "GPU-01bc", "3", "4")
    monkeypatch.setenv(fake_gpus.VISIBLE, "GPU-01bc,3,4")
    project.compute(gpus=2)
    assert project.train(*specs).trained == 4
    pd.testing.assert_frame_equal(numbers(project.runs()), expected, check_exact=True)
    seen = fake_gpus.seen(project.root / "seen.txt")
    assert seen.keys() == {"GPU-01bc", "3"} and sum(map(len, seen.values())) == 4
    for entries in seen.values():
        fake_gpus.assert_one_at_a_time(entries)
    assert Counter(project.runs()["gpu"]) == {f"Fake {gpu}": len(entries) for gpu, entries in seen.items()}
    assert os.environ[fake_gpus.VISIBLE] == "GPU-01bc,3,4"


@pytest.mark.slow
def test_runs_on_gpus_that_are_told_to_end_resume_on_others(on_fake_gpus, monkeypatch, capsys, signals):
    project, specs = on_fake_gpus, [on_fake_gpus.spec(seed=seed, epochs=4) for seed in range(2)]
    expected = on_the_cpu(project, *specs)
    fake_gpus.plug_in(monkeypatch, "a", "b")
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="143"):
        at_step(patch, 8, lambda: signal.raise_signal(signal.SIGTERM))
        project.train(*specs)
    assert project.runs()["status"].tolist() == ["KILLED"] * 2
    fake_gpus.plug_in(monkeypatch, "c", "d")
    assert project.train(*specs).trained == 2
    assert capsys.readouterr().err.count("resumes from") == 2
    pd.testing.assert_frame_equal(numbers(project.runs()), expected, check_exact=True)
    seen = fake_gpus.seen(project.root / "seen.txt")
    assert {gpu: len(entries) for gpu, entries in seen.items()} == dict.fromkeys("abcd", 1)
    assert all(gpus.split(", then ")[0][-1] in "ab" and gpus.split(", then ")[1][-1] in "cd" for gpus in project.runs()["gpu"])


@pytest.mark.slow
def test_a_killed_process_of_a_gpu_ends_all_runs(on_fake_gpus, monkeypatch):
    fake_gpus.plug_in(monkeypatch, "a", "b")
    at_step(monkeypatch, 4, lambda: [child.kill() for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())])
    with pytest.raises(UserError, match=r"a worker process was killed.* with fewer compute.processes or compute.gpus"):
        on_fake_gpus.train(*(on_fake_gpus.spec(seed=seed, epochs=9) for seed in range(2)))
    assert on_fake_gpus.runs()["status"].tolist() == ["KILLED"] * 2


@pytest.mark.slow
def test_a_single_run_uses_the_first_of_several_gpus(on_fake_gpus, monkeypatch):
    fake_gpus.plug_in(monkeypatch, "a", "b")
    assert on_fake_gpus.train(on_fake_gpus.spec()).trained == 1
    seen = fake_gpus.seen(on_fake_gpus.root / "seen.txt")
    assert seen.keys() == {"a"} and seen["a"][0][0] != os.getpid()


def test_the_only_gpu_is_used_by_this_process(on_fake_gpus, monkeypatch):
    fake_gpus.plug_in(monkeypatch, "a")
    monkeypatch.delenv(fake_gpus.VISIBLE, raising=False)
    assert on_fake_gpus.train(on_fake_gpus.spec()).trained == 1
    seen = fake_gpus.seen(on_fake_gpus.root / "seen.txt")
    assert seen.keys() == {"None"} and seen["None"][0][0] == os.getpid()


def test_a_run_that_no_gpu_can_hold_is_refused_before_any_starts(on_fake_gpus, monkeypatch):
    fake_gpus.plug_in(monkeypatch, "a", memory=1e3)
    with pytest.raises(UserError, match=r"training .* needs about 0.0 GB of memory, and the GPU has 0.0 GB"):
        on_fake_gpus.train(on_fake_gpus.spec())
    assert on_fake_gpus.runs().empty


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_real_gpus_train_at_the_same_time(open_project):
    project, specs = open_project({"compute": {"device": "cuda", "gpus": 2}}), []
    for seed in range(2):
        specs.append(project.spec(seed=seed))
    outcome = project.train(*specs)
    assert outcome.trained == 2 and set(project.runs()["gpu"]) <= {torch.cuda.get_device_name(index) for index in range(2)}
    both = project.forget()
    project.compute(gpus=1)
    project.train(*specs)
    pd.testing.assert_frame_equal(numbers(project.runs()), both, rtol=0.05)


def test_a_run_has_as_many_threads_alone_as_in_parallel(open_project, monkeypatch, capsys):
    """The number of threads changes rounding, which training amplifies."""
    monkeypatch.setattr(Compute, "cores", 4)
    project, thread_counts, make = open_project({"compute": {"processes": 2}}), [], single_study.train_jobs

    def note(jobs, *arguments, places, **others):
        make(jobs, *arguments, places=places, **others)
        thread_counts.append((len(places), places[0].threads, torch.get_num_threads() if len(places) == 1 else None))

    monkeypatch.setattr(single_study, "train_jobs", note)
    project.train(project.spec(seed=0))
    assert "on 2 of 4 cores, as in a grid" in capsys.readouterr().err
    project.train(project.spec(seed=1), project.spec(seed=2))
    assert "as in a grid" not in capsys.readouterr().err
    assert thread_counts == [(1, 2, 2), (2, 2, None)]
    assert project.runs()["threads"].tolist() == ["2"] * 3


def test_a_run_resumed_with_other_threads_says_so(open_project, monkeypatch):
    project = open_project()
    spec = project.spec(epochs=3)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, 8)
        project.train(spec)
    monkeypatch.setattr(Compute, "cores", 2)
    project.train(spec)
    assert project.runs()[["status", "threads"]].values.tolist() == [["FINISHED", "1, then 2"]]


def interrupt(monkeypatch, at, error=KeyboardInterrupt):
    """Interrupt training once, at its `at`-th step."""

    def stop():
        raise error

    at_step(monkeypatch, at, stop)


def at_step(monkeypatch, at, act):
    """Call `act` once, at the `at`-th step of training."""
    on_batch, steps = single_study._Ledger.on_batch, []

    def and_count(ledger, key, samples, note):
        on_batch(ledger, key, samples, note)
        steps.append(key)
        if len(steps) == at:
            act()

    monkeypatch.setattr(single_study._Ledger, "on_batch", and_count)


@pytest.mark.parametrize("at, goes_on", [(2, None), (8, "epoch 2, batch 1"), (15, "epoch 3, batch 1")])
def test_an_interrupted_run_resumes_as_the_same_run(open_project, monkeypatch, capsys, at, goes_on):
    project = open_project()
    spec = project.spec(epochs=3, batch_size=26)
    interrupt(monkeypatch, at)
    with pytest.raises(KeyboardInterrupt):
        project.train(spec)
    (before,) = project.runs().itertuples()
    assert before.status == "KILLED" and project.tags(before.run_id)["stopped"] == "interrupted"
    assert project.checkpoints()
    capsys.readouterr()
    assert project.train(spec).trained == 1
    output = capsys.readouterr().err
    assert (f"resumes from state-0000{int(goes_on[6]) - 1}-0000000.pt: {goes_on}" in output) if goes_on else "resumes" not in output
    assert "training: 100 %" in output
    (run,) = project.runs().itertuples()
    assert (run.run_id, run.status) == (before.run_id, "FINISHED")
    assert "stopped" not in project.tags(run.run_id)
    for name in ("epochs/val/mse/all", "epochs/train/loss", "epochs/learning_rate"):
        assert [step for step, _ in project.history(run.run_id, name)] == [1, 2, 3]
    assert len(project.history(run.run_id, "test/mse/all")) == 1
    assert not project.checkpoints()


def test_an_interruption_while_logging_duplicates_nothing(open_project, monkeypatch):
    project = open_project()
    spec = project.spec()
    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "end", lambda tracker, run_id: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            project.train(spec)
    (before,) = project.runs().itertuples()
    assert before.status == "KILLED"
    assert project.train(spec).trained == 1
    (run,) = project.runs().itertuples()
    assert (run.run_id, run.status) == (before.run_id, "FINISHED")
    assert len(project.history(run.run_id, "epochs/val/mse/all")) == 2 and len(project.history(run.run_id, "test/mse/all")) == 1


def test_a_deleted_interrupted_run_is_recreated_from_its_checkpoint(open_project, monkeypatch, capsys):
    project = open_project()
    spec = project.spec(batch_size=26)
    interrupt(monkeypatch, 8)
    with pytest.raises(KeyboardInterrupt):
        project.train(spec)
    (before,) = project.runs()["run_id"]
    project.tracker._client.delete_run(before)
    assert project.train(spec).trained == 1
    assert "resumes from" in capsys.readouterr().err
    (run,) = project.runs().itertuples()
    assert run.run_id != before and run.status == "FINISHED"
    assert [step for step, _ in project.history(run.run_id, "epochs/val/mse/all")] == [1, 2]  # including earlier epochs


def test_a_killed_run_records_what_went_wrong(open_project, monkeypatch):
    project = open_project()
    interrupt(monkeypatch, 2, UserError("no space left"))
    with pytest.raises(UserError, match="no space left"):
        project.train(project.spec())
    (run_id,) = project.runs()["run_id"]
    assert project.tags(run_id)["stopped"] == "UserError: no space left"


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_diverging_run_fails_and_the_others_continue(open_project, tmp_path, processes):
    project = open_project({"compute": {"processes": processes}})
    wrong, right = project.spec(optimizer="sgd", learning_rate=1e30), project.spec()
    outcome = project.train(wrong, right)
    (name, reason) = outcome.failed[0]
    assert outcome.trained == len(outcome.failed) == 1 and name == wrong.name and "diverged in epoch 1: loss " in reason
    assert [entry["status"] for entry in outcome.index] == ["FAILED", "FINISHED"]
    by_status = project.runs().set_index("status")["run_id"]
    details = json.loads(project.tracker.files.fetch(by_status["FAILED"], "diverged.json", tmp_path).read_text())
    assert details["epoch"] == 1 and details["learning_rate"] == 1e30
    assert set(details["batches"][0]["rows"]) <= set(project.images.rows("train").tolist())
    assert "diverged" in project.tags(by_status["FAILED"])["stopped"]

    again = project.train(wrong, right)
    assert (again.trained, again.kept, [name for name, _ in again.failed]) == (0, 1, [wrong.name])


SEARCH = {
    NAME: {
        "grids": {
            "table3": {"methods": ["reg", "reg+cls"], "lambdas": "searched", "seeds": 2},
            "lambda_search": {"methods": ["reg+cls"], "seeds": 1},
        },
    }
}


def test_the_search_and_the_runs_using_its_lambda_train_in_one_call(open_project, capsys):
    project = open_project(SEARCH)
    outcome = project.train_grids()
    table = project.runs()
    search = table[(table["method"] == "reg+cls") & (table["seed"] == 0)].set_index("lam")["val/mse/all"]
    best = search.idxmin()
    assert set(search.index) == {0.1, 10.0}
    assert f"λ found: {best:g} for reg+cls with 10 classes" in capsys.readouterr().err
    wanted = {("reg+cls", 0.1, 0), ("reg+cls", 10.0, 0), ("reg+cls", best, 1)}
    assert {(m, lam, seed) for m, lam, seed in zip(table["method"], table["lam"], table["seed"], strict=True) if m != "reg"} == wanted
    assert (outcome.trained, outcome.kept, len(outcome.index)) == (5, 0, 5)
    assert Counter(table["status"]) == {"FINISHED": 5}

    again = project.train_grids()
    assert (again.trained, again.kept, again.index) == (0, 5, outcome.index)


def test_a_diverging_lambda_is_never_chosen_and_stops_nothing_else(open_project):
    changes = {
        NAME: {
            "training": {"optimizer": "sgd"},  # its steps are as large as the gradient
            "grids": {"table3": {"methods": ["reg+cls"]}, "lambda_search": {"lambdas": [1e30, 10.0]}},
        }
    }
    project = open_project(overlay(SEARCH, changes))
    outcome = project.train_grids()
    assert len(outcome.failed) == 1
    finished = project.runs().query("status == 'FINISHED'")
    assert sorted(zip(finished["lam"], finished["seed"], strict=True)) == [(10.0, 0), (10.0, 1)]


def test_an_incomplete_search_chooses_nothing(open_project):
    project = open_project(SEARCH)
    specs = image_runs.search_specs(make_spec, project.faces, NAME)
    project.train(specs[0])
    search = single_study.fingerprints(specs, project.images, task_named("images").code())
    assert len(search) == 2 and single_study.found_lambdas(search, "val/mse/all", project.runs()) == {}


def test_a_run_finished_by_another_process_meanwhile_is_kept(open_project, monkeypatch):
    project = open_project()
    spec, try_lock = project.spec(), single_study.try_lock

    def held_by_another(path):
        monkeypatch.setattr(single_study, "try_lock", try_lock)
        Project(project.root).train(spec)

    monkeypatch.setattr(single_study, "try_lock", held_by_another)
    outcome = project.train(spec)
    assert (outcome.trained, outcome.kept) == (0, 1)
    (run,) = project.runs().itertuples()
    assert outcome.index[0]["run_id"] == run.run_id and outcome.index[0]["status"] == "FINISHED"


def test_a_run_locks_its_checkpoints_and_its_place_in_the_store(open_project, monkeypatch, tmp_path):
    root, locked = open_project().root, []
    (tmp_path / "shared").mkdir()
    shutil.copy(root / "mlflow.db", tmp_path / "shared" / "team.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared/team.db")
    try_lock = single_study.try_lock
    monkeypatch.setattr(single_study, "try_lock", lambda path: locked.append(path.parent) or try_lock(path))
    project = Project(root)
    project.train(project.spec())
    assert locked == [root / ".regcls", tmp_path / "shared" / ".regcls" / "team.db"]


def test_mlflow_run_trains_even_if_an_equal_run_is_finished(open_project):
    project = open_project()
    spec = project.spec()
    project.train(spec)
    project.tracker.adopted_run = project.tracker._client.create_run(project.tracker.experiment_id).info.run_id
    outcome = project.train(spec, adopt=True)
    assert outcome.trained == 1 and outcome.index[0]["run_id"] == project.tracker.adopted_run
    assert project.tracker.metrics(project.tracker.adopted_run)["best_epoch"] > 0


def test_compute_settings_reach_the_job(open_project, tmp_path):
    project = open_project({"compute": {"loaders": 3, "channels_last": False, "compile": True, "checkpoint_minutes": 2.5}})
    job = single_study._job(project.spec(), "f", tmp_path, project.study(), parallel=1)
    assert (job.loaders, job.channels_last, job.compiled, job.checkpoint_minutes) == (3, False, True, 2.5)
    assert job.prepared == project.images.prepared.folder


def test_loaders_on_gpus_share_the_cores(open_project, tmp_path, monkeypatch):
    monkeypatch.setattr(Compute, "cores", 12)
    project = open_project({"compute": {"device": "auto"}})
    loaders = lambda parallel: single_study._job(project.spec(), "f", tmp_path, project.study(), parallel=parallel).loaders  # noqa: E731
    assert loaders(2) == 0  # on the CPU
    fake_gpus.plug_in(monkeypatch, *map(str, range(16)))
    assert [loaders(parallel) for parallel in (1, 2, 4, 16)] == [8, 6, 3, 1]


def test_code_data_and_spec_determine_a_fingerprint(open_project):
    project = open_project()
    spec = project.spec()
    of = lambda spec, code="c": list(single_study.fingerprints([spec], project.images, code).values())  # noqa: E731
    (first,) = of(spec)
    assert of(spec) == [first] and of(project.spec(seed=5)) != [first]
    assert of(spec, "changed") != [first]
