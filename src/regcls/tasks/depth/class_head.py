"""A class head for each pixel, its loss and predictions in a few hundred megabytes of memory, whatever the number of pixels and classes.

Legend: B batch size, F features at h × w positions of 2 × 2 pixels each; C classes, D hidden channels, P = B · h · w.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

# Positions per chunk. On the CPU a chunk fits the cache: about 20 MB with 256 hidden channels and 100 classes (benchmarks/depth_head.py).
# On a GPU chunks are larger, since each one costs kernel launches.
CHUNK = {"cpu": 2048, "cuda": 32768}
IGNORED = -100  # the label that F.cross_entropy ignores
ROWS = 2  # of positions for which `dense_means` has all logits at once
Losses = Callable[[Float[Tensor, "N C"], Float[Tensor, " N"]], Float[Tensor, " N"]]


class ClassHead(nn.Module):
    """The mask head of Mask R-CNN (He et al., ICCV 2017; section 3.2): transposed 2×2 convolution with stride 2, ReLU, 1×1 convolution."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        """Weights are He normal by fan-out, as in the release: standard deviations √(2 / 4F) and √(2 / C). Biases are PyTorch's default.

        All are drawn from torch's global generator.
        """
        super().__init__()
        self.upsample = nn.ConvTranspose2d(features, hidden, 2, stride=2)
        self.classify = nn.Conv2d(hidden, classes, 1)
        for layer in (self.upsample, self.classify):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Float[Tensor, "B F h w"]) -> Float[Tensor, "B C 2*h 2*w"]:
        """All logits at once. Training uses `dense_class_loss`, which never has all of them in memory."""
        logits: Tensor = self.classify(F.relu(self.upsample(features)))
        return logits


def dense_class_loss(
    head: ClassHead,
    features: Float[Tensor, "B F h w"],
    labels: Int[Tensor, "B 2*h 2*w"],
    keep: Bool[Tensor, "B 2*h 2*w"] | None = None,
    *,
    targets: Float[Tensor, "B 2*h 2*w"] | None = None,
    losses: Losses | None = None,
    chunk: int | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Loss and accuracy of `head` on `features`.

    The loss is the cross-entropy in nats, averaged over the kept pixels of the batch (Eq. 13); 0 if none is kept. Kept pixels have a
    label of at least 0 (below: not measured) and are True in `keep`. The accuracy is the share of labelled pixels, kept or not, whose
    most probable class is correct; 0 if none is labelled. The loss equals F.cross_entropy of head(features), but forward and backward
    pass go through `chunk` positions at a time (by default CHUNK), and only the gradients are stored. Under autocast, products have its
    dtype, cross-entropy and sums are float32. There are no second derivatives. `losses` computes another loss of each pixel, from its
    logits and its value in `targets`.
    """
    left_out = labels < 0 if keep is None else (labels < 0) | ~keep
    loss, hits = _DenseClassLoss.apply(  # type: ignore[no-untyped-call]
        rows_of(features),
        *_matrices(head),
        _by_position(labels.masked_fill(left_out, IGNORED)),
        _by_position(labels),
        None if targets is None else _by_position(targets),
        losses,
        chunk or CHUNK[features.device.type],
    )
    return loss, hits / (labels >= 0).sum().clamp(min=1)


def dense_hits(
    head: ClassHead, features: Float[Tensor, "B F h w"], labels: Int[Tensor, "B 2*h 2*w"], *, chunk: int | None = None
) -> Float[Tensor, ""]:
    """Number of pixels whose most probable class is their label; labels below 0 are ignored. Chunked, without gradients."""
    size, matrices, targets = chunk or CHUNK[features.device.type], _matrices(head), _by_position(labels)
    some = (targets >= 0).any(1)  # few positions have a label in an evaluation
    hits = torch.zeros((), device=features.device)
    with torch.no_grad():
        for rows, own in zip(rows_of(features)[some].split(size), targets[some].split(size), strict=True):
            hits += _hits(_logits(rows, *matrices), own.flatten())
    return hits


