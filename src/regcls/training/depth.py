"""A run on depth maps -> its network, its batches and losses, and its result. With the loop and the feed, it decides every number.

Legend: B batch, H × W pixels of the crop, h × w of its depth map, half of them a side; K classes that remain; L 256 levels of depth.
"""

import itertools
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from regcls.classes import ClassRanges, equalised, uniform_ranges
from regcls.datasets.depth import LEVELS_PER_METRE, DepthSet
from regcls.depth_metrics import BUCKETS, bucket_sums, errors_of, table_of
from regcls.losses import regression_loss, weighted
from regcls.models.class_head import ClassHead, dense_class_loss
from regcls.models.depth import DepthPredictor, build_depth, normalised
from regcls.models.pretrained import load_pretrained
from regcls.params.depth import DepthShots, shots_text
from regcls.runs.depth import DepthSpec
from regcls.training.checkpoint import Checkpoints, with_weights
from regcls.training.depth_augment import for_depth
from regcls.training.depth_examples import Examples, example_rows, write_examples
from regcls.training.feed import KEEP, AugmentedBatches, batches_of, epochs_of, moved, prefetched, stream, whole_of
from regcls.training.loop import Hooks, Recipe, Trained, train
from regcls.training.single import BEST, LAST, Job, Model, Result, opened
from regcls.training.weights import sha256, weights_file

Split = Literal["val", "test"]  # that is evaluated on
SPLITS: tuple[Split, ...] = get_args(Split)
BEST_ON_TEST = "checkpoints/best_on_test.pt"
DEPTHS = np.arange(256) / LEVELS_PER_METRE  # (L,) metres
PIXELS = 3  # a stream of random numbers: which pixels are validated on; others are in feed.py and augment.py


@dataclass(frozen=True, kw_only=True)
class DepthJob(Job[DepthSpec]):
    """A run to make, and how to compute it."""

    weights_folder: Path  # where weights of ImageNet are kept
    shots: DepthShots


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Training images as they were read."""

    epoch: int
    samples: NDArray[np.int64]  # (B,), places in the training set
    images: Tensor  # (B, H, W, 3), uint8
    levels: Tensor  # (B, h, w), uint8; 0: not measured


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Images with the pixels that an evaluation looks at."""

    images: Tensor  # (B, H, W, 3), uint8
    targets: Tensor  # (B, H, W), metres
    mask: Tensor  # (B, H, W)


