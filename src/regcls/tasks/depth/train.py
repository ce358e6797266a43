"""Training of a run on depth: its network, batches, losses and result. With the loop and the feed, this code decides every number.

Legend: B batch size, H × W pixels of the crop, h × w = H / 2 × W / 2 of its depth map; K classes left after merging; L depth levels.
"""

import itertools
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regcls.choices import Rounding
from regcls.classes import ClassRanges, equalised, uniform_ranges
from regcls.losses import weighted
from regcls.methods import has_classes, make_distribution, make_feature_methods, make_loss
from regcls.methods.loss import TrainingTargets
from regcls.models.pretrained import load_pretrained
from regcls.tasks.depth.augment import for_depth
from regcls.tasks.depth.class_head import ClassHead, dense_class_loss, rows_of
from regcls.tasks.depth.data import DepthSet
from regcls.tasks.depth.evaluation import Evaluation
from regcls.tasks.depth.examples import write_examples
from regcls.tasks.depth.metrics import errors_of
from regcls.tasks.depth.model import DepthPredictor, build_depth
from regcls.tasks.depth.params import DepthShots, Groups, shots_text
from regcls.tasks.depth.pixels import DeviceRanges, doubled, doubled_bilinearly, keep_by_level
from regcls.tasks.depth.runs import DepthSpec
from regcls.tasks.depth.sums import BUCKETS, table_of
from regcls.training.checkpoint import Checkpoints, for_prediction
from regcls.training.feed import KEEP, AugmentedBatches, Key, batch_keys, batches_of, evaluation_batches, stream, to_device
from regcls.training.loop import Hooks, Recipe, Trained, train
from regcls.training.single import BEST, LAST, Job, Model, Result, open_images
from regcls.training.weights import sha256, weights_file

if TYPE_CHECKING:
    from regcls.methods.features import FeatureMethods

VALIDATED_ROUNDING: Rounding = "round"  # of Eq. 12, for balancing validation pixels: the same for all runs
# RMSE-val and RMSE-test of Table 2; the latter is for comparison with earlier work, which selected on the test set.
SELECTIONS: Mapping[str, str] = {"val": "val/rmse/all", "test": "test/rmse/all"}
BEST_ON_TEST = "checkpoints/best_on_test.pt"
SHOWN = 600  # training images whose pixels methods on features see after an epoch; about as many as the release of fds takes
STILL = {"flip": 0.0, "rotate": 0.0, "lighting": 0.0, "jitter": 0.0}  # no augmentation


