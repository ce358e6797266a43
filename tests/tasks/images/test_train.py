"""Images end to end on a few small portraits: equal starts, equal draws, and the metrics of the saved weights."""

import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from conftest import ROOT
from methods.histograms import BY_NAME, cross_entropy, mean_of_classes
from methods.over_the_batch import OVER_THE_BATCH, batch_monte_carlo, logged, over_the_batch
from regcls.classes import equalised, uniform_ranges
from regcls.errors import UserError
from regcls.methods import has_class_loss, has_classes, has_regression_loss
from regcls.metrics import METRICS, evaluate
from regcls.models.predictor import build, scaled
from regcls.params.shots import DensityShots, IntegerShots
from regcls.provenance import SOURCE, import_closure
from regcls.runs.grids import all_specs, single_spec
from regcls.tasks.images import code
from regcls.tasks.images.data import ImageSet
from regcls.tasks.images.params import ImageOptions, shots_text
from regcls.tasks.images.runs import ImageSpec, make_spec
from regcls.tasks.images.train import Batch, ImageJob, ImageObjective, model_of, train_run
from regcls.tracking.run_table import typed
from regcls.training.checkpoint import Checkpoints, load_predictor, read_weights
from regcls.training.feed import draws
from regcls.training.loop import Recipe
from regcls.training.single import BEST, LAST
from training.hooks import Hooks

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def images(prepared_faces):
    return ImageSet(prepared_faces / "data" / "imdb_wiki" / "prepared")


@pytest.fixture
def job(params, images, tmp_path):
    """A run of reg+cls with 10 classes, with `changes` to its spec."""

    def job(*, folder="run", checkpoint_minutes=10.0, shots=None, **changes):
        spec = replace(
            single_spec(make_spec, params.datasets["imdb_wiki"], "imdb_wiki", ImageOptions(classes=10)), **{"rounding": "round"} | changes
        )
        if not has_classes(spec.method):
            spec = replace(spec, classes=0)
        if not has_class_loss(spec.method):
            spec = replace(spec, lam=None)
        if not has_regression_loss(spec.method):
            spec = replace(spec, loss=None)
        return ImageJob(
            spec=spec,
            prepared=images.prepared.folder,
            data_digest=images.digest,
            checkpoints=tmp_path / folder,
            fingerprint="f",
            device="cpu",
            loaders=0,
            channels_last=True,
            compiled=False,
            checkpoint_minutes=checkpoint_minutes,
            shots=shots or params.datasets["imdb_wiki"].shots,
        )

    return job


BALANCED_DATA = {"balanced_data": True, "balanced_bins": 10}
STANDARDISED = {"targets": "standardised", "class_range": ()}


def make(job, **kwargs):
    return train_run(job, Hooks(**kwargs), lambda text: None)


def batch_of(task, epoch=0):
    """A training batch of the first 40 samples, without augmentation."""
    samples = np.arange(40)
    return Batch(epoch=epoch, samples=samples, images=torch.from_numpy(task.images.images[task.rows[samples]]))


def test_reg_and_reg_cls_share_initial_backbone_and_regression_head(job, images):
    reg, ten, hundred = (
        ImageObjective(job(**changes), images).network().state_dict()
        for changes in ({"method": "reg"}, {}, {"method": "reg+cls-bal", "classes": 100})
    )
    assert set(ten) - set(reg) == {"classifier.weight", "classifier.bias"}
    for name, value in reg.items():
        assert torch.equal(value, ten[name]) and torch.equal(value, hundred[name]), name
    other = ImageObjective(job(seed=9), images).network().state_dict()
    assert not torch.equal(other["backbone.conv1.weight"], ten["backbone.conv1.weight"])


def parts(task, batch):
    """The losses of an untrained network, its predictions and its logits."""
    network = task.network().train()
    found = {name: value.item() for name, value in task.losses(network, batch).items()}
    network = task.network().train()
    predictions, logits, _ = network(task._on_device(batch.images))
    return found, predictions.detach(), None if logits is None else logits.detach()


def targets_of(task, batch):
    return torch.from_numpy(task.images.targets("train")[batch.samples])


def labels_by_hand(targets, classes):
    """Labels of equal ranges over 0 to 100 years."""
    return torch.tensor([min(int(target * classes / 100), classes - 1) for target in targets.tolist()])


def test_reg_uses_the_regression_loss_only(job, images):
    task = ImageObjective(job(method="reg"), images)
    batch = batch_of(task)
    found, predictions, logits = parts(task, batch)
    assert logits is None
    assert found == {"loss": pytest.approx(F.l1_loss(predictions, targets_of(task, batch)).item())}


@pytest.mark.parametrize("loss, plain", [("mse", F.mse_loss), ("huber", lambda p, t: F.huber_loss(p, t, delta=3.0))])
def test_the_regression_loss_is_the_requested_one(job, images, loss, plain):
    task = ImageObjective(job(method="reg", loss=loss, huber_delta=3.0), images)
    batch = batch_of(task)
    found, predictions, _ = parts(task, batch)
    assert found["loss"] == pytest.approx(plain(predictions, targets_of(task, batch)).item())


@pytest.mark.parametrize("lam, scaling, total", [(0.1, "released", lambda r, c: r + 10 * c), (0.1, "eq4", lambda r, c: 0.1 * r + c), (5.0, "released", lambda r, c: 5 * r + c)])  # fmt: skip
def test_reg_cls_adds_the_class_loss_by_lambda(job, images, lam, scaling, total):
    task = ImageObjective(job(lam=lam, loss_scaling=scaling), images)
    batch = batch_of(task)
    found, predictions, logits = parts(task, batch)
    targets = targets_of(task, batch)
    assert found["regression_loss"] == pytest.approx(F.l1_loss(predictions, targets).item())
    assert found["class_loss"] == pytest.approx(F.cross_entropy(logits, labels_by_hand(targets, 10)).item())
    assert found["loss"] == pytest.approx(total(found["regression_loss"], found["class_loss"]), rel=1e-5)
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == labels_by_hand(targets, 10)).float().mean().item())


