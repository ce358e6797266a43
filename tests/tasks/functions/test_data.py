"""The 1D data compared with a plain reimplementation of the draws and with the counts of the protocol."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import ROOT
from regcls.errors import UserError
from regcls.params import load_params
from regcls.tasks.functions.data import FunctionSets
from regcls.tasks.functions.params import FunctionOptions
from regcls.tasks.functions.prepare import BINS, CANDIDATES, Peak, SineSum, data_sets, draw, ood_regions, prepare
from regcls.tasks.functions.runs import single_spec

F = SineSum(0.5046868558173903, 18)


def extremes_of(f):
    """Minimum and maximum on [−1, 1]."""
    y = f(np.linspace(-1, 1, 1_000_001))
    return y.min(), y.max()


def one(data, setting, noise, sampling, f, seed):
    """One of the data sets of a function."""
    return draw(replace(data, samplings=(sampling,)), setting, noise, f, seed)[sampling]


def in_turn(items, total, label):
    return items


def test_more_samples_than_fit_the_memory_are_not_drawn(data, tmp_path):
    with pytest.raises(UserError, match="drawing 1,000,000,000 samples of each function needs about .* GB of memory"):
        prepare(replace(data, samples=10**9), tmp_path / "prepared", processes=1, progress=in_turn)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def data():
    return load_params(ROOT / "params.yaml").datasets["functions"].data


def pick_in_loops(random, x, y, edges, per_bin):
    """Pick samples bin by bin, by comparisons."""
    picked = []
    for low, high in zip(edges, edges[1:], strict=False):
        inside = x[(y >= low) & (y <= high)]
        if len(inside):
            picked.append(inside[random.randint(0, len(inside), per_bin)])
    return np.concatenate(picked)


def imbalanced_in_loops(seed, width, samples=60000):
    """The steps of the protocol one by one: a peak, samples within it, equally few from everywhere."""
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


def noisy_uniform_in_loops(seed, sigma, samples=60000):
    """Bins use one draw of the noise, the kept targets another, split by split."""
    random = np.random.RandomState(seed)
    x = random.uniform(-1, 1, 100_000)
    y = F(x) + random.normal(0, sigma, 100_000)
    pool = pick_in_loops(random, x, y, np.linspace(y.min(), y.max(), 1025), samples // 1024 + 1)
    order = np.arange(len(pool))
    random.shuffle(order)
    first, second = len(pool) // 3, 2 * len(pool) // 3
    parts = {"train": order[:first], "val": order[first:second], "test": order[second:]}
    return {split: (pool[part], F(pool[part]) + random.normal(0, sigma, len(part))) for split, part in parts.items()}


def ood_intervals_in_loops(seed):
    """Nine intervals of x of length 2/9, each extended to the right by |N(0, length / 4)| up to 1, for train, val and test in turn."""
    random, length = np.random.RandomState(seed), 1 / 4.5
    intervals = {"train": [], "val": [], "test": []}
    for index in range(9):
        start = -1 + index * length
        intervals[("train", "val", "test")[index % 3]].append((start, min(start + length + abs(random.normal(0, length / 4)), 1)))
    return intervals


def ood_uniform_in_loops(f, seed, samples=60000):
    intervals, random = ood_intervals_in_loops(seed), np.random.RandomState(seed)
    x_of = {"train": [], "val": [], "test": []}
    for turn in range(3):
        for split in ("train", "test", "val"):
            x = random.uniform(*intervals[split][turn], 100_000)
            y = f(x)
            x_of[split].append(pick_in_loops(random, x, y, np.linspace(y.min(), y.max(), 1025), samples // 9 // 1024 + 1))
    return x_of


def assert_drawn(found, expected):
    """Assert the same samples in the same order; interval bounds may differ in the last digit."""
    for split, pieces in expected.items():
        assert found[split].shape == np.concatenate(pieces).shape
        np.testing.assert_allclose(found[split], np.concatenate(pieces), rtol=0, atol=1e-14)


@pytest.mark.parametrize("sampling, width", [("mild", 0.3), ("severe", 0.03)])
def test_imbalanced_draws_agree_with_loops(data, sampling, width):
    pool, peak = imbalanced_in_loops(9845, width)
    sample = one(data, "clean", 0.0, sampling, F, 9845)
    assert sample.peak == peak
    assert np.array_equal(np.concatenate([sample.x[split] for split in ("train", "val", "test")]), pool)


@pytest.mark.parametrize("sigma", [0.05, 0.5])
def test_noisy_uniform_draws_agree_with_loops(data, sigma):
    sample = one(data, "noisy", sigma, "uniform", F, 4859)
    for split, (x, y) in noisy_uniform_in_loops(4859, sigma).items():
        assert np.array_equal(sample.x[split], x)
        assert np.array_equal(sample.y[split], y)


def test_ood_uniform_draws_agree_with_loops(data):
    sample = one(data, "ood", 0.0, "uniform", F, 9225)
    assert_drawn(sample.x, ood_uniform_in_loops(F, 9225))
    for split, x in sample.x.items():
        assert np.array_equal(sample.y[split], F(x)), "no noise"


def released():
    """Data sets from the authors' generator: data, sampling, function, repetition, split, samples, sha256_16 (of the float32 array of x and y)."""
    table = pd.read_csv(Path(__file__).with_name("released_data.csv"))
    return [pytest.param(*key, rows, id="-".join(map(str, key))) for key, rows in table.groupby(["data", "function", "repetition"])]


