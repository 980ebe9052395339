"""The bfloat16 input gradient: elements in float16, dY scaled into float16, and any range is served."""

import pytest
import torch

from addertrain.ops import reference
from addertrain.ops.tolerance import SAFETY, unit_roundoff
from tests.kernels.emulated import EmulatedKernels
from tests.ops.answers import data_of, grad_input_answer
from tests.ops.layers import Layer
from tests.ops.test_table import mistake
from tests.ops.views import FORMS

LAYER = Layer(2, 8, 16, 5, 6, 3, 3, (1, 1), (1, 1))
EXTREMES = [0.0, 1e-38, 3e-8, 1e-5, 0.3, 1.0, 40.0, 3e2, 7e4, 1.3e5, 3e5, 3e38]


def test_powers_of_two_of_dy_change_no_digit(emulator: EmulatedKernels) -> None:
    data = data_of(LAYER, torch.bfloat16)
    dx = emulator.grad_input(LAYER, data.dy, data.x, data.w)

    for exponent in (-100, -60, -20, 20, 60, 100):
        scaled = emulator.grad_input(LAYER, data.dy * 2.0**exponent, data.x, data.w)
        assert torch.equal(scaled, dx * 2.0**exponent), exponent
    assert not emulator.grad_input(LAYER, data.dy * 0, data.x, data.w).any()


@pytest.mark.parametrize("form", FORMS)
def test_the_largest_is_found_wherever_it_lies(emulator: EmulatedKernels, form: str) -> None:
    """In a tail, in a gap of the strides: were it missed, it would be infinite in float16."""
    data = data_of(LAYER, torch.bfloat16)
    for place in ((0, 0, 0, 0), (1, 15, 4, 5), (1, 7, 2, 3)):
        dy = data.dy.clone()
        dy[place] = -1e30
        answer = grad_input_answer(LAYER, torch.bfloat16, True)
        dx = emulator.grad_input(LAYER, FORMS[form](dy), data.x, data.w)
        assert dx.isfinite().all()
        small = emulator.grad_input(LAYER, FORMS[form](data.dy), data.x, data.w)
        assert mistake(small, answer, LAYER, form) is None


@pytest.mark.parametrize("largest", [1.0, 2.0**9, 2.0**18])
def test_small_gradients_beside_a_large_one_keep_their_digits(
    emulator: EmulatedKernels, largest: float
) -> None:
    """Another image's gradient, 2^18 times larger, takes nothing from this one's."""
    data = data_of(LAYER, torch.bfloat16)
    dy = data.dy.clone()
    dy[1] *= largest

    dx = emulator.grad_input(LAYER, dy, data.x, data.w)

    assert torch.equal(dx[0], emulator.grad_input(LAYER, data.dy, data.x, data.w)[0])


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_finite_in_dy_stays_where_it_is(emulator: EmulatedKernels, value: float) -> None:
    data = data_of(LAYER, torch.bfloat16)
    dy = data.dy.clone()
    dy[0, 3, 2, 2] = value

    dx = emulator.grad_input(LAYER, dy, data.x, data.w)

    seen = reference.adder2d_grad_input(dy * 0, data.x, data.w, *LAYER.sizes).isnan()
    assert dx[seen].isnan().any() or dx[seen].isinf().any()
    clean = emulator.grad_input(LAYER, data.dy, data.x, data.w)
    assert torch.equal(dx[~seen], clean[~seen])
    assert not dx[seen].isfinite().any()


def test_operands_of_every_size(emulator: EmulatedKernels) -> None:
    """Off by u (1 + |w|) of float16 at most an element, and by 2, the width of HT, where that is less."""
    values = torch.tensor([sign * size for size in EXTREMES for sign in (1, -1)])
    generator = torch.Generator().manual_seed(0)
    draw = [
        values[torch.randint(len(values), shape, generator=generator)].bfloat16()
        for shape in ((2, 8, 5, 6), (16, 8, 3, 3))
    ]
    near = [torch.randn(t.shape, generator=generator).bfloat16() for t in draw]
    dy = data_of(LAYER, torch.bfloat16).dy
    for x, w in (draw, (draw[0], near[1]), (near[0], draw[1])):
        dx = emulator.grad_input(LAYER, dy, x, w).double()

        expected = reference.adder2d_grad_input(dy.double(), x.double(), w.double(), *LAYER.sizes)
        off = (unit_roundoff(torch.float16) * (1 + w.double().abs())).clamp_max(2.0)
        allowed = torch.nn.grad.conv2d_input(
            x.shape, off, dy.double().abs(), LAYER.stride, LAYER.padding, LAYER.dilation
        )
        slack = SAFETY * unit_roundoff(torch.bfloat16) * (1 + expected.abs())
        assert ((dx - expected).abs() <= allowed + slack).all()
