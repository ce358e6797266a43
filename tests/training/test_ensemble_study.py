"""Planning of chunks; neither processes nor chunks change results."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from conftest import ROOT, SHRUNK, overlay, shipped_tree
from regcls.errors import UserError
from regcls.params import load_params
from regcls.tasks.functions.data import FunctionSets
from regcls.tasks.functions.networks import FunctionNetworks
from regcls.tasks.functions.prepare import prepare
from regcls.tasks.functions.runs import all_specs
from regcls.training import ensemble_study as study
from regcls.training.device import Place, device_for
from regcls.training.ensemble_networks import Member
from training import fake_gpus
from training.report_every_epoch import ReportEveryEpoch

CPU = replace(load_params(ROOT / "params.yaml").compute, device="cpu", processes=1)
HERE = Place(device="cpu", threads=1)


class MemoryTracker:
    """Keeps results in memory: tracking is tested in tests/tracking."""

    adopted_run, root = None, None

    def __init__(self):
        self.results = {}
        self.specs = {}
        self.tags = {}  # that are logged after the start

    def finished(self, dataset):
        return {}

    def start(self, spec, *, fingerprint, tags, adopt=False, lineage=None):
        self.specs[fingerprint] = spec
        return fingerprint

    def finish(self, run_id, result):
        assert run_id not in self.results
        self.results[run_id] = result

    def log_tags(self, run, tags):
        self.tags[run] = tags

    def deliver(self):
        pass

    def run_id(self, run):
        return run


@pytest.fixture
def kind(sets):
    return FunctionNetworks(sets, "functions")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "params.yaml").write_text(yaml.safe_dump(overlay(shipped_tree(), SHRUNK)))
    data = load_params(folder / "params.yaml").datasets["functions"].data
    prepare(data, folder / "prepared", processes=1, progress=lambda items, total, label: items)
    return FunctionSets(folder / "prepared")


def results(params, kind, compute=CPU, tracker=None):
    tracker = tracker or MemoryTracker()
    wanted = study.fingerprints(kind, all_specs(params.datasets["functions"], "functions"))
    outcome = study.train_runs(kind, wanted, tracker, compute, {})
    assert outcome.trained == len(wanted)
    return tracker.results


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].metrics == other[key].metrics
        assert one[key].history == other[key].history
        assert all(np.array_equal(value, other[key].weights[name]) for name, value in one[key].weights.items())


def test_every_network_is_in_one_chunk_of_similar_networks(params, kind):
    specs = all_specs(params.datasets["functions"], "functions")
    chunks = list(study.plan_chunks(kind, specs, HERE))
    members = [member for chunk in chunks for member in chunk]
    assert len(members) == len(set(members)) == len(specs) * len(kind.parts)
    rows = {member: network.head_rows for member, network in zip(members, kind.networks(members), strict=True)}
    assert all(len({(kind.recipe(member.spec), member.spec.balanced, rows[member]) for member in chunk}) == 1 for chunk in chunks)


@pytest.mark.parametrize("classes, together", [(16, True), (1024, False)])
def test_balanced_networks_share_a_chunk_if_that_is_cheaper(params, kind, classes, together):
    balanced = [replace(spec, classes=classes) for spec in all_specs(params.datasets["functions"], "functions") if spec.balanced]
    sizes = [{kind.head_classes(member) for member in chunk} for chunk in study.plan_chunks(kind, balanced, HERE)]
    assert len(set.union(*sizes)) > 1
    assert any(len(found) > 1 for found in sizes) == together


def test_a_wave_has_no_more_steps_than_an_interruption_may_lose(params, kind, monkeypatch):
    specs = all_specs(params.datasets["functions"], "functions")[:4]
    steps = 2 * sum(kind.samples(Member(spec=specs[0], part=part)) // specs[0].batch_size for part in kind.parts)
    monkeypatch.setitem(study.WAVE_STEPS, "cpu", int(1.5 * steps))
    chunks = list(study.plan_chunks(kind, specs, HERE))
    assert all(len({member.spec for member in chunk}) == 1 for chunk in chunks)


def test_costly_chunks_come_first(params, kind):
    sizes = [chunk[0].spec.classes for chunk in study.plan_chunks(kind, all_specs(params.datasets["functions"], "functions"), HERE)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("most", [1, 3])
def test_chunk_sizes_do_not_change_results(params, kind, monkeypatch, most):
    reference = results(params, kind)
    monkeypatch.setitem(study.MOST_TOGETHER, "cpu", most)
    assert_equal(reference, results(params, kind))


@pytest.fixture
def advances(monkeypatch):
    """What the progress bar receives: first the total."""
    updates = []

    @contextmanager
    def progress(total, label):
        updates.append(total)
        yield lambda amount, note="": updates.append(amount)

    monkeypatch.setattr(study, "progress", progress)
    return updates


@pytest.mark.slow
def test_the_number_of_processes_does_not_change_results(params, kind):
    assert_equal(results(params, kind), results(params, kind, replace(CPU, processes=2)))


@pytest.mark.slow
def test_each_gpu_trains_one_chunk_at_a_time_with_the_same_results(params, kind, monkeypatch, tmp_path):
    fake_gpus.plug_in(monkeypatch, "GPU-01bc", "MIG-2222", "5")
    tracker, file = MemoryTracker(), tmp_path / "seen.txt"
    found = results(params, fake_gpus.OnFakeGpus(kind, file), replace(CPU, device="auto", gpus=2), tracker)
    assert_equal(results(params, kind), found)
    seen = fake_gpus.seen(file)
    assert seen.keys() == {"GPU-01bc", "MIG-2222"}
    for entries in seen.values():
        fake_gpus.assert_one_at_a_time(entries)
    specs = all_specs(params.datasets["functions"], "functions")
    place = Place(device="cuda", threads=1, gpu=fake_gpus.Gpu(id="5", memory=8e10), here=False)
    assert sum(map(len, seen.values())) == len(list(study.plan_chunks(kind, specs, place)))
    assert tracker.tags.keys() == found.keys()
    assert {gpu for tags in tracker.tags.values() for gpu in tags["gpu"].split(", ")} == {"Fake GPU-01bc", "Fake MIG-2222"}


def test_networks_that_no_gpu_can_hold_are_refused(params, kind, monkeypatch):
    fake_gpus.plug_in(monkeypatch, "0", "1", memory=1e3)
    with pytest.raises(UserError, match="training .* needs about .* and the GPU has 0.0 GB"):
        results(params, kind, replace(CPU, device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_real_gpus_give_the_results_of_one(params, kind):
    one, two = (results(params, kind, replace(CPU, device="cuda", gpus=gpus)) for gpus in (1, 2))
    for key, result in one.items():
        assert two[key].metrics == pytest.approx(result.metrics, rel=1e-3)


@pytest.mark.slow
def test_processes_report_their_epochs(params, kind, advances):
    results(params, ReportEveryEpoch(kind), replace(CPU, processes=2))
    total, *steps = advances
    chunks = len(list(study.plan_chunks(kind, all_specs(params.datasets["functions"], "functions"), HERE)))
    assert sum(steps) == pytest.approx(total)
    assert len([step for step in steps if step > 0]) > chunks


def test_progress_is_reported_within_a_chunk(params, kind, advances, monkeypatch):
    monkeypatch.setattr(study.ensemble_worker, "REPORT_SECONDS", 0.0)
    results(params, kind)
    total, *steps = advances
    chunks = len(list(study.plan_chunks(kind, all_specs(params.datasets["functions"], "functions"), HERE)))
    assert len(steps) == chunks * (params.datasets["functions"].training.epochs + 1)
    assert sum(steps) == pytest.approx(total)


def test_metrics_are_reported_by_function_and_as_a_mean(params, kind):
    for result in results(params, kind).values():
        for split in ("train", "val", "test"):
            by_function = [result.metrics[f"{split}/mse/function_{f}"] for f in kind.parts]
            assert result.metrics[f"{split}/mse/all"] == pytest.approx(np.mean(by_function))
        assert {len(values) for values in result.history.values()} == {2}
        assert result.history["val/mse/all"][-1] == result.metrics["val/mse/all"]


def test_a_batch_larger_than_the_training_set_is_a_clear_error(params, kind):
    specs = [replace(spec, batch_size=100_000) for spec in all_specs(params.datasets["functions"], "functions")]
    with pytest.raises(UserError, match=r"batch_size = 100000: .* has only \d+ training samples"):
        list(study.plan_chunks(kind, specs, HERE))


def test_training_sets_that_cannot_be_balanced_are_counted(params, kind, capsys):
    results(params, kind)
    for chunk in study.plan_chunks(kind, all_specs(params.datasets["functions"], "functions"), HERE):
        assert all(1 < kind.head_classes(member) <= member.spec.classes for member in chunk if member.spec.method != "reg")
    assert "".join(f"{remark}\n" for remark in kind.remarks()) in capsys.readouterr().err


def test_a_missing_gpu_is_a_clear_error(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="PyTorch sees no GPU"):
        device_for("cuda")
    assert device_for("auto") == "cpu"
