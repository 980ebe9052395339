"""What convert refuses: networks whose copy would multiply, or go on using the layers of the original."""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune, weight_norm
from torchvision.models import swin_t, swin_v2_t
from torchvision.models.swin_transformer import ShiftedWindowAttention

from addertrain.nn import AdderLinear, convert, param_groups


class _Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.attend(x.to(self.out.weight.dtype)))
        return y

    def attend(self, x: Tensor) -> Tensor:
        weight = self.qkv.weight
        return functional.linear(x, weight, self.qkv.bias)


class _ReadsByItsParent(_Reads):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class _ReadsInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"fc": nn.Linear(4, 4)})
        self.last = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(x @ self.inner.fc.weight.t())  # type: ignore[union-attr, operator]
        return y


def _encoder() -> nn.Module:
    return nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 8))


@pytest.mark.parametrize(
    ("build", "keep", "message"),
    [
        (_Reads, (), r"layer 'qkv' to be called, got self.qkv.weight in _Reads \(.*; add 'qkv' to keep\."),
        (_ReadsByItsParent, (), r"layer 'qkv' to be called, got self.qkv.weight in _ReadsByItsParent"),
        (_ReadsInside, (), r"layer 'inner.fc' to be called, got self.inner.fc.weight"),
        (lambda: nn.Sequential(_Reads(), _Reads()), (), r"got self.qkv.weight in _Reads \('0'\).*isinstance"),
        (lambda: swin_t(weights=None), (), r"'features.1.0.attn.qkv'.*isinstance\(module, ShiftedWindowAtt"),
        (lambda: swin_v2_t(weights=None), (), r"self.qkv.weight in ShiftedWindowAttentionV2"),
        (_encoder, ("0.self_attn",), r"'0.linear1' to be called.*add '0.linear1', '0.linear2' to keep"),
    ],
)
def test_modules_that_read_a_weight_are_refused(
    build: Callable[[], nn.Module], keep: Any, message: str
) -> None:
    with torch.device("meta"):
        model = build()
    with pytest.raises(ValueError, match=message) as caught:
        convert(model, keep=keep)
    assert "\n" not in str(caught.value)


def test_the_advice_helps() -> None:
    with torch.device("meta"):
        model = swin_t(weights=None)
    attention = [name for name, each in model.named_modules() if isinstance(each, ShiftedWindowAttention)]
    assert len(convert(model, keep=attention).conversion.converted) == 29


def test_the_kind_of_a_weight_may_be_read() -> None:
    assert convert(_Reads(), keep=("qkv",)).conversion.converted == ("out",)


def _multiply(x: Tensor, layer: nn.Linear) -> Tensor:
    return functional.linear(x, layer.weight)


class _ReadsElsewhere(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.called, self.read = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return _multiply(self.called(x), self.read)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_first_gradient_finds_a_layer_that_is_not_called() -> None:
    twin = convert(_ReadsElsewhere())
    param_groups(twin, weight_decay=0.0)
    with pytest.raises(RuntimeError, match="gradient of adder layer 'read' to come from its forward pass"):
        twin(torch.randn(2, 4)).sum().backward()


def test_gradients_of_layers_that_are_called_are_no_error() -> None:
    twin = convert(_ReadsElsewhere(), keep=("read",))
    param_groups(twin, weight_decay=0.0)
    for _ in range(2):
        twin(torch.randn(2, 4)).sum().backward()
    assert twin.called.weight.grad is not None
    assert not twin.called.weight._post_accumulate_grad_hooks  # it is asked once


def test_a_frozen_filter_is_not_asked() -> None:
    layer = AdderLinear(3, 3)
    layer.weight.requires_grad_(False)

    param_groups(layer, weight_decay=0.0)

    assert not layer.weight._post_accumulate_grad_hooks


class _Held(nn.Module):
    def __init__(self, hold: Callable[[nn.Module], Any]) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.held = hold(self.fc)


def _closure(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: layer(x)


def _default(layer: nn.Module) -> Callable[..., Tensor]:
    def run(x: Tensor, layer: nn.Module = layer) -> Tensor:
        y: Tensor = layer(x)
        return y

    return run


@pytest.mark.parametrize(
    ("hold", "message"),
    [
        (_closure, "got 'held', a function or weak reference that would still use 'fc'"),
        (_default, "got 'held', a function"),
        (lambda layer: [functools.partial(_closure(layer))], "got 'held', a function"),
        (weakref.ref, "got 'held', a function or weak reference"),
        (lambda layer: layer.forward, "got 'held' of the network itself, a method of a layer"),
    ],
)
def test_what_no_copy_replaces_is_refused(hold: Callable[[nn.Module], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        convert(_Held(hold))
    assert "\n" not in str(caught.value)


def _with_hook(register: Callable[[nn.Conv2d], Any]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        layer = nn.Conv2d(3, 4, 1)
        register(layer)
        return nn.Sequential(layer)

    return build


def _tied_to_an_embedding() -> nn.Module:
    model = nn.ModuleDict({"words": nn.Embedding(5, 4), "fc": nn.Linear(4, 5)})
    model.fc.weight = model.words.weight
    return model


def _in_the_memory_of_another() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = nn.Parameter(model[0].weight.detach().t())
    return model


def _scripted() -> nn.Module:
    return nn.Sequential(torch.jit.trace(nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 2, 2)), nn.Conv2d(4, 4, 1))


def _with_a_lock() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2))
    model.items = (each for each in ())  # type: ignore[assignment]
    return model


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (_with_hook(lambda layer: layer.register_forward_hook(print)), "without hooks, got _forward_hooks"),
        (_with_hook(lambda layer: layer.register_full_backward_hook(print)), "got _backward_hooks"),
        (_with_hook(lambda layer: layer.weight.register_hook(print)), "got _backward_hooks"),
        (_with_hook(weight_norm), "got 'weight' of '0', which is computed from others"),
        (_with_hook(lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5)), "prune.remove first"),
        (_with_hook(parametrizations.weight_norm), "got ParametrizedConv2d, .* add '0' to keep"),
        (_tied_to_an_embedding, "layer 'fc' with parameters of its own, got fc.weight and words.weight"),
        (_in_the_memory_of_another, "layer '0' with parameters of its own, got 0.weight and 1.weight"),
        (_scripted, "got '0' as a ScriptModule, .* or add '0' to keep"),
        (lambda: nn.Sequential(nn.LazyConv2d(4, 1)), "got a LazyConv2d that has not seen an input"),
        (
            lambda: nn.Sequential(nn.Conv3d(3, 4, 1), nn.ReLU()),
            "got none, only Conv3d; other layers have no adder",
        ),
        (lambda: nn.ReLU(), "got none; other layers have no adder"),
        (_with_a_lock, "expected a network that copy.deepcopy can copy, got: cannot pickle"),
    ],
)
def test_networks_without_a_twin_are_refused(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        convert(build())
    assert "\n" not in str(caught.value)


def test_a_network_that_keeps_all_is_refused() -> None:
    with pytest.raises(ValueError, match="to convert, other than those in keep, got none"):
        convert(nn.Sequential(nn.Linear(2, 2)), keep=("0",))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_scripted_parts_may_be_kept() -> None:
    assert convert(_scripted(), keep=("0",)).conversion.converted == ("1",)
