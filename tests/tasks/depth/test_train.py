"""Depth end to end on a few small maps: losses by hand, equal draws, two selections, and the metrics of the saved weights."""

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from conftest import ROOT
from methods.histograms import BY_NAME, mean_of_classes
from methods.over_the_batch import OVER_THE_BATCH, batch_monte_carlo, logged, over_the_batch
from regcls.classes import equalised, uniform_ranges
from regcls.data.store import write_prepared
from regcls.errors import UserError
from regcls.methods import has_classes
from regcls.metrics import SHOTS
from regcls.params import load_params
from regcls.provenance import SOURCE, import_closure
from regcls.tasks.depth import code
from regcls.tasks.depth.data import DepthSet
from regcls.tasks.depth.metrics import errors_of, sums_of
from regcls.tasks.depth.model import DepthPredictor
from regcls.tasks.depth.params import DepthOptions
from regcls.tasks.depth.runs import single_depth_spec
from regcls.tasks.depth.train import Batch, DepthJob, DepthObjective, load_predictor, model_of, train_run
from regcls.training.checkpoint import Checkpoints, read_weights
from regcls.training.single import BEST, LAST
from training.hooks import Hooks

pytestmark = pytest.mark.usefixtures("one_thread")

TRAINING, TEST, WHOLE, CROP = 30, 7, (36, 48), (32, 44)
EDGE = (slice(2, 34), slice(2, 46))  # the centre crop
VALIDATION = slice(24, 30)
LEARNING_RATE = 0.005
BALANCED_DATA = {"balanced_data": True, "balanced_bins": 10, "class_range": (0.0, 10.0)}
SECTION = load_params(ROOT / "params.yaml").datasets["rooms"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Slopes, mostly near ones, with noisy images and unmeasured pixels."""
    rng = np.random.default_rng(1)
    near = rng.permutation(np.linspace(1.0, 2.6, TRAINING + TEST) ** 2)[:, None, None]
    metres = np.clip(near * np.linspace(1.5, 0.5, WHOLE[0])[:, None] + np.linspace(0.6, 1.2, WHOLE[1]), 0.3, 9.9)
    pixels = np.clip(255 - 20 * metres[..., None] + rng.normal(0, 15, (*metres.shape, 3)), 0, 255).astype(np.uint8)
    levels = np.rint(25.5 * metres[:TRAINING]).astype(np.uint8)
    levels[rng.random(levels.shape) < 0.1] = 0
    tested = np.rint(1000 * metres[TRAINING:, *EDGE]).astype(np.uint16)
    tested[rng.random(tested.shape) < 0.1] = 0
    arrays = {
        "train_images": pixels[:TRAINING],
        "train_depth": levels,
        "train_levels": np.stack([np.bincount(one[EDGE].ravel(), minlength=256) for one in levels]).astype(np.uint32),
        "test_images": pixels[TRAINING:, *EDGE],
        "test_depth": tested,
        "test_mask": (rng.random(tested.shape) < 0.5) & (tested > 0),
    }
    splits = ["train"] * 24 + ["val"] * 6 + ["test"] * TEST
    table = pd.DataFrame({"split": splits, "row": [*range(TRAINING), *range(TEST)]}).assign(path="", depth_path="", scene="")
    folder = tmp_path_factory.mktemp("depth") / "nyud2" / "prepared"
    write_prepared(folder, arrays=arrays, table=table, made_from={"crop": CROP})
    return DepthSet(folder)


def job_on(images, home, *, folder="run", checkpoint_minutes=10.0, loaders=0, method="reg+cls", **changes):
    """A run of reg+cls with 10 classes, with `changes` to its spec."""
    options = DepthOptions(method=method, epochs=3, width=2, batch_size=6, classes=10 if has_classes(method) else None)
    spec = replace(single_depth_spec(SECTION, "nyud2", options), **({"crop": CROP, "milestones": (2,), "rounding": "round"} | changes))
    return DepthJob(
        spec=spec,
        prepared=images.prepared.folder,
        data_digest=images.digest,
        checkpoints=home / folder,
        fingerprint="f",
        device="cpu",
        loaders=loaders,
        channels_last=True,
        compiled=False,
        checkpoint_minutes=checkpoint_minutes,
        weights_folder=home / "weights",
        shots=SECTION.shots,
        unit="m",
    )


@pytest.fixture
def job(images, tmp_path):
    return partial(job_on, images, tmp_path)


VARIED = {
    "reg+cls": {},
    "reg": {"method": "reg"},
    "balanced": {"method": "reg+cls-bal", **BALANCED_DATA},
    "by classes": {"method": "hl-gauss", **BALANCED_DATA},
}


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """Train a run of VARIED, each once; return its job and result."""

    @cache
    def finished(name):
        own = job_on(images, tmp_path_factory.mktemp("finished"), learning_rate=LEARNING_RATE, **VARIED[name])
        return own, make(own)

    return finished


def make(job, **kwargs):
    return train_run(job, Hooks(**kwargs), lambda text: None)


def batch_of(images, epoch=0, count=5):
    """A training batch of the first samples, without augmentation."""
    samples = np.arange(count)
    rows = images.rows("train")[samples]
    levels = images.train_depth[rows][:, *EDGE][:, 1::2, 1::2]
    pixels = images.train_images[rows][:, *EDGE]
    return Batch(epoch=epoch, samples=samples, images=torch.from_numpy(pixels.copy()), levels=torch.from_numpy(levels.copy()))


def parts(task, batch):
    """The losses of an untrained network, its predictions, and the logits of all pixels at the size of the images."""
    found = {name: value.item() for name, value in task.losses(task.network(None).train(), batch).items()}
    network = task.network(None).train()
    with torch.no_grad():
        predictions, features = network(task.evaluation.on_device(batch.images))
        logits = None if features is None else network.classifier(features)
    return found, predictions, logits


def metres_of(batch):
    return batch.levels.double() / 25.5


def test_reg_and_reg_cls_share_initial_trunk_and_regression_output(job, images):
    reg, ten, hundred = (
        DepthObjective(job(**changes), images).network(None).state_dict()
        for changes in ({"method": "reg"}, {}, {"method": "reg+cls-bal", "classes": 100})
    )
    assert {name.split(".")[0] for name in set(ten) - set(reg)} == {"classifier"}
    for name, value in reg.items():
        assert torch.equal(value, ten[name]) and torch.equal(value, hundred[name]), name


@pytest.mark.parametrize("loss, plain", [("mse", F.mse_loss), ("mae", F.l1_loss), ("huber", lambda p, t: F.huber_loss(p, t, delta=0.3))])
def test_reg_uses_the_regression_loss_over_measured_pixels_only(job, images, loss, plain):
    task, batch = DepthObjective(job(method="reg", loss=loss, huber_delta=0.3), images), batch_of(images)
    found, predictions, logits = parts(task, batch)
    measured = batch.levels > 0
    assert logits is None and 0 < measured.double().mean() < 1
    assert found == {"loss": pytest.approx(plain(predictions.double()[measured], metres_of(batch)[measured]).item())}


def class_loss_by_hand(logits, batch, labels_of, kept):
    """The class loss over the label pixels: depth at twice its size, each pixel repeated four times."""
    labels = torch.tensor([[[labels_of(float(metres)) for metres in row] for row in one] for one in metres_of(batch)])
    losses = F.cross_entropy(logits, F.interpolate(labels[:, None].float(), scale_factor=2)[:, 0].long(), reduction="none")
    return losses[F.interpolate(kept[:, None].float(), scale_factor=2)[:, 0] > 0].mean().item()


@pytest.mark.parametrize("lam, scaling, total", [(0.1, "released", lambda r, c: r + 10 * c), (0.1, "eq4", lambda r, c: 0.1 * r + c), (5.0, "released", lambda r, c: 5 * r + c)])  # fmt: skip
def test_reg_cls_adds_the_class_loss_of_measured_pixels_by_lambda(job, images, lam, scaling, total):
    task, batch = DepthObjective(job(lam=lam, loss_scaling=scaling), images), batch_of(images)
    found, predictions, logits = parts(task, batch)
    measured = batch.levels > 0
    assert found["regression_loss"] == pytest.approx(F.mse_loss(predictions.double()[measured], metres_of(batch)[measured]).item())
    assert found["class_loss"] == pytest.approx(class_loss_by_hand(logits, batch, lambda metres: min(int(metres), 9), measured), rel=1e-5)
    assert found["loss"] == pytest.approx(total(found["regression_loss"], found["class_loss"]), rel=1e-5)


def twice(maps):
    """(B, h, w) -> (B, H, W), bilinearly with aligned corners, line by line in numpy."""
    for axis in (1, 2):
        size = maps.shape[axis]
        maps = np.apply_along_axis(lambda line, n=size: np.interp(np.linspace(0, n - 1, 2 * n), np.arange(n), line), axis, maps)
    return maps


def four_times(mask):
    return F.interpolate(mask[:, None].float(), scale_factor=2)[:, 0] > 0


def accuracy_by_hand(logits, labels, measured):
    return (logits.argmax(1) == torch.from_numpy(labels))[measured].double().mean().item()


@pytest.mark.parametrize("method", ["reg+cls", "reg+cls-bal"])
def test_accuracy_is_over_all_measured_pixels_of_a_batch(job, images, method):
    task, batch = DepthObjective(job(method=method), images), batch_of(images)
    found, _, logits = parts(task, batch)
    labels = task.classes.labels(metres_of(batch).numpy()).repeat(2, 1).repeat(2, 2)
    assert 0 < found["accuracy"] == pytest.approx(accuracy_by_hand(logits, labels, four_times(batch.levels > 0)), rel=1e-5)


@pytest.mark.parametrize("method", ["reg+cls", "reg+cls-bal"])
def test_as_released_classes_come_from_the_doubled_map(job, images, method):
    task, batch = DepthObjective(job(method=method, depth_resampling="released"), images), batch_of(images, epoch=1)
    metres, measured, known = twice(metres_of(batch).numpy()), batch.levels > 0, four_times(batch.levels > 0)
    ranges = uniform_ranges(10, 0.0, 10.0)
    kept = known
    if method == "reg+cls-bal":
        ranges = equalised(ranges, all_training_depths(images), rounding="round")
        kept = known & (drawn_at(batch, metres.shape[1:]) < torch.from_numpy(ranges.keep[ranges.labels(metres)]))
    found, predictions, logits = parts(task, batch)
    labels = torch.from_numpy(ranges.labels(metres))
    assert found["class_loss"] == pytest.approx(F.cross_entropy(logits, labels, reduction="none")[kept].mean().item(), rel=1e-5)
    assert found["accuracy"] == pytest.approx(accuracy_by_hand(logits, labels.numpy(), known), rel=1e-5)
    assert found["regression_loss"] == pytest.approx(F.mse_loss(predictions.double()[measured], metres_of(batch)[measured]).item())


@pytest.mark.parametrize("method", ["reg", "reg+cls"])
def test_as_released_balanced_regression_uses_the_doubled_map(job, images, method):
    task, batch = DepthObjective(job(method=method, depth_resampling="released", **BALANCED_DATA), images), batch_of(images, epoch=1)
    metres, ranges = (
        twice(metres_of(batch).numpy()),
        equalised(uniform_ranges(10, 0.0, 10.0), all_training_depths(images), rounding="round"),
    )
    kept = drawn_at(batch, metres.shape[1:]) < torch.from_numpy(ranges.keep[ranges.labels(metres)])
    kept &= four_times(batch.levels > 0)
    found, predictions, logits = parts(task, batch)
    expected = np.mean((twice(predictions.double().numpy()) - metres)[kept.numpy()] ** 2)
    assert found.get("regression_loss", found["loss"]) == pytest.approx(expected, rel=1e-5)
    if logits is not None:
        labels = torch.from_numpy(uniform_ranges(10, 0.0, 10.0).labels(metres))
        assert found["class_loss"] == pytest.approx(F.cross_entropy(logits, labels, reduction="none")[kept].mean().item(), rel=1e-5)


def all_training_depths(images):
    """The depth of every measured pixel in the centre crop of the training images, in metres."""
    levels = images.train_depth[images.rows("train")][:, *EDGE]
    return levels[levels > 0] / 25.5


def drawn(batch, probability):
    """Which pixels the draws of their samples keep."""
    return (drawn_at(batch, batch.levels.shape[1:]) < torch.from_numpy(probability)) & (batch.levels > 0)


def drawn_at(batch, size):
    """The uniform random numbers for the pixels of each sample."""
    return torch.from_numpy(
        np.stack([np.random.default_rng([1, 0, batch.epoch, n]).random(size, dtype=np.float32) for n in batch.samples.tolist()])
    )


def test_balanced_classes_keep_pixels_with_their_class_probability(job, images):
    task = DepthObjective(job(method="reg+cls-bal"), images)
    ranges = equalised(uniform_ranges(10, 0.0, 10.0), all_training_depths(images), rounding="round")
    assert 1 < len(ranges) < 10 and ranges.keep.min() < 0.9
    for epoch in (0, 1):
        batch = batch_of(images, epoch)
        kept = drawn(batch, ranges.keep[ranges.labels(metres_of(batch).numpy())])
        assert 0 < kept.sum() < (batch.levels > 0).sum()
        found, predictions, logits = parts(task, batch)
        expected = class_loss_by_hand(logits, batch, lambda metres: int(ranges.labels(metres)), kept)
        assert found["class_loss"] == pytest.approx(expected, rel=1e-5)
        measured = batch.levels > 0
        assert found["regression_loss"] == pytest.approx(F.mse_loss(predictions.double()[measured], metres_of(batch)[measured]).item())


@pytest.mark.parametrize("method", ["reg", "reg+cls", "reg+cls-bal"])
def test_balanced_data_mask_both_losses_with_the_same_draws(job, images, method):
    task, batch = DepthObjective(job(method=method, **BALANCED_DATA), images), batch_of(images, epoch=1)
    ranges = equalised(uniform_ranges(10, 0.0, 10.0), all_training_depths(images), rounding="round")
    kept = drawn(batch, ranges.keep[ranges.labels(metres_of(batch).numpy())])
    found, predictions, logits = parts(task, batch)
    regression = F.mse_loss(predictions.double()[kept], metres_of(batch)[kept]).item()
    assert found.get("regression_loss", found["loss"]) == pytest.approx(regression)
    if method != "reg":  # ten classes and ten bins: the same as those of reg+cls-bal
        labels_of = (lambda metres: int(ranges.labels(metres))) if method == "reg+cls-bal" else (lambda metres: min(int(metres), 9))
        assert found["class_loss"] == pytest.approx(class_loss_by_hand(logits, batch, labels_of, kept), rel=1e-5)


def test_pixels_are_kept_with_their_stated_probability(job, images):
    task, batch = DepthObjective(job(method="reg+cls-bal"), images), batch_of(images, count=1)
    keep, metres = torch.from_numpy(task.classes.keep)[task.ranges.labels(metres_of(batch))], metres_of(batch)
    kept = np.mean([task.ranges.kept(metres, task._draws(replace(batch, epoch=epoch), metres)).numpy() for epoch in range(600)], axis=0)
    np.testing.assert_allclose(kept, keep.numpy(), atol=0.1)  # 600 draws: five standard deviations


def test_a_batch_without_measured_pixels_has_no_loss_or_nan_gradient(job, images):
    task, batch = DepthObjective(job(), images), batch_of(images)
    network = task.network(None).train()
    losses = task.losses(network, replace(batch, levels=torch.zeros_like(batch.levels)))
    losses["loss"].backward()
    assert losses["loss"].item() == 0
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
    assert task.describe(replace(batch, levels=torch.zeros_like(batch.levels)))["targets"] == []


def weighted_by_size(predictions, targets):
    """focal-r(beta=0.5,gamma=2) on squared errors."""
    sizes = (predictions - targets).abs()
    return (torch.tanh(0.5 * sizes / 2) ** 2 * sizes**2).mean()


PLAINLY = {"focal-r(beta=0.5,gamma=2)": weighted_by_size, "reg": over_the_batch, "bmse-bmc": batch_monte_carlo}


@pytest.fixture(params=PLAINLY, ids=["focal-r", "over the batch", "bmse-bmc"])
def other(request, monkeypatch):
    """Another regression loss: its method's name, and the loss in plain PyTorch; the one over the whole batch replaces reg."""
    if request.param == "reg":
        monkeypatch.setattr("regcls.tasks.depth.train.make_loss", lambda name, **given: OVER_THE_BATCH)
    return request.param, PLAINLY[request.param]


@pytest.mark.parametrize("changes", [{}, BALANCED_DATA], ids=["all pixels", "balanced data"])
def test_another_loss_is_computed_over_kept_pixels(job, images, other, changes):
    method, plainly = other
    task, batch = DepthObjective(job(method=method, **changes), images), batch_of(images, epoch=1)
    kept = batch.levels > 0
    if changes:
        ranges = equalised(uniform_ranges(10, 0.0, 10.0), all_training_depths(images), rounding="round")
        kept = drawn(batch, ranges.keep[ranges.labels(metres_of(batch).numpy())])
    assert 0 < kept.double().mean() < 1
    found, predictions, logits = parts(task, batch)
    expected = plainly(predictions[kept].double(), metres_of(batch)[kept]).item()
    assert logits is None and found == {"loss": pytest.approx(expected, rel=1e-5), **logged(method)}


def test_another_loss_replaces_the_regression_loss_next_to_a_class_loss(job, images, other):
    method, plainly = other
    task, batch = DepthObjective(job(method=f"{method}+cls", lam=5.0), images), batch_of(images)
    found, predictions, logits = parts(task, batch)
    measured = batch.levels > 0
    regression = plainly(predictions[measured].double(), metres_of(batch)[measured]).item()
    classification = class_loss_by_hand(logits, batch, lambda metres: min(int(metres), 9), measured)
    assert (found["regression_loss"], found["class_loss"]) == (pytest.approx(regression, rel=1e-5), pytest.approx(classification, rel=1e-5))
    assert found["loss"] == pytest.approx(5 * regression + classification, rel=1e-5)


def test_a_batch_without_measured_pixels_has_no_other_loss_either(job, images, other):
    task, batch = DepthObjective(job(method=other[0]), images), batch_of(images)
    network = task.network(None).train()
    losses = task.losses(network, replace(batch, levels=torch.zeros_like(batch.levels)))
    losses["loss"].backward()
    assert losses["loss"].item() == 0
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_a_step_with_another_loss_agrees_with_plain_pytorch(job, images, other):
    method, plainly = other
    own = job(method=method, epochs=1, batch_size=24, milestones=())  # one batch
    task = DepthObjective(own, images)
    (batch,) = task.feed(0, 0)
    network, measured = task.network(None).train(), batch.levels > 0
    named, own_rates = dict(network.named_parameters()), {"loss_parameters": 0.01} if method == "bmse-bmc" else {}
    learned = [named["loss_parameters"]] if "loss_parameters" in named else []
    groups = [{"params": [named.pop(name)], "lr": rate, "weight_decay": 0.0} for name, rate in own_rates.items()]
    groups.append({"params": list(named.values())})
    optimizer = torch.optim.Adam(groups, own.spec.learning_rate, weight_decay=own.spec.weight_decay)
    predictions = network(task.evaluation.on_device(batch.images))[0]
    plainly(predictions[measured], metres_of(batch)[measured].float(), *(width[0, 0] for width in learned)).backward()
    optimizer.step()
    trained = read_weights(make(own).files[LAST], device="cpu")
    assert trained.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("method, initial", [("reg", 0.5), ("bmse-gai+cls-bal", 1.0), ("bmse-bni", 1.0)])
def test_loss_parameters_are_learned_and_saved_but_not_in_the_model(job, monkeypatch, method, initial):
    if method == "reg":
        monkeypatch.setattr("regcls.tasks.depth.train.make_loss", lambda name, **given: OVER_THE_BATCH)
    job = partial(job, method=method, epochs=2, milestones=(1,))
    whole = make(job(folder="whole"))
    with pytest.raises(KeyboardInterrupt):
        make(job(), interrupt_at=6)  # in the second epoch of four batches
    again = make(job())
    weights = [read_weights(result.files[LAST], device="cpu") for result in (whole, again)]
    assert weights[0]["loss_parameters"].shape == (1, 1) and abs(weights[0]["loss_parameters"].item() - initial) > 1e-4
    assert {"train/noise_sigma" in epoch.metrics for epoch in whole.history} == {method != "reg"}
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    pd.testing.assert_frame_equal(again.tables["sums.parquet"], whole.tables["sums.parquet"], check_exact=True)
    predictor = load_predictor(whole.files[BEST], model="resnet18", width=2, align_corners=True)
    assert "loss_parameters" in read_weights(whole.files[BEST], device="cpu")
    assert not any("loss" in name for network in (predictor, model_of(job(), whole).network) for name in network.state_dict())


def features_of(network, task, pixels):
    """The features of each pixel before the last layer (B, F, h, w)."""
    seen = []
    handle = network.refinement.register_forward_hook(lambda module, given, features: seen.append(features.detach()))
    with torch.no_grad():
        network(task.evaluation.on_device(torch.from_numpy(pixels)))
    handle.remove()
    return seen[0]


def still_levels(images, rows):
    return images.train_depth[rows][:, *EDGE][:, 1::2, 1::2]


@pytest.mark.parametrize("shown, rows", [(600, range(24)), (5, [0, 5, 11, 17, 23])], ids=["all", "five"])
def test_fds_sees_the_measured_pixels_of_evenly_spaced_training_images(job, images, monkeypatch, shown, rows):
    monkeypatch.setattr("regcls.tasks.depth.train.SHOWN", shown)
    task = DepthObjective(job(method="fds(bins=10)", class_range=(0.0, 10.0)), images)
    network = task.network(None).eval()
    task.after_epoch(network)
    rows = images.rows("train")[list(rows)]
    features = features_of(network, task, images.train_images[rows][:, *EDGE].copy()).permute(0, 2, 3, 1).double().numpy()
    levels = still_levels(images, rows)
    bins = np.minimum((levels / 25.5).astype(int), 9)
    method = network.feature_methods["fds"]
    assert method.epochs == 1 and len(set(bins[levels > 0])) > 4
    for place in set(bins[levels > 0]):
        own = features[(levels > 0) & (bins == place)]
        np.testing.assert_allclose(method.means[place], own.mean(0), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(method.variances[place], own.var(0, ddof=1), rtol=1e-3, atol=1e-7)


def shown_once(task):
    """An untrained network with the statistics of its features, in training mode."""
    network = task.network(None).eval()
    task.after_epoch(network)
    return network.train()


@pytest.mark.parametrize("method", ["fds", "lds+fds", "fds+cls", "fds+cls-bal"])
def test_both_heads_are_trained_on_calibrated_features_of_measured_pixels(job, images, method):
    task, batch = DepthObjective(job(method=method), images), batch_of(images)
    network = shown_once(task)
    found = task.losses(network, batch)
    network = shown_once(task)  # again: batch norm has counted the batch
    features = features_of(network, task, batch.images.numpy())
    expected, fds = features.clone(), network.feature_methods["fds"]
    for n, y, x in np.argwhere(batch.levels.numpy() > 0):
        place = min(int(float(metres_of(batch)[n, y, x]) / 0.1 + 1e-6), 99)
        expected[n, :, y, x] = features[n, :, y, x] * fds.scales[place] + fds.shifts[place]
    with torch.no_grad():
        predictions = F.conv2d(expected, network.regressor.weight, network.regressor.bias, padding=2)[:, 0]
    measured = batch.levels > 0
    regression = task.loss.alone(network, predictions, metres_of(batch).float(), measured, task.facts)
    torch.testing.assert_close(found.get("regression_loss", found["loss"]), regression, rtol=1e-4, atol=1e-6)
    if "cls" in method:
        classes, draws = task.classes, drawn(batch, task.classes.keep[task.classes.labels(metres_of(batch).numpy())])
        with torch.no_grad():
            logits = network.classifier(expected)
        kept = draws if method == "fds+cls-bal" else measured
        by_hand = class_loss_by_hand(logits, batch, lambda metres: int(classes.labels(metres)), kept)
        assert found["class_loss"].item() == pytest.approx(by_hand, rel=1e-4)
        with torch.no_grad():
            assert class_loss_by_hand(
                network.classifier(features), batch, lambda metres: int(classes.labels(metres)), kept
            ) != pytest.approx(by_hand, rel=1e-3)


def test_a_batch_without_measured_pixels_is_not_calibrated(job, images):
    task, batch = DepthObjective(job(method="fds"), images), batch_of(images)
    network = shown_once(task)
    nothing = replace(batch, levels=torch.zeros_like(batch.levels))
    pixels, targets = task.evaluation.on_device(nothing.images), torch.full(nothing.levels.shape, torch.nan)
    with torch.no_grad():
        assert torch.equal(network(pixels, targets)[0], network(pixels)[0])
    losses = task.losses(network, nothing)
    losses["loss"].backward()
    assert losses["loss"].item() == 0 and all(torch.isfinite(p.grad).all() for p in network.parameters())


BY_CLASSES = ("hl-gauss", "ce-mean")


@pytest.mark.parametrize("name", BY_CLASSES)
@pytest.mark.parametrize("resampling", ["nearest", "released"])
@pytest.mark.parametrize("changes", [{}, BALANCED_DATA], ids=["all pixels", "balanced data"])
def test_classes_alone_are_learned_by_cross_entropy_to_histograms_of_the_kept_pixels(job, images, name, resampling, changes):
    task = DepthObjective(job(method=name, depth_resampling=resampling, **changes), images)
    batch, released = batch_of(images, epoch=1), resampling == "released"
    metres = twice(metres_of(batch).numpy()) if released else metres_of(batch).numpy()
    kept, full = four_times(batch.levels > 0), (lambda pixels: pixels) if released else (lambda pixels: pixels.repeat(2, 1).repeat(2, 2))
    if changes:
        ranges = equalised(uniform_ranges(10, 0.0, 10.0), all_training_depths(images), rounding="round")
        kept &= torch.from_numpy(full(drawn_at(batch, metres.shape[1:]).numpy() < ranges.keep[ranges.labels(metres)]))
    assert 0 < kept.double().mean() < 1
    found, predictions, logits = parts(task, batch)
    assert predictions is None  # training needs none
    edges = np.linspace(0, 10, 11)
    histograms = torch.from_numpy(np.stack([BY_NAME[name](depth, edges) for depth in full(metres).ravel()]))
    rows = logits.permute(0, 2, 3, 1).flatten(0, 2).double()
    expected = F.cross_entropy(rows, histograms, reduction="none").view(kept.shape)[kept].mean().item()
    labels = uniform_ranges(10, 0.0, 10.0).labels(full(metres))
    accuracy = accuracy_by_hand(logits, labels, four_times(batch.levels > 0))
    assert found == {"loss": pytest.approx(expected, rel=1e-5), "accuracy": pytest.approx(accuracy, rel=1e-5)}


@pytest.mark.parametrize("name", BY_CLASSES)
def test_depth_by_classes_is_the_mean_of_their_centres_over_four_pixels(job, images, name):
    network, batch = DepthObjective(job(method=name), images).network(None).eval(), batch_of(images)
    with torch.inference_mode():
        depth, features = network(DepthObjective(job(), images).evaluation.on_device(batch.images))
        rows = network.classifier(features).permute(0, 2, 3, 1)
    means = mean_of_classes(rows.flatten(0, 2), np.linspace(0, 10, 11)).reshape(rows.shape[:3])
    expected = sum(means[:, y::2, x::2] for y in (0, 1) for x in (0, 1)) / 4
    np.testing.assert_allclose(depth, expected, rtol=1e-5)


def test_networks_that_predict_by_classes_start_from_the_trunk_of_reg_and_have_no_regression_head(job, images):
    reg, gauss = (DepthObjective(job(method=method), images).network(None).state_dict() for method in ("reg", "hl-gauss"))
    assert {key.split(".")[0] for key in set(gauss) - set(reg)} == {"classifier", "centres"}
    assert {key.split(".")[0] for key in set(reg) - set(gauss)} == {"regressor"}
    assert all(torch.equal(value, reg[key]) for key, value in gauss.items() if key in reg)


def test_a_batch_without_measured_pixels_has_no_loss_by_classes_either(job, images):
    task, batch = DepthObjective(job(method="hl-gauss"), images), batch_of(images)
    network = task.network(None).train()
    losses = task.losses(network, replace(batch, levels=torch.zeros_like(batch.levels)))
    losses["loss"].backward()
    assert losses["loss"].item() == 0 and all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_fds_changes_nothing_in_the_first_epoch(job):
    one = [make(job(folder=method, method=method, epochs=1, milestones=())) for method in ("reg", "fds")]
    weights = [read_weights(result.files[LAST], device="cpu") for result in one]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert one[0].history[0].metrics["val/rmse/all"] == one[1].history[0].metrics["val/rmse/all"]
    assert set(weights[1]) - set(weights[0]) == {
        f"feature_methods.fds.{name}" for name in ("edges", "epochs", "means", "variances", "scales", "shifts")
    }


WITH_FDS = {"method": "lds+fds+cls-bal", **BALANCED_DATA}


@pytest.mark.parametrize("resampling", ["nearest", "released"])
def test_an_interrupted_run_with_fds_and_its_predictor_give_the_same_numbers(job, images, resampling):
    changes = {"depth_resampling": resampling, "learning_rate": LEARNING_RATE, **WITH_FDS}
    whole = make(job(folder="whole", **changes))
    for at in (2, 5):  # in the first epoch of four batches, then in the second
        with pytest.raises(KeyboardInterrupt):
            make(job(checkpoint_minutes=1e-9, **changes), interrupt_at=at)
        torch.rand(7)
    again = make(job(**changes))
    weights = [read_weights(result.files[LAST], device="cpu") for result in (whole, again)]
    assert weights[0].keys() == weights[1].keys() and weights[0]["feature_methods.fds.epochs"] == 3
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    pd.testing.assert_frame_equal(again.tables["sums.parquet"], whole.tables["sums.parquet"], check_exact=True)
    assert [epoch.metrics for epoch in again.history] == [epoch.metrics for epoch in whole.history]
    predictor = load_predictor(again.files[BEST], model="resnet18", width=2, align_corners=True)
    assert not any("feature_methods" in name or "classifier" in name for name in predictor.state_dict())
    rmse, _ = by_hand(predictor, images.test_images.copy(), images.test_depth / 1000, images.test_mask)
    assert again.metrics["test/rmse/all"] == pytest.approx(rmse, rel=1e-4)


def test_fds_trains_in_bf16_close_to_float32(job):
    losses = [make(job(folder=p, precision=p, method="fds+cls", epochs=2)).history[1].metrics["train/loss"] for p in ("float32", "bf16")]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.1)


def test_training_by_classes_alone_learns_depth(finished):
    _, result = finished("by classes")
    errors = [epoch.metrics["test/rmse/all"] for epoch in result.history]
    assert (
        result.metrics["test/rmse/all"] <= errors[0] and result.history[-1].metrics["train/loss"] < result.history[0].metrics["train/loss"]
    )


def test_an_epoch_feeds_matching_images_and_depths(job, images):
    still = {"flip": 0.0, "rotate": 0.0, "lighting": 0.0, "jitter": 0.0}
    task = DepthObjective(job(**still), images)
    fed = list(task.feed(0, 0))
    assert len(fed) == 3 * task.batches == 12
    for batch in fed:
        rows = images.rows("train")[batch.samples]
        assert np.array_equal(batch.images.numpy(), images.train_images[rows][:, *EDGE])
        assert np.array_equal(batch.levels.numpy(), images.train_depth[rows][:, *EDGE][:, 1::2, 1::2])
    for epoch in range(3):
        assert sorted(np.concatenate([batch.samples for batch in fed if batch.epoch == epoch])) == list(range(24))


@pytest.mark.usefixtures("all_cores")  # PyTorch warns of more loaders than cores
@pytest.mark.parametrize("loaders", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_batches_do_not_depend_on_start_or_number_of_processes(job, images, loaders):
    whole, rest = list(DepthObjective(job(), images).feed(0, 0)), list(DepthObjective(job(loaders=loaders), images).feed(1, 2))
    assert len(rest) == 6
    for one, other in zip(rest, whole[6:], strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.levels, other.levels)


def test_validation_pixels_are_balanced_and_the_same_for_every_run(job, images):
    one, other = DepthObjective(job(), images), DepthObjective(job(seed=5, method="reg"), images)
    whole = one.evaluation.validation_batch(slice(0, 6))
    for cut in (slice(0, 2), slice(2, 6)):
        assert torch.equal(other.evaluation.validation_batch(cut).mask, whole.mask[cut])
    levels = images.train_depth[VALIDATION][:, *EDGE]
    assert torch.equal(whole.images, torch.from_numpy(images.train_images[VALIDATION][:, *EDGE].copy()))
    np.testing.assert_allclose(whole.targets.numpy(), levels / 25.5, rtol=1e-6)
    measured = levels[levels > 0] / 25.5
    ranges = equalised(uniform_ranges(100, 0.0, 10.0), measured, rounding="round")
    kept = np.bincount(ranges.labels(whole.targets[whole.mask].numpy()), minlength=len(ranges))
    rarest = np.bincount(ranges.labels(measured)).min()
    assert kept.std() < 0.5 * rarest and kept.mean() == pytest.approx(rarest, rel=0.25)
    assert not whole.mask[torch.from_numpy(levels == 0)].any()


@pytest.mark.parametrize(("method", "classes"), [("reg", 100), ("reg+cls", 10), ("reg+cls-bal", 10)])
def test_as_released_validation_is_balanced_by_class_and_averaged_by_image(job, images, method, classes):
    task = DepthObjective(job(method=method, validation="released"), images)
    whole, levels = task.evaluation.validation_batch(slice(0, 6)), images.train_depth[VALIDATION][:, *EDGE]
    ranges = equalised(uniform_ranges(classes, 0.0, 10.0), levels[levels > 0] / 25.5, rounding="round")
    draws = np.stack([np.random.default_rng([3, row]).random(CROP, dtype=np.float32) for row in range(24, 30)])
    keep = ranges.keep[ranges.labels(levels / 25.5)].astype(np.float32)
    assert np.array_equal(whole.mask.numpy(), (draws < keep) & (levels > 0))
    network = task.network(None).eval()
    metrics = task.validate(network)
    with torch.inference_mode():
        errors = (DepthPredictor(network)(whole.images) - whole.targets).double().square()
    by_image = [errors[n][whole.mask[n]].mean().item() for n in range(6)]
    assert metrics["val/rmse/all"] == pytest.approx(np.sqrt(np.mean(by_image)), rel=1e-5)
    pooled = DepthObjective(job(method=method), images).validate(network)
    assert pooled["val/rmse/all"] != pytest.approx(metrics["val/rmse/all"], rel=1e-4)
    tested = {name for name in pooled if name.startswith("test/")}
    assert tested and {name: metrics[name] for name in tested} == {name: pooled[name] for name in tested}


@pytest.mark.parametrize("name", VARIED)
def test_accuracy_is_over_the_pixels_of_the_errors_and_reg_has_none(finished, images, name):
    own, result = finished(name)
    task, named = DepthObjective(own, images), {"train/accuracy", "val/accuracy/all", "test/accuracy/all"}
    if name == "reg":
        assert not [key for key in {**result.metrics, **result.history[0].metrics} if "accuracy" in key]
        return
    assert all(named <= epoch.metrics.keys() and 0 <= epoch.metrics["train/accuracy"] <= 1 for epoch in result.history)
    network, checkpoints = task.network(None), Checkpoints(result.files["examples.npz"].parent, fingerprint="f")
    for epoch, prefix in ((result.best_epoch, ""), (int(result.metrics["best_epoch_on_test"]), "selected_on_test/")):
        network.load_state_dict(checkpoints.load_best(epoch, device="cpu"))
        for split, part in (("val", task.evaluation.validation_batch(slice(0, 6))), ("test", task.evaluation.test_batch(slice(0, TEST)))):
            if prefix and split == "val":
                continue
            with torch.inference_mode():
                logits = network.classifier(network.eval()(task.evaluation.on_device(part.images))[1])
            expected = accuracy_by_hand(logits, task.classes.labels(part.targets.numpy()), part.mask)
            assert result.metrics[f"{prefix}{split}/accuracy/all"] == pytest.approx(expected)
            assert result.history[epoch - 1].metrics[f"{split}/accuracy/all"] == pytest.approx(expected)


def by_hand(predictor, pixels, metres, mask):
    """RMSE and mean absolute error of a predictor over a mask."""
    with torch.inference_mode():
        error = (predictor(torch.from_numpy(pixels)).double().numpy() - metres)[mask]
    return float(np.sqrt(np.mean(error**2))), float(np.mean(np.abs(error)))


@pytest.mark.parametrize("name", VARIED)
def test_metrics_belong_to_the_saved_weights_of_each_selection(finished, images, name):
    own, result = finished(name)
    task = DepthObjective(own, images)
    metres = images.test_depth / 1000
    for file, prefix in (("checkpoints/best.pt", ""), ("checkpoints/best_on_test.pt", "selected_on_test/")):
        predictor = load_predictor(result.files[file], model="resnet18", width=2, align_corners=True)
        rmse, mae = by_hand(predictor, images.test_images.copy(), metres, images.test_mask)
        assert result.metrics[f"{prefix}test/rmse/all"] == pytest.approx(rmse, rel=1e-4)
        assert result.metrics[f"{prefix}test/mae/all"] == pytest.approx(mae, rel=1e-4)
    predictor = load_predictor(result.files["checkpoints/best.pt"], model="resnet18", width=2, align_corners=True)
    balanced = task.evaluation.validation_batch(slice(0, 6))
    rmse, _ = by_hand(predictor, balanced.images.numpy(), balanced.targets.numpy(), balanced.mask.numpy())
    assert result.metrics["val/rmse/all"] == result.score == pytest.approx(rmse, rel=1e-4)
    for metric, best in (("val/rmse/all", result.best_epoch), ("test/rmse/all", result.metrics["best_epoch_on_test"])):
        assert best == 1 + int(np.argmin([epoch.metrics[metric] for epoch in result.history]))
    assert result.metrics["head_classes"] == {"reg+cls": 10, "reg": 0, "balanced": 7, "by classes": 10}[name]
    assert result.metrics["images_per_second"] > 0 and 0 < result.metrics["waiting_share"] < 1 and result.tags.keys() == {"shots"}


def test_the_sums_reproduce_the_reported_errors_of_both_selections(finished, images):
    result = finished("reg+cls")[1]
    table = result.tables["sums.parquet"]
    assert list(table.columns) == [
        "selection",
        "image",
        "bucket",
        "n",
        "squared",
        "absolute",
        "relative",
        "log10",
        "delta1",
        "delta2",
        "delta3",
    ]
    assert (table["n"] > 0).all() and set(table["image"]) <= set(images.rows("test"))
    shots = {"many": SECTION.shots.buckets("many"), "medium": SECTION.shots.buckets("medium")}
    for selection, prefix in (("val", ""), ("test", "selected_on_test/")):
        own = table[table["selection"] == selection]
        assert own["n"].sum() == images.test_mask.sum()
        for name, value in errors_of(sums_of(own), shots):
            assert result.metrics[f"{prefix}test/{name}"] == pytest.approx(value), name


def test_examples_show_the_same_images_predicted_by_the_saved_weights(finished, images):
    (own, outcome), (_, other) = finished("reg+cls"), finished("reg")
    kept, others = (np.load(result.files["examples.npz"]) for result in (outcome, other))
    assert kept["rows"].tolist() == others["rows"].tolist() == [0, 1, 2, 4, 5, 6]
    assert np.array_equal(kept["images"], images.test_images[kept["rows"]]) and np.array_equal(
        kept["truth"], images.test_depth[kept["rows"]]
    )
    predictor = model_of(own, outcome).network
    with torch.inference_mode():
        metres = predictor(torch.from_numpy(kept["images"])).numpy()
    np.testing.assert_allclose(kept["prediction"], np.clip(1000 * metres, 0, 65535), atol=1)
    assert kept["prediction"].dtype == np.uint16 and not np.array_equal(kept["prediction"], others["prediction"])
    assert outcome.files["examples.png"].read_bytes().startswith(b"\x89PNG")


def test_the_exported_model_is_the_saved_network_with_two_test_images(finished, images):
    model = model_of(*finished("reg+cls"))
    assert np.array_equal(model.example, images.test_images[:2]) and model.example.dtype == np.uint8
    assert model.network(torch.from_numpy(model.example)).shape == (2, *CROP)


TIMING = {"images_per_second", "waiting_share"}


@pytest.mark.parametrize("at, minutes", [(2, 1e-9), (6, 1e-9), (6, 10.0)], ids=["epoch 1", "epoch 2", "epoch 2, from its start"])
def test_an_interrupted_run_gives_the_same_numbers(job, finished, at, minutes):
    changes, whole = {**VARIED["balanced"], "learning_rate": LEARNING_RATE}, finished("balanced")[1]
    with pytest.raises(KeyboardInterrupt):
        make(job(checkpoint_minutes=minutes, **changes), interrupt_at=at)
    torch.rand(7)
    again = make(job(**changes))
    for epoch in (whole.best_epoch, int(whole.metrics["best_epoch_on_test"])):
        weights = [
            Checkpoints(result.files["examples.npz"].parent, fingerprint="f").load_best(epoch, device="cpu") for result in (whole, again)
        ]
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    pd.testing.assert_frame_equal(again.tables["sums.parquet"], whole.tables["sums.parquet"], check_exact=True)
    assert {k: v for k, v in again.metrics.items() if k not in TIMING} == {k: v for k, v in whole.metrics.items() if k not in TIMING}
    assert again.files["examples.png"].read_bytes() == whole.files["examples.png"].read_bytes()


def test_training_reduces_the_loss(job):
    history = make(job(width=4, epochs=5, milestones=(), learning_rate=0.01, method="reg")).history
    assert history[-1].metrics["train/loss"] < 0.5 * history[0].metrics["train/loss"]


def test_an_epoch_reports_errors_of_both_splits_but_no_test_group_sizes(finished):
    metrics = finished("reg+cls")[1].history[0].metrics
    assert {"train/loss", "train/class_loss", "val/rmse/all", "val/delta1/many", "test/rmse/all", "test/abs_rel/all"} <= metrics.keys()
    assert not any(name.startswith("test/n/") for name in metrics)


def test_metrics_are_named_by_selection_split_error_and_group(finished):
    metrics = finished("reg+cls")[1].metrics
    errors = {f"{error}/{group}" for error in ("rmse", "mae", "abs_rel", "log10", "delta1", "delta2", "delta3", "n") for group in SHOTS}
    of_splits = {f"{split}/{error}" for split in ("val", "test", "selected_on_test/test") for error in errors | {"accuracy/all"}}
    assert set(metrics) == of_splits | {"train/accuracy", "head_classes", "best_epoch_on_test"} | TIMING


def test_an_encoder_starts_from_a_weights_file_which_is_recorded(job, images, tmp_path):
    file = tmp_path / "resnet18.pth"
    torch.manual_seed(9)
    pretrained = DepthObjective(job(seed=9), images).network(None).encoder.state_dict()
    torch.save(pretrained, file)
    begun = DepthObjective(job(), images).network(file).encoder.state_dict()
    assert all(torch.equal(value, pretrained[name]) for name, value in begun.items())
    result = make(job(weights=str(file), epochs=1, milestones=()))
    assert len(result.tags["weights_sha256"]) == 64
    with pytest.raises(UserError, match="there is no such file"):
        make(job(folder="other", weights=str(tmp_path / "none.pth")))


def test_data_prepared_again_during_a_run_are_refused(job):
    with pytest.raises(UserError, match="was prepared again while runs were training on it"):
        make(replace(job(), data_digest="another"))


@pytest.mark.parametrize("method", ["reg+cls", "bmse-gai+cls", "bmse-bmc(rate=0)"])
def test_bfloat16_trains_close_to_float32(job, method):
    losses = [
        make(job(folder=precision, precision=precision, method=method, epochs=1, milestones=())).history[0].metrics["train/loss"]
        for precision in ("float32", "bf16")
    ]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.usefixtures("all_cores")  # as many as loaders
def test_gpu_runs_agree_with_cpu_runs(job):
    changes = {"method": "reg+cls-bal", "epochs": 1, "milestones": ()}
    cpu = make(job(folder="cpu", **changes))
    gpu = make(replace(job(folder="gpu", loaders=2, **changes), device="cuda"))
    assert gpu.history[0].metrics["train/loss"] == pytest.approx(cpu.history[0].metrics["train/loss"], rel=0.02)
    assert gpu.metrics["peak_memory_gb"] > 0


# Imports of tasks.depth.train that affect no number: see images/test_train.py.
DECIDES_NOTHING = {
    "choices",
    "data.download", "data.sources", "data.store", "errors", "files", "methods", "methods.features", "metrics", "models.distribution", "models.standardised", "object_store", "proxy", "params",
    "params.adding", "params.reading", "params.single", "params.types", "processes", "progress", "provenance", "runs", "runs.grids", "tasks", "tasks.depth.examples",
    "tasks.depth.metrics", "tasks.depth.params", "tasks.depth.runs",
    "training.checkpoint", "training.device", "training.single", "training.weights", "words",
}  # fmt: skip


def test_result_code_covers_all_training_imports_that_affect_numbers():
    digested = {*import_closure("regcls.models.heads"), *(SOURCE / f"{name.replace('.', '/')}.py" for name in code.MODULES)}
    imported = {file for file in import_closure("regcls.tasks.depth.train") if len(file.read_text().splitlines()) > 1}
    names = {".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for file in imported - digested}
    assert names == DECIDES_NOTHING
