"""convert: what it replaces, what it keeps and what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from addertrain.nn import AdderConv2d, AdderLinear, convert


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return resnet18(num_classes=10)


def test_resnet18_keeps_first_and_last_layer_and_converts_the_rest(resnet: nn.Module) -> None:
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    twin = convert(resnet, keep=("conv1", "fc"))
    adders = {name for name, module in twin.named_modules() if isinstance(module, AdderConv2d)}
    convolutions = {name for name, module in resnet.named_modules() if isinstance(module, nn.Conv2d)}
    assert adders == convolutions - {"conv1"}
    assert len(adders) == 19
    assert sum(twin.get_submodule(name).weight.numel() for name in adders) == 11_157_504
    assert torch.equal(twin.conv1.weight, resnet.conv1.weight)
    assert torch.equal(twin.fc.weight, resnet.fc.weight)
    # The model passed in is as it was, and shares nothing with its twin.
    assert all(torch.equal(value, before[name]) for name, value in resnet.state_dict().items())
    assert twin.conv1.weight is not resnet.conv1.weight


def test_converted_layers_have_the_geometry_of_the_convolution(resnet: nn.Module) -> None:
    twin = convert(resnet, keep=("conv1", "fc"))
    down = twin.layer2[0].downsample[0]
    assert (down.kernel_size, down.stride, down.padding) == ((1, 1), (2, 2), (0, 0))
    assert down.offset_free
    assert down.weight.std().item() == pytest.approx(1.0, abs=0.05)
    assert {name: v.shape for name, v in twin.state_dict().items()} == {
        name: v.shape for name, v in resnet.state_dict().items()
    }


def test_converted_network_trains_a_step() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2),
        nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip
    twin = convert(model, keep=("0",))
    twin(torch.randn(4, 1, 5, 5)).sum().backward()
    assert [type(layer).__name__ for layer in twin if layer.state_dict()] == [
        "Conv2d", "BatchNorm2d", "AdderConv2d", "BatchNorm2d", "AdderLinear",
    ]  # fmt: skip
    assert twin[3].bias is not None
    assert all(param.grad is not None for param in twin.parameters())


def test_a_kept_container_is_kept_with_all_it_holds(resnet: nn.Module) -> None:
    twin = convert(resnet, keep=("conv1", "layer1", "fc"))
    assert not any(isinstance(module, AdderConv2d) for module in twin.layer1.modules())
    assert isinstance(twin.layer2[0].conv1, AdderConv2d)


def test_a_layer_with_two_names_stays_one_layer() -> None:
    shared = nn.Linear(3, 3)
    twin = convert(nn.ModuleDict({"a": shared, "b": shared}))
    assert isinstance(twin["a"], AdderLinear)
    assert twin["a"] is twin["b"]


def test_a_single_layer_is_replaced_itself() -> None:
    assert isinstance(convert(nn.Linear(3, 2)), AdderLinear)


def test_dtype_device_and_mode_are_kept() -> None:
    layer = convert(nn.Conv2d(2, 3, 1, device="meta", dtype=torch.bfloat16).eval(), offset_free=False)
    assert (layer.weight.dtype, layer.weight.is_meta, layer.training) == (torch.bfloat16, True, False)
    assert not layer.offset_free


def _grouped() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)))


@pytest.mark.parametrize(
    ("build", "keep", "error", "message"),
    [
        (_grouped, (), ValueError, r"layer '1.0' with groups=1, got groups=4; grouped .* add '1.0' to keep"),
        (_grouped, ("1.O",), ValueError, r"got '1.O'; did you mean '1.0'\?"),
        (_grouped, "1.0", TypeError, r"expected keep as a sequence of names, got '1.0'"),
        (
            lambda: nn.Sequential(nn.ReLU(), nn.Linear(2, 2)),
            ("0",),
            ValueError,
            "to name a convolution or linear",
        ),
        (lambda: nn.Conv2d(2, 2, 3, padding="same"), (), ValueError, "zero padding given in numbers"),
        (lambda: nn.Conv2d(2, 2, 3, padding_mode="reflect"), (), ValueError, "padding_mode='reflect'"),
        (lambda: nn.MultiheadAttention(4, 2), (), ValueError, "'out_proj' to be a plain Conv2d or Linear"),
    ],
)
def test_refusals_name_the_layer(
    build: Callable[[], nn.Module], keep: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        convert(build(), keep=keep)
    assert "\n" not in str(caught.value)


def test_grouped_convolution_may_be_kept() -> None:
    twin = convert(_grouped(), keep=("1.0",))
    assert isinstance(twin[0], AdderConv2d)
    assert isinstance(twin[1][0], nn.Conv2d)
