"""Image networks that predict the mean of their classes."""

import numpy as np
import torch

from methods.histograms import mean_of_classes
from regcls.models.distribution import build_distribution
from regcls.models.predictor import Predictor, build

EDGES = np.linspace(-3, 9, 7)
CENTRES = torch.from_numpy((EDGES[1:] + EDGES[:-1]) / 2).float()


def network(seed=0):
    torch.manual_seed(seed)
    return build_distribution("resnet18", width=2, centres=CENTRES)


def images(batch=4):
    return torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_predictions_are_the_mean_of_the_classes_in_training_and_evaluation():
    for model in (network().train(), network().eval()):
        predictions, logits, _ = model(images())
        np.testing.assert_allclose(predictions.detach(), mean_of_classes(logits, EDGES), rtol=1e-5)
        assert logits.shape == (4, 6)


def test_outputs_are_float32_under_bfloat16_autocast():
    model = network().eval()
    with torch.autocast("cpu", torch.bfloat16):
        predictions, logits, _ = model(images())
    assert predictions.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(predictions, logits.softmax(1) @ CENTRES)


def test_the_backbone_starts_as_that_of_a_regression_network_and_the_network_owns_its_centres():
    torch.manual_seed(0)
    reg, own = build("resnet18", width=2, classes=0).state_dict(), network()
    assert all(torch.equal(value, reg[name]) for name, value in own.state_dict().items() if name.startswith("backbone."))
    own.centres += 1
    assert CENTRES[0] == -2 and "centres" in own.state_dict() and not any(name == "centres" for name, _ in own.named_parameters())


def test_a_predictor_returns_the_mean_of_the_classes():
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    predictions = Predictor(network())(pixels)
    assert predictions.shape == (3,) and (CENTRES[0] < predictions).all() and (predictions < CENTRES[-1]).all()
