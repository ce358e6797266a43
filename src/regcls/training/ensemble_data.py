"""What networks that train side by side see: batches in each one's own order, and evaluation sets. Frames that they share are held once.

Legend: M networks, B batch, N samples, D inputs, K classes, R >= K rows of the class head. Samples lie on the last axis; a row of ones
below the features makes each bias a column of its weight matrix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regcls.classes import ClassRanges

BLOCK_BYTES = {"cpu": 2**25, "cuda": 2**31}  # of batches that are put in order at once
PADDED_LOGITS = 2**13  # of a batch, at most, where heads are padded: of more, those that no class has cost more than company saves


def padded_to(classes: int, batch_size: int) -> int:
    """Rows that heads are padded to where merging leaves fewer than C `classes`, so that these networks train together; 0: not padded.

    A matter of the run alone: no result may depend on a network's company.
    """
    return classes if classes * batch_size <= PADDED_LOGITS else 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """What one network is trained and evaluated on. Arrays that lie at the same place in memory are held once for all networks."""

    x: NDArray[np.floating]  # (D, N)
    y: NDArray[np.floating]  # (N,)
    classes: ClassRanges | None  # None: regression loss alone
    padded_to: int = 0  # rows of the class head, where there are fewer classes
    lam: float  # λ of Eq. 4; 1 where there is no class loss
    seed: int  # of the initial weights and of the shuffling
    evaluate: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]]  # name -> x (D, n), y (n,)

    @property
    def outputs(self) -> int:
        """K, 0 without a class head."""
        return 0 if self.classes is None else len(self.classes)

    @property
    def head_rows(self) -> int:
        """R, 0 without a class head."""
        return max(self.outputs, self.padded_to)


def stream_seeds(seed: int) -> tuple[int, int]:
    """Seeds of the order of the samples and of the draws for ρ (Eq. 13), both below 2³²: the generator ignores higher bits."""
    return seed, seed ^ 0x9E3779B9


class Batches:
    """Each network's batches of an epoch, in the order of the networks, which go from the most steps an epoch to the fewest.

    `x` (M, D + 1, ...), `minus_y`, `labels` and `weight` (M, 1, ...) hold a block of batches at a time; `weight` is that of each sample
    in its batch's class loss.
    """

    def __init__(self, networks: Sequence[Network], steps: Sequence[int], batch: int, dtype: torch.dtype, device: torch.device) -> None:
        """`steps`: batches an epoch of each network; one more than its samples fill: the last batch is incomplete."""
        m, d, self.batch, self.steps = len(networks), len(networks[0].x), batch, steps
        self.seen = [min(own * batch, n.y.size) for own, n in zip(steps, networks, strict=True)]  # samples an epoch
        size = torch.finfo(dtype).bits // 8
        bytes_a_step = m * batch * ((d + 3) * size + 8)
        self.longest = max(1, min(self.steps[0], BLOCK_BYTES[device.type] // bytes_a_step))  # steps of a block
        length = self.longest * batch

        def ones(*shape: int) -> Tensor:
            return torch.ones(*shape, dtype=dtype, device=device)

        # One number a sample is gathered fastest in a row, and multiplied so. Many are gathered together, and multiplied transposed.
        self.in_rows = d == 1
        self.x = ones(m, d + 1, length) if self.in_rows else ones(m, length, d + 1).mT
        self.minus_y, self.weight = ones(m, 1, length), ones(m, 1, length) / batch
        self.labels = torch.zeros(m, 1, length, dtype=torch.int64, device=device)
        held: dict[object, Tensor] = {}
        self.groups = [_Group(networks[rows], rows, held, self.in_rows, dtype, device) for rows in _alike(networks)]

    def shuffle(self) -> None:
        """Begin an epoch."""
        for group in self.groups:
            group.shuffle(self.steps[group.rows.start] * self.batch)

    def fill(self, first: int, steps: int, networks: int) -> None:
        """Put batches `first` to `first` + `steps` of the first `networks` networks in order."""
        part, length = slice(first * self.batch, (first + steps) * self.batch), steps * self.batch
        for group in self.groups:
            if group.rows.start >= networks:
                break
            order = group.order[part]
            group.take_inputs(order, self.x[group.rows, :-1, :length])
            self.minus_y[group.rows, 0, :length] = _gathered(group.minus_y, order)
            if group.labels is not None:
                labels = self.labels[group.rows, 0, :length] = _gathered(group.labels, order).long()
                kept = None if group.keep is None else group.draws[part] < group.keep.gather(1, labels)
                if self.steps[group.rows.start] * self.batch > group.samples:
                    inside = (torch.arange(first * self.batch, first * self.batch + length, device=labels.device) < group.samples)[None]
                    kept = inside if kept is None else kept & inside
                if kept is not None:
                    counted = kept.to(self.weight.dtype).view(-1, steps, self.batch)
                    # Mean over the kept samples of each batch; none kept: all weights 0 (Eq. 13).
                    self.weight[group.rows, 0, :length] = (counted / counted.sum(2, keepdim=True).clamp_(min=1)).flatten(1)


def _gathered(values: Tensor, order: Tensor) -> Tensor:
    return values.gather(-1, order.expand(*values.shape[:-1], len(order)))  # several times faster than index_select here


def _alike(networks: Sequence[Network]) -> list[slice]:
    """Consecutive networks with one seed and one N."""
    keys = [(n.seed, n.y.size) for n in networks]
    starts = [m for m in range(len(keys)) if m == 0 or keys[m] != keys[m - 1]]
    return [slice(*bounds) for bounds in zip(starts, [*starts[1:], len(keys)], strict=True)]


def place(array: NDArray[np.floating]) -> object:
    """Equal for arrays that are the same memory."""
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str


class _Group:
    """The training samples of networks with one seed and one N: they see the same order and the same draws."""

    def __init__(
        self, networks: Sequence[Network], rows: slice, held: dict[object, Tensor], in_rows: bool, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.rows, self.samples, self.device = rows, networks[0].y.size, device
        # Two streams, so that drawing for ρ does not change the order that reg and reg+cls share.
        self._order, self._draws = (torch.Generator().manual_seed(seed) for seed in stream_seeds(networks[0].seed))
        if in_rows:
            self.inputs = torch.stack([_tensor(n.x, dtype, device) for n in networks])
        else:
            members: dict[object, list[int]] = {}
            for index, n in enumerate(networks):
                if place(n.x) not in held:
                    held[place(n.x)] = _tensor(n.x.T, dtype, device).contiguous()
                members.setdefault(place(n.x), []).append(index)
            self.sources = [(held[key], indices) for key, indices in members.items()]  # samples (N, D), and whose they are
        self.in_rows = in_rows
        self.minus_y = torch.stack([-_tensor(n.y, dtype, device) for n in networks])
        ranges = [n.classes for n in networks if n.classes is not None]
        labels = [r.labels(n.y).astype(np.int32) for r, n in zip(ranges, networks, strict=False)]
        self.labels = torch.from_numpy(np.stack(labels)).to(device) if labels else None
        balanced = any(r.keep.min() < 1 for r in ranges)
        self.keep = torch.from_numpy(_in_rows([r.keep for r in ranges])).to(device, torch.float32) if balanced else None

    def shuffle(self, seen: int) -> None:
        """Order `seen` samples. More than there are: the first ones fill up the last batch, where they do not count."""
        places = torch.arange(seen) % self.samples
        self.order = torch.randperm(self.samples, generator=self._order)[places].to(self.device)
        if self.keep is not None:
            self.draws = torch.rand(min(seen, self.samples), generator=self._draws)[places].to(self.device)

    def take_inputs(self, order: Tensor, out: Tensor) -> None:
        """out (networks, D, n)."""
        if self.in_rows:
            out.copy_(_gathered(self.inputs, order))
            return
        for frames, members in self.sources:
            taken = frames.index_select(0, order)
            for member in members:
                out[member].T.copy_(taken)


def _in_rows(keep: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """ρ of the classes of each network; ones, which no label reads, after those of a network with fewer."""
    rows = np.ones((len(keep), max(len(values) for values in keep)))
    for row, values in zip(rows, keep, strict=True):
        row[: len(values)] = values
    return rows


def _tensor(array: NDArray[np.floating], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Not a copy where none is needed: the frames of a data set are many."""
    writable = array if array.flags.writeable else array.copy()  # PyTorch knows no tensors that cannot be written to
    return torch.from_numpy(writable).to(device, dtype)


