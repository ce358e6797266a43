"""Planning, and that neither processes nor chunks change a result."""

from dataclasses import replace

import numpy as np
import pytest

from conftest import ROOT
from regcls.datasets.synthetic import SyntheticSets, prepare
from regcls.errors import UserError
from regcls.params import load_params
from regcls.runs.synthetic import all_specs
from regcls.training import study
from regcls.training.device import device_for

CPU = replace(load_params(ROOT / "params.yaml").compute, device="cpu", processes=1)


class MemoryTracker:
    """Keeps results: training is tested here, tracking in tests/tracking."""

    adopted_run = None

    def __init__(self):
        self.results = {}
        self.specs = {}

    def finished(self, dataset):
        return {}

    def start(self, spec, *, fingerprint, tags, adopt=False, lineage=None):
        self.specs[fingerprint] = spec
        return fingerprint

    def finish(self, run_id, result):
        assert run_id not in self.results
        self.results[run_id] = result

    def deliver(self):
        pass

    def run_id(self, run):
        return run


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    import yaml

    from conftest import SHRUNK, laid_over

    folder = tmp_path_factory.mktemp("study")
    (folder / "params.yaml").write_text(yaml.safe_dump(laid_over(yaml.safe_load((ROOT / "params.yaml").read_text()), SHRUNK)))
    prepare(
        load_params(folder / "params.yaml").synthetic.data, folder / "prepared", processes=1, progress=lambda items, total, label: items
    )
    return SyntheticSets(folder / "prepared")


def results(params, sets, compute=CPU):
    tracker = MemoryTracker()
    wanted = study.fingerprints(all_specs(params.synthetic), sets)
    outcome = study.train_runs(wanted, sets, tracker, compute, {})
    assert outcome.trained == len(wanted)
    return tracker.results


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].metrics == other[key].metrics
        assert one[key].history == other[key].history
        assert all(np.array_equal(value, other[key].weights[name]) for name, value in one[key].weights.items())


def test_every_network_is_in_one_chunk_and_chunks_hold_equals(params, sets):
    specs = all_specs(params.synthetic)
    classes_of = study._ClassCounter(sets)
    chunks = list(study.plan_chunks(specs, sets, classes_of, "cpu"))
    members = [(member.spec, member.function) for chunk in chunks for member in chunk]
    assert len(members) == len(set(members)) == len(specs) * sets.functions
    assert all(len({classes_of(member) for member in chunk}) == 1 for chunk in chunks)


def test_costly_chunks_come_first(params, sets):
    classes_of = study._ClassCounter(sets)
    sizes = [chunk[0].spec.classes for chunk in study.plan_chunks(all_specs(params.synthetic), sets, classes_of, "cpu")]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("most", [1, 3])
def test_chunk_sizes_do_not_change_results(params, sets, monkeypatch, most):
    usual = results(params, sets)
    monkeypatch.setitem(study.MOST_TOGETHER, "cpu", most)
    assert_equal(usual, results(params, sets))


@pytest.mark.slow
def test_the_number_of_processes_does_not_change_results(params, sets):
    assert_equal(results(params, sets), results(params, sets, replace(CPU, processes=2)))


def test_metrics_are_by_function_and_their_mean(params, sets):
    for result in results(params, sets).values():
        for name in ("train_mse", "val_mse", "test_mse"):
            assert result.metrics[name] == pytest.approx(np.mean([result.metrics[f"functions/{name}_{f}"] for f in range(sets.functions)]))
        assert {len(values) for values in result.history.values()} == {2}
        assert result.history["val_mse"][-1] == result.metrics["val_mse"]


def test_a_batch_larger_than_the_training_set_is_a_clear_error(params, sets):
    specs = [replace(spec, batch_size=100_000) for spec in all_specs(params.synthetic)]
    with pytest.raises(UserError, match=r"batch_size = 100000: .* has only \d+ training samples"):
        list(study.plan_chunks(specs, sets, study._ClassCounter(sets), "cpu"))


def test_training_sets_whose_classes_cannot_be_balanced_are_counted(params, sets, capsys):
    results(params, sets)
    counter = study._ClassCounter(sets)
    for chunk in study.plan_chunks(all_specs(params.synthetic), sets, counter, "cpu"):
        assert all(1 < counter(member) <= member.spec.classes for member in chunk if member.spec.method != "reg")
    told = f"{counter.unbalanced} of {len(counter.known)} training sets keep uniform classes"
    assert (told in capsys.readouterr().err) == bool(counter.unbalanced)


def test_a_gpu_that_is_not_there_is_a_clear_error(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="PyTorch sees no GPU"):
        device_for("cuda")
    assert device_for("auto") == "cpu"
