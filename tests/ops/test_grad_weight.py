"""Which filter gradients are given to the library, and that the others are right."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from addertrain.ops.grad_weight import adder2d_grad_weight, conv2d_grad_weight
from addertrain.ops.tolerance import tolerance
from tests.ops.answers import Data, data_of, grad_weight_answer
from tests.ops.layers import Layer
from tests.ops.test_table import DTYPES, LAYOUTS, mistake

STRIDED_POINTWISE = [
    Layer(2, 3, 5, 8, 7, 1, 1, (2, 2)),
    Layer(3, 4, 2, 5, 6, 1, 1, (1, 3), dilation=(2, 3)),
    Layer(2, 3, 4, 6, 5, 1, 1, (2, 1), (3, 2)),
    Layer(2, 3, 4, 5, 5, 1, 1, (3, 4), (1, 5)),
    Layer(1, 2, 3, 1, 1, 1, 1, (3, 3), (2, 0)),  # every output sees padding alone
]
OTHERS = [
    Layer(2, 3, 5, 6, 7, 1, 1, padding=(1, 0)),
    Layer(2, 3, 5, 8, 7, 3, 3, (2, 2), (1, 1)),
    Layer(2, 3, 5, 8, 7, 1, 3, (2, 1)),
]


class Calls(TorchDispatchMode):
    """Operators that ran, with the types of their first argument."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: dict[str, torch.dtype] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], Tensor):
            self.dtypes[func.overloadpacket.__name__] = args[0].dtype
        return func(*args, **(kwargs or {}))


def _gradient(layer: Layer, dtype: torch.dtype, layout: str) -> tuple[Tensor, dict[str, torch.dtype]]:
    """The adder layer's filter gradient and what ran in it."""
    data = data_of(layer, dtype)
    dy, x = (t.to(memory_format=LAYOUTS[layout]) for t in (data.dy, data.x))
    with Calls() as calls:
        dw = adder2d_grad_weight(dy, x, data.w, *layer.sizes)
    return dw, calls.dtypes


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layer", STRIDED_POINTWISE, ids=str)
def test_pointwise_layers_with_a_stride_are_not_given_to_the_library(
    layer: Layer, dtype: torch.dtype
) -> None:
    for layout in LAYOUTS:
        dw, calls = _gradient(layer, dtype, layout)

        assert "convolution_backward" not in calls
        assert "mm" in calls
        assert mistake(dw, grad_weight_answer(layer, dtype), layer, layout) is None


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layer", OTHERS, ids=str)
def test_the_library_adds_up_the_others_in_float32_at_least(layer: Layer, dtype: torch.dtype) -> None:
    for layout in LAYOUTS:
        dw, calls = _gradient(layer, dtype, layout)

        assert calls["convolution_backward"] == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert mistake(dw, grad_weight_answer(layer, dtype), layer, layout) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sixteen_bits_lose_nothing_in_their_sums(dtype: torch.dtype) -> None:
    """7,200 terms of one sign: bfloat16 sums stop growing at 256 times a term, float16 ones at 2,048."""
    layer = Layer(8, 2, 3, 30, 30, 3, 3, padding=(1, 1))
    data = Data(*(t.abs() for t in vars(data_of(layer, dtype)).values()))
    for layout, stride in itertools.product(LAYOUTS.values(), ((1, 1), (2, 2))):
        x, dy = (t.to(memory_format=layout) for t in (data.x, data.dy[:, :, :: stride[0], :: stride[1]]))
        dw = conv2d_grad_weight(dy, x, data.w, stride, (1, 1), (1, 1))
        exact = torch.nn.grad.conv2d_weight(x.double(), data.w.shape, dy.double(), stride, (1, 1))

        assert dw.dtype == torch.float32
        allowed = tolerance(torch.float32, dy[:, 0].numel(), exact, exact)
        assert ((dw - exact).abs() <= allowed).all()
