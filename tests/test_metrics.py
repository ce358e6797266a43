"""Errors by shot group, compared with loops and scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from regcls.metrics import METRICS, ShotGroups, evaluate

COUNTS = {20: 101, 21: 100, 22: 20, 23: 19, 24: 1}


def by_integer(counts=COUNTS, *, many_above=100, few_below=20):
    """Groups with the given counts of each integer among the training samples."""
    training = np.repeat(list(counts), list(counts.values()))
    return ShotGroups.by_integer(training, many_above=many_above, few_below=few_below)


def made_up(samples=500):
    rng = np.random.default_rng(0)
    targets = rng.choice([20, 21, 22, 23, 24, 25], samples).astype(np.float32)
    predictions = targets + rng.normal(0, 5, samples).astype(np.float32)
    return predictions, targets, by_integer().shot_of(targets)


@pytest.mark.parametrize(
    ("target", "shot"),
    [
        (20, "many"),
        (21, "medium"),
        (22, "medium"),
        (23, "few"),
        (24, "few"),
        (25, "few"),
        (-3, "few"),
        (20.99, "many"),
        (22.5, "medium"),
        (19.99, "few"),
    ],
)
def test_the_group_depends_on_the_training_count_of_the_integer_target(target, shot):
    assert by_integer().shot_of([target]).tolist() == [shot]


def test_fractions_are_rounded_down_in_training_too():
    groups = ShotGroups.by_integer([20.0, 20.5, 20.99, 21.0], many_above=2, few_below=2)
    assert groups.counts == {20: 3, 21: 1} and groups.shot_of([20.7, 21.5]).tolist() == ["many", "few"]


def test_negative_targets_are_rounded_down():
    assert by_integer({-1: 50, 0: 500}).shot_of([-0.5, 0.5]).tolist() == ["medium", "many"]


def test_groups_have_the_shape_of_the_targets():
    assert by_integer().shot_of(np.full((2, 3), 20)).shape == (2, 3)
    assert by_integer().shot_of([]).shape == (0,)


def test_groups_may_touch_but_not_overlap():
    assert by_integer(many_above=19).shot_of([23, 22]).tolist() == ["few", "many"]  # nothing is medium
    with pytest.raises(ValueError, match="few_below = 20 and many_above = 18 overlap"):
        by_integer(many_above=18)


@pytest.mark.parametrize("target", [math.nan, math.inf])
def test_a_non_finite_target_is_refused(target):
    with pytest.raises(ValueError, match="not finite"):
        by_integer().shot_of([20, target])
    with pytest.raises(ValueError, match="not finite"):
        ShotGroups.by_integer([20, target], many_above=100, few_below=20)


def by_density(training, *, bins=20, many_above=1.0, few_below=0.2):
    return ShotGroups.by_density(training, bins=bins, many_above=many_above, few_below=few_below)


RANGES = {
    "prices": lambda share: 22_000 + share**3 * (5_858_000 - 22_000),
    "doses": lambda share: 5 * share,
    "temperatures": lambda share: -40 + 35 * share,
    "parts of a gram": lambda share: 1e-7 * share,
}


@pytest.mark.parametrize("name", RANGES)
def test_density_groups_agree_with_a_loop_over_equal_bins(name):
    rng = np.random.default_rng(2)
    training, tested = (np.sort(RANGES[name](rng.beta(2, 4, size))) for size in (800, 100))
    low, high, mean = training.min(), training.max(), 800 / 20
    inner = np.linspace(low, high, 21)[1:-1]
    expected = []
    for target in tested.tolist():
        count = sum(np.searchsorted(inner, other, "right") == np.searchsorted(inner, target, "right") for other in training)
        count = count if low <= target <= high else 0
        expected.append("many" if count > mean else "few" if count < 0.2 * mean else "medium")
    assert by_density(training).shot_of(tested).tolist() == expected and set(expected) == {"many", "medium", "few"}


def test_density_limits_are_multiples_of_the_mean_bin_count():
    groups = by_density(np.linspace(-3.0, 7.0, 500), bins=10, many_above=1.5, few_below=0.5)
    assert (groups.many_above, groups.few_below, groups.low, groups.high, groups.width) == (75.0, 25.0, -3.0, 7.0, 1.0)
    assert sum(groups.counts.values()) == 500 and set(groups.counts) == set(range(10))


def test_the_highest_training_target_lies_in_the_last_bin():
    groups = by_density([0.0, 1.0, 9.5, 10.0], bins=10, many_above=3.0, few_below=3.0)
    assert groups.bin_of([0.0, 9.99, 10.0]).tolist() == [0, 9, 9] and groups.counts == {0: 1, 1: 1, 9: 2}


@pytest.mark.parametrize("beyond", [-0.001, 10.001, -1e9, 1e9])
def test_a_target_outside_the_training_range_is_few(beyond):
    groups = by_density(np.tile([0.0, 5.0, 10.0], 100), bins=3)
    assert groups.shot_of([0.0, beyond, 10.0]).tolist() == ["medium", "few", "medium"]


@pytest.mark.parametrize("value", [0.0, -17.5, 5_858_000.0])
def test_equal_training_targets_are_many_and_all_others_few(value):
    groups = by_density(np.full(50, value))
    assert groups.counts == {0: 50} and groups.shot_of([value, value - 1, value + 1]).tolist() == ["many", "few", "few"]


def test_density_limits_may_touch_but_not_overlap():
    groups = by_density([0.0, 0.1, 0.2, 1.0], bins=2, many_above=1.0, few_below=1.0)
    assert groups.shot_of([0.1, 0.9]).tolist() == ["many", "few"]  # nothing is medium
    with pytest.raises(ValueError, match="few_below = 2.2 and many_above = 2 overlap"):
        by_density([0.0, 0.1, 0.2, 1.0], bins=2, many_above=1.0, few_below=1.1)


def test_float32_and_float64_targets_are_in_the_same_groups():
    training = np.random.default_rng(4).uniform(22_000, 5_858_000, 300).astype(np.float32)
    assert by_density(training).shot_of(training).tolist() == by_density(training.astype(float)).shot_of(training.astype(float)).tolist()
    assert "few" not in by_density(training, few_below=0.001).shot_of(training)  # each is in the bin in which it was counted


@pytest.mark.parametrize("shot", ["all", "many", "medium", "few"])
def test_metrics_are_computed_over_the_samples_of_the_group(shot):
    predictions, targets, shots = made_up()
    errors = [abs(float(p) - float(t)) for p, t, s in zip(predictions, targets, shots, strict=True) if shot in ("all", s)]
    found = dict(evaluate(predictions, targets, shots))
    assert found[f"n/{shot}"] == len(errors) > 0
    assert found[f"mae/{shot}"] == pytest.approx(math.fsum(errors) / len(errors))
    assert found[f"mse/{shot}"] == pytest.approx(math.fsum(e * e for e in errors) / len(errors))
    assert found[f"rmse/{shot}"] == pytest.approx(math.sqrt(math.fsum(e * e for e in errors) / len(errors)))
    assert found[f"gm/{shot}"] == pytest.approx(stats.gmean(errors))


def test_names_are_in_the_order_of_the_tables():
    groups = ("all", "many", "medium", "few")
    assert [name for name, _ in evaluate(*made_up())] == [f"{m}/{g}" for g in groups for m in (*METRICS, "n")]


def test_an_added_metric_is_computed_for_every_group(monkeypatch):
    monkeypatch.setitem(METRICS, "worst", lambda errors: float(np.max(np.abs(errors))))
    predictions, targets, shots = made_up()
    found = dict(evaluate(predictions, targets, shots))
    for shot in ("all", "many", "medium", "few"):
        assert found[f"worst/{shot}"] == max(
            abs(float(p) - float(t)) for p, t, s in zip(predictions, targets, shots, strict=True) if shot in ("all", s)
        )


def test_values_are_plain_floats():
    assert {type(value) for _, value in evaluate(*made_up())} == {float}


def test_float32_predictions_are_averaged_in_float64():
    predictions, targets, shots = made_up()
    assert list(evaluate(predictions, targets, shots)) == list(evaluate(predictions.astype(float), targets.astype(float), shots))


def test_an_empty_group_has_zero_samples_and_no_metrics():
    found = dict(evaluate([1.0, 2.0], [1.5, 1.0], ["many", "many"]))
    assert {name: value for name, value in found.items() if name.endswith(("medium", "few"))} == {"n/medium": 0.0, "n/few": 0.0}


def test_one_exact_prediction_makes_the_geometric_mean_zero():
    found = dict(evaluate([20.0, 25.0, 30.0], [20.0, 24.0, 28.0], ["many", "many", "few"]))
    assert (found["gm/all"], found["gm/many"], found["gm/few"]) == (0.0, 0.0, 2.0)


def test_many_large_errors_do_not_overflow_the_geometric_mean():
    found = dict(evaluate(np.full(10_000, 1e3), np.zeros(10_000), np.full(10_000, "few")))
    assert found["gm/few"] == pytest.approx(1e3)


@pytest.mark.parametrize("missing", [math.nan, math.inf])
def test_a_nan_prediction_affects_only_its_own_groups(missing):
    found = dict(evaluate([missing, 20.0, 23.0], [20.0, 20.0, 22.0], ["few", "few", "many"]))
    assert not any(math.isfinite(found[f"{metric}/{shot}"]) for metric in ("mae", "mse", "rmse", "gm") for shot in ("all", "few"))
    assert found["mae/many"] == 1.0


def test_a_column_of_predictions_is_refused_instead_of_broadcast():
    with pytest.raises(ValueError, match=r"predictions \(2, 1\), targets \(2,\)"):
        evaluate(np.zeros((2, 1)), np.zeros(2), ["few", "few"])


def test_groups_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"shots \(1,\)"):
        evaluate(np.zeros(2), np.zeros(2), ["few"])


def test_evaluating_no_samples_is_refused():
    with pytest.raises(ValueError, match="no samples"):
        evaluate([], [], [])
