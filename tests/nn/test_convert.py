"""convert: what it replaces, what it keeps and what it refuses."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from addertrain.models import build_model
from addertrain.nn import AdderConv2d, AdderLinear, BatchNorm2d, convert
from addertrain.ops import reference


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
        (
            lambda: nn.ModuleList(nn.MultiheadAttention(4, 2) for _ in range(2)),
            (),
            ValueError,
            r"'0.out_proj' to be called, got self.out_proj.weight .*\(module, MultiheadAttention\)\]",
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3).requires_grad_(False)),
            (),
            ValueError,
            "layer '1' to be trainable, .* requires_grad=False for its weight and bias; add '1' to keep",
        ),
        (lambda: [nn.Conv2d(2, 2, 3)], (), TypeError, "expected a torch.nn.Module, got a list"),
        (_grouped, ("1.O",), ValueError, r"got '1.O'; did you mean 1.0\?"),
        (_grouped, "1.0", TypeError, r"expected keep as a sequence of names, got '1.0'"),
        (
            lambda: nn.Sequential(nn.ReLU(), nn.Linear(2, 2)),
            ("0",),
            ValueError,
            "to name a convolution, a linear layer, a norm",
        ),
        (
            lambda: nn.MultiheadAttention(4, 2),
            (),
            ValueError,
            "'out_proj' to be called, .*; add 'out_proj' to keep",
        ),
    ],
)
def test_refusals_name_the_layer(
    build: Callable[[], nn.Module], keep: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        convert(build(), keep=keep)
    assert "\n" not in str(caught.value)


class _Doubled(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def _doubled() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sequential(_Doubled(4, 4, 3)))


def test_what_a_refusal_advises_keeps_all_layers_of_its_kind() -> None:
    model = nn.Sequential(_doubled(), nn.ConvTranspose2d(4, 4, 1, groups=2), _doubled())
    with pytest.raises(ValueError, match="keep all of these by ") as caught:
        convert(model)
    advice = str(caught.value).rpartition("keep=")[2].rstrip(".")

    converted = convert(model, keep=eval(advice, {"model": model, "nn": nn, "_Doubled": _Doubled}))

    assert {name for name, module in converted.named_modules() if isinstance(module, _Doubled)} == {
        "0.1.0",
        "2.1.0",
    }


@pytest.mark.parametrize(("channels", "filters", "groups"), [(6, 6, 6), (4, 12, 4), (6, 9, 3)])
def test_grouped_convolutions_become_layers_in_as_many_groups(
    channels: int, filters: int, groups: int
) -> None:
    layer = nn.Conv2d(channels, filters, (3, 2), (2, 1), (1, 0), groups=groups, bias=False)
    network = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), layer, nn.BatchNorm2d(filters))
    x = torch.randn(2, channels, 8, 7)

    twin = convert(network, example=x)

    assert twin[2].weight.shape == layer.weight.shape
    assert twin[2].filter_numel == layer.weight.numel()
    assert twin[2].groups == groups
    assert twin.conversion.fusion.layers == {"2": True}
    y = twin(x)
    expected = nn.functional.relu(nn.functional.batch_norm(x, None, None, training=True))
    response = reference.adder2d(expected.double(), twin[2].weight.double(), (2, 1), (1, 0), (1, 1), False)
    normalised = nn.functional.batch_norm(response, None, None, training=True)
    torch.testing.assert_close(y.double(), normalised, rtol=1e-4, atol=1e-4)


def test_grouped_convolution_may_be_kept() -> None:
    twin = convert(_grouped(), keep=("1.0",))
    assert isinstance(twin[0], AdderConv2d)
    assert isinstance(twin[1][0], nn.Conv2d)


class _OtherNames(nn.Module):
    """Runs its layers by every name but the one that modules have."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.by_name = {"main": [self.fc, (self.fc,)]}
        self.partial = functools.partial(self.fc)
        self.filters = [self.fc.weight]

    def forward(self, x: Tensor) -> Tensor:
        first, (second,) = self.by_name["main"]
        y: Tensor = self.partial(first(second(x)))
        return y


