"""Feature distribution smoothing compared with its formula, computed sample by sample; gradients, and degenerate bins."""

import numpy as np
import pytest
import torch

from regcls.methods import make_feature_methods
from regcls.methods.bins import kernel
from regcls.methods.loss import TrainingTargets

OTHER = "fds(bins=6,size=3,sigma=1,momentum=0.6,least=0.5,most=1.5)"
DEFAULTS = {"size": 5, "momentum": 0.9, "least": 0.2, "most": 5.0}
OTHERS = {"size": 3, "momentum": 0.6, "least": 0.5, "most": 1.5}
LIMITS = (0.0, 6.0)  # six bins of width 1

# Bin 2 is empty, bin 4 has a single sample; the last target is on the upper edge.
TARGETS = np.array([0.2, 0.9, 0.4, 1.0, 1.5, 1.7, 3.1, 3.0, 3.9, 4.5, 5.2, 5.1, 6.0], dtype=np.float32)
BINS = [0, 0, 0, 1, 1, 1, 3, 3, 3, 4, 5, 5, 5]


def features_of(epoch, count=3):
    """Non-negative features whose mean and spread grow with the target; the last one is 0 in bins 0 and 1."""
    noise = np.random.default_rng(epoch).gamma(1 + TARGETS[:, None], 1 + epoch, (len(TARGETS), count))
    noise[np.array(BINS) < 2, -1] = 0
    return noise.astype(np.float32)


def fds(name="fds(bins=6)", targets=TARGETS, limits=LIMITS, count=3):
    methods = make_feature_methods(name, features=count, targets=TrainingTargets(values=np.asarray(targets), limits=limits))
    return methods["fds"]


def show(method, features, targets=TARGETS, cuts=(slice(0, 5), slice(5, None))):
    method.after_epoch(lambda: ((torch.from_numpy(features[cut]), torch.from_numpy(targets[cut])) for cut in cuts))


def statistics(features, bins=6):
    """Mean and variance of each bin, sample by sample."""
    means, variances = np.zeros((bins, 3)), np.zeros((bins, 3))
    occupied = sorted(set(BINS))
    for place in range(bins):
        nearest = min(occupied, key=lambda other, place=place: (abs(other - place), other))
        own = [features[n].astype(float) for n in range(len(BINS)) if BINS[n] == nearest]
        means[place] = sum(own) / len(own)
        if len(own) > 1:
            variances[place] = sum((row - means[place]) ** 2 for row in own) / (len(own) - 1)
    return means, variances


