"""LeNet-5-BN and LeNet++: shapes, sizes, and what the three kinds share."""

import pytest
import torch
from torch import nn

from addertrain.models import LeNet5BN, LeNetPlusPlus, build_model
from addertrain.nn import AdderConv2d, BatchNorm2d


def test_every_layer_is_an_offset_free_adder_with_a_norm_behind_it() -> None:
    layers = list(LeNet5BN().children())
    adders, norms = layers[0::2], layers[1::2]
    assert all(isinstance(layer, AdderConv2d) and layer.offset_free for layer in adders)
    assert all(isinstance(norm, BatchNorm2d) for norm in norms)
    assert [norm.relu for norm in norms] == [True, True, True, True, False]


def test_size_and_operations_are_lenets() -> None:
    model = LeNet5BN()
    filters = {name: layer.filter_numel for name, layer in model.named_children() if "norm" not in name}
    assert filters == {"conv1": 150, "conv2": 2400, "conv3": 48_000, "fc1": 10_080, "fc2": 840}
    assert sum(param.numel() for param in model.parameters()) == 61_470 + 2 * (6 + 16 + 120 + 84 + 10)
    positions: dict[str, int] = {}
    for name in filters:
        model.get_submodule(name).register_forward_hook(
            lambda _module, _x, y, name=name: positions.update({name: y.shape[2] * y.shape[3]})
        )
    model(torch.zeros(2, 1, 32, 32))
    assert positions == {"conv1": 784, "conv2": 100, "conv3": 1, "fc1": 1, "fc2": 1}


def test_channels_last_input_gives_the_same_logits() -> None:
    model = LeNet5BN(in_channels=3).eval()
    x = torch.randn(2, 3, 32, 32)
    expected = model(x)
    found = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_lenet_plus_plus_shows_two_signed_features_behind_seven_adder_layers() -> None:
    model = LeNetPlusPlus()
    widths = [layer.out_channels for layer in model.modules() if isinstance(layer, AdderConv2d)]
    assert widths == [32, 32, 64, 64, 128, 128, 2, 10]
    features = model.features(torch.randn(4, 1, 32, 32))
    assert features.shape == (4, 2, 1, 1)
    assert features.min() < 0 < features.max()


@pytest.mark.parametrize("kind", ["adder", "conv", "binary"])
@pytest.mark.parametrize("name", ["lenet5bn", "lenet++"])
def test_every_kind_has_one_state_and_trains(name: str, kind: str) -> None:
    model = build_model(name, kind=kind, num_classes=7)
    adder = build_model(name, kind="adder", num_classes=7)
    assert {name: v.shape for name, v in model.state_dict().items()} == {
        name: v.shape for name, v in adder.state_dict().items()
    }
    logits = model(torch.randn(3, 1, 32, 32))
    assert logits.shape == (3, 7)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    assert all(param.grad is not None and param.grad.isfinite().all() for param in model.parameters())
