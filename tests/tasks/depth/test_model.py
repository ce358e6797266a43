"""The depth network compared with a plain forward pass from a state dict, and its size with Hu et al.'s layers."""

import mlflow
import pytest
import torch
from torch.nn import functional as F

from regcls.tasks.depth.class_head import dense_class_loss
from regcls.tasks.depth.model import DepthPredictor, build_depth, normalised, upsampled_conv
from regcls.tracking.files import save_model

PIXELS = torch.randint(0, 256, (2, 56, 76, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def network(classes=0, model="resnet18", width=4, seed=0, align_corners=True):
    torch.manual_seed(seed)
    return build_depth(model, width=width, classes=classes, align_corners=align_corners)


def up_projection(inputs, outputs):
    """Parameters of the two branches: two convolutions 5×5 and one 3×3, three batch norms."""
    return 2 * 25 * inputs * outputs + 9 * outputs**2 + 3 * 2 * outputs


def test_the_papers_network_has_as_many_parameters_as_hu_et_al():
    with torch.device("meta"):
        reg, reg_cls = (network(classes, "resnet50", 64) for classes in (0, 100))
    encoder = 25_557_032 - 2048 * 1000 - 1000  # torchvision's ResNet-50 without its last layer
    decoder = 2048 * 1024 + 2 * 1024 + sum(up_projection(n, n // 2) for n in (1024, 512, 256, 128))
    fusion = sum(up_projection(n, 16) for n in (256, 512, 1024, 2048)) + 25 * 64 * 64 + 2 * 64
    refinement = 2 * (25 * 128 * 128 + 2 * 128) + 25 * 128 + 1
    assert sum(p.numel() for p in reg.parameters()) == encoder + decoder + fusion + refinement == 67_569_473
    head = 128 * 256 * 4 + 256 + 256 * 100 + 100
    assert sum(p.numel() for p in reg_cls.parameters()) == 67_569_473 + head


def plain_depth(state, stages, size, align_corners):
    """Decoder, fusion and refinement in eval mode, from a state dict and the encoder's maps."""

    def norm(name, x):
        mean, var, scale, shift = (state[f"{name}.{key}"].view(1, -1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias"))
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def conv(name, x, bias=None):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    def up(name, x, to):
        x = F.interpolate(x, size=to, mode="bilinear", align_corners=align_corners)
        first = norm(f"{name}.bn1", conv(f"{name}.conv1", x)).clamp(min=0)
        return (norm(f"{name}.bn2", conv(f"{name}.conv2", first)) + norm(f"{name}.shortcut_bn", conv(f"{name}.shortcut", x))).clamp(min=0)

    x = norm("decoder.bn", conv("decoder.conv", stages[3])).clamp(min=0)
    for k, to in enumerate([stages[2].shape[2:], stages[1].shape[2:], stages[0].shape[2:], size]):
        x = up(f"decoder.up.{k}", x, to)
    fused = torch.cat([up(f"fusion.up.{k}", stage, size) for k, stage in enumerate(stages)], dim=1)
    x = torch.cat([x, norm("fusion.bn", conv("fusion.conv", fused)).clamp(min=0)], dim=1)
    for k in (0, 3):
        x = norm(f"refinement.{k + 1}", conv(f"refinement.{k}", x)).clamp(min=0)
    return conv("regressor", x, state["regressor.bias"])[:, 0]


@pytest.mark.parametrize(("model", "size"), [("resnet18", (56, 76)), ("resnet50", (57, 35)), ("resnet34", (64, 64))])
@pytest.mark.parametrize("align_corners", [True, False])
@torch.no_grad()
def test_the_network_agrees_with_a_plain_forward_pass(model, size, align_corners):
    net = network(model=model, align_corners=align_corners).double()
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    net(images)  # moves the running statistics away from 0 and 1
    net.eval()
    expected = plain_depth(net.state_dict(), net.encoder.stages(images), (-(-size[0] // 2), -(-size[1] // 2)), align_corners)
    torch.testing.assert_close(net(images)[0], expected)


@pytest.mark.parametrize("size", [(2, 2), (32, 32), (56, 76), (228, 304), (58, 78)])
@pytest.mark.parametrize("width", [1, 8])
@torch.no_grad()
def test_depth_has_half_the_size_of_the_input(size, width):
    assert network(width=width).eval()(torch.zeros(2, 3, *size))[0].shape == (2, size[0] // 2, size[1] // 2)


@pytest.mark.parametrize(
    "old, new", [((2, 3), (28, 38)), ((4, 5), (28, 38)), ((7, 10), (28, 38)), ((7, 10), (14, 19)), ((1, 1), (9, 4)), ((5, 9), (20, 30))]
)
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("align_corners", [True, False])
def test_fused_upsampling_and_convolution_agree_with_separate_steps(old, new, kernel, align_corners):
    torch.manual_seed(0)
    x = torch.randn(2, 6, *old, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 6, kernel, kernel, dtype=torch.float64, requires_grad=True)
    ours = upsampled_conv(x, weight, new, align_corners=align_corners)
    expected = F.conv2d(F.interpolate(x, size=new, mode="bilinear", align_corners=align_corners), weight, padding=kernel // 2)
    torch.testing.assert_close(ours, expected)
    pull = torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(ours, (x, weight), pull), torch.autograd.grad(expected, (x, weight), pull))


def all_gradients(net, images):
    depth, features = net(images)
    labels = (torch.arange(depth.numel() * 4) % 7).view(-1, *images.shape[2:])
    (depth.square().mean() + dense_class_loss(net.classifier, features, labels)[0]).backward()
    return [depth, *(p.grad for p in net.parameters())]


@pytest.mark.parametrize("width", [1, 3, 4, 8])
def test_the_memory_format_changes_neither_predictions_nor_gradients(width):
    images = normalised(PIXELS)
    expected = all_gradients(network(7, width=width).double(), images.double().contiguous())
    found = all_gradients(network(7, width=width).double().to(memory_format=torch.channels_last), images.double())
    torch.testing.assert_close(found, expected)


def test_in_float32_the_memory_format_changes_only_rounding():
    """oneDNN has other code for float32, which writes out of bounds for some layers with few channels."""
    expected = all_gradients(network(7, width=8).double(), normalised(PIXELS).double())
    for format_ in (torch.contiguous_format, torch.channels_last):
        net = network(7, width=8).to(memory_format=format_)
        for ours, reference in zip(all_gradients(net, normalised(PIXELS).to(memory_format=format_)), expected, strict=True):
            assert (ours - reference).norm() <= 0.02 * reference.norm() + 1e-6  # rounding occasionally moves a ReLU across 0


def test_gradients_reach_every_parameter():
    net = network(7)
    all_gradients(net, normalised(PIXELS))
    assert [name for name, p in net.named_parameters() if not p.grad.any()] == []


def test_each_loss_reaches_the_whole_trunk_and_its_own_head_only():
    for output, other in ((0, "classifier"), (1, "regressor")):
        net = network(7)
        net(normalised(PIXELS))[output].square().sum().backward()
        assert {name.split(".")[0] for name, p in net.named_parameters() if p.grad is None or not p.grad.any()} <= {"classifier", other}


@pytest.mark.parametrize("classes", [2, 100])
def test_reg_and_reg_cls_with_one_seed_start_from_the_same_weights(classes):
    reg, reg_cls = network().state_dict(), network(classes).state_dict()
    assert {name.split(".")[0] for name in set(reg_cls) - set(reg)} == {"classifier"}
    assert all(torch.equal(value, reg_cls[name]) for name, value in reg.items())
    assert not torch.equal(reg["regressor.weight"], network(seed=1).state_dict()["regressor.weight"])


def test_features_are_returned_only_for_the_class_head():
    images = normalised(PIXELS)
    net = network(7)
    depth, features = net(images)
    assert net.classifier(features).shape == (2, 7, 2 * depth.shape[1], 2 * depth.shape[2]) == (2, 7, 56, 76)
    assert net.classifier(net.eval()(images)[1]).shape == (2, 7, 56, 76)
    assert network()(images)[1] is None
    assert network().classifier is None


@torch.no_grad()
def test_the_class_head_does_not_affect_the_prediction():
    torch.testing.assert_close(network(7).eval()(normalised(PIXELS))[0], network().eval()(normalised(PIXELS))[0])


def test_depth_is_float32_under_bfloat16_autocast():
    net = network(7)
    with torch.autocast("cpu", torch.bfloat16):
        depth, features = net(normalised(PIXELS))
    assert (depth.dtype, features.dtype) == (torch.float32, torch.bfloat16)
    expected = F.conv2d(features.float(), net.regressor.weight, net.regressor.bias, padding=2)[:, 0]
    torch.testing.assert_close(depth, expected)


def test_pixels_are_normalised_with_imagenet_statistics():
    found = normalised(PIXELS)
    expected = (PIXELS.double() / 255 - torch.tensor([0.485, 0.456, 0.406]).double()) / torch.tensor([0.229, 0.224, 0.225]).double()
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), expected.permute(0, 3, 1, 2), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_predictor_returns_depth_per_pixel_in_eval_mode():
    net = network(7).train()
    net(normalised(PIXELS))  # changes the running statistics, so that eval mode differs
    found = DepthPredictor(net)(PIXELS)
    half = net.eval()(normalised(PIXELS))[0]
    assert found.shape == PIXELS.shape[:3] and found.dtype == torch.float32
    for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):  # corners are aligned
        torch.testing.assert_close(found[:, y, x], half[:, y, x])
    torch.testing.assert_close(
        found[:, 0].mean(1), F.interpolate(half[:, 0, None], size=76, mode="linear", align_corners=True).mean((1, 2))
    )


@torch.no_grad()
def test_a_predictor_takes_images_of_any_size():
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (1, 45, 61, 3), dtype=torch.uint8)
    assert DepthPredictor(network())(pixels).shape == (1, 45, 61)


@pytest.mark.slow
def test_the_logged_model_of_depth_by_classes_takes_any_number_of_images(tmp_path):
    torch.manual_seed(0)
    predictor = DepthPredictor(build_depth("resnet18", width=2, classes=0, align_corners=True, centres=torch.linspace(0.5, 9.5, 10)))
    save_model(predictor, tmp_path / "model", example=PIXELS.numpy())
    pixels = torch.randint(0, 256, (3, 56, 76, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = predictor(pixels).numpy()
    assert expected.std() > 0
    found = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(pixels.numpy())
    torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def test_the_network_learns_the_depth_of_one_scene():
    torch.manual_seed(0)
    net, pixels = network(width=8), PIXELS[:1].repeat(2, 1, 1, 1)
    target = torch.linspace(1, 5, 28)[None, :, None].expand(2, 28, 38)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = F.mse_loss(net(normalised(pixels))[0], target)
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * target.var()