class DepthTask:
    """What a run learns: see `loop.Task`."""

    # RMSE-val and RMSE-test of Table 2: the second is for comparison with earlier work, which selected on the test set.
    selections: Mapping[str, str] = {"val": "val_rmse_all", "test": "test_rmse_all"}

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
            self.classes = class_ranges_of(spec, counts)
            balanced = _equalised(uniform_ranges(spec.balanced_bins, *spec.class_range), counts) if spec.balanced_data else None
            validated = _equalised(uniform_ranges(BUCKETS, 0.0, DEPTHS[-1]), images.levels("val"))
        self.notes += [str(warning.message) for warning in caught]
        self.metres = torch.from_numpy(DEPTHS.astype(np.float32)).to(job.device)
        self.labels = None if self.classes is None else torch.from_numpy(_labels(self.classes)).to(job.device)
        # Probability with which a pixel enters each loss, by level; None: always, where it is measured.
        self.keep = None if balanced is None else torch.from_numpy(_keep(balanced)).to(job.device)
        self.keep_class = torch.from_numpy(_keep(self.classes)).to(job.device) if self.classes and spec.balanced else None
        self.keep_validated = _keep(validated)
        self.shots: dict[Literal["many", "medium"], frozenset[int]] = {
            "many": job.shots.buckets("many"),
            "medium": job.shots.buckets("medium"),
        }

    def network(self, weights: Path | None) -> nn.Module:
        """The untrained network, its encoder with `weights`. From one seed, reg and reg+cls begin with the same but the class head."""
        torch.manual_seed(self.spec.seed)
        spec, classes = self.spec, 0 if self.classes is None else len(self.classes)
        network = build_depth(spec.model, width=spec.width, classes=classes, align_corners=spec.align_corners)
        if weights:
            load_pretrained(network.encoder, weights)
        network.to(self.job.device)
        return network.to(memory_format=torch.channels_last) if self.job.channels_last else network  # type: ignore[call-overload]

    def feed(self, epoch: int, batch: int) -> Generator[Batch]:
        """Augmented batches from there to the end of the last epoch."""
        spec, folder = self.spec, self.images.prepared.folder
        names = ("crop", "flip", "rotate", "lighting", "jitter", "seed")
        augmentation = partial(for_depth, **{name: getattr(spec, name) for name in names})
        files = {"image": folder / "train_images.npy", "mask": folder / "train_depth.npy"}
        made = AugmentedBatches(files, self.rows, augmentation)
        keys = itertools.islice(epochs_of(len(self.rows), self.cuts, seed=spec.seed, first=epoch, last=spec.epochs), batch, None)
        for (at, samples), arrays in stream(made, keys, loaders=self.job.loaders, pinned=self.job.device == "cuda"):
            yield Batch(epoch=at, samples=samples, images=arrays["image"], levels=arrays["mask"])

    def losses(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """`loss` and, with classes, its two parts before they are weighted."""
        spec = self.spec
        predictions, features = network(self._on_device(batch.images))
        levels = batch.levels.to(self.job.device, non_blocking=True).int()
        draws = self._draws(batch)
        kept = _kept(levels, self.keep, draws)
        regression = regression_loss(predictions, self.metres[levels], kept, kind=spec.loss, huber_delta=spec.huber_delta)
        if self.labels is None:
            return {"loss": regression}
        assert spec.lam is not None
        kept_class = kept if self.keep_class is None else _kept(levels, self.keep_class, draws)
        head = cast(ClassHead, network.classifier)
        classification = dense_class_loss(head, features, _doubled(self.labels[levels]), _doubled(kept_class))
        total = weighted(regression, classification, lam=spec.lam, scaling=spec.loss_scaling)
        return {"loss": total, "regression_loss": regression, "class_loss": classification}

    def _on_device(self, images: Tensor) -> Tensor:
        pixels = normalised(images.to(self.job.device, non_blocking=True))
        return pixels if self.job.channels_last else pixels.contiguous()

    def _draws(self, batch: Batch) -> Tensor | None:
        """A uniform number for each pixel (B, h, w), anew each epoch (Eq. 13), for both losses, alike on every device; None: not needed."""
        if self.keep is None and self.keep_class is None:
            return None
        shape = batch.levels.shape[1:]
        generators = (np.random.default_rng([KEEP, self.spec.seed, batch.epoch, sample]) for sample in batch.samples.tolist())
        return moved(np.stack([generator.random(shape, dtype=np.float32) for generator in generators]), self.job.device)

    def describe(self, batch: Batch) -> dict[str, Any]:
        """Rows of the prepared images, and the range of their measured depths in metres."""
        measured = batch.levels[batch.levels > 0].numpy()
        targets = [float(DEPTHS[measured.min()]), float(DEPTHS[measured.max()])] if measured.size else []
        return {"rows": self.rows[batch.samples].tolist(), "targets": targets}

    def size(self, batch: Batch) -> int:
        """B."""
        return len(batch.samples)

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Errors on the balanced validation pixels and on those of the test set."""
        found: dict[str, float] = {}
        for split in SPLITS:
            sums = np.sum([part.sum(0).numpy() for part in self.sums(network, split)], axis=0)
            found |= {f"{split}_{name}": value for name, value in errors_of(sums, self.shots)}
        return {name: value for name, value in found.items() if not name.startswith("test_n_")}  # known from the table of sums

    def sums(self, network: nn.Module, split: Split) -> Iterator[Tensor]:
        """Sums of errors of some images after others, as `bucket_sums` gives them (b, 100, 8), on the CPU."""
        cuts = whole_of(len(self.images.rows(split)), 2 * self.spec.batch_size)
        network.eval()
        with torch.inference_mode():
            for part in prefetched(self._validated if split == "val" else self._tested, cuts):
                predictions = self._predicted(network, part.images)
                yield bucket_sums(predictions, part.targets.to(self.job.device), part.mask.to(self.job.device)).cpu()

    def _predicted(self, network: nn.Module, images: Tensor) -> Tensor:
        """Metres, at the size of the images (B, H, W), in float32 whatever the training ran in."""
        depth = network(self._on_device(images))[0]
        return F.interpolate(depth[:, None].float(), size=images.shape[1:3], mode="bilinear", align_corners=True).squeeze(1)

    def _validated(self, cut: slice) -> Evaluated:
        """Some validation images, with the same balanced pixels in every epoch and run."""
        rows, (height, width) = self.images.rows("val")[cut], self.images.crop
        top, left = ((have - want) // 2 for have, want in zip(self.images.train_depth.shape[1:], (height, width), strict=True))
        crop = (slice(top, top + height), slice(left, left + width))
        levels = np.stack([self.images.train_depth[row][crop] for row in rows])
        draws = np.stack([np.random.default_rng([PIXELS, row]).random((height, width), dtype=np.float32) for row in rows.tolist()])
        return Evaluated(
            images=torch.from_numpy(np.stack([self.images.train_images[row][crop] for row in rows])),
            targets=torch.from_numpy(DEPTHS.astype(np.float32)[levels]),
            mask=torch.from_numpy(draws < self.keep_validated[levels]),
        )

    def _tested(self, cut: slice) -> Evaluated:
        rows = self.images.rows("test")[cut]
        depth = self.images.test_depth[rows]
        return Evaluated(
            images=torch.from_numpy(self.images.test_images[rows]),
            targets=torch.from_numpy(depth.astype(np.float32) / 1000),
            mask=torch.from_numpy(self.images.test_mask[rows] & (depth > 0)),
        )

    def examples(self, network: nn.Module) -> Examples:
        """A few test images."""
        rows = example_rows(self.images.rows("test"))
        network.eval()
        with torch.inference_mode():
            metres = self._predicted(network, torch.from_numpy(self.images.test_images[rows])).cpu().numpy()
        prediction = np.clip(np.rint(1000 * metres), 0, 65535).astype(np.uint16)
        return Examples(rows=rows, images=self.images.test_images[rows], truth=self.images.test_depth[rows], prediction=prediction)


def class_ranges_of(spec: DepthSpec, counts: NDArray[np.int64]) -> ClassRanges | None:
    """The classes of a run: C ranges over `class_range`, equalised for reg+cls-bal; None for reg. `counts` (L,) of training pixels."""
    if spec.method == "reg":
        return None
    ranges = uniform_ranges(spec.classes, *spec.class_range)
    return _equalised(ranges, counts) if spec.balanced else ranges


def _equalised(ranges: ClassRanges, counts: NDArray[np.int64]) -> ClassRanges:
    """Over all measured pixels: level 0 is none."""
    return equalised(ranges, DEPTHS[1:], counts=counts[1:])


def _labels(ranges: ClassRanges) -> NDArray[np.int64]:
    """Class of each level (L,); −1 where it is not measured."""
    return np.where(np.arange(256) > 0, ranges.labels(DEPTHS), -1)


def _keep(ranges: ClassRanges) -> NDArray[np.float32]:
    """ρ (Eq. 13) of each level (L,); 0 where it is not measured."""
    return np.where(np.arange(256) > 0, ranges.keep[ranges.labels(DEPTHS)], 0.0).astype(np.float32)


def _kept(levels: Tensor, keep: Tensor | None, draws: Tensor | None) -> Tensor:
    """Which pixels enter a loss (B, h, w): those that are measured and, with the probabilities `keep` of their levels, drawn."""
    return levels > 0 if keep is None or draws is None else draws < keep[levels]


def _doubled(pixels: Tensor) -> Tensor:
    """(B, h, w) -> (B, H, W): each pixel four times, as the nearest one."""
    return pixels.repeat_interleave(2, 1).repeat_interleave(2, 2)


def train_run(job: DepthJob, hooks: Hooks, say: Callable[[str], None]) -> Result:
    """Make a run, from its newest checkpoint if there is one.

    Its metrics: val_… and test_… of the weights selected on validation, selected_on_test/test_… of those selected on the test set.
    sums.parquet has the sums from which these test errors follow, by selection (val, test), image (row) and bucket.

    Raises:
        DivergedError: a loss is not finite.
        UserError: the prepared data or the weights to begin with are gone or damaged, no checkpoint is whole, or the disk is full.
    """
    images = opened(DepthSet, job)
    task = DepthTask(job, images)
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
    )
    peak = {"peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9} if job.device == "cuda" else {}
    result = _outcome(task, network, checkpoints, trained)
    return replace(result, metrics=result.metrics | peak, tags=tags)


def _outcome(task: DepthTask, network: nn.Module, checkpoints: Checkpoints, trained: Trained) -> Result:
    """Of both selections."""
    kept, best = trained.history[trained.best_epochs["val"] - 1].metrics, trained.best_epochs
    metrics = {name: value for name, value in kept.items() if name.startswith("val_")} | trained.speed()
    metrics["head_classes"] = float(0 if task.classes is None else len(task.classes))  # fewer than C where classes were merged
    metrics["best_epoch_on_test"] = float(best["test"])
    tables: list[pd.DataFrame] = []
    loaded, sums = 0, np.empty(0)
    for selection, prefix in (("test", "selected_on_test/"), ("val", "")):  # the network ends with the weights of the latter
        if loaded != best[selection]:
            network.load_state_dict(checkpoints.load_best(best[selection], device=task.job.device))
            loaded, sums = best[selection], torch.cat(list(task.sums(network, "test"))).numpy()
        metrics |= {f"{prefix}test_{name}": value for name, value in errors_of(sums, task.shots)}
        table = table_of(sums).assign(image=lambda found: task.images.rows("test")[found["image"]])
        table.insert(0, "selection", selection)
        tables.insert(0, table)
    files = {BEST: checkpoints.best_file(best["val"]), BEST_ON_TEST: checkpoints.best_file(best["test"]), LAST: checkpoints.last_file()}
    return Result(
        history=trained.history,
        best_epoch=best["val"],
        score=kept[task.selections["val"]],
        metrics=metrics,
        files={**files, **write_examples(task.examples(network), task.job.checkpoints)},
        tables={"sums.parquet": pd.concat(tables, ignore_index=True)},
        tags={},
    )


def load_predictor(file: Path, *, model: str, width: int, align_corners: bool) -> DepthPredictor:
    """The network of a checkpoint file, for new images, on the CPU. Raises as `checkpoint.load_predictor` does."""
    return DepthPredictor(with_weights(build_depth(model, width=width, classes=0, align_corners=align_corners), file))


def model_of(job: DepthJob, result: Result) -> Model:
    """The network selected on validation, and two test images.

    Raises:
        UserError: the prepared data are gone or damaged.
    """
    images = opened(DepthSet, job)
    spec = job.spec
    predictor = load_predictor(result.files[BEST], model=spec.model, width=spec.width, align_corners=spec.align_corners)
    rows = np.resize(images.rows("test"), 2)  # of one image PyTorch would make a model for one image at a time
    return Model(network=predictor, example=images.test_images[rows])
