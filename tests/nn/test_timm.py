"""timm's layers, norms and networks under `convert`."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from addertrain.nn import AdderConv2d, AdderLinear, BatchNorm2d, convert, param_groups
from addertrain.ops import reference
from addertrain.optim import AdderSGD
from tests.nn.zoo import FAMILIES, build, converted
from tests.optional import needs_timm

pytestmark = needs_timm

# (adder layers, layers that convert refuses or leaves, norms fused, adder layers behind a ReLU)
SOME = {
    "timm:test_byobnet": (21, 2, 13, 15),
    "timm:test_efficientnet": (16, 2, 12, 0),
    "timm:test_nfnet": (8, 26, 0, 4),
    "timm:test_vit": (24, 2, 0, 0),
    "timm:test_convnext": (30, 2, 0, 0),
}


@pytest.mark.parametrize("name", SOME)
def test_a_network_is_converted_and_trains(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 64, 64)

    network = converted(build(name), x)

    found: Any = network.conversion
    rectified = sum(found.fusion.layers.values())
    assert (len(found.converted), len(found.kept), len(found.fusion.norms), rectified) == SOME[name]
    layers = [module for module in network.modules() if isinstance(module, AdderConv2d | AdderLinear)]
    before = [layer.weight.detach().clone() for layer in layers]
    optimizer = AdderSGD(param_groups(network, weight_decay=1e-4), lr=0.01)
    for _ in range(2):
        loss = cross_entropy(network(x), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.isfinite()
    assert not any(torch.equal(layer.weight, old) for layer, old in zip(layers, before, strict=True))


@pytest.mark.parametrize(("kernel", "stride", "dilation", "size"), [(3, 2, 1, 9), (5, 2, 1, 8), (2, 1, 2, 7)])
def test_padding_by_the_images_size_is_kept(kernel: int, stride: int, dilation: int, size: int) -> None:
    from timm.layers import Conv2dSame

    theirs = Conv2dSame(4, 6, kernel, stride, dilation=dilation, groups=2, bias=False)
    x = torch.randn(2, 4, size, size + 3)

    layer = convert(theirs, offset_free=False)

    y = layer(x)
    assert y.shape == theirs(x).shape
    widths: list[Any] = []
    for pixels, wanted in ((x.shape[3], y.shape[3]), (x.shape[2], y.shape[2])):
        lacks = max((wanted - 1) * stride + dilation * (kernel - 1) + 1 - pixels, 0)
        widths += [lacks // 2, lacks - lacks // 2]
    torch.testing.assert_close(  # the same edges as timm's, by its own convolution of the padded image
        theirs(x), F.conv2d(F.pad(x, widths), theirs.weight, None, stride, 0, dilation, 2)
    )
    expected = reference.adder2d(
        F.pad(x.double(), widths),
        layer.weight.double(),
        (stride, stride),
        (0, 0),
        (dilation, dilation),
        False,
    )
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("act", "relu", "then"), [("relu", True, ()), ("silu", False, ("act",))])
def test_norms_with_activations_are_ours(act: str, relu: bool, then: tuple[str, ...]) -> None:
    from timm.layers import ConvNormAct

    network = nn.Sequential(ConvNormAct(3, 4, 3, act_layer=act), ConvNormAct(4, 4, 3, act_layer=act)).double()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)

    ours = convert(network, example=x)
    theirs = convert(network, keep=("0.bn", "1.bn"))
    theirs.load_state_dict(ours.state_dict())

    assert (type(ours[1].bn), ours[1].bn.relu, ours[1].bn.then) == (BatchNorm2d, relu, then)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours[1].bn.running_var, theirs[1].bn.running_var)


@pytest.mark.parametrize("kind", ["ScaledStdConv2d", "StdConv2d", "StdConv2dSame"])
def test_convolutions_with_standardised_weights_are_refused_in_one_line(kind: str) -> None:
    import timm.layers

    layers = nn.Sequential(getattr(timm.layers, kind)(3, 4, 3), getattr(timm.layers, kind)(4, 4, 3))
    advice = rf"keep all of these by keep=.* isinstance\(module, {kind}\)\]\."
    with pytest.raises(
        ValueError, match=f"plain Conv2d or Linear, got {kind}, whose forward .*{advice}"
    ) as caught:
        convert(layers)
    assert "\n" not in str(caught.value)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_families_are_chosen_by_the_rule() -> None:
    import timm

    if timm.__version__ != "1.0.31":
        pytest.skip("the families were chosen in timm 1.0.31")
    networks = {family: timm.list_models(module=family) for family in timm.list_modules()}
    largest = sorted(networks, key=lambda family: (-len(networks[family]), family))[:20]
    assert list(FAMILIES) == largest
    for family in largest:
        names = [name for name in networks[family] if not name.startswith("test_")]
        assert min(names, key=_num_parameters) == FAMILIES[family]


def _num_parameters(name: str) -> int:
    import timm

    with torch.device("meta"):
        parameters: list[Tensor] = list(timm.create_model(name, num_classes=10).parameters())
    return sum(param.numel() for param in parameters)
