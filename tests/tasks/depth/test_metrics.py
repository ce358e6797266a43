"""Errors of depth maps from sums, compared with loops over pixels."""

import math
import statistics

import numpy as np
import pytest
import torch

from regcls.tasks.depth.metrics import errors_of, sums_of
from regcls.tasks.depth.sums import COLUMNS, bucket_sums, rmse, rmse_by_image, table_of

SHOTS = {"many": frozenset(range(9, 46)), "medium": frozenset({7, 8, 46})}
METRICS = ("rmse", "mae", "abs_rel", "log10", "delta1", "delta2", "delta3")


def made_up(images=3, height=13, width=17, seed=0):
    draw = np.random.default_rng(seed)
    targets = draw.uniform(0.5, 11, (images, height, width)).astype(np.float32)
    predictions = (targets * draw.lognormal(0, 0.3, targets.shape)).astype(np.float32)
    return torch.from_numpy(predictions), torch.from_numpy(targets), torch.from_numpy(draw.random(targets.shape) < 0.6)


def pixels(predictions, targets, mask):
    """(image, bucket, prediction, target) of each pixel of the mask."""
    for image, row, column in np.argwhere(mask.numpy()):
        prediction, target = float(predictions[image, row, column]), float(targets[image, row, column])
        yield int(image), min(math.floor(target * 10), 99), prediction, target


def group(bucket):
    return next((shot for shot, buckets in SHOTS.items() if bucket in buckets), "few")


def errors_by_loop(chosen):
    """Each metric by its definition."""
    ratios = [max(p / t, t / p) for p, t in chosen]
    deltas = {f"delta{k}": statistics.fmean(ratio < 1.25**k for ratio in ratios) for k in (1, 2, 3)}
    return deltas | {
        "rmse": math.sqrt(statistics.fmean((p - t) ** 2 for p, t in chosen)),
        "mae": statistics.fmean(abs(p - t) for p, t in chosen),
        "abs_rel": statistics.fmean(abs(p - t) / t for p, t in chosen),
        "log10": statistics.fmean(abs(math.log10(p) - math.log10(t)) for p, t in chosen),
    }


@pytest.mark.parametrize("shot", ["all", "many", "medium", "few"])
def test_errors_agree_with_a_loop_over_the_pixels_of_the_group(shot):
    chosen = [(p, t) for _, bucket, p, t in pixels(*made_up()) if shot in ("all", group(bucket))]
    found = dict(errors_of(bucket_sums(*made_up()), SHOTS))
    assert found[f"n/{shot}"] == len(chosen) > 5
    for name, value in errors_by_loop(chosen).items():
        assert found[f"{name}/{shot}"] == pytest.approx(value, rel=1e-12), name


def test_sums_are_kept_by_image_and_bucket():
    sums = bucket_sums(*made_up())
    expected = np.zeros((3, 100, 3))
    for image, bucket, p, t in pixels(*made_up()):
        expected[image, bucket] += 1, (p - t) ** 2, abs(p - t)
    assert sums.dtype == torch.float64
    np.testing.assert_allclose(sums[..., :3], expected, rtol=1e-12)


def test_names_are_in_the_order_of_the_tables():
    groups = ("all", "many", "medium", "few")
    assert [name for name, _ in errors_of(bucket_sums(*made_up()), SHOTS)] == [f"{m}/{g}" for g in groups for m in (*METRICS, "n")]


