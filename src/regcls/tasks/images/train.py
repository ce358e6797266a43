"""Training of a run on images: its network, batches, losses and result. With the loop and the feed, this code decides every number.

Legend: B batch size, S side length in pixels, K classes left after merging.
"""

import itertools
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regcls.classes import ClassRanges, equalised, uniform_ranges
from regcls.data.splits import Split
from regcls.losses import class_loss, weighted
from regcls.methods import has_classes, has_regression_loss, make_distribution, make_feature_methods, make_loss
from regcls.methods.loss import TrainingTargets
from regcls.metrics import evaluate
from regcls.models.distribution import build_distribution
from regcls.models.predictor import scaled
from regcls.models.standardised import build_scaled
from regcls.params.shots import Shots
from regcls.tasks.images.data import ImageSet
from regcls.tasks.images.params import shots_text
from regcls.tasks.images.runs import ImageSpec
from regcls.training.augment import for_faces
from regcls.training.checkpoint import Checkpoints, load_predictor
from regcls.training.feed import AugmentedBatches, batch_keys, batches_of, draws, evaluation_batches, prefetched, stream, to_device
from regcls.training.loop import Hooks, Recipe, train
from regcls.training.single import BEST, LAST, Job, Model, Result, open_images

if TYPE_CHECKING:
    from regcls.methods.features import FeatureMethods

SCORE = "val/mse/all"  # selects the weights to keep (section 3.2)


