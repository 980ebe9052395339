"""The operators as torch sees them: schemas, fakes, autograd, autocast, compilation."""

import itertools
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from addertrain.ops import schemas
from addertrain.ops.functional import adder2d
from tests.ops.answers import data_of
from tests.ops.layers import Layer

LAYER = Layer(2, 3, 4, 7, 6, 3, 2, (2, 1), (1, 1))
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def _tensors(dtype: torch.dtype, layout: torch.memory_format) -> tuple[Tensor, Tensor, Tensor]:
    data = data_of(LAYER, dtype)
    return tuple(t.to(memory_format=layout) for t in (data.dy, data.x, data.w))  # type: ignore[return-value]


@pytest.mark.parametrize(("dtype", "layout"), list(itertools.product(DTYPES, LAYOUTS)), ids=str)
def test_opcheck(dtype: torch.dtype, layout: torch.memory_format) -> None:
    dy, x, w = _tensors(dtype, layout)
    x_learns, w_learns = (t.clone().requires_grad_() for t in (x, w))

    torch.library.opcheck(schemas.ADDER2D.default, (x_learns, w_learns, *LAYER.sizes, True))
    torch.library.opcheck(schemas.GRAD_INPUT.default, (dy, x, w, *LAYER.sizes))
    torch.library.opcheck(schemas.GRAD_WEIGHT.default, (dy, x, w, *LAYER.sizes))


@pytest.mark.parametrize("layer", [Layer(2, 1, 3, 4, 5, 1, 1), Layer(2, 3, 1, 4, 5, 1, 1)], ids=str)
def test_opcheck_where_strides_are_ambiguous(layer: Layer) -> None:
    data = data_of(layer, torch.float32)
    x = torch.empty_like(data.x, memory_format=torch.channels_last).copy_(data.x)

    torch.library.opcheck(schemas.ADDER2D.default, (x, data.w, *layer.sizes, False))
    torch.library.opcheck(schemas.GRAD_INPUT.default, (data.dy, x, data.w, *layer.sizes))
    torch.library.opcheck(schemas.GRAD_WEIGHT.default, (data.dy, x, data.w, *layer.sizes))


