"""ResNets and VGGs: the authors' conventions, torchvision's names, and every kind trains."""

import pytest
import torch
import torchvision
from torch import nn

from addertrain.models import VGGSmall, VGGTiny, build_model
from addertrain.models.blocks import BasicBlock, Bottleneck
from addertrain.models.resnet import ResNet, resnet18, resnet20, resnet50
from addertrain.nn import AdderConv2d, BatchNorm2d, BinaryConv2d, Conv2d, OrderedConv2d, param_groups


def small_resnet(block: type[BasicBlock] | type[Bottleneck], kind: str, stem: str = "cifar") -> ResNet:
    return ResNet(block, (1, 1), (8, 16), num_classes=5, stem=stem, kind=kind)


def on_meta(name: str, **settings: str) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, **{"kind": "adder", "num_classes": 1000, **settings})


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet101"])
def test_convolutional_networks_with_a_linear_head_have_torchvisions_state(name: str) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name)
    ours = on_meta(name, kind="conv", head="linear")

    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }


def test_torchvisions_weights_give_torchvisions_logits() -> None:
    theirs = torchvision.models.resnet18(num_classes=7).eval()
    ours = resnet18(num_classes=7, kind="conv", head="linear").eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)

    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["resnet8", "resnet20", "resnet32", "resnet18", "resnet50", "vgg_small", "vgg_tiny"]
)
def test_first_and_last_layer_are_convolutions_and_the_logits_have_a_norm(name: str) -> None:
    model = on_meta(name)
    layers = [m for m in model.modules() if isinstance(m, AdderConv2d | nn.Conv2d)]

    assert [type(layers[0]), type(layers[-1])] == [Conv2d, OrderedConv2d]
    assert all(isinstance(layer, AdderConv2d) and layer.offset_free for layer in layers[1:-1])
    last_norm = [m for m in model.modules() if isinstance(m, BatchNorm2d)][-1]
    assert (last_norm.num_features, last_norm.relu) == (1000, False)


def test_the_stride_is_on_the_3x3_layer_and_shortcuts_are_adders() -> None:
    block = resnet50(num_classes=3).layer2[0]

    assert isinstance(block, Bottleneck)
    assert [block.conv1.stride, block.conv2.stride, block.conv3.stride] == [(1, 1), (2, 2), (1, 1)]
    assert isinstance(block.downsample[0], AdderConv2d)
    assert (block.downsample[0].kernel_size, block.downsample[0].stride) == ((1, 1), (2, 2))


def test_adder_filters_start_from_a_standard_normal_and_imagenet_stems_from_hes() -> None:
    model = resnet18(num_classes=10)

    assert float(model.layer4[0].conv2.weight.detach().std()) == pytest.approx(1.0, abs=0.01)
    assert float(model.conv1.weight.detach().std()) == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("kind", ["adder", "conv", "binary"])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_every_parameter_of_a_residual_network_gets_a_gradient(
    block: type[BasicBlock] | type[Bottleneck], stem: str, kind: str
) -> None:
    model = small_resnet(block, kind, stem)
    logits = model(torch.randn(4, 3, 32, 32))
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()

    assert logits.shape == (4, 5)
    assert all(param.grad is not None and param.grad.isfinite().all() for param in model.parameters())


@pytest.mark.parametrize("kind", ["adder", "conv", "binary"])
@pytest.mark.parametrize("network", [VGGSmall, VGGTiny])
def test_vggs_train(network: type[nn.Module], kind: str) -> None:
    model = network(num_classes=4, kind=kind)
    nn.functional.cross_entropy(model(torch.randn(2, 3, 32, 32)), torch.tensor([1, 3])).backward()

    assert all(param.grad is not None and param.grad.isfinite().all() for param in model.parameters())


def test_vgg_tiny_starts_from_orthonormal_filters_and_passes_inputs_on() -> None:
    model = VGGTiny(kind="conv")
    filters = model.conv1.weight.flatten(1)
    x = torch.rand(1, 24, 5, 5)

    torch.testing.assert_close(filters[:12] @ filters[:12].T, torch.eye(12))
    assert torch.equal(filters[12:], -filters[:12])
    assert torch.equal(model.conv2(x)[:, :24], x)


@pytest.mark.parametrize("kind", ["conv", "binary"])
def test_other_kinds_have_no_adder_filters_and_the_same_parameters(kind: str) -> None:
    model, adder = resnet20(kind=kind), resnet20()
    filters, rest = param_groups(model, weight_decay=0.0)

    assert not filters["params"]
    assert sum(p.numel() for p in rest["params"]) == sum(p.numel() for p in adder.parameters())
    assert model.state_dict().keys() == adder.state_dict().keys()


def test_no_relu_stands_before_a_binary_layer() -> None:
    model = small_resnet(BasicBlock, "binary")
    inputs: list[torch.Tensor] = []
    for module in model.modules():
        if isinstance(module, BinaryConv2d):
            module.register_forward_pre_hook(lambda _module, x: inputs.append(x[0]))
    model(torch.randn(4, 3, 8, 8))

    assert len(inputs) == 5
    assert all(((x < 0).float().mean() - 0.5).abs() < 0.3 for x in inputs)


def test_channels_last_images_give_the_same_logits() -> None:
    model = small_resnet(BasicBlock, "adder").eval()
    x = torch.randn(2, 3, 16, 16)
    expected = model(x)

    found = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
