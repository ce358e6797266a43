"""The loop compared with a plain one; interrupted training ends bit for bit the same."""

import math
import pickle
import threading
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from regcls.errors import UserError
from regcls.training.checkpoint import Checkpoints
from regcls.training.feed import order, prefetched
from regcls.training.loop import DivergedError, Recipe, train

pytestmark = pytest.mark.usefixtures("one_thread")

SAMPLES, FEATURES, EPOCHS = 40, 5, 3
RECIPE = Recipe(
    epochs=EPOCHS,
    optimizer="adam",
    learning_rate=0.01,
    milestones=(1, 2),
    decay=0.1,
    weight_decay=0.001,
    accumulate=1,
    precision="float32",
)
GENERATOR = np.random.default_rng(3)
INPUTS = torch.from_numpy(GENERATOR.normal(size=(SAMPLES, FEATURES))).float()
TARGETS = INPUTS @ torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0]) + 0.5


class Regression:
    """Mean squared error of a network on random data: a task of the loop."""

    selections: Mapping[str, str] = {"val": "val/score"}

    def __init__(self, *, batch_size=8, scores=None, delay=0.0):
        self.batch_size, self.batches = batch_size, SAMPLES // batch_size
        self.scores, self.delay = iter(scores or ()), delay
        self.rates = []
        self.inputs = INPUTS.clone()

    def feed(self, epoch, batch):
        keys = [(at, index) for at in range(epoch, EPOCHS) for index in range(self.batches)]
        yield from map(self.make, keys[batch:])

    def make(self, key):
        time.sleep(self.delay)
        epoch, place = key
        return order(SAMPLES, seed=1, epoch=epoch)[place * self.batch_size : (place + 1) * self.batch_size]

    def losses(self, network, samples):
        error = (network(self.inputs[samples]).squeeze(1) - TARGETS[samples]).square().mean()
        return {"loss": 2 * error, "error": error}

    def describe(self, samples):
        return {"samples": samples.tolist()}

    def size(self, samples):
        return len(samples)

    def after_epoch(self, network):
        pass

    def validate(self, network):
        assert not network.training
        with torch.no_grad():
            error = float((network(INPUTS).squeeze(1) - TARGETS).square().mean())
        return {"val/score": next(self.scores, error), "val/mse": error}


class Hooks:
    """Records its calls, and interrupts at a given step or epoch."""

    def __init__(self, *, interrupt_at=None):
        self.samples, self.epochs, self.notes, self.interrupt_at = [], [], [], interrupt_at

    def batch(self, samples, note):
        self.samples.append(samples)
        self.notes.append(note)
        if self.interrupt_at == len(self.samples):
            raise KeyboardInterrupt

    def epoch(self, epoch):
        self.epochs.append(epoch)
        if self.interrupt_at == -epoch.number:
            raise KeyboardInterrupt


def network(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Dropout(dropout), nn.ReLU(), nn.Linear(8, 1))


