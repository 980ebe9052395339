"""Derivatives beside the backward pass: of every operator, right or refused in one line, never silently 0."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from addertrain.models import build_model
from addertrain.nn import AdderConv2d, AdderLinear, BatchNorm2d
from addertrain.ops.registration import NAMESPACE

OPERATORS = torch.ops.addertrain
SIZES = ([1, 1], [1, 1], [1, 1])
FORWARD_MODE = "expected to be differentiated by a backward pass, got a forward-mode derivative"
SECOND = "expected to be differentiated once, got a derivative of a gradient"


def _arguments() -> dict[str, tuple[Any, ...]]:
    """Arguments of every operator that takes numbers, tensors first where they may be differentiated."""
    x, w, dy = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3), torch.randn(2, 4, 5, 5)
    scale, sums = torch.rand(4), torch.rand(2, 4, dtype=torch.float64)
    gradient, last = (dy, x, w, *SIZES), dy.to(memory_format=torch.channels_last)
    norm = last, scale, scale
    return {
        "adder2d": (x, w, *SIZES, True),
        "adder2d_rectified": (x, w, *SIZES, True, True),
        "adder2d_surrogate": (x, w, *SIZES, True, True, 2.0),
        "adder2d_norm": (x, w, *SIZES, True, 1.5),
        "adder2d_power": (x, w, *SIZES, True, 1.5),
        "adder2d_with_sums": (x, w, *SIZES),
        "adder2d_affine": (x, w, *SIZES, scale, scale, dy, True),
        "adder2d_int8": (x, w, *SIZES),
        "adder2d_int8_packed": (x, w, w, *SIZES),
        "adder2d_int8_pack": (w,),
        "adder2d_int8_norm": (x, w, w, *SIZES, 0, scale, scale, dy, 0.5, 0.0),
        "quantise_int8": (x, 1.0, 0.0),
        "conv2d_int16": (x, w, w, [1, 1], [1, 1], 1.0, scale, scale, None),
        "conv2d_int16_pack": (w,),
        "max_pool_int8": (x, [2, 2], [2, 2], [0, 0]),
        "sum_pixels_int8": (x,),
        "adder2d_grad_input": gradient,
        "adder2d_grad_weight": (*gradient, True),
        "adder2d_rectified_grad_input": gradient,
        "adder2d_rectified_gradients": (*gradient, True),
        "adder2d_list_gradients": gradient,
        "adder2d_grad_input_slope": (*gradient, 2.0),
        "adder2d_grad_weight_sign": gradient,
        "grouped_grad_weight": gradient,
        "adder2d_norm_grad_input": (*gradient, 1.5),
        "adder2d_power_grad_input": (*gradient, 1.5),
        "adder2d_power_grad_weight": (*gradient, 1.5),
        "adder2d_norm_grad_weight": (*gradient, 1.5),
        "ordered_product": (scale.view(1, 4), dy.view(-1, 4)),
        "batch_norm_relu": (*norm, 1e-5, True),
        "batch_norm_relu_of_sums": (last, sums, scale, scale, 1e-5, True),
        "batch_norm_relu_backward": (last, *norm, scale, scale, 1e-5, True),
        "batch_norm_residual_relu": (last, *norm, 1e-5),
        "batch_norm_residual_relu_backward": (last, last, last, *(scale,) * 3, 1e-5),
    }


ARGUMENTS = _arguments()
NAMES = sorted(ARGUMENTS)
GRADIENTS = [name for name in NAMES if "grad" in name or "backward" in name]


def test_every_operator_on_numbers_is_here() -> None:
    names = {name.removeprefix(f"{NAMESPACE}::") for name in torch._C._dispatch_get_all_op_names()
             if name.startswith(f"{NAMESPACE}::")}  # fmt: skip
    names -= {"sums_of_squares", "walks_lists"}  # the optimizer's, and a question: not differentiated
    takes_tensors = {name for name in names if "Tensor" in str(getattr(OPERATORS, name).default._schema)}
    assert takes_tensors == set(NAMES)


def _of_tensor(name: str, place: int) -> tuple[Callable[[Tensor], Any], Tensor]:
    arguments = ARGUMENTS[name]
    operator = getattr(OPERATORS, name)
    return lambda t: operator(*arguments[:place], t, *arguments[place + 1 :]), arguments[place]


def _places(name: str) -> list[int]:
    return [place for place, each in enumerate(ARGUMENTS[name]) if isinstance(each, Tensor)]


def _dual(function: Callable[[Tensor], Any], x: Tensor) -> None:
    with forward_ad.dual_level():
        function(forward_ad.make_dual(x, torch.ones_like(x)))


@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_is_refused_for_every_tensor(name: str) -> None:
    for place in _places(name):
        function, x = _of_tensor(name, place)
        with pytest.raises(NotImplementedError, match=FORWARD_MODE) as caught:
            torch.func.jvp(function, (x,), (torch.ones_like(x),))
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(name)
        with pytest.raises(NotImplementedError, match=FORWARD_MODE):
            _dual(function, x)
        with pytest.raises(NotImplementedError, match=FORWARD_MODE), torch.no_grad():
            _dual(function, x)


@pytest.mark.parametrize("name", GRADIENTS)
def test_derivatives_of_gradients_are_refused(name: str) -> None:
    for place in _places(name):
        function, x = _of_tensor(name, place)
        results = function(x.clone().requires_grad_())
        first = results if isinstance(results, Tensor) else results[0]
        with pytest.raises(NotImplementedError, match=SECOND) as caught:
            first.sum().backward()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [torch.func.jacfwd, torch.func.hessian])
def test_networks_are_refused(make: Callable[..., Any]) -> None:
    layer, x = AdderConv2d(3, 4, 3), torch.randn(1, 3, 5, 5)
    with pytest.raises(NotImplementedError, match=FORWARD_MODE):
        make(lambda x: layer(x).sum())(x)


@pytest.mark.long  # it imports a compiler
def test_linearisations_are_refused() -> None:
    with pytest.raises(NotImplementedError, match=FORWARD_MODE):
        torch.func.linearize(AdderConv2d(3, 4, 3), torch.randn(1, 3, 5, 5))


def test_tangents_that_pass_by_a_layer_are_right() -> None:
    layer, x, v = AdderConv2d(3, 4, 3), torch.randn(1, 3, 5, 5), torch.randn(1, 4, 3, 3)
    _, tangent = torch.func.jvp(lambda v: layer(x) * v, (v,), (v,))
    assert torch.equal(tangent, layer(x) * v)


def _network() -> tuple[nn.Module, Tensor, Tensor]:
    layers = (
        AdderConv2d(3, 4, 3, offset_free=True),
        BatchNorm2d(4, relu=True),
        nn.Flatten(),
        AdderLinear(36, 3),
    )
    return nn.Sequential(*layers).eval(), torch.randn(3, 3, 5, 5), torch.tensor([0, 2, 1])


def _backward(network: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    loss = nn.functional.cross_entropy(network(x), y)
    names, params = zip(*network.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, params), strict=True))


def _loss_of(network: nn.Module) -> Callable[[dict[str, Tensor], Tensor, Tensor], Tensor]:
    def loss(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        logits: Tensor = torch.func.functional_call(network, params, (x,))
        return nn.functional.cross_entropy(logits, y)

    return loss


def test_func_grad_is_the_backward_pass() -> None:
    network, x, y = _network()
    got = torch.func.grad(_loss_of(network))(dict(network.named_parameters()), x, y)
    assert all(torch.equal(got[name], each) for name, each in _backward(network, x, y).items())


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_of_every_image() -> None:
    network, x, y = _network()
    per_image = torch.func.vmap(torch.func.grad(_loss_of(network)), (None, 0, 0))
    got = per_image(dict(network.named_parameters()), x[:, None], y[:, None])
    for index in range(len(x)):
        expected = _backward(network, x[index : index + 1], y[index : index + 1])
        torch.testing.assert_close({name: each[index] for name, each in got.items()}, expected)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_jacrev_is_a_backward_pass_for_each_output() -> None:
    layer, x = AdderLinear(5, 3), torch.randn(2, 5)
    got = torch.func.jacrev(layer)(x)
    x_learns = x.clone().requires_grad_()
    for n in range(2):
        for o in range(3):
            (expected,) = torch.autograd.grad(layer(x_learns)[n, o], x_learns)
            assert torch.equal(got[n, o], expected)


def test_func_grad_of_func_grad_is_refused() -> None:
    layer, x = AdderLinear(5, 3), torch.randn(2, 5)
    once = torch.func.grad(lambda x: layer(x).square().sum())
    with pytest.raises(NotImplementedError, match=SECOND):
        torch.func.grad(lambda x: once(x).sum())(x)


def test_create_graph_gives_the_first_derivative_and_refuses_the_second() -> None:
    network, x, _ = _network()
    x = x.requires_grad_()
    (dx,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(network(x).sum(), x)
    assert torch.equal(dx, expected)
    with pytest.raises(NotImplementedError, match=SECOND):
        dx.square().sum().backward()


def test_an_adder_network_counts_the_operations_of_its_convolutional_twin() -> None:
    totals = []
    for kind in ("adder", "conv"):
        with FlopCounterMode(display=False) as counter:
            build_model("resnet8", kind=kind, num_classes=10)(torch.randn(2, 3, 16, 16)).sum().backward()
        totals.append(counter.get_total_flops())
    assert totals[0] == totals[1]
