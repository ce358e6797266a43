"""bmse-gai, Balanced MSE by Gaussian-based analytical integration: a Gaussian mixture stands for the density of the training targets.

2s² · (e² / (2s²) + ½ log s² + log Σ_k exp(log π_k − ½ log(v_k + s²) − (ŷ − μ_k)² / (2 (v_k + s²)))): see balanced_mse.py, also for the
options `sigma` (1) and `rate` (0.01). `components`: the number of Gaussians (8, as released for ages; the release uses 16 for depth), at
most that of distinct targets. scikit-learn fits them to the training targets; of more than 100 000, to as many, evenly spaced in the
order of size.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from regcls.methods.balanced_mse import BalancedMSE
from regcls.methods.loss import Facts, TrainingTargets

MOST = 100_000  # targets that a mixture is fitted to


@dataclass(frozen=True, kw_only=True)
class GaussianMixtureIntegral(BalancedMSE):
    """The loss of this module."""

    components: float

    def facts(self, targets: TrainingTargets) -> dict[str, NDArray[np.float64]]:
        """log_weights, means and variances of the Gaussians (K,); superfluous ones have weight 0."""
        found = fitted(evenly_spaced(targets, MOST), max(1, int(self.components)))
        return dict(zip(("log_weights", "means", "variances"), found, strict=True))

    def mixture(
        self, targets: Float[Tensor, "M N"], kept: Bool[Tensor, "M N"] | None, facts: Facts
    ) -> tuple[Float[Tensor, "M K"], Float[Tensor, "M K"], Float[Tensor, "M K"]]:
        """The fitted one."""
        return facts["log_weights"], facts["means"], facts["variances"]


def evenly_spaced(targets: TrainingTargets, most: int) -> NDArray[np.float64]:
    """(n,) the sorted training targets, each as often as it occurs; of more than `most`, as many."""
    order = np.argsort(targets.values)
    numbers = (np.ones(order.size, np.int64) if targets.counts is None else targets.counts[order]).cumsum()
    total, taken = int(numbers[-1]), min(int(numbers[-1]), most)
    ranks = (2 * np.arange(taken) + 1) * total // (2 * taken)
    return targets.values[order][np.searchsorted(numbers, ranks, side="right")].astype(np.float64)


def fitted(values: NDArray[np.float64], components: int) -> NDArray[np.float64]:
    """log π, μ and v (3, K) of a mixture."""
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]  # here: it takes a second
    from sklearn.mixture import GaussianMixture  # type: ignore[import-untyped]
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    mean, std = values.mean(), values.std() if values.min() < values.max() else 1.0
    scaled = (values - mean) / std  # so that scikit-learn's least variance, 10⁻⁶, suits any unit
    model = GaussianMixture(min(components, len(np.unique(values))), random_state=0)
    with warnings.catch_warnings(), threadpool_limits(1):  # several threads add in any order
        warnings.simplefilter("ignore", ConvergenceWarning)  # after 100 iterations it is good enough
        model.fit(np.resize(scaled, (max(2, values.size), 1)))  # it requires two
    found = np.tile(np.array([[-np.inf], [mean], [std**2]]), components)
    found[:, : model.n_components] = np.log(model.weights_), mean + std * model.means_[:, 0], std**2 * model.covariances_[:, 0, 0]
    return found


LOSS = GaussianMixtureIntegral