def test_other_references_hold_the_adder_layer() -> None:
    model = _OtherNames()
    twin = convert(model)
    assert twin.by_name["main"][0] is twin.by_name["main"][1][0] is twin.partial.func is twin.fc
    assert twin.filters[0] is twin.fc.weight
    assert isinstance(twin.fc, AdderLinear)
    assert model.by_name["main"][0] is model.fc
    twin(torch.randn(3, 4)).sum().backward()
    assert twin.fc.weight.grad is not None


def test_a_block_that_occurs_twice_stays_one_block() -> None:
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
    twin = convert(nn.Sequential(block, nn.ReLU(), block))
    assert twin[0] is twin[2]
    assert isinstance(twin[0][0], AdderConv2d)
    assert twin.conversion.converted == ("0.0",)
    twin(torch.randn(2, 4, 5, 5)).sum().backward()


def test_layers_that_share_a_filter_share_one() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    twin = convert(nn.Sequential(first, second))
    assert twin[0].weight is twin[1].weight
    assert twin[0].bias is not twin[1].bias
    assert sum(param.numel() for param in twin.parameters()) == 24


def test_torchs_norms_become_ours_and_keep_what_they_hold(resnet: nn.Module) -> None:
    twin = convert(resnet, keep=("conv1", "layer1", "fc"))
    assert type(twin.layer1[0].bn1) is nn.BatchNorm2d
    norms = [module for module in twin.modules() if isinstance(module, BatchNorm2d)]
    assert len(norms) == len(twin.conversion.norms) == 16
    assert twin.bn1.running_mean is not None
    assert twin.bn1.running_mean is not resnet.bn1.running_mean
    assert list(twin.state_dict()) == list(resnet.state_dict())
    twin.load_state_dict(resnet.state_dict())
    assert str(convert(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm2d(2, affine=False)))[1]).startswith(
        "Batch"
    )


def test_a_converted_norm_keeps_its_digits_where_torchs_loses_them() -> None:
    """The variance of many numbers far from 0 in channels-last: torch adds a channel up in float32."""
    norm = convert(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(2, momentum=1.0)))[1]
    x = (100 + torch.randn(50, 2, 64, 64)).contiguous(memory_format=torch.channels_last)
    norm(x)
    expected = x.double().var((0, 2, 3)).float()
    torch.testing.assert_close(norm.running_var, expected, rtol=2e-5, atol=0)


def test_the_report_says_what_became_of_every_layer() -> None:
    model = nn.ModuleDict(
        {
            "first": nn.Conv2d(3, 4, 3),
            "body": nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4)),
            "head": nn.ModuleDict({"fc": nn.Linear(4, 2)}),
            "memory": nn.LSTM(4, 4),
        }
    )
    twin = convert(model, keep=("first", "head"))
    report = twin.conversion
    assert report.converted == ("body.0", "body.2")
    assert report.kept == {"first": "named in keep", "head.fc": "part of head, named in keep"}
    assert report.skipped == {"memory": "LSTM has no adder form"}
    assert report.norms == ("body.1",)
    assert str(report).splitlines() == [
        "converted 2 layers to adder layers: body.0, body.2",
        "kept 1 (named in keep): first",
        "kept 1 (part of head, named in keep): head.fc",
        "skipped 1 (LSTM has no adder form): memory",
        "1 norm computed by addertrain: body.1",
    ]


def test_our_convolutional_twins_convert() -> None:
    twin = convert(build_model("resnet8", kind="conv", num_classes=10), keep=("conv1", "fc"))
    assert sum(isinstance(module, AdderConv2d) for module in twin.modules()) == 8
    assert twin(torch.randn(2, 3, 16, 16)).shape == (2, 10)
