"""The class loss in pieces compared with PyTorch's cross-entropy of all logits at once."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from regcls.tasks.depth.class_head import ROWS, ClassHead, dense_class_loss, dense_hits, dense_means

CLASSES = 5


def made_up(dtype=torch.float64, batch=3, height=4, width=5):
    """A head, features and labels, a fifth of which are unmeasured."""
    torch.manual_seed(0)
    head = ClassHead(6, 16, CLASSES).to(dtype)
    features = torch.randn(batch, 6, height, width, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, CLASSES, (batch, 2 * height, 2 * width))
    return head, features, labels.masked_fill(torch.rand(labels.shape) < 0.2, -1)


def plain(head, features, labels, keep=None):
    """By definition: the mean of −log softmax over the kept pixels that have a label."""
    chosen = (labels >= 0) & (torch.ones_like(labels, dtype=torch.bool) if keep is None else keep)
    return F.cross_entropy(head(features).permute(0, 2, 3, 1)[chosen], labels[chosen])


def gradients(loss, head, features):
    return torch.autograd.grad(loss, [features, *head.parameters()])


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_weights_are_he_normal_by_fan_out_and_biases_pytorchs_default(classes):
    torch.manual_seed(0)
    heads = [ClassHead(128, 256, classes) for _ in range(20)]
    for name, inputs, outputs, pixels in (("upsample", 128, 256, 4), ("classify", 256, classes, 1)):
        layers = [getattr(head, name) for head in heads]
        weights, biases = (torch.stack([getattr(layer, which).detach() for layer in layers]) for which in ("weight", "bias"))
        # What torch.nn.init takes for fan-out is the first axis: the inputs of a transposed convolution, the outputs of a plain one.
        expected = (2 / (pixels * (inputs if name == "upsample" else outputs))) ** 0.5
        assert weights.std().item() == pytest.approx(expected, rel=0.02) and abs(weights.mean().item()) < 0.02 * expected
        assert (weights / expected).pow(4).mean().item() == pytest.approx(3, rel=0.1)  # normal, not uniform (1.8)
        bound = (pixels * (outputs if name == "upsample" else inputs)) ** -0.5
        assert 0.9 * bound < biases.abs().max().item() <= bound


@pytest.mark.parametrize(("classes", "expected", "off"), [(2, 3.3, 0.4), (10, 4.4, 0.2), (100, 4.92, 0.04)])
def test_an_untrained_heads_class_loss_exceeds_that_of_guessing(classes, expected, off):
    """Features are like those after batch norm and ReLU; guessing among C classes has a loss of log C: 0.69, 2.30 and 4.61."""
    torch.manual_seed(0)
    losses = []
    for _ in range(200):
        head, features = ClassHead(128, 256, classes), torch.randn(1, 128, 2, 2).relu()
        with torch.no_grad():
            losses.append(dense_class_loss(head, features, torch.randint(0, classes, (1, 4, 4)))[0].item())
    assert np.mean(losses) == pytest.approx(expected, abs=off)


@pytest.mark.parametrize("chunk", [1, 7, 60, 1000])
@pytest.mark.parametrize("drawn", [False, True])
def test_loss_and_gradients_agree_with_a_computation_on_all_logits(chunk, drawn):
    head, features, labels = made_up()
    keep = torch.rand(labels.shape) < 0.3 if drawn else None
    ours, expected = dense_class_loss(head, features, labels, keep, chunk=chunk)[0], plain(head, features, labels, keep)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(gradients(3 * ours, head, features), gradients(3 * expected, head, features))


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("drawn", [False, True])
def test_another_loss_of_each_pixel_is_averaged_over_the_kept_ones(chunk, drawn):
    head, features, labels = made_up()
    targets, keep = torch.rand(labels.shape, dtype=torch.float64), torch.rand(labels.shape) < 0.3 if drawn else None

    def losses(logits, targets):
        return (logits.softmax(1)[:, 0] - targets) ** 2

    ours = dense_class_loss(head, features, labels, keep, targets=targets, losses=losses, chunk=chunk)[0]
    chosen = (labels >= 0) & (torch.ones_like(labels, dtype=torch.bool) if keep is None else keep)
    expected = ((head(features).softmax(1)[:, 0] - targets) ** 2)[chosen].mean()
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(gradients(3 * ours, head, features), gradients(3 * expected, head, features))


@pytest.mark.parametrize("height", [1, ROWS, 2 * ROWS + 1])
def test_means_of_classes_do_not_depend_on_how_many_rows_are_computed_at_once(height):
    head, features, _ = made_up(height=height)
    centres = torch.linspace(1, 9, CLASSES, dtype=torch.float64)
    pixels = torch.einsum("bchw,c->bhw", head(features).softmax(1), centres)
    expected = pixels.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).mean((2, 4))
    torch.testing.assert_close(dense_means(head, features, centres), expected)


def plain_accuracy(head, features, labels):
    best = head(features).argmax(1)
    return (best == labels)[labels >= 0].double().mean().item()


@pytest.mark.parametrize("chunk", [1, 7, 60, 1000])
def test_accuracy_is_over_all_labelled_pixels_and_has_no_gradient(chunk):
    head, features, labels = made_up()
    expected = plain_accuracy(head, features, labels)
    assert 0 < expected < 1
    for keep in (None, torch.rand(labels.shape) < 0.3, torch.zeros_like(labels, dtype=torch.bool)):
        accuracy = dense_class_loss(head, features, labels, keep, chunk=chunk)[1]
        assert accuracy.item() == pytest.approx(expected) and not accuracy.requires_grad
    hits = dense_hits(head, features, labels, chunk=chunk)
    assert hits.item() == round(expected * (labels >= 0).sum().item()) and not hits.requires_grad


def test_accuracy_is_1_if_all_pixels_are_right_and_0_without_labels():
    head, features, labels = made_up()
    assert dense_class_loss(head, features, head(features).argmax(1))[1] == 1
    assert dense_class_loss(head, features, torch.full_like(labels, -1))[1] == dense_hits(head, features, torch.full_like(labels, -1)) == 0


def test_the_memory_format_does_not_change_the_result():
    head, features, labels = made_up()
    expected = gradients(plain(head, features, labels), head, features)
    moved = features.detach().to(memory_format=torch.channels_last).requires_grad_()
    found = gradients(dense_class_loss(head.to(memory_format=torch.channels_last), moved, labels, chunk=7)[0], head, moved)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("without", ["label", "keep"])
def test_a_batch_without_kept_samples_has_no_class_loss_or_gradient(without):
    head, features, labels = made_up()
    keep = None if without == "label" else torch.zeros_like(labels, dtype=torch.bool)
    loss = dense_class_loss(head, features, torch.full_like(labels, -1) if without == "label" else labels, keep)[0]
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in gradients(loss, head, features))


def test_the_mean_is_over_the_pixels_of_the_batch_not_per_image():
    head, features, labels = made_up()
    labels[0] = -1
    labels[0, 0, 0] = 2
    torch.testing.assert_close(dense_class_loss(head, features, labels, chunk=3)[0], plain(head, features, labels))


def test_gradients_accumulate_over_batches_and_other_losses():
    head, features, labels = made_up()
    for loss in (plain, lambda *given: dense_class_loss(*given)[0]):
        features.grad = None
        head.zero_grad()
        for _ in range(2):
            (loss(head, features, labels) / 2 + features.square().sum()).backward()
        found = [features.grad, *(p.grad for p in head.parameters())]
        expected = found if loss is plain else expected
    torch.testing.assert_close(found, expected)


def test_under_autocast_loss_and_weight_gradients_are_float32():
    head, features, labels = made_up(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = dense_class_loss(head, features, labels, chunk=7)[0]
        assert torch.is_autocast_enabled("cpu")
    found = gradients(loss, head, features)
    assert {value.dtype for value in (loss, *found)} == {torch.float32}
    expected = plain(head, features, labels)
    assert loss.item() != expected.item()
    torch.testing.assert_close(loss, expected, rtol=0.01, atol=0)
    for ours, reference in zip(found, gradients(expected, head, features), strict=True):
        assert (ours - reference).norm() < 0.02 * reference.norm()


def test_bfloat16_features_get_bfloat16_gradients():
    head, features, labels = made_up(torch.float32)
    half = features.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(dense_class_loss(head, half, labels)[0], head, half)
    assert [gradient.dtype for gradient in found] == [torch.bfloat16] + [torch.float32] * 4


def test_the_loss_is_the_same_without_gradients():
    head, features, labels = made_up()
    with torch.no_grad():
        torch.testing.assert_close(dense_class_loss(head, features, labels)[0], plain(head, features, labels))


@torch.no_grad()
def test_each_position_gives_its_own_two_by_two_pixels():
    head, features, _ = made_up()
    before = head(features)
    assert before.shape == (3, CLASSES, 8, 10)
    features[1, :, 2, 3] += 1
    changed = (head(features) != before).any(1).nonzero().tolist()
    assert changed == [[1, row, column] for row in (4, 5) for column in (6, 7)]


def test_an_invalid_label_is_refused():
    head, features, labels = made_up()
    labels[0, 0, 0] = CLASSES
    with pytest.raises(IndexError, match="out of bounds"):
        dense_class_loss(head, features, labels)