def test_balanced_classes_keep_each_class_with_its_probability(job, images):
    task = ImageObjective(job(method="reg+cls-bal"), images)
    targets = images.targets("train")
    ranges = equalised(uniform_ranges(10, 0.0, 100.0), targets, rounding="round")
    assert 1 < len(ranges) < 10
    keep = ranges.keep[ranges.labels(targets)]
    assert keep.min() < 0.9
    for epoch in (0, 1):
        batch = batch_of(task, epoch)
        kept = draws(len(targets), seed=0, epoch=epoch)[:40] < keep[:40]
        assert 0 < kept.sum() < 40
        found, predictions, logits = parts(task, batch)
        labels = torch.from_numpy(ranges.labels(targets[:40]))
        assert found["class_loss"] == pytest.approx(F.cross_entropy(logits[kept], labels[kept]).item())
        assert found["regression_loss"] == pytest.approx(F.l1_loss(predictions, targets_of(task, batch)).item())  # over all


def test_balanced_classes_are_kept_with_their_stated_probability(job, images):
    task = ImageObjective(job(method="reg+cls-bal"), images)
    keep, batch = task.keep_class, batch_of(task)
    kept = np.mean([task._kept(replace(batch, epoch=epoch), keep).numpy() for epoch in range(600)], axis=0)
    np.testing.assert_allclose(kept, keep[:40], atol=0.1)  # 600 draws: five standard deviations


@pytest.mark.parametrize("method", ["reg", "reg+cls", "reg+cls-bal"])
def test_balanced_data_mask_both_losses_with_the_same_draws(job, images, method):
    task = ImageObjective(job(method=method, classes=100, **BALANCED_DATA), images)
    batch, targets = batch_of(task, epoch=1), images.targets("train")
    ranges = equalised(uniform_ranges(10, 0.0, 100.0), targets, rounding="round")
    draw = draws(len(targets), seed=0, epoch=1)
    kept = (draw < ranges.keep[ranges.labels(targets)])[:40]
    assert 0 < kept.sum() < 40
    found, predictions, logits = parts(task, batch)
    regression = F.l1_loss(predictions[kept], targets_of(task, batch)[kept])
    assert found.get("regression_loss", found["loss"]) == pytest.approx(regression.item())
    if method == "reg+cls":
        labels = labels_by_hand(targets_of(task, batch), 100)
        assert found["class_loss"] == pytest.approx(F.cross_entropy(logits[kept], labels[kept]).item())
    if method == "reg+cls-bal":  # each class has its own ρ
        classes = equalised(uniform_ranges(100, 0.0, 100.0), targets, rounding="round")
        labels = classes.labels(targets)
        kept = (draw < classes.keep[labels])[:40]
        assert found["class_loss"] == pytest.approx(F.cross_entropy(logits[kept], torch.from_numpy(labels[:40])[kept]).item())


def weighted_by_size(predictions, targets):
    """focal-r(beta=0.5,gamma=2) on absolute errors."""
    sizes = (predictions - targets).abs()
    return (torch.tanh(0.5 * sizes / 2) ** 2 * sizes).mean()


PLAINLY = {"focal-r(beta=0.5,gamma=2)": weighted_by_size, "reg": over_the_batch, "bmse-bmc": batch_monte_carlo}


@pytest.fixture(params=PLAINLY, ids=["focal-r", "over the batch", "bmse-bmc"])
def other(request, monkeypatch):
    """Another regression loss: its method's name, and the loss in plain PyTorch; the one over the whole batch replaces reg."""
    if request.param == "reg":
        monkeypatch.setattr("regcls.tasks.images.train.make_loss", lambda name, **given: OVER_THE_BATCH)
    return request.param, PLAINLY[request.param]


@pytest.mark.parametrize("changes", [{}, BALANCED_DATA], ids=["all samples", "balanced data"])
def test_another_loss_is_computed_over_kept_samples(job, images, other, changes):
    method, plainly = other
    task = ImageObjective(job(method=method, **changes), images)
    batch, kept = batch_of(task), slice(None)
    if changes:
        kept = draws(len(task.rows), seed=0, epoch=0)[:40] < task.keep[:40]
        assert 0 < kept.sum() < 40
    found, predictions, logits = parts(task, batch)
    expected = plainly(predictions[kept], targets_of(task, batch)[kept]).item()
    assert logits is None and found == {"loss": pytest.approx(expected, rel=1e-5), **logged(method)}


def test_another_loss_replaces_the_regression_loss_next_to_a_class_loss(job, images, other):
    method, plainly = other
    task = ImageObjective(job(method=f"{method}+cls", lam=5.0), images)
    batch = batch_of(task)
    found, predictions, logits = parts(task, batch)
    regression, classification = (
        plainly(predictions, targets_of(task, batch)).item(),
        F.cross_entropy(logits, labels_by_hand(targets_of(task, batch), 10)).item(),
    )
    assert (found["regression_loss"], found["class_loss"]) == (pytest.approx(regression, rel=1e-5), pytest.approx(classification))
    assert found["loss"] == pytest.approx(5 * regression + classification, rel=1e-5)


def test_a_step_with_another_loss_agrees_with_plain_pytorch(job, images, other):
    method, plainly = other
    own = job(method=method, epochs=1, batch_size=1000, milestones=())  # one batch
    task = ImageObjective(own, images)
    (batch,) = task.feed(0, 0)
    network = task.network().train()
    named, own_rates = dict(network.named_parameters()), {"loss_parameters": 0.01} if method == "bmse-bmc" else {}
    learned = [named["loss_parameters"]] if "loss_parameters" in named else []
    groups = [{"params": [named.pop(name)], "lr": rate, "weight_decay": 0.0} for name, rate in own_rates.items()]
    groups.append({"params": list(named.values())})
    optimizer = torch.optim.Adam(groups, own.spec.learning_rate, weight_decay=own.spec.weight_decay)
    plainly(network(task._on_device(batch.images))[0], targets_of(task, batch), *(width[0, 0] for width in learned)).backward()
    optimizer.step()
    trained = read_weights(make(own).files[LAST], device="cpu")
    assert trained.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("method, initial", [("reg", 0.5), ("bmse-gai+cls", 1.0), ("bmse-bni+cls-bal", 1.0)])
