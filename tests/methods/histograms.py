"""The histograms of hl-gauss and ce-mean, computed bin by bin."""

import math

import numpy as np
from scipy.special import ndtr


def gaussian(target, edges, sigma=0.75):
    """Shares of N(target, σ²), cut off at the ends of the bins; `sigma` in bin widths. scipy has another implementation of erf."""
    if len(edges) == 2:
        return np.ones(1)
    inside = min(max(target, edges[0]), edges[-1])
    below = ndtr((np.asarray(edges) - inside) / (sigma * (edges[1] - edges[0])))
    return np.array([(high - low) / (below[-1] - below[0]) for low, high in zip(below, below[1:], strict=False)])


def one_hot(target, edges):
    """1 for the target's bin: the last one that begins at or below it."""
    own = max((k for k, edge in enumerate(edges[:-1]) if edge <= target), default=0)
    return np.array([float(k == own) for k in range(len(edges) - 1)])


BY_NAME = {"hl-gauss": gaussian, "ce-mean": one_hot, "hl-gauss(sigma=2)": lambda target, edges: gaussian(target, edges, 2.0)}


def cross_entropy(logits, histograms):
    """Of each sample (N,), from logits and histograms (N, C)."""
    total = []
    for row, shares in zip(logits.tolist(), histograms.tolist(), strict=True):
        log_sum = max(row) + math.log(sum(math.exp(value - max(row)) for value in row))
        total.append(sum(share * (log_sum - value) for value, share in zip(row, shares, strict=True)))
    return np.array(total)


def mean_of_classes(logits, edges):
    """Σ p·c of each sample (N,)."""
    centres = [(low + high) / 2 for low, high in zip(edges, edges[1:], strict=False)]
    weights = [[math.exp(value - max(row)) for value in row] for row in logits.tolist()]
    return np.array([sum(w * c for w, c in zip(row, centres, strict=True)) / sum(row) for row in weights])
