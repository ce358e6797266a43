"""fds, feature distribution smoothing: in training, the features of a sample are calibrated to smoothed statistics of its bin of targets.

Yang et al., "Delving into deep imbalanced regression", ICML 2021. After each epoch, m and v are the mean and variance of each feature over
the training samples of a bin (v with n − 1; 0 for a single one), running with `momentum` from the second epoch on. Smoothed over
neighbouring bins, by the kernel of lds normalised to sum 1, reflected at the ends (d c b a | a b c d), they are m' and v'. From the second
epoch on, a feature f becomes (f − m) √clip(v' / v, least, most) + m'; where v is 0 (below TINY) it stays f. A bin without training samples
has the m and v of the nearest one with some, of the lower at equal distance. Options: those of the kernel as of lds; momentum 0.9; clipped
to 0.2 … 5, as the release does for depth (for ages: 0.1 … 10).

Statistics are of plain features in eval mode, as evaluation sees them. In the release they are of features in training mode, for ages of
calibrated ones; calibration begins one epoch later, with smoothed statistics that are one epoch older than m and v; and bins without
samples have m = 0 and v = 1.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from regcls.methods.bins import edges_of, kernel, smoothed
from regcls.methods.features import FeatureMethod, Seen
from regcls.methods.loss import TrainingTargets

TINY = 1e-10  # a variance below counts as 0, as in the release: rounding leaves a bit in a bin of equal features


class FeatureDistributionSmoothing(FeatureMethod):
    """The method of this module, for K bins. Row K of `scales` and `shifts` is of pixels without a target, whose features stay."""

    edges: Tensor  # (K − 1,) between bins
    epochs: Tensor  # (), seen so far
    means: Tensor  # (K, F), running
    variances: Tensor  # (K, F), running
    scales: Tensor  # (K + 1, F); calibrated features are f · scale + shift
    shifts: Tensor  # (K + 1, F)

    def __init__(
        self,
        *,
        features: int,
        targets: TrainingTargets,
        bins: float,
        size: float,
        sigma: float,
        momentum: float,
        least: float,
        most: float,
    ) -> None:
        super().__init__()
        window = kernel(int(size), sigma)
        self.window, self.momentum, self.least, self.most = window / window.sum(), momentum, least, most
        edges = edges_of(targets, bins)
        count = len(edges) - 1
        self.register_buffer("edges", torch.from_numpy(edges[1:-1]).float())
        self.register_buffer("epochs", torch.tensor(0))
        self.register_buffer("means", torch.zeros(count, features))
        self.register_buffer("variances", torch.zeros(count, features))
        self.register_buffer("scales", torch.ones(count + 1, features))
        self.register_buffer("shifts", torch.zeros(count + 1, features))

    def _bins(self, targets: Float[Tensor, " N"]) -> Int[Tensor, " N"]:
        bins = torch.searchsorted(self.edges, targets, right=True)
        return torch.where(targets.isnan(), len(self.means), bins)

    def calibrate(self, features: Float[Tensor, "N F"], targets: Float[Tensor, " N"]) -> Float[Tensor, "N F"]:
        """See FeatureMethod. In the first epoch, all features stay."""
        bins = self._bins(targets)
        return torch.addcmul(self.shifts[bins], features, self.scales[bins])

    def after_epoch(self, seen: Seen) -> None:
        """See FeatureMethod."""
        means, variances = self._statistics(seen)
        if self.epochs:
            means, variances = (
                self.momentum * old.cpu().double() + (1 - self.momentum) * new
                for old, new in ((self.means, means), (self.variances, variances))
            )
        scales = (self._smoothed(variances) / variances).clamp(self.least, self.most).sqrt()
        varied = variances > TINY
        self.epochs += 1
        self.means.copy_(means)
        self.variances.copy_(variances)
        self.scales[:-1] = torch.where(varied, scales, 1.0).to(self.scales)
        self.shifts[:-1] = torch.where(varied, self._smoothed(means) - means * scales, 0.0).to(self.shifts)

    def _statistics(self, seen: Seen) -> tuple[Float[Tensor, "K F"], Float[Tensor, "K F"]]:
        """Mean and variance of each bin, on the CPU."""
        counts = self.scales.new_zeros(len(self.scales), 1, dtype=torch.float64)
        sums, squares = (torch.zeros_like(self.scales, dtype=torch.float64) for _ in range(2))
        for features, targets in seen():
            bins, exact = self._bins(targets), features.double()
            counts.index_add_(0, bins, torch.ones_like(exact[:, :1]))
            sums.index_add_(0, bins, exact)
            squares.index_add_(0, bins, exact.square())
        counts, sums, squares = (total[:-1].cpu() for total in (counts, sums, squares))
        places = torch.arange(len(counts), dtype=torch.float64)
        nearest = (places[:, None] - places).abs().masked_fill(counts.T == 0, torch.inf).argmin(1)
        counts, sums, squares = (total[nearest] for total in (counts, sums, squares))
        means = sums / counts.clamp(min=1)
        return means, ((squares - sums * means) / (counts - 1).clamp(min=1)).clamp(min=0)

    def _smoothed(self, values: Float[Tensor, "K F"]) -> Float[Tensor, "K F"]:
        return torch.from_numpy(np.ascontiguousarray(smoothed(values.numpy().T, self.window, reflected=True).T))


FEATURES = FeatureDistributionSmoothing
