"""param_groups: which parameter lands where."""

import torch
from torch import nn

from addertrain.nn import AdderConv2d, AdderLinear, BatchNorm2d, param_groups
from addertrain.optim import AdderSGD


class _Net(nn.Module):
    """Names that would mislead a search for substrings."""

    def __init__(self) -> None:
        super().__init__()
        self.bn_like_conv = nn.Conv2d(1, 2, 3)
        self.first = AdderConv2d(2, 3, 3, bias=True)
        self.adder_named_norm = BatchNorm2d(3)
        self.scale = nn.GroupNorm(1, 3)
        self.block = nn.Sequential(AdderLinear(3, 4), nn.LayerNorm(4))
        self.downsample = nn.ModuleList([AdderConv2d(3, 3, 1)])


def _names(model: nn.Module, params: list[nn.Parameter]) -> list[str]:
    names = {param: name for name, param in model.named_parameters()}
    return [names[param] for param in params]


def test_filters_are_group_0_in_the_models_order_with_true_sizes() -> None:
    model = _Net()
    group = param_groups(model, weight_decay=1e-4)[0]
    assert group["adder"]
    assert group["layer_names"] == ["first", "block.0", "downsample.0"]
    assert group["layer_numel"] == [54, 12, 9]
    assert _names(model, group["params"]) == ["first.weight", "block.0.weight", "downsample.0.weight"]


def test_a_layer_in_groups_is_one_layer_whose_k_counts_all_its_filters_elements() -> None:
    """Eq. 13 is by layer: 8 filters of 6 / 2 channels and 3 x 3 taps, and one norm over all of them."""
    layer = AdderConv2d(6, 8, 3, groups=2)

    group = param_groups(layer, weight_decay=0.0)[0]
    layer(torch.randn(2, 6, 5, 5)).square().sum().backward()
    before, gradient = layer.weight.detach().clone(), layer.weight.grad.clone()
    AdderSGD([group], lr=1.0, momentum=0.0, nesterov=False, eta=0.2).step()

    assert group["layer_numel"] == [8 * 3 * 9]
    step = 0.2 * (8 * 3 * 9) ** 0.5 * gradient / gradient.norm()
    torch.testing.assert_close(before - layer.weight.detach(), step)


def test_everything_else_decays_by_default() -> None:
    model = _Net()
    groups = param_groups(model, weight_decay=1e-4)
    assert [group["weight_decay"] for group in groups] == [1e-4, 1e-4]
    assert not groups[1]["adder"]
    listed = [param for group in groups for param in group["params"]]
    assert len(listed) == len(set(listed)) == len(list(model.parameters()))


def test_norms_and_biases_can_go_without_decay() -> None:
    model = _Net()
    groups = param_groups(model, weight_decay=1e-4, decay_norm_and_bias=False)
    assert [group["weight_decay"] for group in groups] == [1e-4, 1e-4, 0.0]
    assert _names(model, groups[1]["params"]) == ["bn_like_conv.weight"]
    assert set(_names(model, groups[2]["params"])) == {
        "bn_like_conv.bias", "first.bias", "adder_named_norm.weight", "adder_named_norm.bias",
        "scale.weight", "scale.bias", "block.1.weight", "block.1.bias",
    }  # fmt: skip


def test_convolutional_network_has_an_empty_group_0() -> None:
    groups = param_groups(nn.Conv2d(1, 2, 3), weight_decay=0.0)
    assert groups[0]["params"] == []
    assert len(groups[1]["params"]) == 2


def test_shared_filter_is_listed_once() -> None:
    first, second = AdderLinear(3, 3), AdderLinear(3, 3)
    second.weight = first.weight
    tied = nn.Linear(3, 3, bias=False)
    tied.weight = first.weight
    groups = param_groups(nn.Sequential(tied, first, second), weight_decay=0.0)
    assert groups[0]["layer_names"] == ["1"]
    assert groups[1]["params"] == []


def test_sizes_come_from_the_layer_and_not_from_its_tensor() -> None:
    layer = AdderLinear(3, 4)
    layer.weight = nn.Parameter(torch.empty(0))  # as a sharding engine leaves it
    assert param_groups(layer, weight_decay=0.0)[0]["layer_numel"] == [12]