def dense_means(head: ClassHead, features: Float[Tensor, "B F h w"], centres: Float[Tensor, " C"]) -> Float[Tensor, "B h w"]:
    """The mean of the class `centres` by predicted probability, averaged over the four pixels of each position. A few rows at a time."""
    matrices, (count, _, _, width) = _matrices(head), features.shape
    pixels = (_logits(rows_of(rows), *matrices).softmax(1) @ centres for rows in features.split(ROWS, 2))
    return torch.cat([own.view(count, -1, width, 4).mean(3) for own in pixels], 1)


class _DenseClassLoss(torch.autograd.Function):
    """Loss and hits from features (P, F), weights (F, 4D), (4D), (D, C) and (C), and labels (P, 4) of the loss and of the hits.

    The forward pass also computes the gradients.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
        *weights, labels, all_labels, targets, losses, chunk = arguments
        device = features.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
        share = 1 / (labels != IGNORED).sum().clamp(min=1).to(torch.promote_types(dtype, torch.float32))
        cast = [weight.detach().to(dtype).requires_grad_() for weight in weights]
        gradients = [torch.zeros_like(weight) for weight in weights]
        rows = torch.empty_like(features)
        total, hits = torch.zeros(2, device=features.device, dtype=torch.promote_types(dtype, torch.float32)).unbind()
        with torch.autocast(device, enabled=False):
            for start in range(0, len(features), chunk):
                piece = slice(start, start + chunk)
                part = features[piece].detach().to(dtype).requires_grad_()
                with torch.enable_grad():
                    logits = _logits(part, *cast)
                    own = labels[piece].flatten()
                    if losses is None:
                        loss = share * F.cross_entropy(logits, own, ignore_index=IGNORED, reduction="sum")
                    else:
                        loss = share * torch.where(own == IGNORED, 0.0, losses(logits, targets[piece].flatten())).sum()
                rows[piece], *increments = torch.autograd.grad(loss, [part, *cast])
                for gradient, increment in zip(gradients, increments, strict=True):
                    gradient += increment
                total += loss.detach()
                hits += _hits(logits.detach(), all_labels[piece].flatten())
        ctx.save_for_backward(rows, *gradients)
        ctx.mark_non_differentiable(hits)
        return total, hits

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return *(gradient.to(saved.dtype) * saved for saved in ctx.saved_tensors), None, None, None, None, None


def rows_of(features: Float[Tensor, "B F h w"]) -> Float[Tensor, "P F"]:
    """(B, F, h, w) -> (P, F). With a row per position, sums on a GPU have a fixed order, unlike over maps."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def _by_position(pixels: Tensor) -> Tensor:
    """(B, 2h, 2w) -> (P, 4); labels as int64."""
    positions: Tensor = pixels.unflatten(1, (-1, 2)).unflatten(3, (-1, 2))  # (B, h, 2, w, 2)
    rows = positions.transpose(2, 3).reshape(-1, 4)
    return rows if rows.is_floating_point() else rows.long()


def _matrices(head: ClassHead) -> tuple[Tensor, ...]:
    """The head's weights as matrices (F, 4D), (4D), (D, C) and (C), since the 2×2 pixels of different positions do not overlap."""
    first, last = head.upsample, head.classify
    assert first.bias is not None and last.bias is not None
    return first.weight.permute(0, 2, 3, 1).flatten(1), first.bias.repeat(4), last.weight.flatten(1).t(), last.bias


def _logits(features: Tensor, first: Tensor, first_bias: Tensor, last: Tensor, last_bias: Tensor) -> Tensor:
    """Logits (4P, C) of the four pixels of each position, in float32 or finer."""
    hidden = torch.addmm(first_bias, features, first).relu_().view(-1, len(last))
    logits = torch.addmm(last_bias, hidden, last)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Number of pixels whose label is at least 0 and a most probable class; ties count.

    Not by argmax, which on the CPU takes a tenth of the loss's time.
    """
    own = logits.gather(1, labels.clamp(min=0)[:, None]).squeeze(1)
    hits: Tensor = ((own == logits.amax(1)) & (labels >= 0)).sum()
    return hits
