"""A class head per pixel beside a regression of maps, and its loss in a few hundred megabytes, whatever the number of pixels and classes.

Legend: B batch, F features at h × w positions, each of which gives 2 × 2 pixels; C classes, D hidden channels, P = B · h · w.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

# Positions at once. On the CPU what stays in its cache: about 20 MB with 256 hidden channels and 100 classes (benchmarks/depth_head.py); on
# a GPU, where each piece costs launches, more.
CHUNK = {"cpu": 2048, "cuda": 32768}
IGNORED = -100  # the label that F.cross_entropy leaves out


class ClassHead(nn.Module):
    """The mask head of Mask R-CNN (He et al., ICCV 2017; section 3.2): transposed 2×2 convolution with stride 2, ReLU, 1×1 convolution."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        """Weights He normal by fan-out, as in the release: √(2 / 4F) and √(2 / C) are their deviations; biases as PyTorch draws them.

        All are drawn from torch's global generator.
        """
        super().__init__()
        self.upsample = nn.ConvTranspose2d(features, hidden, 2, stride=2)
        self.classify = nn.Conv2d(hidden, classes, 1)
        for layer in (self.upsample, self.classify):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Float[Tensor, "B F h w"]) -> Float[Tensor, "B C 2*h 2*w"]:
        """All logits at once. Training takes `dense_class_loss`, which never holds them together."""
        logits: Tensor = self.classify(F.relu(self.upsample(features)))
        return logits


def dense_class_loss(
    head: ClassHead,
    features: Float[Tensor, "B F h w"],
    labels: Int[Tensor, "B 2*h 2*w"],
    keep: Bool[Tensor, "B 2*h 2*w"] | None = None,
    *,
    chunk: int | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Cross-entropy in nats of `head` on `features`, averaged over the kept pixels of the batch (Eq. 13); 0 if none is kept.

    With it the accuracy: the share of pixels with a label, kept or not, whose most probable class is theirs; 0 if none has a label.
    Pixels with a label below 0 (no measurement) are left out, and so are those that `keep` leaves out. Equal to F.cross_entropy of
    head(features), but computed for `chunk` positions at a time (by default CHUNK), forwards and backwards: nothing is kept but the
    gradients. Under autocast the products are in its type, cross-entropy and the sums are in float32. Second derivatives are not there.
    """
    left_out = labels < 0 if keep is None else (labels < 0) | ~keep
    loss, hits = _DenseClassLoss.apply(  # type: ignore[no-untyped-call]
        _rows(features),
        *_matrices(head),
        _by_position(labels.masked_fill(left_out, IGNORED)),
        _by_position(labels),
        chunk or CHUNK[features.device.type],
    )
    return loss, hits / (labels >= 0).sum().clamp(min=1)


def dense_hits(
    head: ClassHead, features: Float[Tensor, "B F h w"], labels: Int[Tensor, "B 2*h 2*w"], *, chunk: int | None = None
) -> Float[Tensor, ""]:
    """How many pixels have their label as the most probable class, those below 0 left out; in pieces too, without gradients."""
    size, matrices, targets = chunk or CHUNK[features.device.type], _matrices(head), _by_position(labels)
    some = (targets >= 0).any(1)  # few positions have a label in an evaluation
    hits = torch.zeros((), device=features.device)
    with torch.no_grad():
        for rows, own in zip(_rows(features)[some].split(size), targets[some].split(size), strict=True):
            hits += _hits(_logits(rows, *matrices), own.flatten())
    return hits


class _DenseClassLoss(torch.autograd.Function):
    """Takes (P, F) features, (F, 4D), (4D), (D, C) and (C) weights, (P, 4) labels of the loss and those of the hits.

    Returns the loss, whose gradients are computed with it, and the hits.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, *given: Any) -> tuple[Tensor, Tensor]:
        *weights, labels, all_labels, chunk = given
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
                    loss = share * F.cross_entropy(logits, labels[piece].flatten(), ignore_index=IGNORED, reduction="sum")
                rows[piece], *found = torch.autograd.grad(loss, [part, *cast])
                for gradient, more in zip(gradients, found, strict=True):
                    gradient += more
                total += loss.detach()
                hits += _hits(logits.detach(), all_labels[piece].flatten())
        ctx.save_for_backward(rows, *gradients)
        ctx.mark_non_differentiable(hits)
        return total, hits

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return *(gradient.to(saved.dtype) * saved for saved in ctx.saved_tensors), None, None, None


def _rows(features: Tensor) -> Tensor:
    """(B, F, h, w) -> (P, F). Rows of pixels, not maps: over those, a GPU adds up in any order."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def _by_position(labels: Tensor) -> Tensor:
    """(B, 2h, 2w) -> (P, 4)."""
    positions: Tensor = labels.unflatten(1, (-1, 2)).unflatten(3, (-1, 2))  # (B, h, 2, w, 2)
    return positions.transpose(2, 3).reshape(-1, 4).long()


def _matrices(head: ClassHead) -> tuple[Tensor, ...]:
    """(F, 4D), (4D), (D, C) and (C): the 2×2 pixels of a position do not overlap."""
    first, last = head.upsample, head.classify
    assert first.bias is not None and last.bias is not None
    return first.weight.permute(0, 2, 3, 1).flatten(1), first.bias.repeat(4), last.weight.flatten(1).t(), last.bias


def _logits(features: Tensor, first: Tensor, first_bias: Tensor, last: Tensor, last_bias: Tensor) -> Tensor:
    """Of the four pixels of some positions, one after the other, in float32 or finer."""
    hidden = torch.addmm(first_bias, features, first).relu_().view(-1, len(last))
    logits = torch.addmm(last_bias, hidden, last)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    """How many have their label, if it is not below 0, as the most probable class, be it one of several.

    Not by argmax, which takes as long on the CPU as a tenth of the loss.
    """
    own = logits.gather(1, labels.clamp(min=0)[:, None]).squeeze(1)
    hits: Tensor = ((own == logits.amax(1)) & (labels >= 0)).sum()
    return hits