def test_loss_parameters_are_learned_and_saved_but_not_in_the_model(job, monkeypatch, method, initial):
    if method == "reg":
        monkeypatch.setattr("regcls.tasks.images.train.make_loss", lambda name, **given: OVER_THE_BATCH)
    whole = make(job(folder="whole", method=method))
    with pytest.raises(KeyboardInterrupt):
        make(job(method=method), interrupt_at=7)  # in the second epoch
    again = make(job(method=method))
    weights = [read_weights(result.files[LAST], device="cpu") for result in (whole, again)]
    assert weights[0]["loss_parameters"].shape == (1, 1) and abs(weights[0]["loss_parameters"].item() - initial) > 1e-4
    assert {"train/noise_sigma" in epoch.metrics for epoch in whole.history} == {method != "reg"}
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    pd.testing.assert_frame_equal(again.tables["predictions.parquet"], whole.tables["predictions.parquet"], check_exact=True)
    predictor, model = load_predictor(whole.files[BEST], model="resnet18", width=2), model_of(job(method=method), whole).network
    assert "loss_parameters" in read_weights(whole.files[BEST], device="cpu")
    assert not any("loss" in name for network in (predictor, model) for name in network.state_dict())


def test_reg_and_focal_r_have_no_loss_parameters_and_start_equal(job, images):
    reg, focal = (ImageObjective(job(method=method), images).network().state_dict() for method in ("reg", "focal-r"))
    assert reg.keys() == focal.keys() and all(torch.equal(value, focal[name]) for name, value in reg.items())


def plain_features(task, network):
    """The features of all training images in eval mode, and their targets as the loss sees them, in NumPy."""
    with torch.no_grad():
        features = network.eval().backbone(task._on_device(torch.from_numpy(task.images.images[task.rows])))
    return features.numpy().astype(float), task.targets.numpy()


def bins_by_hand(targets, low, high, bins):
    return np.clip(((targets - low) / (high - low) * bins).astype(int), 0, bins - 1)


def calibrated_by_hand(method, features, bins):
    """fds from its own statistics, of which test_fds.py tests the smoothing."""
    found = features.copy()
    for n, place in enumerate(bins):
        varied = method.variances[place].numpy() > 0
        found[n] = np.where(varied, features[n] * method.scales[place].numpy() + method.shifts[place].numpy(), features[n])
    return found


@pytest.mark.parametrize("changes", [{}, STANDARDISED], ids=["years", "standardised"])
def test_fds_sees_plain_features_of_all_training_images_after_an_epoch(job, images, changes):
    task = ImageObjective(job(method="fds(bins=10)", **BALANCED_DATA, **changes), images)
    network = task.network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    task.after_epoch(network.eval())
    features, targets = plain_features(task, network)
    low, high = (targets.min(), targets.max()) if changes else (0.0, 100.0)
    bins = bins_by_hand(targets, low, high, 10)
    assert (np.bincount(bins) > 1).sum() > 4
    method = network.feature_methods["fds"]
    for place in set(bins):
        own = features[bins == place]
        np.testing.assert_allclose(method.means[place], own.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(method.variances[place], own.var(0, ddof=int(len(own) > 1)), rtol=1e-3, atol=1e-9)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"feature_methods.fds.{name}" for name in ("epochs", "means", "variances", "scales", "shifts")}


