"""The 1D data against a plain rewriting of the draws, and against the counts of the protocol."""

from dataclasses import replace

import numpy as np
import pytest

from regcls.datasets.synthetic import BINS, CANDIDATES, Peak, SineSum, SyntheticSets, draw, ood_regions, prepare
from regcls.errors import UserError

F = SineSum(0.5046868558173903, 18)


def in_turn(items, total, label):
    return items


@pytest.fixture(scope="module")
def data():
    from conftest import ROOT
    from regcls.params import load_params

    return load_params(ROOT / "params.yaml", scale="paper").synthetic.data


def pick_in_loops(random, x, y, edges, per_bin):
    """One bin after another, by comparison."""
    picked = []
    for low, high in zip(edges, edges[1:], strict=False):
        inside = x[(y >= low) & (y <= high)]
        if len(inside):
            picked.append(inside[random.randint(0, len(inside), per_bin)])
    return np.concatenate(picked)


def imbalanced_in_loops(seed, width, samples=60000):
    """Steps of the protocol, one by one: a peak, samples within it, the same few from everywhere."""
    random = np.random.RandomState(seed)
    x = random.uniform(-1, 1, CANDIDATES)
    y = F(x)
    peak = random.uniform(y.min(), y.max())
    half = width * (y.max() - y.min())
    frequent = pick_in_loops(random, x, y, np.linspace(peak - half, peak + half, 1025), (samples - 1024 * 5) // 1024 * 2)
    order = np.arange(len(frequent))
    random.shuffle(order)
    rest = pick_in_loops(random, x, y, np.linspace(y.min(), y.max(), 1025), 6)
    pool = np.concatenate([frequent[order[: samples - 1024 - 5]], rest])
    order = np.arange(len(pool))
    random.shuffle(order)
    return pool[order], peak


@pytest.mark.parametrize("sampling, width", [("mild", 0.3), ("severe", 0.03)])
def test_imbalanced_draws_agree_with_loops(data, sampling, width):
    pool, peak = imbalanced_in_loops(9845, width)
    sample = draw(data, "clean", 0.0, sampling, F, 9845)
    assert sample.peak == peak
    assert np.array_equal(np.concatenate([sample.x[split] for split in ("train", "val", "test")]), pool)


def test_uniform_targets_are_uniform_over_y(data):
    y = np.concatenate(list(draw(data, "clean", 0.0, "uniform", F, 2732).y.values()))
    counts, _ = np.histogram(y, bins=64, range=F.extremes)
    assert counts == pytest.approx(len(y) / 64, rel=0.02)


@pytest.mark.parametrize("sampling, train", [("uniform", 20138), ("mild", 21705), ("moderate", 21705), ("severe", 21705)])
def test_sizes_are_those_of_the_release(data, sampling, train):
    assert draw(data, "clean", 0.0, sampling, F, 2732).x["train"].size == train


def test_the_peak_holds_most_samples_and_everything_else_a_few(data):
    sample = draw(data, "clean", 0.0, "severe", F, 4859)
    y, (low, high) = sample.y["train"], F.extremes
    near = np.abs(y - sample.peak) <= 0.03 * (high - low)
    assert near.mean() == pytest.approx(0.91, abs=0.02)
    assert np.histogram(y, bins=20, range=(low, high))[0].min() > 50


@pytest.mark.parametrize("share", [0.5, 0.75])
def test_the_share_of_the_peak_can_be_chosen(data, share):
    plan = Peak.plan(60000, share, floor=5)
    assert plan.kept / (plan.kept + plan.floor * BINS) == pytest.approx(share, abs=0.01)
    sample = draw(replace(data, peak_share=share), "clean", 0.0, "moderate", F, 2732)
    assert sum(x.size for x in sample.x.values()) == pytest.approx(60000, rel=0.01)


def test_noise_is_gaussian_with_the_sigma_asked_for(data):
    sample = draw(data, "noisy", 0.5, "severe", F, 2732)
    for split in ("train", "val", "test"):
        assert np.std(sample.y[split] - F(sample.x[split])) == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("sampling", ["uniform", "severe"])
def test_ood_splits_see_their_own_regions_only(data, sampling):
    sample, regions = draw(data, "ood", 0.0, sampling, F, 3264), ood_regions(3264)
    for split, x in sample.x.items():
        assert all(any(low <= value <= high for low, high in regions[split]) for value in x[::97])
    assert np.array_equal(np.isnan(sample.peak), sampling == "uniform")


def test_ood_regions_overlap_their_right_neighbours_and_end_at_one():
    regions = ood_regions(2732)
    edges = sorted(pair for pairs in regions.values() for pair in pairs)
    assert len(edges) == 9
    assert edges[0][0] == -1 and edges[-1][1] == 1
    assert all(end >= start for (_, end), (start, _) in zip(edges, edges[1:], strict=False))


def test_a_seed_gives_the_same_data_and_another_seed_other_data(data):
    first, again, other = (draw(data, "noisy", 0.1, "mild", F, seed).y["train"] for seed in (2732, 2732, 9845))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_prepared_sets_are_what_was_drawn(params, tmp_path):
    data = params.synthetic.data
    prepare(data, tmp_path / "prepared", processes=1, progress=in_turn)
    sets = SyntheticSets(tmp_path / "prepared", verify=True)
    for repetition, function in ((0, 0), (1, 1)):
        sample = draw(data, "noisy", 0.1, "severe", SineSum(*data.functions[function]), data.data_seeds[repetition])
        x, y = sets.get("noisy-0.1", "severe", function, repetition, "val")
        assert np.array_equal(x, sample.x["val"].astype(np.float32))
        assert np.array_equal(y, sample.y["val"].astype(np.float32))
    assert sets.functions == 2


def test_a_digest_changes_with_the_data_that_a_run_sees_and_with_no_other(params, tmp_path):
    from regcls.params import RunOptions
    from regcls.runs import single_spec

    data = params.synthetic.data
    prepare(data, tmp_path / "a", processes=1, progress=in_turn)
    prepare(replace(data, peak_width=replace(data.peak_width, severe=0.05)), tmp_path / "b", processes=1, progress=in_turn)
    a, b = SyntheticSets(tmp_path / "a"), SyntheticSets(tmp_path / "b")
    severe, mild = (single_spec(params.synthetic, RunOptions(sampling=sampling)) for sampling in ("severe", "mild"))
    assert a.digest(severe) != b.digest(severe)
    assert a.digest(mild) == b.digest(mild)


def test_data_that_was_not_prepared_is_a_clear_error(params, tmp_path):
    prepare(params.synthetic.data, tmp_path / "prepared", processes=1, progress=in_turn)
    with pytest.raises(UserError, match="noisy-0.7/severe/0/0/train is not in .*; there: clean, noisy-0.1"):
        SyntheticSets(tmp_path / "prepared").get("noisy-0.7", "severe", 0, 0, "train")
