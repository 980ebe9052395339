"""LeNet-5-BN and build_model."""

import pytest
import torch
from torch import nn

from addertrain.models import MODELS, LeNet5BN, build_model
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


@pytest.mark.parametrize("kind", ["adder", "conv"])
def test_both_kinds_have_one_state_and_train(kind: str) -> None:
    model = build_model("lenet5bn", kind=kind, num_classes=7)
    assert {name: v.shape for name, v in model.state_dict().items()} == {
        name: v.shape for name, v in LeNet5BN(7).state_dict().items()
    }
    logits = model(torch.randn(3, 1, 32, 32))
    assert logits.shape == (3, 7)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    assert all(param.grad is not None and param.grad.isfinite().all() for param in model.parameters())


def test_channels_last_input_gives_the_same_logits() -> None:
    model = LeNet5BN(in_channels=3).eval()
    x = torch.randn(2, 3, 32, 32)
    expected = model(x)
    found = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_initialisation_follows_torchs_random_state() -> None:
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(build_model("lenet5bn", kind="adder", num_classes=10))
    weights = [model.conv1.weight for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_unknown_names_and_kinds_are_refused_with_what_is_known() -> None:
    with pytest.raises(ValueError, match=r"got 'lenet5'; did you mean 'lenet5bn'\?"):
        build_model("lenet5", kind="adder", num_classes=10)
    with pytest.raises(ValueError, match="the known ones are lenet5bn"):
        build_model("x", kind="adder", num_classes=10)
    with pytest.raises(ValueError, match="expected kind to be adder or conv, got 'binary'"):
        build_model("lenet5bn", kind="binary", num_classes=10)
    assert set(MODELS) == {"lenet5bn"}
