"""Evaluation of a depth network on validation and test images: errors, and accuracy of the class head.

Legend: B images, H × W pixels of the crop; N images of a split; L depth levels.
"""

from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from regcls.tasks.depth.class_head import ClassHead, dense_hits
from regcls.tasks.depth.data import DepthSet
from regcls.tasks.depth.examples import Examples, example_rows
from regcls.tasks.depth.metrics import errors_of
from regcls.tasks.depth.model import normalised
from regcls.tasks.depth.params import Groups
from regcls.tasks.depth.pixels import DeviceRanges
from regcls.tasks.depth.sums import bucket_sums, rmse, rmse_by_image
from regcls.training.device import Device
from regcls.training.feed import evaluation_batches, prefetched

HeldOut = Literal["val", "test"]
SPLITS: tuple[HeldOut, ...] = get_args(HeldOut)
PIXELS = 3  # random stream for the choice of validation pixels; other streams are in feed.py and augment.py


@dataclass(frozen=True, kw_only=True)
class EvaluationBatch:
    """Images and the pixels to evaluate."""

    images: Tensor  # (B, H, W, 3), uint8
    targets: Tensor  # (B, H, W), depth
    mask: Tensor  # (B, H, W)


@dataclass(frozen=True, kw_only=True)
class SplitResult:
    """Results of a network on a split."""

    sums: NDArray[np.float64]  # (N, 100, 8), sums of errors: see `bucket_sums`
    accuracy: dict[str, float]  # `accuracy/all` of the class head over the same pixels; empty for reg


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The evaluation of a run's network."""

    images: DepthSet
    device: Device
    channels_last: bool
    together: int  # images per batch
    keep_validated: NDArray[np.float32]  # (L,), probability that a pixel of a level is a validation pixel
    by_image: bool  # whether val/rmse/all averages the MSE over images, as in the release, instead of over pixels
    classes: DeviceRanges | None  # of the class head; None for reg
    shots: Groups

    def errors(self, network: nn.Module) -> dict[str, float]:
        """Errors on validation and test pixels: val/…, test/…."""
        errors: dict[str, float] = {}
        for split in SPLITS:
            result = self.of(network, split)
            errors |= {f"{split}/{name}": value for name, value in (*errors_of(result.sums, self.shots), *result.accuracy.items())}
            errors[f"{split}/rmse/all"] = rmse_by_image(result.sums) if split == "val" and self.by_image else rmse(result.sums)
        return {name: value for name, value in errors.items() if not name.startswith("test/n/")}  # test/n/ is in the table of sums

    def of(self, network: nn.Module, split: HeldOut) -> SplitResult:
        """Evaluate `network` on a whole split."""
        cuts = evaluation_batches(len(self.images.rows(split)), self.together)
        sums, hits, pixels = list[Tensor](), 0.0, 0.0
        network.eval()
        with torch.inference_mode():
            for batch in prefetched(self.validation_batch if split == "val" else self.test_batch, cuts):
                targets, mask = batch.targets.to(self.device), batch.mask.to(self.device)
                depth, features = self._predicted(network, batch.images)
                sums.append(bucket_sums(depth, targets, mask, deepest=self.images.deepest, nearest=1 / self.images.per_unit).cpu())
                if self.classes is not None:
                    labels = self.classes.labels(targets).masked_fill(~mask, -1)
                    hits += dense_hits(cast(ClassHead, network.classifier), features, labels).item()
                    pixels += mask.sum().item()
        return SplitResult(sums=torch.cat(sums).numpy(), accuracy={} if self.classes is None else {"accuracy/all": hits / max(pixels, 1)})

    def on_device(self, images: Tensor) -> Tensor:
        """Pixels (B, H, W, 3) as network input (B, 3, H, W)."""
        pixels = normalised(images.to(self.device, non_blocking=True))
        return pixels if self.channels_last else pixels.contiguous()

    def _predicted(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Any]:
        """Depth at the size of the images (B, H, W), always in float32, and the features for the class head."""
        depth, features = network(self.on_device(images))
        return F.interpolate(depth[:, None].float(), size=images.shape[1:3], mode="bilinear", align_corners=True).squeeze(1), features

    def validation_batch(self, cut: slice) -> EvaluationBatch:
        """A batch of validation images, with the same pixels in every epoch."""
        rows, (height, width) = self.images.rows("val")[cut], self.images.crop
        top, left = ((have - want) // 2 for have, want in zip(self.images.train_depth.shape[1:], (height, width), strict=True))
        crop = (slice(top, top + height), slice(left, left + width))
        levels = np.stack([self.images.train_depth[row][crop] for row in rows])
        draws = np.stack([np.random.default_rng([PIXELS, row]).random((height, width), dtype=np.float32) for row in rows.tolist()])
        return EvaluationBatch(
            images=torch.from_numpy(np.stack([self.images.train_images[row][crop] for row in rows])),
            targets=torch.from_numpy(self.images.depths.astype(np.float32)[levels]),
            mask=torch.from_numpy(draws < self.keep_validated[levels]),
        )

    def test_batch(self, cut: slice) -> EvaluationBatch:
        """A batch of test images, with the pixels of the mask."""
        rows = self.images.rows("test")[cut]
        targets = self.images.test_targets(rows)
        return EvaluationBatch(
            images=torch.from_numpy(self.images.test_images[rows]),
            targets=torch.from_numpy(targets),
            mask=torch.from_numpy(self.images.test_mask[rows] & (targets > 0)),
        )

    def examples(self, network: nn.Module) -> Examples:
        """A few test images with predictions."""
        rows = example_rows(self.images.rows("test"))
        network.eval()
        with torch.inference_mode():
            depth = self._predicted(network, torch.from_numpy(self.images.test_images[rows]))[0].cpu().numpy()
        prediction = np.clip(np.rint(self.images.per_unit * depth), 0, 65535).astype(np.uint16)
        return Examples(rows=rows, images=self.images.test_images[rows], truth=self.images.test_depth[rows], prediction=prediction)
