"""A network that does not take the recipe's images is refused before anything is written."""

import pytest
import torch

from addertrain.data import ImageArrays, ImageData
from addertrain.errors import UsageError
from addertrain.recipe import load_recipe
from addertrain.train.network import check_network
from tests.source_tree import ROOT

RECIPE = ROOT / "recipes" / "cifar10" / "resnet20.yaml"


def _data(channels: int, size: int) -> ImageData:
    arrays = ImageArrays(
        torch.zeros(2, channels, size, size, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    )
    return ImageData(arrays, arrays, mean=(0.5,) * channels, std=(0.5,) * channels, num_classes=10)


@pytest.mark.parametrize(
    ("network", "channels", "size", "words"),
    [
        ("resnet20", 1, 32, "expected images of 3 channels for model.name resnet20"),
        ("vgg_small", 3, 4, "expected a network that takes images of 4 x 4, got vgg_small"),
        ("lenet5bn", 1, 8, "expected a network that takes images of 8 x 8, got lenet5bn"),
    ],
)
def test_images_that_do_not_fit_are_named(network: str, channels: int, size: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_network(load_recipe(RECIPE, [f"--model.name={network}"]), _data(channels, size))


def test_images_that_fit_pass() -> None:
    check_network(load_recipe(RECIPE), _data(3, 32))