def plain_network():
    """A network without batch norm and dropout, which couple samples or draw numbers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, 1))


@pytest.fixture
def run(tmp_path):
    """Train in the folder `name`; return (network, trained, hooks, messages)."""

    def run(task=None, recipe=RECIPE, *, name="run", net=None, hooks=None, **changes):
        net, hooks, messages = network() if net is None else net, hooks or Hooks(), []
        how = {"device": "cpu", "compiled": False, "checkpoint_minutes": 10.0} | changes
        checkpoints = Checkpoints(tmp_path / name, fingerprint="f")
        trained = train(net, task or Regression(), recipe, checkpoints=checkpoints, hooks=hooks, say=messages.append, **how)
        return net, trained, hooks, messages

    return run


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def recipe_with(**changes):
    return replace(RECIPE, **changes)


OWN_RATES = {"0.bias": 0.05, "2.weight": 0.002}


@pytest.mark.parametrize("own_rates", [{}, OWN_RATES], ids=["one rate", "own rates"])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_the_loop_takes_the_same_steps_as_a_plain_one(run, tmp_path, name, own_rates):
    trained = run(recipe=recipe_with(optimizer=name), net=plain_network(), own_rates=own_rates)[0]
    plain, task = plain_network(), Regression()
    kinds = {
        "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.001, fused=True),
        "sgd": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, weight_decay=0.001),
    }
    optimizer = kinds[name](plain.parameters())
    if own_rates:
        named = dict(plain.named_parameters())
        groups = [{"params": [named.pop(key)], "lr": rate, "weight_decay": 0.0} for key, rate in own_rates.items()]
        optimizer = kinds[name]([{"params": list(named.values())}, *groups])
    for epoch in range(EPOCHS):
        optimizer.param_groups[0]["lr"] = 0.01 * 0.1**epoch
        for index in range(task.batches):
            optimizer.zero_grad()
            task.losses(plain, task.make((epoch, index)))["loss"].backward()
            optimizer.step()
    for (key, value), expected in zip(trained.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, msg=lambda text, key=key: f"{key}: {text}")
    saved = final_state(tmp_path, "run")["optimizer"]
    assert saved["param_groups"] == optimizer.state_dict()["param_groups"]  # without own rates, as before there were any


def test_the_learning_rate_decays_after_its_milestones(run):
    _, trained, _, _ = run()
    assert [epoch.metrics["learning_rate"] for epoch in trained.history] == pytest.approx([0.01, 0.001, 0.0001])
    recipe = recipe_with(milestones=(60, 80), learning_rate=1e-3)
    assert [recipe.rate(epoch) for epoch in (0, 59, 60, 79, 80, 89)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_accumulated_batches_equal_one_large_batch(run):
    uninterrupted = run(Regression(batch_size=10), name="whole", net=plain_network())[0]
    halves = run(Regression(batch_size=5), recipe_with(accumulate=2), name="halves", net=plain_network())[0]
    for one, other in zip(uninterrupted.parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_last_step_of_an_epoch_may_have_fewer_batches(run):
    hooks = run(recipe=recipe_with(accumulate=3))[2]
    assert hooks.samples == [24, 16] * EPOCHS


def test_history_has_mean_losses_and_validation_errors(run):
    _, trained, hooks, _ = run(recipe=recipe_with(learning_rate=1e-30))
    assert [epoch.number for epoch in trained.history] == [1, 2, 3]
    assert hooks.epochs == trained.history
    metrics = trained.history[0].metrics
    assert list(metrics) == ["train/loss", "train/error", "val/score", "val/mse", "learning_rate"]
    assert metrics["train/loss"] == pytest.approx(2 * metrics["train/error"])
    still, task = network().train(), Regression()  # at that learning rate nothing changes but batch norm's statistics
    expected = np.mean([task.losses(still, task.make((0, index)))["error"].item() for index in range(task.batches)])
    assert metrics["train/error"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "scores, best", [([3.0, 1.0, 2.0], 2), ([1.0, 1.0, 1.0], 1), ([math.nan, 5.0, math.nan], 2), ([3.0, 2.0, -1.0], 3)]
)
def test_the_best_weights_are_those_with_the_lowest_value_of_their_metric(run, tmp_path, scores, best):
    seen = []

    class Watched(Hooks):
        def epoch(self, epoch):
            super().epoch(epoch)
            seen.append({name: value.clone() for name, value in net.state_dict().items()})

    net = network()
    _, trained, _, _ = run(Regression(scores=scores), net=net, hooks=Watched())
    assert trained.best_epochs == {"val": best}
    assert_equal(Checkpoints(tmp_path / "run", fingerprint="f").load_best(best, device="cpu"), seen[best - 1])


class Selected(Regression):
    """A regression with two selections, whose values after each epoch are given."""

    selections: Mapping[str, str] = {"val": "val/rmse/all", "test": "test/rmse/all"}

    def __init__(self, scores):
        super().__init__()
        self.by_metric = scores

    def feed(self, epoch, batch):
        self.epoch = epoch  # the first one validated
        yield from super().feed(epoch, batch)

    def validate(self, network):
        self.epoch += 1
        return {name: scores[self.epoch - 1] for name, scores in self.by_metric.items()}


TWO_SCORES = {
    "at different epochs": ({"val/rmse/all": [3.0, 1.0, 2.0], "test/rmse/all": [1.0, 2.0, 3.0]}, {"val": 2, "test": 1}),
    "at the same": ({"val/rmse/all": [3.0, 1.0, 2.0], "test/rmse/all": [3.0, 1.0, 2.0]}, {"val": 2, "test": 2}),
    "first and last": ({"val/rmse/all": [3.0, 2.0, 1.0], "test/rmse/all": [1.0, 2.0, 3.0]}, {"val": 3, "test": 1}),
}


@pytest.mark.parametrize("scores, best", TWO_SCORES.values(), ids=TWO_SCORES)
@pytest.mark.parametrize("at", [None, 3, 8, -1, -2, -3])
def test_each_selection_keeps_its_best_weights_even_after_a_resume(run, tmp_path, scores, best, at):
    seen = {}

    class Watched(Hooks):
        def epoch(self, epoch):
            seen[epoch.number] = {name: value.clone() for name, value in net.state_dict().items()}
            super().epoch(epoch)

    net = network(dropout=0.3)
    undisturbed = run(Selected(scores), name="whole", net=net, hooks=Watched())[1]
    assert undisturbed.best_epochs == best
    if at is not None:
        with pytest.raises(KeyboardInterrupt):
            run(Selected(scores), net=network(dropout=0.3), hooks=Hooks(interrupt_at=at), checkpoint_minutes=1e-9)
        torch.rand(100)
    trained = run(Selected(scores), net=network(dropout=0.3), checkpoint_minutes=1e-9)[1]
    assert trained.best_epochs == best
    for epoch in best.values():
        assert_equal(Checkpoints(tmp_path / "run", fingerprint="f").load_best(epoch, device="cpu"), seen[epoch])


def test_a_selection_without_finite_values_diverges_by_name(run):
    with pytest.raises(DivergedError, match="no epoch has a finite test/rmse/all"):
        run(Selected({"val/rmse/all": [1.0] * 3, "test/rmse/all": [math.nan] * 3}))


def test_a_run_without_finite_validation_errors_has_diverged(run):
    with pytest.raises(DivergedError, match="no epoch has a finite val/score"):
        run(Regression(scores=[math.nan] * 3))


def final_state(tmp_path, name):
    return Checkpoints(tmp_path / name, fingerprint="f").load(device="cpu").content


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    "at, minutes, goes_on",
    [
        (1, 10.0, None),
        (1, 1e-9, None),  # a state is saved after the hook that interrupts
        (8, 1e-9, "epoch 2, batch"),
        (8, 10.0, "epoch 2, batch 1"),
        (-1, 10.0, "epoch 2, batch 1"),
        (-2, 1e-9, "epoch 3, batch 1"),
        (-3, 10.0, "all epochs are done"),
    ],
    ids=["first batch", "first batch, saving each", "middle, saving each", "middle", "after epoch 1", "after epoch 2", "after the last"],
)
def test_interrupted_training_ends_bit_for_bit_the_same(run, tmp_path, accumulate, at, minutes, goes_on):
    recipe = recipe_with(accumulate=accumulate)
    uninterrupted, trained, _, _ = run(recipe=recipe, name="whole", net=network(dropout=0.3))
    if accumulate == 2 and at == 8:
        at = 5  # of three steps an epoch
    with pytest.raises(KeyboardInterrupt):
        run(recipe=recipe, net=network(dropout=0.3), hooks=Hooks(interrupt_at=at), checkpoint_minutes=minutes)
    torch.rand(100)  # a new process has other generators
    again, resumed, hooks, messages = run(recipe=recipe, net=network(dropout=0.3), checkpoint_minutes=minutes)
    assert_equal(again.state_dict(), uninterrupted.state_dict())
    assert [(e.number, e.metrics) for e in resumed.history] == [(e.number, e.metrics) for e in trained.history]
    assert resumed.best_epochs == trained.best_epochs
    one, other = final_state(tmp_path, "run"), final_state(tmp_path, "whole")
    for index, values in other["optimizer"]["state"].items():
        assert_equal(one["optimizer"]["state"][index], values)
    assert torch.equal(one["generators"]["cpu"], other["generators"]["cpu"])
    assert (len(messages) == 1 and goes_on in messages[0]) if goes_on else not messages
    if goes_on:
        assert sum(hooks.samples) < SAMPLES * EPOCHS  # it did not start over


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_interrupted_training_with_own_rates_ends_bit_for_bit_the_same(run, name):
    recipe = recipe_with(optimizer=name)
    uninterrupted = run(recipe=recipe, name="whole", net=plain_network(), own_rates=OWN_RATES)[0]
    with pytest.raises(KeyboardInterrupt):
        run(recipe=recipe, net=plain_network(), hooks=Hooks(interrupt_at=8), checkpoint_minutes=1e-9, own_rates=OWN_RATES)
    assert_equal(run(recipe=recipe, net=plain_network(), own_rates=OWN_RATES)[0].state_dict(), uninterrupted.state_dict())


def test_resuming_within_an_epoch_neither_repeats_nor_skips_batches(run):
    first = Hooks(interrupt_at=8)
    with pytest.raises(KeyboardInterrupt):
        run(hooks=first, checkpoint_minutes=1e-9)
    second = run()[2]
    assert len(first.samples) - 1 + len(second.samples) == 5 * EPOCHS  # the state was saved before the interrupted step


def test_a_damaged_checkpoint_is_reported_and_weights_end_the_same(run, tmp_path):
    uninterrupted = run(name="whole")[0]
    with pytest.raises(KeyboardInterrupt):
        run(hooks=Hooks(interrupt_at=-2))
    file = tmp_path / "run" / "state-00002-0000000.pt"
    file.write_bytes(file.read_bytes()[:-1])
    again, trained, _, messages = run()
    assert messages[0] == "checkpoint state-00002-0000000: its checksum does not match; using the one before it"
    assert messages[1] == "resumes from state-00001-0000000.pt: epoch 2, batch 1"
    assert_equal(again.state_dict(), uninterrupted.state_dict())
    assert [epoch.number for epoch in trained.history] == [1, 2, 3]


def test_finished_training_has_nothing_left_to_do(run):
    trained = run()[1]
    again = run()[1]
    assert (again.samples, again.history, again.best_epochs) == (0, trained.history, trained.best_epochs)


def test_another_networks_checkpoint_is_a_clear_error(run):
    run()
    with pytest.raises(UserError, match=r"0\.weight has shape \(8, 5\), this network needs \(3, 5\)"):
        run(net=nn.Sequential(nn.Linear(FEATURES, 3)))


@contextmanager
def no_new_threads():
    before = set(threading.enumerate())
    yield
    assert not set(threading.enumerate()) - before


def poisoned(epoch, sample):
    """A task in which a sample is NaN from an epoch on."""
    task = Regression()
    make = task.make

    def make_poisoned(key):
        if key[0] >= epoch:
            task.inputs[sample] = math.nan
        return make(key)

    task.make = make_poisoned
    return task


def test_a_nan_loss_stops_training_and_reports_the_batch(run, tmp_path):
    with pytest.raises(
        DivergedError, match=r"^diverged in epoch 2: loss nan, error nan, gradient norm nan, learning rate 0\.001$"
    ) as caught:
        run(poisoned(epoch=1, sample=7), checkpoint_minutes=1e-9)
    details = caught.value.details
    assert (details["epoch"], details["learning_rate"]) == (2, pytest.approx(0.001))
    assert math.isnan(details["losses"]["loss"]) and math.isnan(details["gradient_norm"])
    (batch,) = details["batches"]
    assert 7 in batch["samples"]
    task = Regression()
    index = next(index for index in range(task.batches) if 7 in task.make((1, index)))
    assert batch["samples"] == task.make((1, index)).tolist()  # the first such step, although several are checked together
    kept = Checkpoints(tmp_path / "run", fingerprint="f").load(device="cpu").content
    assert kept["position"]["epoch"] == 1 and kept["position"]["batch"] <= index
    assert all(torch.isfinite(value).all() for value in kept["weights"].values())


def test_a_non_finite_gradient_stops_training_despite_a_finite_loss(run, tmp_path):
    task = Regression()
    losses = task.losses

    def infinite_slope(network, samples):
        parts = losses(network, samples)
        if samples.tolist() == fatal:
            root = torch.sqrt((network[4].bias - network[4].bias.detach()).square().sum())  # 0, with a gradient of 0 · ∞
            parts = {**parts, "loss": parts["loss"] + root}
        return parts

    task.losses = infinite_slope
    fatal = task.make((2, 1)).tolist()
    with pytest.raises(DivergedError, match=r"diverged in epoch 3: loss [\d.]+, error [\d.]+, gradient norm nan") as caught:
        run(task)
    assert caught.value.details["batches"] == [{"samples": fatal}]
    kept = Checkpoints(tmp_path / "run", fingerprint="f").load(device="cpu")
    assert kept.file.name == "state-00002-0000000.pt"


def test_a_non_finite_loss_stops_training_despite_a_finite_gradient(run):
    task = Regression()
    losses = task.losses
    task.losses = lambda network, samples: {**losses(network, samples), "loss": losses(network, samples)["loss"] + math.inf}
    with pytest.raises(DivergedError, match=r"diverged in epoch 1: loss inf, error [\d.]+, gradient norm [\d.]+, learning rate 0\.01"):
        run(task)


def test_the_feed_ends_however_training_ends(run):
    class Prefetched(Regression):
        def feed(self, epoch, batch):
            yield from prefetched(lambda samples: samples, super().feed(epoch, batch))

    with no_new_threads():
        with pytest.raises(KeyboardInterrupt) as caught:
            run(Prefetched(), hooks=Hooks(interrupt_at=2))
        assert caught.tb  # which holds the same values as the loop
    task = Prefetched()
    task.losses = lambda network, samples: {"loss": network(task.inputs[samples]).mean() * math.nan}
    with no_new_threads():
        with pytest.raises(DivergedError) as caught:
            run(task, name="other")
        assert caught.tb
    with no_new_threads():
        run(Prefetched(), name="third")


def test_a_diverged_error_survives_pickling():
    error = pickle.loads(pickle.dumps(DivergedError("diverged", {"epoch": 2})))
    assert (str(error), error.details) == ("diverged", {"epoch": 2})


def test_time_spent_waiting_for_data_is_measured(run):
    quick, slow = run(name="quick")[1], run(Regression(delay=0.02), name="slow")[1]
    assert quick.samples == slow.samples == SAMPLES * EPOCHS
    assert 15 * 0.02 < slow.waiting < slow.seconds
    assert quick.waiting < slow.waiting


def test_bfloat16_training_keeps_weights_and_sums_in_float32(run):
    types = set()

    class Precise(Regression):
        def losses(self, network, samples):
            types.add(network(self.inputs[samples]).dtype)
            return super().losses(network, samples)

    uninterrupted = run(name="whole")[0]
    rounded, trained, _, _ = run(Precise(), recipe_with(precision="bf16"))
    assert types == {torch.bfloat16}
    assert {value.dtype for value in rounded.parameters()} == {torch.float32}
    assert not torch.equal(rounded[0].weight, uninterrupted[0].weight)
    torch.testing.assert_close(rounded[0].weight, uninterrupted[0].weight, atol=0.05, rtol=0.05)
    assert all(math.isfinite(epoch.metrics["train/loss"]) for epoch in trained.history)


def test_compiled_training_saves_and_validates_the_plain_network(run, monkeypatch):
    calls = []

    def compile(module):
        class Compiled(nn.Module):
            def forward(self, x):
                calls.append(module.training)
                return module(x)

        return Compiled()

    monkeypatch.setattr(torch, "compile", compile)
    compiled = run(compiled=True)[0]
    assert calls == [True] * 15
    monkeypatch.undo()
    assert_equal(compiled.state_dict(), run(name="plain")[0].state_dict())


def test_progress_shows_epoch_loss_and_speed(run):
    notes = run()[2].notes
    assert all(note.startswith("epoch 1 of 3, ") and note.endswith(" images/s") and "nan" not in note for note in notes[:5])
    assert "epoch 2 of 3, loss " in notes[5]


def test_without_an_intact_checkpoint_training_starts_over_with_a_message(run, tmp_path):
    uninterrupted = run(name="whole")[0]
    run(recipe=recipe_with(epochs=1), name="damaged")
    for file in (tmp_path / "damaged").glob("*.pt"):
        file.write_bytes(file.read_bytes()[:-1] + b"\1")
    again, trained, _, messages = run(name="damaged")
    assert "no intact checkpoint" in messages[0] and "training starts from scratch" in messages[0]
    assert len(trained.history) == RECIPE.epochs
    assert_equal(again.state_dict(), uninterrupted.state_dict())
