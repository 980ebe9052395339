"""Operation counts: the papers' networks, and what a pair costs in each kind of layer."""

import pytest
import torch
from torch import nn

from addertrain.models import OperationCount, build_model, count_operations, energy_joules, via_nano_cycles
from addertrain.nn import AdderConv2d, AdderLinear, BatchNorm2d, BinaryConv2d


def counted(name: str, kind: str = "adder") -> OperationCount:
    is_large = name in ("resnet18", "resnet50", "resnet101")
    with torch.device("meta"):
        model = build_model(name, kind=kind, num_classes=1000 if is_large else 10)
    channels, size = 1 if name.startswith("lenet") else 3, 224 if is_large else 32
    return count_operations(model, (channels, size, size))


@pytest.mark.parametrize(
    ("name", "elements", "num_layers", "num_weights"),
    [
        ("lenet5bn", 416_520, 5, 61_470),
        ("vgg_small", 603_979_776, 5, 4_571_136),
        ("resnet20", 40_370_176, 20, 269_824),
        ("resnet32", 68_681_728, 32, 463_360),
        ("resnet18", 1_695_547_392, 19, 11_157_504),
        ("resnet50", 3_969_122_304, 52, 23_445_504),
        ("resnet101", 7_681_343_488, 103, 42_385_408),
    ],
)
def test_adder_elements_of_the_papers_networks(
    name: str, elements: int, num_layers: int, num_weights: int
) -> None:
    count = counted(name)

    assert count.adder_elements == elements
    assert len(count.adder_layers) == num_layers
    assert sum(layer.num_weights for layer in count.adder_layers) == num_weights


def test_totals_as_the_papers_count_them() -> None:
    """They count the stem and the last layer as well: 69.12 M for ResNet-32, 1.8 G for ResNet-18.

    Three of their totals this rule does not give: LeNet-5's 435 k (0.417 M here), ResNet-20's 41.17 M
    (40.81 M here; 0.36 M are unexplained) and VGG-small's 0.65 G (0.61 G here). ResNet-50's 3.9 G has the
    stride on the first 1x1 layer; on the 3x3, as in the authors' code, it is 4.09 G.
    """
    totals = {name: counted(name, "conv").multiplications for name in ("resnet20", "resnet32", "resnet18")}

    assert totals == {"resnet20": 40_813_184, "resnet32": 69_124_736, "resnet18": 1_814_073_344}


def test_kinds_take_the_same_pairs_in_different_operations() -> None:
    adder, conv, binary = (counted("resnet20", kind) for kind in ("adder", "conv", "binary"))
    ends = 443_008  # the stem and the last layer, convolutions in every kind

    assert (adder.multiplications, adder.additions, adder.xnors) == (ends, 2 * 40_370_176 + ends, 0)
    assert (conv.multiplications, conv.additions, conv.xnors) == (40_370_176 + ends,) * 2 + (0,)
    assert (binary.multiplications, binary.additions, binary.xnors) == (ends, ends, 40_370_176)
    assert adder.norm_elements == conv.norm_elements == binary.norm_elements == 200_714


def test_a_filter_in_groups_meets_the_channels_of_its_group() -> None:
    layer = AdderConv2d(8, 12, 3, padding=1, groups=4)

    count = count_operations(layer, (8, 5, 6))

    assert count.adder_elements == 12 * (8 // 4) * 9 * 5 * 6
    assert count.additions == 2 * count.adder_elements


def test_any_model_is_counted_by_hooks_and_left_alone() -> None:
    shared = nn.Conv2d(4, 4, 3, padding=1, groups=2)
    model = nn.Sequential(
        AdderConv2d(3, 4, 3, stride=2, padding=1), BatchNorm2d(4), shared, shared,
        BinaryConv2d(4, 2, 1), nn.Flatten(), nn.Linear(50, 6), AdderLinear(6, 5),
    )  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count = count_operations(model, (3, 9, 9))

    pairs = [layer.pairs for layer in count.layers]
    assert pairs == [4 * 25 * 27, 4 * 25 * 18, 4 * 25 * 18, 2 * 25 * 4, 50 * 6, 6 * 5]
    assert [layer.kind for layer in count.layers] == ["adder", "conv", "conv", "binary", "conv", "adder"]
    assert count.norm_elements == 100
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(not module._forward_hooks for module in model.modules())


def test_latency_follows_the_papers_prices() -> None:
    """Table 2 of Chen et al. 2020: 435 k pairs take 2.6 M cycles multiplied, 1.7 M added."""
    with torch.device("meta"):
        adder = nn.Sequential(AdderLinear(1000, 435))
        conv = nn.Sequential(nn.Linear(1000, 435, bias=False))

    assert via_nano_cycles(count_operations(conv, (1000,))) == 2_610_000
    assert via_nano_cycles(count_operations(adder, (1000,))) == 1_740_000
    assert energy_joules(count_operations(conv, (1000,))) == pytest.approx(435e3 * 4.6e-12)
    assert energy_joules(count_operations(adder, (1000,))) == pytest.approx(435e3 * 1.8e-12)


def test_images_that_do_not_fit_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"expected a model for images of size \(1, 32, 32\)"):
        count_operations(build_model("resnet20", kind="conv", num_classes=10), (1, 32, 32))
