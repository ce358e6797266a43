"""The backbone compared with facts about torchvision's checkpoints and with a plain forward pass from a state dict."""

import math

import pytest
import torch
from torch.nn import functional as F

from regcls.models.resnet import ResNet, load_torchvision

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def convolutions(depth, width=64):
    """Name -> (outputs, inputs, kernel) of every convolution, from Table 1 of the paper."""
    yield "conv1", "bn1", (width, 3, 7)
    inputs = width
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        channels = width * 2 ** (stage - 1)
        outputs = 4 * channels if depth == 50 else channels
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            if depth == 50:
                shapes = [(channels, inputs, 1), (channels, channels, 3), (outputs, channels, 1)]
            else:
                shapes = [(channels, inputs, 3), (channels, channels, 3)]
            for i, shape in enumerate(shapes, start=1):
                yield f"{at}.conv{i}", f"{at}.bn{i}", shape
            if inputs != outputs:
                yield f"{at}.downsample.0", f"{at}.downsample.1", (outputs, inputs, 1)
            inputs = outputs


def published(depth, width=64):
    """A state dict with the names and shapes of torchvision's, its 1000-class fc included, and seeded values."""
    draw = torch.Generator().manual_seed(depth)
    state = {}
    for conv, norm, (outputs, inputs, kernel) in convolutions(depth, width):
        scale = (2 / (outputs * kernel**2)) ** 0.5
        state[f"{conv}.weight"] = scale * torch.randn(outputs, inputs, kernel, kernel, generator=draw)
        for name in ("weight", "running_var"):
            state[f"{norm}.{name}"] = 0.5 + torch.rand(outputs, generator=draw)
        for name in ("bias", "running_mean"):
            state[f"{norm}.{name}"] = 0.1 * torch.randn(outputs, generator=draw)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)
    features = 8 * width * (4 if depth == 50 else 1)
    return state | {"fc.weight": torch.zeros(1000, features), "fc.bias": torch.zeros(1000)}


def plain_stages(state, x):
    """The four maps in eval mode, computed from just a state dict."""

    def conv_norm(conv, norm, x, stride=1):
        weight = state[f"{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=(weight.shape[-1] - 1) // 2)
        mean, var, scale, shift = (state[f"{norm}.{name}"].view(1, -1, 1, 1) for name in ("running_mean", "running_var", "weight", "bias"))
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    x = F.max_pool2d(conv_norm("conv1", "bn1", x, 2).clamp(min=0), 3, 2, 1)
    for stage in (1, 2, 3, 4):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in state:
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            last = 3 if f"{at}.conv3.weight" in state else 2
            out = x
            for i in range(1, last + 1):  # the stride is in the first 3×3
                out = conv_norm(f"{at}.conv{i}", f"{at}.bn{i}", out, stride if i == last - 1 else 1)
                out = out.clamp(min=0) if i < last else out
            if f"{at}.downsample.0.weight" in state:
                x = conv_norm(f"{at}.downsample.0", f"{at}.downsample.1", x, stride)
            x = (out + x).clamp(min=0)
            block += 1
        yield x


@pytest.fixture(scope="module")
def checkpoints():
    """Generated state dicts of the published shapes."""
    return {depth: published(depth) for depth in BLOCKS}


def loaded(state, depth, width=64):
    model = ResNet(depth, width=width)
    load_torchvision(model, state)
    return model.eval()


def noise():
    """Two images, in float64: float32 rounding grows to 1e-4 over fifty layers."""
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    ("depth", "parameters", "keys"),
    [(18, 11_689_512, 122), (34, 21_797_672, 218), (50, 25_557_032, 320)],
)
def test_names_shapes_and_parameter_counts_match_the_published_files(depth, parameters, keys, checkpoints):
    with torch.device("meta"):
        model = ResNet(depth, width=64)
    fc = 1000 * model.features + 1000
    assert sum(p.numel() for p in model.parameters()) + fc == parameters
    assert len(model.state_dict()) + 2 == keys
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes == {name: tuple(value.shape) for name, value in checkpoints[depth].items() if not name.startswith("fc.")}


