"""A ResNet in bytes: the reference's bytes in every layer, and logits near those of float32."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from addertrain.models import build_model
from addertrain.models.blocks import BasicBlock, Bottleneck
from addertrain.models.in_bytes import ByteLayer, ByteResNet
from addertrain.models.resnet import ResNet
from addertrain.nn import recalibrated, set_variant
from addertrain.nn.int8 import Grid
from addertrain.ops.int8_norm import reference_norm
from addertrain.ops.variants import Variant


@pytest.fixture(params=[BasicBlock, Bottleneck])
def network(request: pytest.FixtureRequest) -> Iterator[tuple[ResNet, Tensor]]:
    torch.manual_seed(0)
    model = ResNet(request.param, (1, 1), (8, 12), num_classes=10, stem="cifar").eval()
    images = torch.randn(16, 3, 12, 12).to(memory_format=torch.channels_last)
    with recalibrated(model, [images]):
        yield model, images


def test_logits_are_near_those_of_float32(network: tuple[ResNet, Tensor]) -> None:
    model, images = network

    with torch.no_grad():
        in_float, in_bytes = model(images), ByteResNet(model, [images])(images)

    assert in_bytes.shape == in_float.shape
    assert (in_bytes - in_float).abs().mean() < 0.25 * in_float.std()


def test_every_layer_gives_the_references_bytes(network: tuple[ResNet, Tensor]) -> None:
    model, images = network
    in_bytes = ByteResNet(model, [images])
    checked = 0

    def check(layer: nn.Module, given: tuple[Tensor, Tensor | None, Grid | None], result: Tensor) -> None:
        nonlocal checked
        assert isinstance(layer, ByteLayer)
        x, residual, grid = (*given, None, None)[:3]
        ratio = grid.scale / layer.outside.scale if grid else 0.0
        shift = layer.shift - grid.zero * ratio if grid and grid.zero else layer.shift
        expected = reference_norm(
            x, layer.weight, layer._packing.of(layer.weight), *map(list, layer.sizes), layer.inside.zero,
            layer.scale, shift, residual, ratio, float(layer.low),
        )  # fmt: skip
        assert torch.equal(result, expected)
        assert len(result.unique()) > 20
        checked += 1

    for module in in_bytes.modules():
        if isinstance(module, ByteLayer):
            module.register_forward_hook(check)
    in_bytes(images)

    assert checked == sum(isinstance(module, ByteLayer) for module in in_bytes.modules()) > 4


def test_the_first_bytes_are_those_of_float64_but_for_ties() -> None:
    """Rounding the images to steps of a 900th of their deviation moves a byte by 0.03 on average."""
    torch.manual_seed(0)
    model = ResNet(BasicBlock, (1,), (64,), num_classes=10, stem="imagenet").eval()
    images = torch.randn(4, 3, 30, 30)
    with recalibrated(model, [images]):
        in_bytes = ByteResNet(model, [images])
        with torch.no_grad():
            expected = model.maxpool(model.double().bn1(model.conv1(images.double())))
    assert in_bytes.maxpool is not None
    got: list[Tensor] = []
    in_bytes.blocks[0].register_forward_pre_hook(lambda _, given: got.append(given[0]))

    in_bytes(images)

    grid = Grid.over(0.0, float(expected.max()))
    difference = got[0].int() - grid.bytes_of(expected).int()
    assert difference.abs().max() <= 1
    assert (difference != 0).double().mean() < 0.05


def test_the_network_keeps_its_statistics(network: tuple[ResNet, Tensor]) -> None:
    model, images = network
    in_bytes = ByteResNet(model, [images])
    before = in_bytes(images)

    model.bn2.running_mean.add_(1.0)

    assert torch.equal(in_bytes(images), before)
    assert not before.is_inference()


def test_a_network_that_trains_is_refused_and_keeps_its_statistics(network: tuple[ResNet, Tensor]) -> None:
    model, images = network
    before = [buffer.clone() for buffer in model.buffers()]

    with pytest.raises(ValueError, match=r"ByteResNet: expected a network in evaluation mode, .*; call eval"):
        ByteResNet(model.train(), [images])

    assert all(map(torch.equal, model.buffers(), before))


def test_another_power_is_refused(network: tuple[ResNet, Tensor]) -> None:
    model, images = network
    set_variant(model, Variant(p=1.5))

    with pytest.raises(ValueError, match=r"ByteResNet: expected .* l1 distance, got layer1\.0\.conv1 with"):
        ByteResNet(model, [images])


def test_images_of_another_type_or_shape_are_refused(network: tuple[ResNet, Tensor]) -> None:
    model, images = network
    in_bytes = ByteResNet(model, [images])

    for wrong in (images.half(), images.double(), images[0], images[:, :2]):
        with pytest.raises(ValueError, match=r"expected x_nchw in float32 with C=3, got .*; convert"):
            in_bytes(wrong)
    assert in_bytes(images[:0]).shape == (0, 10)


def test_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="ByteResNet: expected a ResNet of adder layers, got LeNet"):
        ByteResNet(build_model("lenet5bn", kind="adder", num_classes=10), [])