@pytest.mark.parametrize("method", ["fds", "lds+fds", "fds+cls", "fds+cls-bal"])
def test_both_heads_are_trained_on_calibrated_features_of_all_samples(job, images, method):
    task = ImageObjective(job(method=method, **BALANCED_DATA), images)
    network, batch = task.network(), batch_of(task, epoch=1)
    task.after_epoch(network.eval())
    network.train()
    pixels = task._on_device(batch.images)
    with torch.no_grad():
        features = network.backbone(pixels).numpy().astype(float)
        bins = bins_by_hand(task.targets[:40].numpy(), 0.0, 100.0, 100)
        expected = torch.from_numpy(calibrated_by_hand(network.feature_methods["fds"], features, bins)).float()
        predictions, logits, plain = network(pixels, task.targets[:40])
        torch.testing.assert_close(predictions, network.regressor(expected).squeeze(1), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(plain, features, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(predictions, network(pixels)[0], rtol=1e-3)
        if logits is not None:
            torch.testing.assert_close(logits, network.classifier(expected), rtol=1e-4, atol=1e-5)
    found = task.losses(network, batch)
    kept = task._kept(batch, task.keep)
    regression = task.loss.alone(network, predictions, task.targets[:40], kept, task.facts)
    torch.testing.assert_close(found.get("regression_loss", found["loss"]), regression)
    assert kept.sum() < 40 and set(found) == ({"loss", "regression_loss", "class_loss", "accuracy"} if "cls" in method else {"loss"})


def test_fds_changes_nothing_in_the_first_epoch_nor_predictions_in_any(job, images):
    one = [make(job(folder=method, method=method, epochs=1, milestones=())) for method in ("reg", "fds")]
    weights = [read_weights(result.files[LAST], device="cpu") for result in one]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert one[0].history[0].metrics["val/mae/all"] == one[1].history[0].metrics["val/mae/all"]
    two = [make(job(folder=f"{method} 2", method=method, epochs=2, milestones=())).history[1].metrics for method in ("reg", "fds")]
    assert two[0]["train/loss"] != two[1]["train/loss"]
    task = ImageObjective(job(method="fds"), images)
    network = task.network()
    before = task.predict(network, "test")[0]
    task.after_epoch(network)
    assert np.array_equal(task.predict(network, "test")[0], before)


def pairs_by_hand(features, targets):
    """The sum of ranksim without its factor: sample by sample, each target once."""
    first = sorted({target: n for n, target in reversed(list(enumerate(targets)))}.values())
    units = features[first] / np.linalg.norm(features[first], axis=1, keepdims=True)
    total = 0.0
    for i, one in enumerate(first):
        wanted = np.argsort(np.argsort([abs(targets[one] - targets[other]) for other in first], kind="stable"))
        found = np.argsort(np.argsort(-(units @ units[i]), kind="stable"))
        total += np.mean(((found - wanted) / len(first)) ** 2)
    return total


@pytest.mark.parametrize("lam, scaling, total", [(0.1, "released", lambda r, c: r + 10 * c), (5.0, "eq4", lambda r, c: 5 * r + c)])
@pytest.mark.parametrize("changes", [{}, BALANCED_DATA], ids=["all samples", "balanced data"])
def test_ranksim_is_added_to_the_regression_loss_over_kept_samples(job, images, changes, lam, scaling, total):
    task = ImageObjective(job(method="ranksim(gamma=3)+cls", lam=lam, loss_scaling=scaling, **changes), images)
    batch = batch_of(task)
    kept = np.ones(40, bool) if not changes else draws(len(task.rows), seed=0, epoch=0)[:40] < task.keep[:40]
    assert kept.all() == (not changes)
    network = task.network().train()
    with torch.no_grad():
        features = network.backbone(task._on_device(batch.images)).double().numpy()
    found, predictions, _ = parts(task, batch)
    expected = 3 * pairs_by_hand(features[kept], task.targets[:40][kept].tolist())
    assert found["ranksim_loss"] == pytest.approx(expected, rel=1e-3) and expected > 0
    assert found["regression_loss"] == pytest.approx(F.l1_loss(predictions[kept], targets_of(task, batch)[kept]).item())
    whole = total(found["regression_loss"] + found["ranksim_loss"], found["class_loss"])
    assert found["loss"] == pytest.approx(whole, rel=1e-5)


def test_ranksim_alone_logs_its_terms_and_trains_the_backbone(job, images):
    result = make(job(method="ranksim(gamma=3)", epochs=2))
    for epoch in result.history:
        metrics = epoch.metrics
        assert metrics["train/loss"] == pytest.approx(metrics["train/regression_loss"] + metrics["train/ranksim_loss"], rel=1e-5)
    other = make(job(folder="reg", method="reg", epochs=2))
    assert other.history[1].metrics["train/loss"] != result.history[1].metrics["train/regression_loss"]
    assert not any("feature_methods" in name for name in read_weights(result.files[LAST], device="cpu"))  # it has no state


WITH_FEATURES = {"method": "lds+fds+ranksim+cls-bal", **BALANCED_DATA}


@pytest.mark.parametrize(
    "at, minutes", [(3, 1e-9), (7, 1e-9), (8, 10.0), (12, 1e-9)], ids=["epoch 1", "epoch 2", "from epoch 2", "epoch 3"]
)
def test_an_interrupted_run_with_methods_on_features_gives_the_same_numbers(job, at, minutes):
    whole = make(job(folder="whole", epochs=3, **WITH_FEATURES))
    with pytest.raises(KeyboardInterrupt):
        make(job(checkpoint_minutes=minutes, epochs=3, **WITH_FEATURES), interrupt_at=at)
    torch.rand(7)
    again = make(job(epochs=3, **WITH_FEATURES))
    weights = [read_weights(result.files[LAST], device="cpu") for result in (whole, again)]
    assert weights[0].keys() == weights[1].keys() and weights[0]["feature_methods.fds.epochs"] == 3
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    pd.testing.assert_frame_equal(again.tables["predictions.parquet"], whole.tables["predictions.parquet"], check_exact=True)
    assert [epoch.metrics for epoch in again.history] == [epoch.metrics for epoch in whole.history]


@pytest.mark.parametrize("changes", [{}, STANDARDISED], ids=["years", "standardised"])
def test_predictors_of_a_run_with_fds_have_none_of_its_statistics(job, images, changes):
    own = job(method="fds+cls", **changes)
    result = make(own)
    assert read_weights(result.files[BEST], device="cpu")["feature_methods.fds.epochs"] == result.best_epoch
    predictions = result.tables["predictions.parquet"]["prediction"]
    loaded = load_predictor(result.files[BEST], model="resnet18", width=2, standardised=bool(changes))
    for predictor in (loaded, model_of(own, result).network):
        assert not any("feature_methods" in name or "classifier" in name for name in predictor.state_dict())
        with torch.inference_mode():
            found = predictor(torch.from_numpy(images.images[images.rows("test")]))
        np.testing.assert_allclose(found, predictions, rtol=1e-4)


def test_methods_on_features_compute_in_float32_under_bf16(job, images):
    plain, bf16 = (make(job(folder=precision, method="fds", precision=precision)).history[1].metrics for precision in ("float32", "bf16"))
    assert bf16["train/loss"] != plain["train/loss"] == pytest.approx(bf16["train/loss"], rel=0.1)
    task = ImageObjective(job(method="fds+ranksim+cls"), images)
    network, batch = task.network(), batch_of(task)
    task.after_epoch(network.eval())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert {value.dtype for value in task.losses(network.train(), batch).values()} == {torch.float32}


COMPILED = """
import numpy, torch
from regcls.methods import make_feature_methods
from regcls.methods.loss import TrainingTargets
from regcls.models.predictor import build

network, pixels, targets = build("resnet18", width=2, classes=3).eval(), torch.rand(60, 3, 32, 32), torch.rand(60) * 9
known = TrainingTargets(values=numpy.arange(10, dtype=numpy.float32))
network.feature_methods = make_feature_methods("fds+ranksim", features=network.backbone.features, targets=known)
network.feature_methods.after_epoch(lambda: iter([(network(pixels)[2], targets)]))
compiled = torch.compile(network, backend="eager", fullgraph=True)
for given in ((pixels, targets), (pixels,)):
    assert all(torch.equal(one, other) for one, other in zip(compiled(*given), network(*given), strict=True))
assert not torch.equal(compiled(pixels, targets)[0], compiled(pixels)[0])
"""


@pytest.mark.slow
def test_networks_with_methods_on_features_can_be_compiled_as_a_whole():
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}  # a process without checks of shapes, which cannot be compiled
    subprocess.run([sys.executable, "-c", COMPILED], env=environment, check=True, timeout=300)


BY_CLASSES = ("hl-gauss", "ce-mean")


@pytest.mark.parametrize("name", BY_CLASSES)
@pytest.mark.parametrize(
    "changes", [{}, BALANCED_DATA, {"targets": "standardised"}], ids=["all samples", "balanced data", "standardised targets"]
)
def test_classes_alone_are_learned_by_cross_entropy_to_histograms_of_the_kept_samples(job, images, name, changes):
    task = ImageObjective(job(method=name, **changes), images)
    batch, kept = batch_of(task), np.ones(40, bool)
    if "balanced_data" in changes:
        kept = draws(len(task.rows), seed=0, epoch=0)[:40] < task.keep[:40]
        assert 0 < kept.sum() < 40
    found, predictions, logits = parts(task, batch)
    targets, edges = targets_of(task, batch).double().numpy(), np.linspace(0, 100, 11)
    histograms = np.stack([BY_NAME[name](target, edges) for target in targets])
    accuracy = (logits.argmax(1) == labels_by_hand(targets_of(task, batch), 10)).float().mean().item()
    assert found == {"loss": pytest.approx(cross_entropy(logits, histograms)[kept].mean(), rel=1e-5), "accuracy": pytest.approx(accuracy)}
    np.testing.assert_allclose(predictions, mean_of_classes(logits, edges), rtol=1e-5)  # years, though the loss is of classes


def test_networks_that_predict_by_classes_start_from_the_backbone_of_reg_and_have_no_regression_head(job, images):
    reg, gauss = (ImageObjective(job(method=method), images).network().state_dict() for method in ("reg", "hl-gauss"))
    assert set(gauss) - set(reg) == {"classifier.weight", "classifier.bias", "centres"} and "regressor.weight" not in gauss
    assert all(torch.equal(value, reg[name]) for name, value in gauss.items() if name.startswith("backbone."))
    assert gauss["centres"].tolist() == pytest.approx([5, 15, 25, 35, 45, 55, 65, 75, 85, 95])


def resumed(job, changes):
    """The result of an interrupted and resumed run, and its predictions; an uninterrupted one has the same weights and predictions."""
    whole = make(job(folder="whole", **changes))
    with pytest.raises(KeyboardInterrupt):
        make(job(**changes), interrupt_at=7)
    again = make(job(**changes))
    weights = [read_weights(result.files[LAST], device="cpu") for result in (whole, again)]
    assert weights[0].keys() == weights[1].keys() and all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    table = again.tables["predictions.parquet"]
    pd.testing.assert_frame_equal(table, whole.tables["predictions.parquet"], check_exact=True)
    return again, table


@pytest.mark.parametrize("changes", [{}, BALANCED_DATA, STANDARDISED], ids=["raw", "balanced data", "standardised targets"])
def test_a_resumed_run_by_classes_gives_the_same_numbers_and_its_predictors_need_no_data(job, images, changes):
    changes = {"method": "hl-gauss", **changes}
    again, table = resumed(job, changes)
    loaded = load_predictor(again.files[BEST], model="resnet18", width=2, standardised="targets" in changes)
    for predictor in (model_of(job(**changes), again).network, loaded):
        with torch.inference_mode():
            found = predictor(torch.from_numpy(images.images[images.rows("test")])).numpy()
        np.testing.assert_allclose(found, table["prediction"], rtol=1e-4)
    for name, value in evaluate(table["prediction"], table["target"], shots_by_loop(images, table["target"])):
        assert again.metrics[f"test/{name}"] == pytest.approx(value)
    assert set(again.history[0].metrics) >= {"train/loss", "train/accuracy"} and "train/class_loss" not in again.history[0].metrics
    assert 0 < again.metrics["test/accuracy/all"] <= 1 and again.metrics["head_classes"] == 10


def test_training_by_classes_alone_reduces_the_loss(job):
    history = make(job(width=4, epochs=4, milestones=(), learning_rate=0.03, method="hl-gauss", class_range=())).history
    assert history[-1].metrics["train/loss"] < history[0].metrics["train/loss"] - 0.2  # of which the entropy of the histograms remains


def test_an_epoch_feeds_every_image_once_in_its_own_order(job, images):
    task = ImageObjective(job(batch_size=20), images)
    fed = list(task.feed(0, 0))
    assert len(fed) == 2 * task.batches
    for epoch in (0, 1):
        own = [batch for batch in fed if batch.epoch == epoch]
        assert sorted(np.concatenate([batch.samples for batch in own])) == list(range(len(task.rows)))
    assert not np.array_equal(fed[0].samples, fed[task.batches].samples)
    rest = list(task.feed(1, 2))
    assert [batch.samples.tolist() for batch in rest] == [batch.samples.tolist() for batch in fed[task.batches + 2 :]]
    assert all(torch.equal(one.images, other.images) for one, other in zip(rest, fed[task.batches + 2 :], strict=True))


def test_batches_hold_the_images_of_their_samples(job, images):
    task = ImageObjective(job(pad=0, flip=0.0), images)
    batch = next(task.feed(0, 0))
    assert np.array_equal(batch.images.numpy(), images.images[images.rows("train")[batch.samples]])
    described = task.describe(batch)
    assert described["rows"] == images.rows("train")[batch.samples].tolist()
    assert described["targets"] == [images.targets("train")[batch.samples].min(), images.targets("train")[batch.samples].max()]


@pytest.mark.parametrize("batch_size, left_out", [(5, 0), (5, 1), (71, 0), (512, 0)])  # of 72, since 71 leave a single one over
def test_predictions_cover_all_images_whatever_the_batch_size(job, images, monkeypatch, batch_size, left_out):
    rows = ImageSet.rows
    monkeypatch.setattr(ImageSet, "rows", lambda images, split: rows(images, split)[left_out:])
    task = ImageObjective(job(), images)
    network = task.network()
    with torch.no_grad():
        expected = network.eval()(task._on_device(torch.from_numpy(images.images[images.rows("test")])))[0].numpy()
    found = ImageObjective(job(batch_size=batch_size), images).predict(network.train(), "test")[0]
    assert len(found) == len(images.rows("test"))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def shots_by_loop(images, targets, *, many_above=6, few_below=4):
    """Shot groups by the training images of each age in whole years."""
    counts = Counter(math.floor(target) for target in images.targets("train").tolist())
    found = [counts[math.floor(target)] for target in targets.tolist()]
    return np.array(["many" if count > many_above else "few" if count < few_below else "medium" for count in found])


@pytest.mark.parametrize("changes", [{}, {"method": "reg"}, {"method": "reg+cls-bal", **BALANCED_DATA}], ids=["reg+cls", "reg", "balanced"])
def test_metrics_belong_to_the_saved_best_weights(job, images, changes):
    result = make(job(epochs=3, learning_rate=0.03, **changes))
    predictor = load_predictor(result.files[BEST], model="resnet18", width=2)
    for split in ("val", "test"):
        with torch.inference_mode():
            predictions = predictor(torch.from_numpy(images.images[images.rows(split)])).numpy()
        targets = images.targets(split)
        for name, value in evaluate(predictions, targets, shots_by_loop(images, targets)):
            assert result.metrics[f"{split}/{name}"] == pytest.approx(value, rel=1e-4), name
    scores = [epoch.metrics["val/mse/all"] for epoch in result.history]
    assert result.best_epoch == 1 + int(np.argmin(scores)) and result.metrics["val/mse/all"] == min(scores)
    assert 0 < result.metrics["waiting_share"] < 1 and result.metrics["images_per_second"] > 0


def test_class_accuracy_is_measured_wherever_errors_are(job, images):
    result = make(job(epochs=2, classes=4, learning_rate=0.01))
    network = build("resnet18", width=2, classes=4)
    network.load_state_dict(read_weights(result.files[BEST], device="cpu"))
    for split in ("val", "test"):
        with torch.inference_mode():
            logits = network.eval()(scaled(torch.from_numpy(images.images[images.rows(split)])))[1]
        labels = labels_by_hand(torch.from_numpy(images.targets(split)), 4)
        assert result.metrics[f"{split}/accuracy/all"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert all(0 < epoch.metrics["train/accuracy"] < 1 for epoch in result.history)
    assert result.metrics["train/accuracy"] == result.history[result.best_epoch - 1].metrics["train/accuracy"]
    reg = make(job(folder="reg", epochs=1, method="reg"))
    assert not any("accuracy" in name for name in {**reg.metrics, **reg.history[0].metrics})


def test_balanced_classes_follow_the_rounding_of_a_run(job, images):
    edges = {
        r: ImageObjective(job(method="reg+cls-bal", classes=100, rounding=r), images).classes.edges.tolist()
        for r in ("ceil", "round", "floor")
    }
    for rounding, found in edges.items():
        assert found == equalised(uniform_ranges(100, 0.0, 100.0), images.targets("train"), rounding=rounding).edges.tolist()
    assert edges["ceil"] != edges["round"] != edges["floor"]


def test_the_predictions_reproduce_the_reported_errors(job, images):
    result = make(job())
    table = result.tables["predictions.parquet"]
    assert list(table.columns) == ["row", "path", "target", "prediction"]
    assert table["row"].tolist() == images.rows("test").tolist() and table["path"].tolist() == images.paths("test")
    shots = shots_by_loop(images, table["target"])
    assert set(shots) == {"medium", "few"}  # at most six images here have the same age
    for name, value in evaluate(table["prediction"], table["target"], shots):
        assert result.metrics[f"test/{name}"] == pytest.approx(value)


def test_metrics_are_named_by_split_error_and_group(job):
    result, groups = make(job(epochs=1)), ("all", "medium", "few")  # no age has many images here
    errors = {f"{error}/{group}" for error in (*METRICS, "n") for group in groups} | {"n/many", "accuracy/all"}
    tested = {f"{split}/{error}" for split in ("val", "test") for error in errors}
    of_validation = {name for name in tested if name.startswith("val/")}
    assert set(result.metrics) == tested | {"train/accuracy", "head_classes", "images_per_second", "waiting_share"}
    parts = {"train/loss", "train/regression_loss", "train/class_loss", "train/accuracy"}
    assert set(result.history[0].metrics) == of_validation | parts | {"learning_rate"}


@pytest.mark.parametrize("shots", [IntegerShots(by="integer", many_above=3, few_below=2), DensityShots(by="density", bins=5, many_above=1, few_below=0.5)], ids=["integer", "density"])  # fmt: skip
def test_shot_limits_change_groups_but_not_training(job, shots):
    reference, other = make(job(folder="usual")), make(job(folder="other", shots=shots))
    pd.testing.assert_frame_equal(other.tables["predictions.parquet"], reference.tables["predictions.parquet"], check_exact=True)
    assert other.best_epoch == reference.best_epoch and other.score == reference.score
    assert reference.metrics["test/n/many"] == 0 < other.metrics["test/n/many"]
    assert (reference.tags, other.tags) == ({"shots": "integer: many_above 6, few_below 4"}, {"shots": shots_text(shots)})


def test_specs_do_not_depend_on_shot_limits(params):
    section = params.datasets["imdb_wiki"]
    other = replace(section, shots=DensityShots(by="density", bins=7, many_above=2.0, few_below=0.1))
    specs = [all_specs(make_spec, images, "imdb_wiki", {}) for images in (section, other)]
    assert specs[0] == specs[1] and [spec.digest() for spec in specs[0]] == [spec.digest() for spec in specs[1]]
    assert not {name for name in specs[0][0].params() if "many" in name or "few" in name or "shot" in name}


@pytest.mark.parametrize("method", ["reg+cls", "reg+cls-bal"])
def test_classes_can_cover_any_range_of_training_targets(job, images, method):
    targets = images.targets("train")
    by_hand = uniform_ranges(10, float(targets.min()), float(targets.max()))
    if method == "reg+cls-bal":
        by_hand = equalised(by_hand, targets, rounding="round")
    task = ImageObjective(job(method=method, class_range=()), images)
    assert task.classes.edges.tolist() == by_hand.edges.tolist() != ImageObjective(job(method=method), images).classes.edges.tolist()
    assert task.classes.labels(np.array([targets.min(), targets.max()])).tolist() == [0, len(by_hand) - 1]


def test_balanced_data_can_cover_the_range_of_training_targets(job, images):
    targets = images.targets("train")
    ranges = equalised(uniform_ranges(10, float(targets.min()), float(targets.max())), targets, rounding="round")
    keep = ImageObjective(job(method="reg", class_range=(), **BALANCED_DATA), images).keep
    assert keep.tolist() == ranges.keep[ranges.labels(targets)].tolist()
    assert keep.tolist() != ImageObjective(job(method="reg", class_range=(0.0, 100.0), **BALANCED_DATA), images).keep.tolist()


def test_the_data_range_as_class_range_makes_another_run(params):
    section = params.datasets["imdb_wiki"]
    spec = single_spec(make_spec, replace(section, training=replace(section.training, class_range="data")), "imdb_wiki", ImageOptions())
    reference = single_spec(make_spec, section, "imdb_wiki", ImageOptions())
    assert (spec.class_range, spec.params()["class_range"], reference.params()["class_range"]) == ((), "none", "0.0, 100.0")
    assert ImageSpec(**typed(spec.params(), ImageSpec)) == spec and spec.digest() != reference.digest()


def test_training_reduces_the_loss(job):
    history = make(job(width=4, epochs=4, milestones=(), learning_rate=0.03, method="reg")).history
    assert history[-1].metrics["train/loss"] < 0.5 * history[0].metrics["train/loss"]


IN_OTHER_UNITS = {"times a million": lambda targets: targets * np.float32(1e6), "a million more": lambda targets: targets + np.float32(1e6)}


@pytest.mark.parametrize("method", ["reg", "reg+cls", "reg+cls-bal", "focal-r"])
def test_predictions_of_standardised_targets_follow_their_unit(job, monkeypatch, method):
    shots = DensityShots(by="density", bins=5, many_above=1.0, few_below=0.5)
    usual = make(job(method=method, shots=shots, **STANDARDISED)).tables["predictions.parquet"]
    std, targets = usual["target"].std(), ImageSet.targets
    for unit, changed in IN_OTHER_UNITS.items():
        monkeypatch.setattr(ImageSet, "targets", lambda images, split, changed=changed: changed(targets(images, split)))
        other = make(job(folder=unit, method=method, shots=shots, **STANDARDISED)).tables["predictions.parquet"]
        assert other["target"].tolist() == changed(usual["target"]).tolist()
        size = 1e6 if unit == "times a million" else 1.0
        step = np.spacing(np.abs(other["prediction"].to_numpy())).max()  # of float32
        np.testing.assert_allclose(
            other["prediction"], changed(usual["prediction"].astype(float)), rtol=0, atol=1e-4 * std * size + 2 * step
        )


def test_standardised_targets_have_mean_0_and_standard_deviation_1(job, images, monkeypatch):
    task = ImageObjective(job(**STANDARDISED), images)
    exact = images.targets("train").astype(np.float64)
    assert task.scale == (exact.mean(), exact.std())
    np.testing.assert_allclose(task.targets, (exact - exact.mean()) / exact.std(), rtol=1e-6, atol=1e-7)
    batch = batch_of(task)
    found, predictions, _ = parts(task, batch)
    assert found["regression_loss"] == pytest.approx(F.l1_loss(predictions, task.targets[:40]).item())
    network = task.network().eval()
    head = F.linear(network.backbone(task._on_device(batch.images)), network.regressor.weight, network.regressor.bias)[:, 0]
    torch.testing.assert_close(network(task._on_device(batch.images))[0], exact.mean() + exact.std() * head)

    raw = ImageObjective(job(class_range=()), images)
    assert raw.scale is None and np.array_equal(raw.targets, images.targets("train"))
    assert raw.classes.edges.tolist() == task.classes.edges.tolist() and torch.equal(raw.labels, task.labels)
    assert set(task.network().state_dict()) - set(raw.network().state_dict()) == {"mean", "std"}


def test_constant_targets_are_predicted_near_the_constant(job, monkeypatch):
    targets = ImageSet.targets
    monkeypatch.setattr(ImageSet, "targets", lambda images, split: np.full_like(targets(images, split), 0.1))
    shots = DensityShots(by="density", bins=5, many_above=1.0, few_below=0.5)
    own = job(method="reg", shots=shots, **STANDARDISED)
    assert ImageObjective(own, ImageSet(own.prepared)).scale == (pytest.approx(0.1), 1.0)
    assert make(own).metrics["test/mae/all"] < 2


@pytest.mark.slow
@pytest.mark.usefixtures("all_cores")  # PyTorch warns of more loaders than cores
def test_a_run_does_not_depend_on_the_number_of_loading_processes(job):
    changes = {"method": "lds+cls-bal", "epochs": 2}
    thread, processes = make(job(**changes)), make(replace(job(folder="processes", **changes), loaders=2))
    assert [epoch.metrics for epoch in processes.history] == [epoch.metrics for epoch in thread.history]


def test_a_resumed_run_and_its_predictors_have_the_scale_of_the_targets(job):
    changes = {"method": "reg+cls-bal", **BALANCED_DATA, **STANDARDISED}
    again, table = resumed(job, changes)
    model = model_of(job(**changes), again)
    loaded = load_predictor(again.files[BEST], model="resnet18", width=2, standardised=True)
    for predictor in (model.network, loaded):
        np.testing.assert_allclose(predictor(torch.from_numpy(model.example)).detach(), table["prediction"][:2], rtol=1e-4)
    assert table["prediction"].min() > 5  # years


@pytest.mark.parametrize("at, minutes", [(3, 1e-9), (7, 1e-9), (7, 10.0)], ids=["epoch 1", "epoch 2", "epoch 2, from its start"])
def test_an_interrupted_run_gives_the_same_numbers(job, at, minutes):
    changes = {"method": "reg+cls-bal", **BALANCED_DATA}
    whole = make(job(folder="whole", **changes))
    with pytest.raises(KeyboardInterrupt):
        make(job(checkpoint_minutes=minutes, **changes), interrupt_at=at)
    torch.rand(7)
    again = make(job(**changes))
    weights = [Checkpoints(result.files[BEST].parent, fingerprint="f").load(device="cpu").content["weights"] for result in (whole, again)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    pd.testing.assert_frame_equal(again.tables["predictions.parquet"], whole.tables["predictions.parquet"], check_exact=True)
    timing = {"images_per_second", "waiting_share"}
    assert {k: v for k, v in again.metrics.items() if k not in timing} == {k: v for k, v in whole.metrics.items() if k not in timing}


def test_a_run_with_completed_training_needs_no_further_step(job):
    whole = make(job())
    again = make(job())
    pd.testing.assert_frame_equal(again.tables["predictions.parquet"], whole.tables["predictions.parquet"], check_exact=True)
    assert "images_per_second" not in again.metrics and again.metrics["test/mse/all"] == whole.metrics["test/mse/all"]


def test_the_exported_model_is_the_saved_network_with_two_test_images(job, images):
    result = make(job())
    model = model_of(job(), result)
    assert np.array_equal(model.example, images.images[images.rows("test")[:2]])
    predictions = result.tables["predictions.parquet"]["prediction"][:2]
    np.testing.assert_allclose(model.network(torch.from_numpy(model.example)).detach(), predictions, rtol=1e-4)


def test_missing_prepared_data_are_a_clear_error(job, tmp_path):
    with pytest.raises(UserError, match="there is no prepared data in"):
        make(replace(job(), prepared=tmp_path / "nothing"))


def test_the_recipe_follows_the_spec(job):
    spec = job(accumulate=3, optimizer="sgd").spec
    recipe = Recipe.of(spec)
    assert {field.name: getattr(recipe, field.name) for field in fields(recipe)} == {
        field.name: getattr(spec, field.name) for field in fields(recipe)
    }


# Imports of tasks.images.train that affect no number: reading, storing and reporting; the spec itself (it has its own part of the
# fingerprint, and so have the code of its method and its options); how the prepared data were made (they have a digest); and the errors
# reported for a run.
DECIDES_NOTHING = {
    "choices",
    "data.store", "errors", "files", "methods", "methods.features", "metrics", "params", "params.adding", "params.shots", "params.single", "params.reading", "params.types", "processes", "progress", "provenance", "runs", "runs.grids", "tasks", "words",
    "tasks.images.params", "tasks.images.runs", "training.checkpoint", "training.device", "training.single",
}  # fmt: skip


def test_result_code_covers_all_training_imports_that_affect_numbers():
    digested = {*import_closure("regcls.models.heads"), *(SOURCE / f"{name.replace('.', '/')}.py" for name in code.MODULES)}
    imported = {file for file in import_closure("regcls.tasks.images.train") if len(file.read_text().splitlines()) > 1}
    names = {".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for file in imported - digested}
    assert names == DECIDES_NOTHING


@pytest.mark.parametrize("module", code.MODULES)
def test_modules_listed_as_result_code_exist(module):
    assert (SOURCE / f"{module.replace('.', '/')}.py").is_file()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.usefixtures("all_cores")  # as many as loaders
def test_gpu_runs_agree_with_cpu_runs(job):
    """Closely in float32 at first; bf16, loader processes and pinned memory at least run."""
    hooks = Hooks()
    cpu = train_run(job(folder="cpu", epochs=1), hooks, print)
    gpu = train_run(replace(job(folder="gpu", epochs=1), device="cuda", loaders=2), hooks, print)
    losses = [result.history[0].metrics["train/loss"] for result in (cpu, gpu)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    bf16 = train_run(replace(job(folder="bf16", epochs=1, precision="bf16"), device="cuda", loaders=2), hooks, print)
    assert bf16.history[0].metrics["train/loss"] == pytest.approx(losses[0], rel=0.1)


def test_data_prepared_again_during_a_run_are_refused(job):
    with pytest.raises(UserError, match="was prepared again while runs were training on it"):
        train_run(replace(job(), data_digest="another"), Hooks(), print)


def test_classes_that_cannot_be_balanced_are_reported_and_counted(job, images):
    expected = []
    everyone_in_one = {"method": "reg+cls-bal", "classes": 2, "class_range": (-1000.0, 100.0), "epochs": 1}
    result = train_run(job(**everyone_in_one), Hooks(), expected.append)
    assert "nearly all targets share one range; the uniform ranges are kept, balanced by ρ" in expected[0]
    assert result.metrics["head_classes"] == 2
    assert train_run(job(folder="other", method="reg", epochs=1), Hooks(), expected.append).metrics["head_classes"] == 0