@pytest.mark.parametrize("name, function, repetition, rows", released())
def test_all_samples_equal_those_of_the_release(data, name, function, repetition, rows):
    setting, noise = data_sets(data)[name]
    drawn = draw(data, setting, noise, SineSum(*data.functions[function]), data.data_seeds[repetition])
    assert set(rows["sampling"]) == set(drawn)
    for row in rows.itertuples():
        sample = np.stack([drawn[row.sampling].x[row.split], drawn[row.sampling].y[row.split]]).astype(np.float32)
        assert sample.shape == (2, row.samples)
        assert hashlib.sha256(sample.tobytes()).hexdigest().startswith(row.sha256_16), (row.sampling, row.split)


def test_ood_sets_do_not_depend_on_other_prepared_samplings(data):
    alone, beside = one(data, "ood", 0.0, "moderate", F, 2732), draw(data, "ood", 0.0, F, 2732)["moderate"]
    assert alone.peak == beside.peak and all(np.array_equal(alone.x[split], beside.x[split]) for split in alone.x)


def test_the_peak_of_an_ood_set_is_within_the_range_of_all_splits(data):
    for a, c in data.functions[:4]:
        f = SineSum(a, c)
        sample = one(data, "ood", 0.0, "moderate", f, 2732)
        for intervals in ood_intervals_in_loops(2732).values():
            ranges = [(y.min(), y.max()) for low, high in intervals for y in [f(np.linspace(low, high, 10_001))]]
            assert any(least <= sample.peak <= most for least, most in ranges)


def test_uniform_targets_are_uniform_over_y(data):
    y = np.concatenate(list(one(data, "clean", 0.0, "uniform", F, 2732).y.values()))
    counts, _ = np.histogram(y, bins=64, range=extremes_of(F))
    assert counts == pytest.approx(len(y) / 64, rel=0.02)


@pytest.mark.parametrize("sampling, train", [("uniform", 20138), ("mild", 21705), ("moderate", 21705), ("severe", 21705)])
def test_sizes_equal_those_of_the_release(data, sampling, train):
    assert one(data, "clean", 0.0, sampling, F, 2732).x["train"].size == train


def test_the_peak_holds_most_samples_and_all_else_a_few(data):
    sample = one(data, "clean", 0.0, "severe", F, 4859)
    y, (low, high) = sample.y["train"], extremes_of(F)
    near = np.abs(y - sample.peak) <= 0.03 * (high - low)
    assert near.mean() == pytest.approx(0.91, abs=0.02)
    assert np.histogram(y, bins=20, range=(low, high))[0].min() > 50


