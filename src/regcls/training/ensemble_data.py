"""Data of networks that train together: batches, in each network's own order, and evaluation sets. Shared frames are stored once.

Legend: M networks, B batch, N samples, D inputs, K classes, R >= K rows of the class head. The last axis is that of the samples; a row of
ones below the features makes each bias a column of its weight matrix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regcls.classes import ClassRanges

Samples = tuple[NDArray[np.floating], NDArray[np.floating]]  # x (D, n), y (n,)

BLOCK_BYTES = {"cpu": 2**25, "cuda": 2**31}  # of batches gathered at once
PADDED_LOGITS = 2**13  # most logits per batch of a padded head: with more, padding costs more than training together saves


def padded_to(classes: int, batch_size: int) -> int:
    """Rows to pad class heads to if merging leaves fewer than C = `classes`, so that the networks train together; 0: no padding.

    Depends on the run alone: no result may depend on the other networks.
    """
    return classes if classes * batch_size <= PADDED_LOGITS else 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """Training and evaluation data of one network. Arrays at the same place in memory are stored once for all networks."""

    x: NDArray[np.floating]  # (D, N)
    y: NDArray[np.floating]  # (N,)
    classes: ClassRanges | None  # None: regression loss only
    padded_to: int = 0  # rows of the class head, if there are fewer classes
    lam: float  # λ of Eq. 4; 1 without a class loss
    seed: int  # of initial weights and shuffling
    evaluate: Mapping[str, Samples]  # by name

    @property
    def outputs(self) -> int:
        """K, 0 without a class head."""
        return 0 if self.classes is None else len(self.classes)

    @property
    def head_rows(self) -> int:
        """R, 0 without a class head."""
        return max(self.outputs, self.padded_to)


def stream_seeds(seed: int) -> tuple[int, int]:
    """Seeds of the sample order and of the draws for ρ (Eq. 13), both below 2³²: the generator ignores higher bits."""
    return seed, seed ^ 0x9E3779B9


class Batches:
    """Each network's batches of an epoch. Networks are sorted by steps per epoch, most first.

    `x` (steps, M, D + 1, B), `minus_y`, `labels` and `weight` (steps, M, 1, B) hold one block of batches at a time; `weight` is the weight
    of each sample in the class loss of its batch.
    """

    def __init__(self, networks: Sequence[Network], steps: Sequence[int], batch: int, dtype: torch.dtype, device: torch.device) -> None:
        """`steps`: batches per epoch of each network, including an incomplete last one, if any."""
        m, d, self.batch, self.steps = len(networks), len(networks[0].x), batch, steps
        self.seen = [min(own * batch, n.y.size) for own, n in zip(steps, networks, strict=True)]  # samples per epoch
        size = torch.finfo(dtype).bits // 8
        bytes_per_step = m * batch * ((d + 3) * size + 8)
        self.longest = max(1, min(self.steps[0], BLOCK_BYTES[device.type] // bytes_per_step))  # steps of a block

        def ones(*shape: int) -> Tensor:
            return torch.ones(*shape, dtype=dtype, device=device)

        # A single feature is gathered and multiplied fastest as a row. Several are gathered together by sample, and multiplied transposed.
        self.in_rows = d == 1
        self.x = ones(self.longest, m, d + 1, batch) if self.in_rows else ones(self.longest, m, batch, d + 1).mT
        self.minus_y, self.weight = ones(self.longest, m, 1, batch), ones(self.longest, m, 1, batch) / batch
        self.labels = torch.zeros(self.longest, m, 1, batch, dtype=torch.int64, device=device)
        shared: dict[object, Tensor] = {}
        self.groups = [_Group(networks[rows], rows, shared, self.in_rows, dtype, device) for rows in _groups(networks)]

    def shuffle(self) -> None:
        """Draw the sample orders of a new epoch."""
        for group in self.groups:
            group.shuffle(self.steps[group.rows.start] * self.batch)

    def fill(self, first: int, steps: int, networks: int) -> None:
        """Gather the batches `first` to `first` + `steps` − 1 of the first `networks` networks."""
        part, length = slice(first * self.batch, (first + steps) * self.batch), steps * self.batch
        for group in self.groups:
            if group.rows.start >= networks:
                break
            order = group.order[part]
            group.take_inputs(order, self.x[:steps, group.rows, :-1])
            self.minus_y[:steps, group.rows, 0] = self._by_step(_gathered(group.minus_y, order))
            if group.labels is not None:
                labels = _gathered(group.labels, order)
                self.labels[:steps, group.rows, 0] = self._by_step(labels)
                kept = None if group.keep is None else group.draws[part] < group.keep.gather(1, labels.long())
                if self.steps[group.rows.start] * self.batch > group.samples:
                    inside = (torch.arange(first * self.batch, first * self.batch + length, device=labels.device) < group.samples)[None]
                    kept = inside if kept is None else kept & inside
                if kept is not None:
                    counted = self._by_step(kept.to(self.weight.dtype))
                    # Mean over the kept samples of each batch; none kept: all weights 0 (Eq. 13).
                    self.weight[:steps, group.rows, 0] = counted / counted.sum(2, keepdim=True).clamp_(min=1)

    def _by_step(self, values: Tensor) -> Tensor:
        """(networks, steps · B) -> (steps, networks, B)."""
        return values.view(len(values), -1, self.batch).transpose(0, 1)


def _gathered(values: Tensor, order: Tensor) -> Tensor:
    return values.gather(-1, order.expand(*values.shape[:-1], len(order)))  # index_select takes twice as long, but for float32


def _groups(networks: Sequence[Network]) -> list[slice]:
    """Slices of consecutive networks with equal seed and equal N."""
    keys = [(n.seed, n.y.size) for n in networks]
    starts = [m for m in range(len(keys)) if m == 0 or keys[m] != keys[m - 1]]
    return [slice(*bounds) for bounds in zip(starts, [*starts[1:], len(keys)], strict=True)]


def place(array: NDArray[np.floating]) -> object:
    """Key of an array's memory: equal for arrays that view the same memory in the same way."""
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str


