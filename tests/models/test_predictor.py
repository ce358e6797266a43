"""Predictors: pixels in, targets out, however the network was trained."""

import numpy as np
import pytest
import torch

from regcls.models.predictor import DEPTHS, Predictor, build, scaled

IMAGES = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_pixels_are_scaled_to_minus_one_and_one():
    pixels = scaled(IMAGES)
    expected = IMAGES.numpy().astype(np.float64).transpose(0, 3, 1, 2) / 255 * 2 - 1
    assert pixels.dtype == torch.float32
    np.testing.assert_allclose(pixels.numpy(), expected, atol=1e-6)
    extremes = scaled(torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2, 1).expand(1, 2, 2, 3))
    assert extremes.flatten().unique().tolist() == [-1, 1]


def test_scaling_keeps_the_memory_format():
    assert scaled(IMAGES).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("model", DEPTHS)
def test_networks_are_built_from_name_width_and_classes(model):
    network = build(model, width=2, classes=7)
    assert network.backbone.depth == int(model.removeprefix("resnet"))
    assert network.backbone.conv1.out_channels == 2
    assert network.classifier.out_features == 7
    assert build(model, width=2, classes=0).classifier is None


def test_a_predictor_returns_the_regression_output_in_eval_mode():
    torch.manual_seed(0)
    network = build("resnet18", width=2, classes=5).train()
    with torch.no_grad():
        network(scaled(IMAGES))  # changes the running statistics, so that eval mode differs
        predictions = Predictor(network)(IMAGES)
        assert torch.equal(predictions, network.eval()(scaled(IMAGES))[0])
        alone = torch.cat([Predictor(network)(image[None]) for image in IMAGES])
    torch.testing.assert_close(predictions, alone)
    assert predictions.shape == (3,)
