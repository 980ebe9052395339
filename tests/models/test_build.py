"""build_model: names, kinds, heads, initialisation."""

import pytest
import torch
from torch import nn

from addertrain.models import MODELS, build_model
from addertrain.nn import AdderConv2d

TORCHS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)


def test_initialisation_follows_torchs_random_state() -> None:
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(build_model("lenet5bn", kind="adder", num_classes=10))
    weights = [model.get_parameter("conv1.weight") for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_unknown_names_kinds_and_heads_are_refused_with_what_is_known() -> None:
    with pytest.raises(ValueError, match=r"got 'lenet5'; did you mean lenet5bn\?"):
        build_model("lenet5", kind="adder", num_classes=10)
    with pytest.raises(ValueError, match=r"the known ones are lenet5bn, lenet\+\+, vgg_small"):
        build_model("x", kind="adder", num_classes=10)
    for name in MODELS:
        with torch.device("meta"), pytest.raises(ValueError, match="adder, conv or binary, got 'other'"):
            build_model(name, kind="other", num_classes=10)
    with torch.device("meta"), pytest.raises(ValueError, match="norm or linear, got 'other'"):
        build_model("resnet20", kind="conv", num_classes=10, head="other")
    with pytest.raises(ValueError, match="expected head='norm' for lenet5bn"):
        build_model("lenet5bn", kind="conv", num_classes=10, head="linear")


@pytest.mark.parametrize("name", ["lenet5bn", "lenet++", "vgg_small", "resnet20"])
def test_layers_that_leave_gradients_out_stand_behind_a_relu(name: str) -> None:
    """The gradient of everything in front of them is then the same, whether they do or not."""
    model = build_model(name, kind="adder", num_classes=10)
    layers = [module for module in model.modules() if isinstance(module, AdderConv2d)]
    assert any(layer.rectified for layer in layers)
    x = torch.randn(2, 1 if name.startswith("lenet") else 3, 32, 32)
    grads = []
    for is_rectified in (True, False):
        for layer in layers:
            layer.rectified = layer.rectified and is_rectified
        model.zero_grad()
        model(x).square().sum().backward()
        grads.append([param.grad for param in model.parameters()])

    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["adder", "conv", "binary"])
@pytest.mark.parametrize("name", list(MODELS))
def test_every_layer_of_every_kind_is_of_our_own(name: str, kind: str) -> None:
    """torch's norm and convolution are wrong in places (see ours): no network may be built of them."""
    with torch.device("meta"):
        model = build_model(name, kind=kind, num_classes=10)
    torchs = {type(module).__name__ for module in model.modules() if type(module) in TORCHS}

    assert not torchs


@pytest.mark.parametrize("kind", ["conv", "binary"])
def test_the_state_is_that_of_torchs_layers(kind: str) -> None:
    model = build_model("resnet8", kind=kind, num_classes=10, head="linear")
    names = {name: set(module.state_dict()) for name, module in model.named_modules()}
    statistics = {"running_mean", "running_var", "num_batches_tracked"}

    assert names["conv1"] == names["layer2.0.downsample.0"] == {"weight"}
    assert names["fc"] == {"weight", "bias"}
    assert names["bn1"] == {"weight", "bias"} | statistics