@dataclass(frozen=True, kw_only=True)
class ImageJob(Job[ImageSpec]):
    """A run to train, and how to compute it."""

    shots: Shots  # for tracked errors only: they do not affect training


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch of augmented training images."""

    epoch: int
    samples: NDArray[np.int64]  # (B,), positions in the training set
    images: Tensor  # (B, S, S, 3), uint8


class ImageObjective:
    """The training objective of a run: see `loop.Task`."""

    selections: Mapping[str, str] = {"val": SCORE}

    def __init__(self, job: ImageJob, images: ImageSet) -> None:
        spec = job.spec
        self.job, self.spec, self.images = job, spec, images
        self.rows, targets = images.rows("train"), images.targets("train")
        self.cuts = batches_of(len(targets), spec.batch_size)
        self.batches, self.together = len(self.cuts), 2 * spec.batch_size  # together: in evaluations
        self.notes: list[str] = []  # for the user
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.classes = class_ranges_of(spec, targets)
            self.keep = _balanced_data(spec, targets)  # probability with which each sample enters both losses; None: always
        self.notes += [str(warning.message) for warning in caught]
        self.scale = _scale(spec, targets)
        seen, limits = _standardised(targets, self.scale), _limits(spec, self.scale)  # as the regression loss sees them
        self.host_targets, self.targets = targets, torch.from_numpy(seen).to(job.device)
        self.labels = None if self.classes is None else torch.from_numpy(self.classes.labels(targets)).to(job.device)
        # Probability with which a sample enters each loss; None: always.
        self.keep_class = None if self.classes is None or not spec.balanced else self.classes.keep[self.classes.labels(targets)]
        self.groups = job.shots.groups(targets)
        # One of both: the regression loss, or the histograms that a class head learns which predicts by itself.
        distribution, device = make_distribution(spec.method), job.device
        ranges = [self.classes] if self.classes else []
        self.histograms = distribution.histograms(ranges, dtype=torch.float32, device=device) if distribution else None
        self.loss = None if distribution else make_loss(spec.method, kind=spec.loss, huber_delta=spec.huber_delta)
        self.known = TrainingTargets(values=seen, limits=limits)
        self.facts = self.loss.facts_of([seen], dtype=torch.float32, device=device, limits=limits) if self.loss else {}
        self._draws: tuple[int, NDArray[np.float32]] = (-1, np.empty(0, dtype=np.float32))

    def network(self) -> nn.Module:
        """The untrained network. With the same seed, reg and reg+cls start from the same backbone and regression head."""
        torch.manual_seed(self.spec.seed)
        network = self._built()
        if self.loss:
            self.loss.attach(network)
        network.to(self.job.device)
        return network.to(memory_format=torch.channels_last) if self.job.channels_last else network  # type: ignore[call-overload]

    def _built(self) -> nn.Module:
        spec = self.spec
        if self.histograms:
            return build_distribution(spec.model, width=spec.width, centres=self.histograms.centres[0].cpu())
        classes = 0 if self.classes is None else len(self.classes)
        network = build_scaled(spec.model, width=spec.width, classes=classes, scale=self.scale)
        network.feature_methods = make_feature_methods(spec.method, features=network.backbone.features, targets=self.known)
        return network

    def feed(self, epoch: int, batch: int) -> Generator[Batch]:
        """Yield augmented batches from batch `batch` of epoch `epoch` to the end of the last epoch."""
        spec = self.spec
        file = self.images.prepared.folder / "images.npy"
        augmentation = partial(for_faces, pad=spec.pad, flip=spec.flip, seed=spec.seed)
        batches = AugmentedBatches({"image": file}, self.rows, augmentation)
        keys = itertools.islice(batch_keys(len(self.rows), self.cuts, seed=spec.seed, first=epoch, last=spec.epochs), batch, None)
        for (current, samples), arrays in stream(batches, keys, loaders=self.job.loaders, pinned=self.job.device == "cuda"):
            yield Batch(epoch=current, samples=samples, images=arrays["image"])

    def losses(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """`loss`, its unweighted terms if there are several, what the loss logs and, with classes, the accuracy over all samples.

        λ weighs the regression loss and what methods on features add to it.
        """
        places = to_device(batch.samples, self.job.device)
        targets = self.targets[places]
        predictions, logits, features = network(self._on_device(batch.images), targets)
        spec, kept = self.spec, self._kept(batch, self.keep)
        accuracy = {} if self.labels is None else {"accuracy": (logits.argmax(1) == self.labels[places]).float().mean()}
        if self.histograms:
            return {"loss": self.histograms.loss(logits, targets, kept), **accuracy}
        assert self.loss
        regression, methods = self.loss.alone(network, predictions, targets, kept, self.facts), _feature_methods(network)
        added = methods.losses(features, targets, kept) if methods else {}
        whole, logged = sum(added.values(), regression), {**added, **self.loss.logged(network)}
        if self.labels is None:
            return {"loss": whole, **({"regression_loss": regression} if added else {}), **logged}
        assert spec.lam is not None
        kept_class = kept if self.keep_class is None else self._kept(batch, self.keep_class)
        classification = class_loss(logits, self.labels[places], kept_class)
        total = weighted(whole, classification, lam=spec.lam, scaling=spec.loss_scaling)
        return {"loss": total, "regression_loss": regression, "class_loss": classification, **accuracy, **logged}

    def _on_device(self, images: Tensor) -> Tensor:
        pixels = scaled(images.to(self.job.device, non_blocking=True))
        return pixels if self.job.channels_last else pixels.contiguous()

    def _kept(self, batch: Batch, keep: NDArray[np.float64] | None) -> Tensor | None:
        """Mask (B,) of the samples that enter a loss. Each sample has one draw per epoch, shared by both losses (section 3.2)."""
        if keep is None:
            return None
        if self._draws[0] != batch.epoch:
            self._draws = (batch.epoch, draws(len(self.rows), seed=self.spec.seed, epoch=batch.epoch))
        return to_device(self._draws[1][batch.samples] < keep[batch.samples], self.job.device)

    def describe(self, batch: Batch) -> dict[str, Any]:
        """Rows of the prepared images, and the range of their targets."""
        targets = self.host_targets[batch.samples]  # reading device tensors would wait for the device
        return {"rows": self.rows[batch.samples].tolist(), "targets": [float(targets.min()), float(targets.max())]}

    def size(self, batch: Batch) -> int:
        """B."""
        return len(batch.samples)

    def after_epoch(self, network: nn.Module) -> None:
        """Show methods on features those of all training images, without augmentation."""
        if methods := _feature_methods(network):
            methods.after_epoch(lambda: self._features(network))

    def _features(self, network: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """Features and targets of all training images."""
        targets = self.targets.split(self.together)
        for pixels, own in zip(self._pixels("train"), targets, strict=True):
            yield network(self._on_device(pixels))[2], own

    def _pixels(self, split: Split) -> Iterator[Tensor]:
        """All images of a split, in batches of `together`."""
        rows = self.images.rows(split)
        return prefetched(lambda cut: torch.from_numpy(self.images.images[rows[cut]]), evaluation_batches(len(rows), self.together))

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Validation errors."""
        predictions, classes = self.predict(network, "val")
        score = float(np.mean((predictions.astype(np.float64) - self.images.targets("val").astype(np.float64)) ** 2))
        return {**self.errors(predictions, classes, "val"), SCORE: score}

    def predict(self, network: nn.Module, split: Split) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
        """Predictions (n,) and most probable classes (n,) for all n images of a split, always in float32."""
        network.eval()
        parts, classes = [], []
        with torch.inference_mode():
            for pixels in self._pixels(split):
                predictions, logits, _ = network(self._on_device(pixels))
                parts.append(predictions.float().cpu().numpy())
                if logits is not None:
                    classes.append(logits.argmax(1).cpu().numpy())
        return np.concatenate(parts), np.concatenate(classes) if classes else None

    def errors(self, predictions: NDArray[np.float32], classes: NDArray[np.int64] | None, split: Split) -> dict[str, float]:
        """The errors of metrics.evaluate, prefixed with val/ or test/, and the accuracy of the class head."""
        targets = self.images.targets(split)
        errors = {f"{split}/{name}": value for name, value in evaluate(predictions, targets, self.groups.shot_of(targets))}
        if self.classes is not None and classes is not None:
            errors[f"{split}/accuracy/all"] = float(np.mean(classes == self.classes.labels(targets)))
        return errors