@pytest.mark.parametrize("share", [0.5, 0.75])
def test_the_share_of_samples_in_the_peak_is_configurable(data, share):
    plan = Peak.plan(60000, share, floor=5)
    assert plan.kept / (plan.kept + plan.floor * BINS) == pytest.approx(share, abs=0.01)
    sample = one(replace(data, peak_share=share), "clean", 0.0, "moderate", F, 2732)
    assert sum(x.size for x in sample.x.values()) == pytest.approx(60000, rel=0.01)


def test_noise_is_gaussian_with_the_requested_sigma(data):
    sample = one(data, "noisy", 0.5, "severe", F, 2732)
    for split in ("train", "val", "test"):
        assert np.std(sample.y[split] - F(sample.x[split])) == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("sampling", ["uniform", "severe"])
def test_ood_splits_use_only_their_own_regions(data, sampling):
    sample, regions = one(data, "ood", 0.0, sampling, F, 3264), ood_regions(3264)
    for split, x in sample.x.items():
        assert all(any(low <= value <= high for low, high in regions[split]) for value in x[::97])
    assert np.array_equal(np.isnan(sample.peak), sampling == "uniform")


def test_ood_regions_overlap_the_next_region_and_end_at_one():
    regions = ood_regions(2732)
    edges = sorted(pair for pairs in regions.values() for pair in pairs)
    assert len(edges) == 9
    assert edges[0][0] == -1 and edges[-1][1] == 1
    assert all(end >= start for (_, end), (start, _) in zip(edges, edges[1:], strict=False))


def test_the_data_depend_on_the_seed_alone(data):
    first, again, other = (one(data, "noisy", 0.1, "mild", F, seed).y["train"] for seed in (2732, 2732, 9845))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_prepared_sets_equal_the_drawn_samples(params, tmp_path):
    data = params.datasets["functions"].data
    prepare(data, tmp_path / "prepared", processes=1, progress=in_turn)
    sets = FunctionSets(tmp_path / "prepared", verify=True)
    for repetition, function in ((0, 0), (1, 1)):
        sample = one(data, "noisy", 0.1, "severe", SineSum(*data.functions[function]), data.data_seeds[repetition])
        x, y = sets.get("noisy-0.1", "severe", function, repetition, "val")
        assert np.array_equal(x, sample.x["val"].astype(np.float32))
        assert np.array_equal(y, sample.y["val"].astype(np.float32))
    assert sets.functions == 2


def test_a_digest_covers_exactly_the_data_a_run_sees(params, tmp_path):
    data = params.datasets["functions"].data
    prepare(data, tmp_path / "a", processes=1, progress=in_turn)
    prepare(replace(data, peak_width=replace(data.peak_width, severe=0.05)), tmp_path / "b", processes=1, progress=in_turn)
    a, b = FunctionSets(tmp_path / "a"), FunctionSets(tmp_path / "b")
    severe, mild = (
        single_spec(params.datasets["functions"], "functions", FunctionOptions(sampling=sampling)) for sampling in ("severe", "mild")
    )
    assert a.digest(severe) != b.digest(severe)
    assert a.digest(mild) == b.digest(mild)


def test_unprepared_data_are_a_clear_error(params, tmp_path):
    prepare(params.datasets["functions"].data, tmp_path / "prepared", processes=1, progress=in_turn)
    with pytest.raises(UserError, match="noisy-0.7/severe/0/0/train is not in .*; there: clean, noisy-0.1"):
        FunctionSets(tmp_path / "prepared").get("noisy-0.7", "severe", 0, 0, "train")


def test_a_function_without_values_in_every_region_is_a_clear_error(data):
    with pytest.raises(UserError, match="has no value in common in training, validation and test regions"):
        one(data, "ood", 0.0, "severe", SineSum(0.5, 1), 2732)