class _Group:
    """Training samples of networks with equal seed and equal N, which share sample order and draws."""

    def __init__(
        self,
        networks: Sequence[Network],
        rows: slice,
        shared: dict[object, Tensor],
        in_rows: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.rows, self.samples, self.device = rows, networks[0].y.size, device
        # Two streams, so that drawing for ρ does not change the order that reg and reg+cls share.
        self._order, self._draws = (torch.Generator().manual_seed(seed) for seed in stream_seeds(networks[0].seed))
        if in_rows:
            self.inputs = torch.stack([_tensor(n.x, dtype, device) for n in networks])
        else:
            members: dict[object, list[int]] = {}
            for index, n in enumerate(networks):
                if place(n.x) not in shared:
                    shared[place(n.x)] = _tensor(n.x.T, dtype, device).contiguous()
                members.setdefault(place(n.x), []).append(index)
            self.sources = [(shared[key], indices) for key, indices in members.items()]  # samples (N, D), and the networks that use them
        self.in_rows = in_rows
        self.minus_y = torch.stack([-_tensor(n.y, dtype, device) for n in networks])
        ranges = [n.classes for n in networks if n.classes is not None]
        labels = [r.labels(n.y).astype(np.int32) for r, n in zip(ranges, networks, strict=False)]
        self.labels = torch.from_numpy(np.stack(labels)).to(device) if labels else None
        balanced = any(r.keep.min() < 1 for r in ranges)
        self.keep = torch.from_numpy(_in_rows([r.keep for r in ranges])).to(device, torch.float32) if balanced else None

    def shuffle(self, seen: int) -> None:
        """Draw an order of `seen` samples. If there are fewer, the first ones fill up the last batch, where they do not count."""
        positions = slice(seen) if seen <= self.samples else torch.arange(seen) % self.samples
        self.order = torch.randperm(self.samples, generator=self._order)[positions].to(self.device)
        if self.keep is not None:
            self.draws = torch.rand(min(seen, self.samples), generator=self._draws)[positions].to(self.device)

    def take_inputs(self, order: Tensor, out: Tensor) -> None:
        """Gather the samples `order` (steps · B,) into `out` (steps, networks, D, B)."""
        if self.in_rows:
            out.copy_(_gathered(self.inputs, order).unflatten(2, (len(out), -1)).movedim(2, 0))
            return
        for frames, members in self.sources:
            inputs = frames.index_select(0, order).view(len(out), -1, out.shape[2]).mT
            for member in members:
                out[:, member] = inputs


def _in_rows(keep: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """ρ of the classes of each network (networks, K); networks with fewer classes are padded with ones, which no label selects."""
    rows = np.ones((len(keep), max(len(values) for values in keep)))
    for row, values in zip(rows, keep, strict=True):
        row[: len(values)] = values
    return rows


def _tensor(array: NDArray[np.floating], dtype: torch.dtype, device: torch.device) -> Tensor:
    """As a tensor, without a copy if possible: a data set has many frames."""
    writable = array if array.flags.writeable else array.copy()  # PyTorch has no read-only tensors
    return torch.from_numpy(writable).to(device, dtype)


class EvaluationSet:
    """An evaluation set of each network, padded with zeros to whole blocks of B: a shorter block would be summed in another order."""

    def __init__(self, pairs: Sequence[Samples], batch: int, dtype: torch.dtype, device: torch.device) -> None:
        self.targets = [y for _, y in pairs]
        self.sizes, self.batch, d = [y.size for y in self.targets], batch, len(pairs[0][0])
        self.longest = -(-max(self.sizes) // batch) * batch
        keys = [place(x) for x, _ in pairs]
        distinct = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        self.in_rows = d == 1  # as in training
        shape = (len(distinct), d + 1, self.longest)
        x = torch.zeros(*shape, dtype=dtype) if self.in_rows else torch.zeros(shape[0], shape[2], shape[1], dtype=dtype).mT
        for key, (values, _) in zip(keys, pairs, strict=True):
            x[distinct[key], :-1, : values.shape[1]] = _tensor(values, dtype, x.device)
        x[:, -1] = 1.0
        self.x = x.to(device)
        self.index = None if len(distinct) == len(pairs) else torch.tensor([distinct[key] for key in keys], device=device)  # network -> x
        y, share = torch.zeros(2, len(pairs), 1, self.longest, dtype=dtype)  # share: weight of a sample in the mean; 0 for padding
        for m, (_, values) in enumerate(pairs):
            y[m, 0, : values.size], share[m, 0, : values.size] = _tensor(values, dtype, torch.device("cpu")), 1 / values.size
        self.y, self.share = y.to(device), share.to(device)
        # For predictions: new memory in each epoch is slow.
        self.room = torch.empty(self.longest // batch, len(pairs), 1, batch, dtype=dtype, device=device)

    def labels(self, ranges: Sequence[ClassRanges]) -> Tensor:
        """(M, 1, n) classes of the targets, by the ranges of each network's training set; 0 for padding. int32, to save memory."""
        labels = torch.zeros(self.y.shape, dtype=torch.int32)
        for m, (own, values) in enumerate(zip(ranges, self.targets, strict=True)):
            labels[m, 0, : values.size] = torch.from_numpy(own.labels(values))
        return labels.to(self.y.device)

    def inputs(self, block: slice) -> Tensor:
        """(M, D + 1, B)."""
        x = self.x[..., block]
        if self.index is None:
            return x
        return x.index_select(0, self.index) if self.in_rows else x.mT.index_select(0, self.index).mT
