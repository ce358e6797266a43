"""The network for regression from images: its outputs and their types."""

import pytest
import torch
from torch.nn import functional as F

from regcls.models.heads import RegressionNetwork
from regcls.models.resnet import ResNet


def network(classes, seed=0):
    torch.manual_seed(seed)
    return RegressionNetwork(ResNet(18, width=8), classes)


def images(batch=4):
    return torch.rand(batch, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_each_head_is_a_linear_layer_on_the_pooled_features():
    model = network(classes=10)
    model.backbone.eval()  # so that both passes normalise alike
    predictions, logits, _ = model(images())
    features = model.backbone(images())
    torch.testing.assert_close(predictions, features @ model.regressor.weight[0] + model.regressor.bias)
    torch.testing.assert_close(logits, features @ model.classifier.weight.T + model.classifier.bias)


def test_the_class_head_does_not_affect_the_prediction():
    predictions, logits, _ = network(classes=10).eval()(images())
    assert logits.shape == (4, 10)
    torch.testing.assert_close(predictions, network(classes=0).eval()(images())[0])


def test_without_classes_there_is_no_class_head():
    model = network(classes=0)
    assert model(images())[1] is None
    assert not [name for name in model.state_dict() if "classifier" in name]


def test_one_image_gives_one_prediction():
    predictions, logits, _ = network(classes=10).train()(images(batch=1))
    assert predictions.shape == (1,)
    assert logits.shape == (1, 10)


@pytest.mark.parametrize("classes", [2, 100])
def test_reg_and_reg_cls_with_one_seed_start_from_the_same_weights(classes):
    reg, reg_cls = network(classes=0).state_dict(), network(classes=classes).state_dict()
    assert set(reg_cls) - set(reg) == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(value, reg_cls[name]) for name, value in reg.items())
    assert not torch.equal(reg["regressor.weight"], network(classes=0, seed=1).state_dict()["regressor.weight"])


def test_heads_compute_in_float32_under_bfloat16_autocast():
    model = network(classes=10)
    model.backbone.eval()
    with torch.autocast("cpu", torch.bfloat16):
        predictions, logits, _ = model(images())
        features = model.backbone(images())
        assert torch.is_autocast_enabled("cpu")
    assert features.dtype == torch.bfloat16
    assert predictions.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(predictions, F.linear(features.float(), model.regressor.weight, model.regressor.bias)[:, 0])
    torch.testing.assert_close(logits, F.linear(features.float(), model.classifier.weight, model.classifier.bias))


def test_a_network_in_float64_stays_in_float64():
    predictions, logits, _ = network(classes=10).double()(images().double())
    assert predictions.dtype == logits.dtype == torch.float64


@pytest.mark.parametrize("output", ["predictions", "logits"])
def test_each_loss_reaches_the_whole_backbone_and_its_own_head_only(output):
    model = network(classes=10)
    predictions, logits, _ = model(images())
    (predictions if output == "predictions" else logits).square().sum().backward()
    untouched = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert untouched == {"classifier" if output == "predictions" else "regressor"}