@dataclass(frozen=True, kw_only=True)
class DepthJob(Job[DepthSpec]):
    """A run to train, and how to compute it."""

    weights_folder: Path  # cache of ImageNet weights
    shots: DepthShots
    unit: str  # of depth, for the picture of examples


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch of augmented training images."""

    epoch: int
    samples: NDArray[np.int64]  # (B,), positions in the training set
    images: Tensor  # (B, H, W, 3), uint8; float32 if colours are not clipped
    levels: Tensor  # (B, h, w), uint8 or uint16; 0: not measured


class DepthObjective:
    """The training objective of a run: see `loop.Task`."""

    selections = SELECTIONS

    def __init__(self, job: DepthJob, images: DepthSet) -> None:
        spec = job.spec
        self.job, self.spec, self.images = job, spec, images
        self.rows = images.rows("train")
        self.cuts = batches_of(len(self.rows), spec.batch_size)
        self.batches = len(self.cuts)
        self.notes: list[str] = []  # for the user
        counts = images.levels("train")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.classes = class_ranges_of(spec, images.depths, counts)
            balanced = _balanced_data(spec, images.depths, counts)
            validated = _equalised(_validated_ranges(spec, images, counts), images.depths, images.levels("val"), VALIDATED_ROUNDING)
        self.notes += [str(warning.message) for warning in caught]
        self.depths = torch.from_numpy(images.depths).to(job.device)
        self.ranges, self.balanced = (None if ranges is None else DeviceRanges(ranges, job.device) for ranges in (self.classes, balanced))
        self.released = spec.depth_resampling == "released"
        # One of both: the regression loss, or the histograms that a class head learns which predicts by itself.
        distribution, device = make_distribution(spec.method), job.device
        ranges = [self.classes] if self.classes else []
        self.histograms = distribution.histograms(ranges, dtype=torch.float32, device=device) if distribution else None
        self.loss = None if distribution else make_loss(spec.method, kind=spec.loss, huber_delta=spec.huber_delta)
        given: dict[str, Any] = {"counts": counts[1:], "limits": spec.class_range or None, "reflected": True}
        self.known = TrainingTargets(values=images.depths[1:].astype(np.float32), **given)
        self.facts = self.loss.facts_of([self.known.values], dtype=torch.float32, device=device, **given) if self.loss else {}
        self.shots: Groups = job.shots.groups(images.training_pixels())
        self.evaluation = Evaluation(
            images=images,
            device=job.device,
            channels_last=job.channels_last,
            together=2 * spec.batch_size,
            keep_validated=keep_by_level(validated, images.depths),
            by_image=spec.validation == "released",
            classes=self.ranges,
            shots=self.shots,
        )

    def network(self, weights: Path | None) -> nn.Module:
        """The untrained network, with `weights` in its encoder. With the same seed, reg and reg+cls differ only in the class head."""
        torch.manual_seed(self.spec.seed)
        spec, classes = self.spec, 0 if self.classes is None else len(self.classes)
        centres = self.histograms.centres[0].cpu() if self.histograms else None
        network = build_depth(spec.model, width=spec.width, classes=classes, align_corners=spec.align_corners, centres=centres)
        if weights:
            load_pretrained(network.encoder, weights)
        if self.loss:
            self.loss.attach(network)
        network.feature_methods = make_feature_methods(spec.method, features=network.features, targets=self.known)
        network.to(self.job.device)
        return network.to(memory_format=torch.channels_last) if self.job.channels_last else network  # type: ignore[call-overload]

    def feed(self, epoch: int, batch: int) -> Generator[Batch]:
        """Yield augmented batches from batch `batch` of epoch `epoch` to the end of the last epoch."""
        keys = batch_keys(len(self.rows), self.cuts, seed=self.spec.seed, first=epoch, last=self.spec.epochs)
        yield from self._augmented(itertools.islice(keys, batch, None), loaders=self.job.loaders)

    def _augmented(self, keys: Iterable[Key], *, loaders: int, **changed: float) -> Iterator[Batch]:
        """The batches of `keys`; `changed`: options of the augmentation other than the run's."""
        folder = self.images.prepared.folder
        names = ("crop", "flip", "rotate", "lighting", "jitter", "seed", "depth_resampling", "clip_colours")
        augmentation = partial(for_depth, **{name: getattr(self.spec, name) for name in names} | changed)
        files = {"image": folder / "train_images.npy", "mask": folder / "train_depth.npy"}
        batches = AugmentedBatches(files, self.rows, augmentation)
        for (epoch, samples), arrays in stream(batches, keys, loaders=loaders, pinned=self.job.device == "cuda"):
            yield Batch(epoch=epoch, samples=samples, images=arrays["image"], levels=arrays["mask"])

    def losses(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """`loss`, what the loss logs and, with classes, its two unweighted terms (if there are two) and the accuracy over measured pixels.

        Classes and draws are per pixel of the depth map, each for four pixels of the class head. With `depth_resampling: released` they are
        per pixel of the doubled map, which on balanced data the regression loss uses too.
        """
        spec = self.spec
        depths, measured = self._targets(batch)
        predictions, features = network(self.evaluation.on_device(batch.images), _or_nan(depths, measured))
        class_depths, class_measured = (doubled_bilinearly(depths), doubled(measured)) if self.released else (depths, measured)
        draws = self._draws(batch, class_depths)
        regression = None
        if self.loss:
            if self.balanced is not None:
                measured = _kept(class_measured, self.balanced, class_depths, draws)
                if self.released:
                    predictions, depths = doubled_bilinearly(predictions), class_depths
            regression = self.loss.alone(network, predictions, depths.float(), measured, self.facts)
            if self.ranges is None:
                return {"loss": regression, **self.loss.logged(network)}
        assert self.ranges is not None
        kept = _kept(class_measured, self.ranges if spec.balanced else self.balanced, class_depths, draws)
        labels = self.ranges.labels(class_depths).masked_fill(~class_measured, -1)
        full = (labels, kept) if self.released else (doubled(labels), doubled(kept))
        soft: dict[str, Any] = {}
        if self.histograms:
            targets = class_depths.float()
            soft = {"targets": targets if self.released else doubled(targets), "losses": self.histograms.losses}
        classification, accuracy = dense_class_loss(cast(ClassHead, network.classifier), features, *full, **soft)
        if self.loss is None or regression is None:
            return {"loss": classification, "accuracy": accuracy}
        assert spec.lam is not None
        total = weighted(regression, classification, lam=spec.lam, scaling=spec.loss_scaling)
        parts = {"loss": total, "regression_loss": regression, "class_loss": classification, "accuracy": accuracy}
        return {**parts, **self.loss.logged(network)}

    def _targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Depths (B, h, w), float64, and whether they are measured."""
        levels = batch.levels.to(self.job.device, non_blocking=True).int()
        return self.depths[levels], levels > 0

    def _draws(self, batch: Batch, like: Tensor) -> Tensor | None:
        """A uniform number for each pixel of `like`, new in each epoch, shared by both losses (Eq. 13), independent of the device.

        None if no loss needs them.
        """
        if self.balanced is None and not self.spec.balanced:
            return None
        generators = (np.random.default_rng([KEEP, self.spec.seed, batch.epoch, sample]) for sample in batch.samples.tolist())
        return to_device(np.stack([generator.random(like.shape[1:], dtype=np.float32) for generator in generators]), self.job.device)

    def describe(self, batch: Batch) -> dict[str, Any]:
        """Rows of the prepared images, and the range of their measured depths."""
        levels = batch.levels.numpy()
        measured, depths = levels[levels > 0], self.images.depths
        targets = [float(depths[measured.min()]), float(depths[measured.max()])] if measured.size else []
        return {"rows": self.rows[batch.samples].tolist(), "targets": targets}

    def size(self, batch: Batch) -> int:
        """B."""
        return len(batch.samples)

    def after_epoch(self, network: nn.Module) -> None:
        """Show methods on features those of the pixels of SHOWN training images, evenly spaced, without augmentation."""
        if methods := cast("FeatureMethods | None", network.feature_methods):
            methods.after_epoch(lambda: self._features(network))

    def _features(self, network: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """Features of pixels, and their depth; NaN where it was not measured."""
        samples = np.unique(np.linspace(0, len(self.rows) - 1, SHOWN).astype(np.int64))
        keys = ((0, samples[cut]) for cut in evaluation_batches(len(samples), self.spec.batch_size))
        for batch in self._augmented(keys, loaders=0, **STILL):
            features = network(self.evaluation.on_device(batch.images))[1]
            yield rows_of(features), _or_nan(*self._targets(batch)).flatten()

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Errors on validation and test pixels."""
        return self.evaluation.errors(network)


def _or_nan(depths: Tensor, measured: Tensor) -> Tensor:
    """Measured depths in float32, and NaN elsewhere."""
    return depths.float().masked_fill(~measured, torch.nan)


def _kept(measured: Tensor, ranges: DeviceRanges | None, depths: Tensor, draws: Tensor | None) -> Tensor:
    """Mask of the pixels that enter a loss: measured and, with the probabilities of `ranges`, drawn."""
    return measured if ranges is None or draws is None else measured & ranges.kept(depths, draws)


def class_ranges_of(spec: DepthSpec, depths: NDArray[np.float64], counts: NDArray[np.int64]) -> ClassRanges | None:
    """The classes of a run: C ranges over `class_range`, equalised for reg+cls-bal; None for reg.

    `depths` (L,) of the levels, `counts` (L,) of the training pixels.
    """
    if not has_classes(spec.method):
        return None
    ranges = uniform_ranges(spec.classes, *_range(spec, depths, counts))
    return _equalised(ranges, depths, counts, spec.rounding) if spec.balanced else ranges


def _range(spec: DepthSpec, depths: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float]:
    """The range of depths that the class ranges cover: `class_range`, or that of the training pixels if it is empty."""
    measured = depths[1:][counts[1:] > 0]
    low, high = spec.class_range or (float(measured[0]), float(measured[-1]))
    return low, high


def _balanced_data(spec: DepthSpec, depths: NDArray[np.float64], counts: NDArray[np.int64]) -> ClassRanges | None:
    """Balanced data (Table 4): ranges whose ρ is the probability that a training pixel enters the losses; None without balancing."""
    if not spec.balanced_data:
        return None
    return _equalised(uniform_ranges(spec.balanced_bins, *_range(spec, depths, counts)), depths, counts, spec.rounding)


def _validated_ranges(spec: DepthSpec, images: DepthSet, counts: NDArray[np.int64]) -> ClassRanges:
    """The ranges that balance validation pixels: 100 buckets, or with `validation: released` the run's own classes, except for reg."""
    own = spec.validation == "released" and has_classes(spec.method)
    return uniform_ranges(spec.classes, *_range(spec, images.depths, counts)) if own else uniform_ranges(BUCKETS, 0.0, images.deepest)


def _equalised(ranges: ClassRanges, depths: NDArray[np.float64], counts: NDArray[np.int64], rounding: Rounding | None) -> ClassRanges:
    """Equalise over all measured pixels, excluding level 0."""
    assert rounding
    return equalised(ranges, depths[1:], counts=counts[1:], rounding=rounding)


def train_run(job: DepthJob, hooks: Hooks, say: Callable[[str], None]) -> Result:
    """Train a run, resuming from its newest checkpoint if there is one.

    The metrics val/… and test/… are of the weights selected on validation, selected_on_test/test/… of those selected on the test set.
    sums.parquet has the sums behind these test errors, by selection (val, test), image (row) and bucket.

    Raises:
        DivergedError: a loss is not finite.
        UserError: the prepared data or the initial weights are gone or damaged, no checkpoint is intact, or the disk is full.
    """
    images = open_images(DepthSet, job)
    task = DepthObjective(job, images)
    for note in task.notes:
        say(note)
    weights = None if job.spec.weights == "random" else weights_file(job.spec.weights, job.weights_folder)
    tags = {"shots": shots_text(job.shots)} | ({"weights_sha256": sha256(weights)} if weights else {})
    network = task.network(weights)
    checkpoints = Checkpoints(job.checkpoints, fingerprint=job.fingerprint)
    if job.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
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
    peak = {"peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9} if job.device == "cuda" else {}
    result = _outcome(task, network, checkpoints, trained)
    return replace(result, metrics=result.metrics | peak, tags=tags)


def _outcome(task: DepthObjective, network: nn.Module, checkpoints: Checkpoints, trained: Trained) -> Result:
    """The result of both selections."""
    kept, best = trained.history[trained.best_epochs["val"] - 1].metrics, trained.best_epochs
    metrics = {name: value for name, value in kept.items() if name.startswith("val/") or name == "train/accuracy"} | trained.speed()
    metrics["head_classes"] = float(0 if task.classes is None else len(task.classes))  # fewer than C where classes were merged
    metrics["best_epoch_on_test"] = float(best["test"])
    tables: list[pd.DataFrame] = []
    loaded, evaluated = 0, None
    for selection, prefix in (("test", "selected_on_test/"), ("val", "")):  # val last: the examples are of its weights
        if loaded != best[selection]:
            network.load_state_dict(checkpoints.load_best(best[selection], device=task.job.device))
            loaded, evaluated = best[selection], task.evaluation.of(network, "test")
        assert evaluated is not None
        metrics |= {f"{prefix}test/{name}": value for name, value in (*errors_of(evaluated.sums, task.shots), *evaluated.accuracy.items())}
        table = table_of(evaluated.sums).assign(image=lambda table: task.images.rows("test")[table["image"]])
        table.insert(0, "selection", selection)
        tables.insert(0, table)
    files = {BEST: checkpoints.best_file(best["val"]), BEST_ON_TEST: checkpoints.best_file(best["test"]), LAST: checkpoints.last_file()}
    examples = task.evaluation.examples(network)
    return Result(
        history=trained.history,
        best_epoch=best["val"],
        score=kept[task.selections["val"]],
        metrics=metrics,
        files={**files, **write_examples(examples, task.job.checkpoints, per_unit=task.images.per_unit, unit=task.job.unit)},
        tables={"sums.parquet": pd.concat(tables, ignore_index=True)},
        tags={},
    )


def load_predictor(file: Path, *, model: str, width: int, align_corners: bool) -> DepthPredictor:
    """The predictor of a checkpoint file, on the CPU. Raises as `checkpoint.load_predictor` does."""
    build = partial(build_depth, model, width=width, classes=0, align_corners=align_corners)
    return DepthPredictor(for_prediction(lambda centres: build(centres=centres), file))


def model_of(job: DepthJob, result: Result) -> Model:
    """The network selected on validation, and two test images as its example input.

    Raises:
        UserError: the prepared data are gone or damaged.
    """
    images = open_images(DepthSet, job)
    spec = job.spec
    predictor = load_predictor(result.files[BEST], model=spec.model, width=spec.width, align_corners=spec.align_corners)
    rows = np.resize(images.rows("test"), 2)  # for one image, PyTorch would export a model with a fixed batch size of 1
    return Model(network=predictor, example=images.test_images[rows])