class EvaluationSet:
    """An evaluation set of each network, padded with zeros to whole blocks of B: a shorter one is summed in another order."""

    def __init__(self, networks: Sequence[Network], name: str, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        pairs = [n.evaluate[name] for n in networks]
        self.targets = [y for _, y in pairs]
        self.sizes, self.batch, d = [y.size for y in self.targets], batch, len(networks[0].x)
        self.longest = -(-max(self.sizes) // batch) * batch
        places = [place(x) for x, _ in pairs]
        distinct = {key: index for index, key in enumerate(dict.fromkeys(places))}
        self.in_rows = d == 1  # as in training
        shape = (len(distinct), d + 1, self.longest)
        x = torch.zeros(*shape, dtype=dtype) if self.in_rows else torch.zeros(shape[0], shape[2], shape[1], dtype=dtype).mT
        for key, (values, _) in zip(places, pairs, strict=True):
            x[distinct[key], :-1, : values.shape[1]] = _tensor(values, dtype, x.device)
        x[:, -1] = 1.0
        self.x = x.to(device)
        self.which = None if len(distinct) == len(pairs) else torch.tensor([distinct[key] for key in places], device=device)
        y, share = torch.zeros(2, len(pairs), 1, self.longest, dtype=dtype)  # share: of a sample in the mean; 0 for padding
        for m, (_, values) in enumerate(pairs):
            y[m, 0, : values.size], share[m, 0, : values.size] = _tensor(values, dtype, torch.device("cpu")), 1 / values.size
        self.y, self.share = y.to(device), share.to(device)

    def labels(self, networks: Sequence[Network]) -> Tensor:
        """(M, 1, n) classes of the targets, by the ranges of each network's training set; 0 for padding. int32, for they are many."""
        labels = torch.zeros(self.y.shape, dtype=torch.int32)
        for m, (n, values) in enumerate(zip(networks, self.targets, strict=True)):
            assert n.classes is not None
            labels[m, 0, : values.size] = torch.from_numpy(n.classes.labels(values))
        return labels.to(self.y.device)

    def inputs(self, block: slice) -> Tensor:
        """(M, D + 1, B)."""
        x = self.x[..., block]
        if self.which is None:
            return x
        return x.index_select(0, self.which) if self.in_rows else x.mT.index_select(0, self.which).mT