@pytest.mark.parametrize(
    ("depth", "name", "shape"),
    [
        (18, "conv1.weight", (64, 3, 7, 7)),
        (18, "layer2.0.downsample.0.weight", (128, 64, 1, 1)),
        (34, "layer3.5.conv2.weight", (256, 256, 3, 3)),
        (50, "layer1.0.downsample.0.weight", (256, 64, 1, 1)),
        (50, "layer4.0.conv2.weight", (512, 512, 3, 3)),
        (50, "layer4.2.bn3.running_mean", (2048,)),
    ],
)
def test_some_shapes_match_the_published_files(depth, name, shape, checkpoints):
    assert checkpoints[depth][name].shape == shape


@pytest.mark.parametrize("depth", BLOCKS)
@torch.inference_mode()
def test_a_loaded_checkpoint_agrees_with_a_plain_forward_pass(depth, checkpoints):
    images, model = noise(), loaded(checkpoints[depth], depth).double()
    expected = list(plain_stages({name: value.double() for name, value in checkpoints[depth].items()}, images))
    for ours, reference in zip(model.stages(images), expected, strict=True):
        torch.testing.assert_close(ours, reference)
    torch.testing.assert_close(model(images), expected[-1].flatten(2).mean(2))


@pytest.mark.parametrize("size", [(64, 64), (224, 224), (65, 97), (1, 1)])
@pytest.mark.parametrize(("depth", "features"), [(18, 64), (34, 64), (50, 256)])
@torch.inference_mode()
def test_each_stage_halves_the_size_and_doubles_the_channels(depth, features, size):
    model = ResNet(depth, width=8).eval()
    maps = model.stages(torch.zeros(2, 3, *size))
    for k, found in enumerate(maps, start=1):
        assert found.shape == (2, features // 2 ** (4 - k), *(math.ceil(side / 2 ** (k + 1)) for side in size))
    assert model(torch.zeros(2, 3, *size)).shape == (2, model.features) == (2, features)


@torch.inference_mode()
def test_the_memory_format_does_not_change_the_result():
    images, model = noise(), loaded(published(50, width=8), 50, width=8).double()
    expected = model(images)
    found = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected)


def test_convolutions_start_with_he_normal_weights_by_fan_out():
    torch.manual_seed(0)
    model = ResNet(50, width=32)
    for weight in (p for p in model.parameters() if p.ndim == 4):
        expected = (2 / (weight.shape[0] * weight.shape[2] * weight.shape[3])) ** 0.5
        assert weight.std().item() == pytest.approx(expected, rel=5 / (2 * weight.numel()) ** 0.5)


def test_every_batch_norm_starts_at_one_and_zero():
    norms = {name: p for name, p in ResNet(50, width=8).named_parameters() if p.ndim == 1}
    assert all((p == (1 if name.endswith("weight") else 0)).all() for name, p in norms.items())


@pytest.mark.parametrize("depth", BLOCKS)
def test_gradients_reach_every_parameter(depth):
    torch.manual_seed(0)
    model = ResNet(depth, width=8)
    model(torch.randn(4, 3, 64, 64)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_old_files_without_num_batches_tracked_can_be_loaded(checkpoints):
    old = {name: value for name, value in checkpoints[18].items() if not name.endswith("num_batches_tracked")}
    assert torch.equal(loaded(old, 18).bn1.running_var, old["bn1.running_var"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer1.0.bn1.bias"), r"ResNet-18 with width 64: layer1\.0\.bn1\.bias is missing$"),
        (lambda state: state.update({"layer5.weight": torch.zeros(1)}), r"layer5\.weight is unexpected$"),
        (
            lambda state: state.update({"conv1.weight": torch.zeros(64, 4, 7, 7)}),
            r"conv1\.weight has shape \(64, 4, 7, 7\) instead of \(64, 3, 7, 7\)$",
        ),
    ],
)
def test_a_mismatched_checkpoint_is_refused_by_key_and_changes_nothing(change, message, checkpoints):
    state = dict(checkpoints[18])
    change(state)
    model = ResNet(18, width=64)
    before = model.conv1.weight.clone()
    with pytest.raises(ValueError, match=message):
        load_torchvision(model, state)
    assert torch.equal(model.conv1.weight, before)


def test_a_checkpoint_of_another_depth_is_refused_in_one_line(checkpoints):
    with pytest.raises(ValueError, match=r"ResNet-34 .* is missing.*\(and \d+ more\)") as refused:
        load_torchvision(ResNet(34, width=64), checkpoints[18])
    assert len(str(refused.value)) < 200