def _feature_methods(network: nn.Module) -> "FeatureMethods | None":
    return cast("FeatureMethods | None", getattr(network, "feature_methods", None))  # a network that predicts by classes has none


def class_ranges_of(spec: ImageSpec, targets: NDArray[np.float32]) -> ClassRanges | None:
    """The classes of a run: C uniform ranges over `class_range`, equalised over the training targets for reg+cls-bal; None for reg."""
    if not has_classes(spec.method):
        return None
    ranges = uniform_ranges(spec.classes, *_range(spec, targets))
    if not spec.balanced:
        return ranges
    assert spec.rounding
    return equalised(ranges, targets, rounding=spec.rounding)


def _range(spec: ImageSpec, targets: NDArray[np.float32]) -> tuple[float, float]:
    """The range of targets that the class ranges cover: `class_range`, or that of the training targets if it is empty."""
    low, high = spec.class_range or (float(targets.min()), float(targets.max()))
    return low, high


def _scale(spec: ImageSpec, targets: NDArray[np.float32]) -> tuple[float, float] | None:
    """Mean and standard deviation of the training targets, 1 if they are all the same; None if no regression loss has standardised ones."""
    if spec.targets == "raw" or not has_regression_loss(spec.method):
        return None
    exact = targets.astype(np.float64)
    return float(exact.mean()), float(exact.std()) if exact.min() < exact.max() else 1.0


def _standardised(targets: NDArray[np.float32], scale: tuple[float, float] | None) -> NDArray[np.float32]:
    """The targets as the regression loss compares them with predictions."""
    if scale is None:
        return targets
    mean, std = scale
    return ((targets.astype(np.float64) - mean) / std).astype(np.float32)


def _limits(spec: ImageSpec, scale: tuple[float, float] | None) -> tuple[float, float] | None:
    """`class_range`, as the regression loss sees targets; None if it is that of the training targets."""
    if not spec.class_range:
        return None
    mean, std = scale or (0.0, 1.0)
    low, high = spec.class_range
    return (low - mean) / std, (high - mean) / std


def _balanced_data(spec: ImageSpec, targets: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Balanced data (Table 4): the probability that a training sample enters the losses, for each sample; None without balancing."""
    if not spec.balanced_data:
        return None
    assert spec.rounding
    ranges = equalised(uniform_ranges(spec.balanced_bins, *_range(spec, targets)), targets, rounding=spec.rounding)
    return np.asarray(ranges.keep[ranges.labels(targets)])


def train_run(job: ImageJob, hooks: Hooks, say: Callable[[str], None]) -> Result:
    """Train a run, resuming from its newest checkpoint if there is one.

    The metrics val/… and test/… are of the selected weights; predictions.parquet has row, path, target and prediction of the test images.

    Raises:
        DivergedError: a loss is not finite.
        UserError: the prepared data are gone or damaged, no checkpoint is intact, or the disk is full.
    """
    images = open_images(ImageSet, job)
    task = ImageObjective(job, images)
    for note in task.notes:
        say(note)
    network = task.network()
    checkpoints = Checkpoints(job.checkpoints, fingerprint=job.fingerprint)
    trained = train(
        network,
        task,
        Recipe.of(job.spec),
        device=job.device,
        compiled=job.compiled,
        checkpoints=checkpoints,
        checkpoint_minutes=job.checkpoint_minutes,
        hooks=hooks,
        say=say,
        own_rates=task.loss.own_rates if task.loss else {},
    )
    best = trained.best_epochs["val"]
    network.load_state_dict(checkpoints.load_best(best, device=job.device))
    predictions, classes = task.predict(network, "test")
    kept = trained.history[best - 1].metrics
    metrics = {name: value for name, value in kept.items() if name.startswith("val/") or name == "train/accuracy"}
    metrics["head_classes"] = float(0 if task.classes is None else len(task.classes))  # fewer than C where classes were merged
    metrics |= task.errors(predictions, classes, "test") | trained.speed()
    table = {"row": images.rows("test"), "path": images.paths("test"), "target": images.targets("test")}
    return Result(
        history=trained.history,
        best_epoch=best,
        score=kept[SCORE],
        metrics=metrics,
        files={BEST: checkpoints.best_file(best), LAST: checkpoints.last_file()},
        tables={"predictions.parquet": pd.DataFrame({**table, "prediction": predictions})},
        tags={"shots": shots_text(job.shots)},
    )


def model_of(job: ImageJob, result: Result) -> Model:
    """The network with the selected weights, and two test images as its example input.

    Raises:
        UserError: the prepared data are gone or damaged.
    """
    images = open_images(ImageSet, job)
    spec = job.spec
    predictor = load_predictor(result.files[BEST], model=spec.model, width=spec.width, standardised=spec.targets == "standardised")
    return Model(network=predictor, example=images.images[np.resize(images.rows("test"), 2)])