def test_every_millimetre_falls_into_its_bucket():
    millimetres = torch.arange(1, 12_000)
    targets = (millimetres.float() / 1000)[None, None]
    sums = bucket_sums(targets, targets, torch.ones_like(targets, dtype=torch.bool))
    assert sums[0, :, 0].tolist() == np.bincount(np.minimum(millimetres.numpy() // 100, 99)).tolist()


def test_sums_of_parts_add_up_to_the_total():
    whole = list(errors_of(bucket_sums(*made_up(images=5)), SHOTS))
    parts = [bucket_sums(*(tensor[cut] for tensor in made_up(images=5))) for cut in (slice(0, 2), slice(2, 5))]
    assert dict(errors_of(sum(part.sum(0) for part in parts), SHOTS)) == pytest.approx(dict(whole))
    assert list(errors_of(torch.cat(parts), SHOTS)) == whole


def test_pixels_outside_the_mask_do_not_matter():
    predictions, targets, mask = made_up()
    changed = bucket_sums(predictions.masked_fill(~mask, math.nan), targets.masked_fill(~mask, 0), mask)
    assert torch.equal(changed, bucket_sums(predictions, targets, mask))


def test_an_empty_mask_gives_zeros_and_no_errors():
    predictions, targets, mask = made_up()
    sums = bucket_sums(predictions, targets, torch.zeros_like(mask))
    assert sums.shape == (3, 100, 8) and not sums.any()
    assert dict(errors_of(sums, SHOTS)) == {"n/all": 0, "n/many": 0, "n/medium": 0, "n/few": 0}


def test_an_empty_group_has_zero_pixels_and_no_errors():
    targets = torch.full((1, 2, 2), 2.05)
    found = dict(errors_of(bucket_sums(targets + 1, targets, torch.ones(1, 2, 2, dtype=torch.bool)), SHOTS))
    assert found["rmse/many"] == pytest.approx(1)
    assert {name: value for name, value in found.items() if name.endswith(("medium", "few"))} == {"n/medium": 0, "n/few": 0}


@pytest.mark.parametrize("prediction", [-3.0, 0.0, 1e-4])
def test_predictions_below_a_millimetre_are_clamped_in_ratios_only(prediction):
    targets = torch.full((1, 1, 1), 2.0)
    found = dict(errors_of(bucket_sums(torch.full_like(targets, prediction), targets, targets > 0), SHOTS))
    assert found["mae/all"] == found["rmse/all"] == pytest.approx(2 - prediction, rel=1e-6)
    assert found["log10/all"] == pytest.approx(math.log10(2000))
    assert found["delta3/all"] == 0


def test_a_ratio_equal_to_the_limit_is_not_below_it():
    targets = torch.ones(1, 1, 2)
    sums = bucket_sums(torch.tensor([[[1.25, 0.8125]]]), targets, targets > 0)  # 1 / 0.8125 is about 1.23
    assert dict(errors_of(sums, SHOTS))["delta1/all"] == 0.5


@pytest.mark.parametrize("missing", [math.nan, math.inf])
def test_a_nan_prediction_affects_only_its_own_groups(missing):
    targets = torch.tensor([[[2.0, 9.0]]])
    found = dict(errors_of(bucket_sums(torch.tensor([[[3.0, missing]]]), targets, targets > 0), SHOTS))
    assert not any(math.isfinite(found[f"{metric}/{shot}"]) for metric in ("rmse", "mae", "abs_rel", "log10") for shot in ("all", "few"))
    assert found["mae/many"] == 1


def test_sums_are_float64_whatever_the_dtype_of_predictions():
    targets = torch.full((1, 400, 500), 5.0)
    sums = bucket_sums((targets + 0.125).bfloat16(), targets, targets > 0)
    assert sums[0, 50, COLUMNS.index("absolute")].item() == 200_000 * 0.125


def test_sums_can_be_restored_from_their_table():
    sums = bucket_sums(*made_up())
    table = table_of(sums)
    assert list(table) == ["image", "bucket", *COLUMNS]
    assert (table["n"] > 0).all() and table["n"].sum() == made_up()[2].sum()
    np.testing.assert_allclose(sums_of(table), sums.sum(0))
    np.testing.assert_array_equal(sums_of(table[table["image"] == 1]), sums[1])
    assert not sums_of(table[:0]).any()


def test_a_nan_error_is_not_ignored():
    table = table_of(bucket_sums(*made_up()))
    table.loc[0, "squared"] = np.nan
    assert np.isnan(sums_of(table)[table["bucket"][0], COLUMNS.index("squared")])
    assert np.isnan(sums_of(table)).sum() == 1


def test_other_shot_groups_can_be_computed_from_the_same_sums():
    sums = bucket_sums(*made_up())
    found = dict(errors_of(sums, {"many": frozenset(range(100)), "medium": frozenset()}))
    assert found["rmse/many"] == found["rmse/all"]
    assert found["n/few"] == 0


@pytest.mark.gpu
def test_gpu_sums_are_reproducible_and_equal_those_of_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    maps = made_up(images=4, height=228, width=304)
    found = [bucket_sums(*(tensor.cuda() for tensor in maps)) for _ in range(5)]
    assert all(torch.equal(found[0], other) for other in found[1:])
    torch.testing.assert_close(found[0].cpu(), bucket_sums(*maps))


def test_rmse_from_sums_is_over_all_pixels():
    squares = [(p - t) ** 2 for *_, p, t in pixels(*made_up())]
    sums = bucket_sums(*made_up())
    assert rmse(sums) == pytest.approx(math.sqrt(statistics.fmean(squares)), rel=1e-12)
    assert rmse(sums.sum(0)) == pytest.approx(rmse(sums), rel=1e-12)


def test_rmse_by_image_averages_the_mse_of_images_with_pixels():
    predictions, targets, mask = made_up()
    mask[0, 3:], mask[1] = False, False
    by_image = [[(p - t) ** 2 for image, _, p, t in pixels(predictions, targets, mask) if image == n] for n in (0, 2)]
    found = rmse_by_image(bucket_sums(predictions, targets, mask))
    assert found == pytest.approx(math.sqrt(statistics.fmean(map(statistics.fmean, by_image))))
    assert found != pytest.approx(math.sqrt(statistics.fmean([*by_image[0], *by_image[1]])), rel=1e-3)
