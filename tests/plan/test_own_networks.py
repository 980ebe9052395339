"""plan and report count converted networks of others, which a recipe names by a function of one's own."""

from pathlib import Path

import pytest
import torch
from torch import nn

from addertrain.models import count_operations
from addertrain.nn import convert
from addertrain.plan import make_plan, plan_text
from addertrain.recipe import load_recipe
from addertrain.report.study import Study
from tests.nn.zoo import build, converted
from tests.optional import needs_timm
from tests.source_tree import ROOT


def _converted(name: str) -> nn.Module:
    torch.manual_seed(0)
    return converted(build(name), torch.randn(2, 3, 64, 64))


def shufflenet(*, num_classes: int, in_channels: int, kind: str) -> nn.Module:
    return _converted("shufflenet_v2_x0_5")


def mobilenet(*, num_classes: int, in_channels: int, kind: str) -> nn.Module:
    return _converted("mobilenet_v3_small")


def efficientnet(*, num_classes: int, in_channels: int, kind: str) -> nn.Module:
    return _converted("timm:test_efficientnet")


def decoder(*, num_classes: int, in_channels: int, kind: str) -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 2, 2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )  # fmt: skip
    return convert(model, keep=("0", "8"), example=torch.randn(2, in_channels, 16, 16))


@pytest.mark.parametrize(
    ("name", "num_layers"),
    [
        ("shufflenet", 55),
        ("mobilenet", 52),
        pytest.param("efficientnet", 16, marks=needs_timm),
        ("decoder", 1),
    ],
)
def test_they_are_planned_and_counted(name: str, num_layers: int) -> None:
    recipe = load_recipe(ROOT / "recipes" / "cifar10" / "resnet20.yaml", [f"--model.name={__name__}:{name}"])
    network = globals()[name](num_classes=10, in_channels=3, kind="adder")
    expected = count_operations(network, (3, 32, 32))

    plan = make_plan(recipe, world_size=1, out=Path("runs"))

    assert len(expected.adder_layers) == num_layers
    assert plan.memory.parameters == 4 * sum(param.numel() for param in network.parameters())
    assert plan.memory.activations > 0
    assert f"per image, in {num_layers} layers" in plan_text(plan)
    assert Study([]).operations(recipe) == expected


def test_an_enlarging_layer_counts_the_pairs_that_meet() -> None:
    count = count_operations(decoder(num_classes=10, in_channels=3, kind="adder"), (3, 32, 32))
    assert count.adder_elements == 16 * 16 * 2 * 2 * 8 * 8  # every pixel meets every tap of every filter
