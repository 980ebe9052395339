import pytest
import torch
from torch import nn

from addertrain.nn import AdderConv2d, AdderLinear, set_variant
from addertrain.ops.variants import Variant


def _model() -> nn.Sequential:
    return nn.Sequential(
        AdderConv2d(3, 4, 3, 2, 1, bias=True, offset_free=True), nn.Flatten(), AdderLinear(16, 5)
    )


@pytest.mark.parametrize("variant", [Variant(p=1.5), Variant(filter_gradient="sign", input_gradient="sign")])
def test_every_adder_layer_takes_the_variant(variant: Variant) -> None:
    model, x = _model(), torch.randn(2, 3, 4, 4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    paper = model(x)

    set_variant(model, variant)
    y = model(x)
    y.square().sum().backward()

    conv, _, linear = model
    hidden = variant.adder2d(x, conv.weight, 2, 1, 1, True) + conv.bias.view(-1, 1, 1)
    expected = variant.adder2d(hidden.flatten(1)[:, :, None, None], linear.weight[:, :, None, None])
    assert torch.equal(y, expected.flatten(1))
    assert torch.equal(y, paper) == (variant.p == 1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_papers_form_is_the_layer_as_it_is_built() -> None:
    model, x = _model(), torch.randn(2, 3, 4, 4)
    y = model(x)

    set_variant(model, Variant())

    assert torch.equal(model(x), y)