def _two_layers(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    hidden = adder2d(x, first, stride=2, padding=1, offset_free=True).relu()
    return adder2d(hidden, second, padding=1)


def _value_and_gradients(function: Any, x: Tensor, *weights: Tensor) -> list[Tensor]:
    leaves = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in (x, *weights)]
    y = function(*leaves)
    y.square().sum().backward()
    return [y.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def _network(layout: torch.memory_format) -> tuple[Tensor, Tensor, Tensor]:
    x, first, second = torch.randn(2, 3, 9, 8), torch.randn(5, 3, 3, 3), torch.randn(4, 5, 3, 3)
    return x.to(memory_format=layout), first, second


def _same(got: list[Tensor], expected: list[Tensor]) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.stride() == other.stride()
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_into_one_graph(layout: torch.memory_format, dynamic: bool) -> None:
    tensors = _network(layout)
    compiled = torch.compile(_two_layers, fullgraph=True, backend="aot_eager", dynamic=dynamic)

    _same(_value_and_gradients(compiled, *tensors), _value_and_gradients(_two_layers, *tensors))


def _two_layers_alone(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return adder2d(adder2d(x, first, stride=2, padding=1, offset_free=True), second, padding=1)


def test_compiles_with_inductor() -> None:
    """The operators alone: inductor then writes no C++, which takes a quarter of a minute to compile."""
    tensors = _network(torch.channels_last)
    compiled = torch.compile(_two_layers_alone, fullgraph=True)

    _same(_value_and_gradients(compiled, *tensors), _value_and_gradients(_two_layers_alone, *tensors))


def test_compiles_under_autocast() -> None:
    tensors = _network(torch.contiguous_format)
    compiled = torch.compile(_two_layers, fullgraph=True, backend="aot_eager")

    with torch.autocast("cpu", torch.bfloat16):
        got, expected = compiled(*tensors), _two_layers(*tensors)

    assert got.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("offset_free", "dtypes", "expected"),
    [
        (True, (torch.float32, torch.float32), torch.bfloat16),
        (False, (torch.float32, torch.float32), torch.float32),
        (True, (torch.bfloat16, torch.float32), torch.bfloat16),
        (False, (torch.bfloat16, torch.float32), torch.float32),
        (True, (torch.float64, torch.float64), torch.float64),
        (False, (torch.float32, torch.float64), torch.float64),
    ],
)
def test_autocast_chooses_the_dtype(
    offset_free: bool, dtypes: tuple[torch.dtype, torch.dtype], expected: torch.dtype
) -> None:
    _, x, w = _tensors(torch.float32, torch.contiguous_format)
    x, w = x.to(dtypes[0], copy=True).requires_grad_(), w.to(dtypes[1], copy=True).requires_grad_()

    with torch.autocast("cpu", torch.bfloat16):
        y = adder2d(x, w, *LAYER.sizes, offset_free)
    y.float().sum().backward()

    assert y.dtype == expected
    assert x.grad is not None
    assert w.grad is not None
    assert (x.grad.dtype, w.grad.dtype) == dtypes


def test_autocast_switched_off_inside() -> None:
    _, x, w = _tensors(torch.float32, torch.contiguous_format)

    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
        y = adder2d(x, w, *LAYER.sizes, offset_free=True)

    assert y.dtype == torch.float32


class _Calls(TorchDispatchMode):
    """Counts the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.name()] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("x_learns", "w_learns"), [(True, False), (False, True), (True, True)])
def test_only_the_gradients_that_are_asked_for(x_learns: bool, w_learns: bool) -> None:
    dy, x, w = _tensors(torch.float32, torch.contiguous_format)
    x, w = x.clone().requires_grad_(x_learns), w.clone().requires_grad_(w_learns)
    y = adder2d(x, w, *LAYER.sizes)

    with _Calls() as calls:
        y.backward(dy)

    assert calls.counts["addertrain::adder2d_grad_input"] == x_learns
    assert calls.counts["addertrain::adder2d_grad_weight"] == w_learns
    assert (x.grad is not None, w.grad is not None) == (x_learns, w_learns)


def test_gradients_do_not_depend_on_the_offset() -> None:
    dy, x, w = _tensors(torch.float64, torch.contiguous_format)
    gradients = []
    for offset_free in (False, True):
        leaves = x.clone().requires_grad_(), w.clone().requires_grad_()
        adder2d(*leaves, *LAYER.sizes, offset_free).backward(dy)
        gradients.append([leaf.grad for leaf in leaves])

    assert all(torch.equal(raw, free) for raw, free in zip(*gradients, strict=True))


def test_nothing_is_kept_without_gradients() -> None:
    _, x, w = _tensors(torch.float32, torch.contiguous_format)
    weight = w.clone().requires_grad_()

    with torch.inference_mode():
        y = adder2d(x, weight, *LAYER.sizes)

    assert not y.requires_grad
    assert y.grad_fn is None


def test_meta_tensors_give_shapes() -> None:
    y = adder2d(torch.empty(2, 3, 9, 8, device="meta"), torch.empty(5, 3, 3, 3, device="meta"), stride=2)

    assert tuple(y.shape) == (2, 5, 4, 3)
    assert y.device.type == "meta"


@pytest.mark.parametrize(
    ("kernel", "stride", "groups"), [(3, 1, 1), (1, 2, 1), (1, 2, 2), (6, 1, 1), (6, 1, 2)]
)
def test_a_backward_pass_within_autocast_is_the_one_outside(kernel: int, stride: int, groups: int) -> None:
    x, w = torch.randn(4, 32, 6, 6), torch.randn(36, 32 // groups, kernel, kernel)
    leaves = [t.requires_grad_() for t in (x, w)]
    y = adder2d(*leaves, stride, offset_free=True, groups=groups)
    dy = torch.randn_like(y)

    outside = torch.autograd.grad(y, leaves, dy, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        within = torch.autograd.grad(y, leaves, dy)

    assert all(map(torch.equal, outside, within))