def smoothed(values, size, sigma):
    window = kernel(size, sigma) / kernel(size, sigma).sum()
    found = np.zeros_like(values)
    for place in range(len(values)):
        for index, weight in enumerate(window):
            other = (place + index - size // 2) % (2 * len(values))
            found[place] += weight * values[min(other, 2 * len(values) - 1 - other)]
    return found


def calibrated(features, means, variances, *, size, sigma, least, most):
    """The features of all samples, one by one."""
    smooth_means, smooth_variances = smoothed(means, size, sigma), smoothed(variances, size, sigma)
    found = features.astype(float)
    for n, place in enumerate(BINS):
        for k in range(features.shape[1]):
            if variances[place, k] > 0:
                ratio = min(max(smooth_variances[place, k] / variances[place, k], least), most)
                found[n, k] = (found[n, k] - means[place, k]) * ratio**0.5 + smooth_means[place, k]
    return found


@pytest.mark.parametrize("name, sigma, options", [("fds(bins=6)", 2.0, DEFAULTS), (OTHER, 1.0, OTHERS)], ids=["defaults", "others"])
def test_features_are_calibrated_as_by_hand_after_each_epoch(name, sigma, options):
    method = fds(name)
    means, variances = statistics(features_of(1))
    for epoch in (1, 2, 3):
        if epoch > 1:
            new, share = statistics(features_of(epoch)), options["momentum"]
            means, variances = share * means + (1 - share) * new[0], share * variances + (1 - share) * new[1]
        show(method, features_of(epoch))
        assert method.epochs == epoch
        np.testing.assert_allclose(method.means, means, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(method.variances, variances, rtol=1e-5, atol=1e-7)
        batch = features_of(9)
        expected = calibrated(batch, means, variances, sigma=sigma, **{key: options[key] for key in ("size", "least", "most")})
        found = method.calibrate(torch.from_numpy(batch), torch.from_numpy(TARGETS)).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert np.array_equal(found[9], batch[9])  # one sample in its bin: variance 0
        assert np.array_equal(found[:6, 2], batch[:6, 2]) and not np.isclose(found[:6, :2], batch[:6, :2]).any()  # 0 in the whole bin


def test_clipping_is_needed_here():
    """Or the tests above could not tell the limits of the ratio."""
    _, variances = statistics(features_of(1))
    ratios = (smoothed(variances, 5, 2.0) / np.where(variances > 0, variances, np.nan))[[0, 1, 3, 5]]
    assert np.nanmin(ratios) < 0.5 and np.nanmax(ratios) > 5


def test_in_the_first_epoch_features_stay():
    batch = torch.from_numpy(features_of(1))
    assert torch.equal(fds().calibrate(batch, torch.from_numpy(TARGETS)), batch)


@pytest.mark.parametrize("name", ["fds(bins=6,size=1)", "fds(bins=6,sigma=0)"])
def test_without_neighbours_to_smooth_over_features_stay_up_to_rounding(name):
    method, batch = fds(name), torch.from_numpy(features_of(2))
    show(method, features_of(1))
    torch.testing.assert_close(method.calibrate(batch, torch.from_numpy(TARGETS)), batch, rtol=1e-5, atol=1e-5)


def test_pixels_without_a_target_stay_and_do_not_count():
    method, other, batch = fds(), fds(), features_of(1)
    targets = TARGETS.copy()
    targets[[1, 6, 12]] = np.nan
    measured = ~np.isnan(targets)
    show(method, batch, targets)
    show(other, batch[measured], TARGETS[measured], cuts=[slice(None)])
    torch.testing.assert_close(method.scales, other.scales)
    torch.testing.assert_close(method.shifts, other.shifts)
    found = method.calibrate(torch.from_numpy(batch), torch.from_numpy(targets)).numpy()
    assert np.array_equal(found[~measured], batch[~measured]) and not np.array_equal(found[measured], batch[measured])


def test_gradients_reach_the_features_through_the_scale():
    method = fds()
    show(method, features_of(1))
    method, targets = method.double(), torch.from_numpy(TARGETS).double()
    batch = torch.from_numpy(features_of(2)).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: method.calibrate(f, targets), batch)
    (gradient,) = torch.autograd.grad(method.calibrate(batch, targets).sum(), batch)
    torch.testing.assert_close(gradient, method.scales[BINS])
    assert not list(method.parameters())


@pytest.mark.parametrize(
    "targets", [[3.0], [3.0, 3.0, 3.0], [np.nan, np.nan], [0.1, np.nan, 5.9]], ids=["one", "equal", "none measured", "two alone"]
)
@pytest.mark.parametrize("limits", [None, LIMITS])
def test_bins_without_spread_or_samples_leave_features_as_they_are(targets, limits):
    targets = np.array(targets, dtype=np.float32)
    known = targets[~np.isnan(targets)]
    method = fds("fds", known if known.size else np.array([1.0], dtype=np.float32), limits)
    batch = np.full((len(targets), 3), [0.7, 0.0, 1e3], dtype=np.float32)
    for _ in range(2):
        show(method, batch, targets, cuts=[slice(None)])
        found = method.calibrate(torch.from_numpy(batch + 1), torch.from_numpy(targets))
        torch.testing.assert_close(found, torch.from_numpy(batch + 1), rtol=1e-6, atol=1e-6)
    assert all(torch.isfinite(value).all() for value in method.state_dict().values())


def test_features_of_a_bin_that_differ_by_rounding_only_stay():
    method, batch = fds(), features_of(1)
    batch[:3] = 0.1 + np.arange(3, dtype=np.float32) / 3
    batch[1] = np.nextafter(batch[1], np.float32(9))
    show(method, batch)
    assert torch.equal(method.scales[0], torch.ones(3)) and torch.equal(method.shifts[0], torch.zeros(3))


def test_the_state_is_in_buffers_and_bins_are_those_of_the_weights():
    method = fds()
    show(method, features_of(1))
    other = fds()
    other.load_state_dict(method.state_dict())
    show(method, features_of(2))
    show(other, features_of(2))
    assert set(method.state_dict()) == {"edges", "epochs", "means", "variances", "scales", "shifts"}
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in method.state_dict().items())
    assert fds("fds").means.shape == (100, 3) and fds("fds", limits=None).means.shape == (20, 3)
    depths = np.linspace(0, 10, 101).astype(np.float32)  # each on an edge
    assert fds("fds", depths, (0.0, 10.0))._bins(torch.from_numpy(depths)).tolist() == [*range(100), 99]
