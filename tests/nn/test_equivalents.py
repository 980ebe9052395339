"""Subclasses of torch's layers and norms: converted if their code is that of torch, else refused or left."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addertrain.nn import AdderConv2d, AdderLinear, BatchNorm2d, FrozenBatchNorm2d, convert, freeze_norms
from addertrain.nn.fusing.equivalents import is_plain, modules_behind


class _Inherits(nn.Conv2d):
    """Another name, and other defaults, for a convolution."""


class _CallsSuper(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)


class _Functional(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)  # type: ignore[arg-type]


class _LinearInAnotherPrecision(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return F.linear(input, self.weight.to(dtype=input.dtype))
        return F.linear(input, self.weight, self.bias)


class _Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)  # type: ignore[arg-type]


class _AnotherStride(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, (2, 2), self.padding, self.dilation, self.groups)  # type: ignore[arg-type]


class _OnlyInTraining(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        y = super().forward(input)
        return 2 * y if self.training else y


class _OwnWeightFunction(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight.abs(), bias)


@pytest.mark.parametrize("build", [_Inherits, _CallsSuper, _Functional])
def test_a_class_whose_code_is_the_convolutions_is_converted(build: type[nn.Conv2d]) -> None:
    network = nn.Sequential(build(4, 6, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(6))

    layer = convert(network)[0]

    assert type(layer) is AdderConv2d
    assert (layer.stride, layer.padding, layer.groups) == ((2, 2), (1, 1), 2)


def test_a_class_whose_code_is_the_linear_layers_is_converted() -> None:
    assert type(convert(_LinearInAnotherPrecision(3, 4))) is AdderLinear


@pytest.mark.parametrize(
    "layer",
    [_Standardised(2, 4, 3), _AnotherStride(2, 4, 3), _OnlyInTraining(2, 4), _OwnWeightFunction(2, 4, 3)],
    ids=lambda layer: type(layer).__name__,
)
def test_a_class_that_computes_something_else_is_refused(layer: Any) -> None:
    assert not is_plain(layer)
    with pytest.raises(ValueError, match=f"to be a plain Conv2d or Linear, got {type(layer).__name__}"):
        convert(nn.Sequential(layer))


class _NormThenActivation(nn.BatchNorm2d):
    """A norm that holds its activation, as a model of others writes it."""

    def __init__(self, width: int, act: nn.Module, drop: nn.Module | None = None, **settings: Any) -> None:
        super().__init__(width, **settings)
        self.drop = nn.Identity() if drop is None else drop
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.ndim == 4, "four dimensions")
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(self.step)
        y = F.batch_norm(
            x, self.running_mean, self.running_var, self.scaled(), self.bias,
            self.training, self.momentum or 0.0, self.eps,
        )  # fmt: skip
        y = self.drop(y)
        result: Tensor = self.act(y)
        return result

    step = 1

    def scaled(self) -> Tensor:
        return self.weight


class _CountsTwice(_NormThenActivation):
    step = 2


class _ScalesItsWeight(_NormThenActivation):
    def scaled(self) -> Tensor:
        return 2 * self.weight


class _ReadsTheNormAgain(_NormThenActivation):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y + x


@pytest.mark.parametrize(
    ("act", "relu", "then"),
    [
        (nn.ReLU(inplace=True), True, ()),
        (nn.Identity(), False, ()),
        (nn.SiLU(inplace=True), False, ("act",)),
        (nn.ReLU6(), False, ("act",)),
        (nn.PReLU(5), False, ("act",)),
    ],
    ids=lambda each: type(each).__name__,
)
@pytest.mark.parametrize("training", [True, False])
def test_a_norm_with_its_activation_becomes_ours(
    act: nn.Module, relu: bool, then: tuple[str, ...], training: bool
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3, bias=False), _NormThenActivation(5, act),
        nn.Conv2d(5, 5, 3, bias=False), _NormThenActivation(5, act),
    ).double()  # fmt: skip
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)

    with_ours = convert(network, example=x)
    with_theirs = convert(network, keep=("1", "3"))
    with_theirs.load_state_dict(with_ours.state_dict())
    ours, theirs = (each.train(training)(x) for each in (with_ours, with_theirs))
    ours.square().sum().backward()
    theirs.square().sum().backward()

    norm = with_ours[3]
    assert (type(norm), norm.relu, norm.then) == (BatchNorm2d, relu, then)
    assert with_ours.conversion.fusion.norms == ("1", "3")
    assert with_ours.state_dict().keys() == network.state_dict().keys()
    torch.testing.assert_close(ours, theirs)
    for name, mine in with_ours.named_parameters():
        torch.testing.assert_close(
            mine.grad, with_theirs.get_parameter(name).grad, msg=lambda m, n=name: n + m
        )
    for name, buffer in with_ours.named_buffers():
        torch.testing.assert_close(buffer, with_theirs.get_buffer(name))


def test_a_layer_behind_a_norm_with_a_relu_reads_a_relu() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), _NormThenActivation(4, nn.ReLU()), nn.Conv2d(4, 4, 1),
        _NormThenActivation(4, nn.SiLU()), nn.Conv2d(4, 4, 1), _NormThenActivation(4, nn.ReLU6()),
        nn.Conv2d(4, 4, 1),
    )  # fmt: skip

    found = convert(network, example=torch.randn(2, 3, 4, 4)).conversion.fusion.layers

    assert found == {"0": False, "2": True, "4": False, "6": True}


def test_a_hook_on_an_activation_goes_on_being_called() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), _NormThenActivation(4, nn.ReLU()))
    calls: list[Any] = []
    network[1].act.register_forward_hook(lambda *given: calls.append(given))

    twin = convert(network, example=torch.randn(2, 3, 4, 4))
    calls.clear()
    twin(torch.randn(2, 3, 4, 4))

    assert twin[1].then == ("act",)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "norm",
    [
        _CountsTwice(4, nn.ReLU()),
        _ScalesItsWeight(4, nn.ReLU()),
        _ReadsTheNormAgain(4, nn.ReLU()),
        _NormThenActivation(4, nn.ReLU(), affine=False),
        _NormThenActivation(4, nn.ReLU(), momentum=None),
        _NormThenActivation(4, nn.ReLU(), track_running_stats=False),
    ],
    ids=["counts twice", "scales", "adds", "without weights", "cumulative", "without statistics"],
)
def test_a_norm_that_does_something_else_stays(norm: nn.BatchNorm2d) -> None:
    kind = type(norm)
    assert modules_behind(norm) is None

    twin = convert(nn.Sequential(nn.Conv2d(3, 4, 1), norm))

    assert type(twin[1]) is kind
    assert twin.conversion.norms == ()


@pytest.mark.parametrize("act", [nn.ReLU(), nn.SiLU()], ids=["ReLU", "SiLU"])
def test_a_frozen_norm_keeps_its_activation(act: nn.Module) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), _NormThenActivation(4, act)).double()
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)

    freeze_norms(network, [x])

    y = F.conv2d(x, network[0].weight, network[0].bias)
    variance, mean = torch.var_mean(y, (0, 2, 3), keepdim=True)
    expected = act((y - mean) / (variance + network[1].eps).sqrt())
    assert type(network[1]) is FrozenBatchNorm2d
    torch.testing.assert_close(network(x), expected)


def test_a_norm_of_unknown_code_is_not_frozen() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), _ScalesItsWeight(4, nn.ReLU()))
    with pytest.raises(ValueError, match=r"expected BatchNorm2d layers .* got _ScalesItsWeight"):
        freeze_norms(network, [torch.randn(2, 3, 4, 4)])
    assert type(network[1]) is _ScalesItsWeight
