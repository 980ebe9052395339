"""A response with its norm's sums, and with evaluation's norm, residual and ReLU, as torch sees them.

tests/kernels runs the GPU's epilogues; on a GPU the operators here run for real.
"""

import pytest
import torch
from torch import Tensor

from addertrain.ops import schemas
from addertrain.ops.fused import AFFINE, WITH_SUMS, adder2d_affine, adder2d_with_sums
from addertrain.ops.tolerance import unit_roundoff
from tests.ops.answers import Answer, data_of, forward_answer, grad_input_answer
from tests.ops.layers import Layer
from tests.ops.test_table import mistake

LAYER = Layer(3, 8, 40, 7, 9, 3, 3, (2, 1), (1, 1))
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
DTYPES = (torch.float32, torch.bfloat16)

on_every_device = pytest.mark.parametrize("device", DEVICES)
in_every_type = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def _tensors(dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    data = data_of(LAYER, dtype)
    x = data.x.to(device, memory_format=torch.channels_last)
    return data.dy.to(device), x, data.w.to(device).clone()  # the data are shared


@on_every_device
@in_every_type
def test_sums_are_the_responses(dtype: torch.dtype, device: str) -> None:
    _, x, w = _tensors(dtype, device)

    y, sums = adder2d_with_sums(x, w, *LAYER.sizes)

    assert torch.equal(y, schemas.ADDER2D(x, w, *LAYER.sizes, True))
    answer = forward_answer(LAYER, dtype, True)
    expected = torch.stack([answer.value.pow(power).sum((0, 2, 3)) for power in (1, 2)])
    off = answer.tolerance
    allowed = torch.stack((off.sum((0, 2, 3)), (2 * off * answer.value.abs() + off**2).sum((0, 2, 3))))
    assert ((sums.cpu() - expected).abs() <= allowed).all()


@on_every_device
def test_gradients_are_the_layers(device: str) -> None:
    dy, x, w = _tensors(torch.float32, device)
    x, w = x.requires_grad_(), w.requires_grad_()

    y, _ = adder2d_with_sums(x, w, *LAYER.sizes)
    dx, dw = torch.autograd.grad(y, (x, w), dy)

    answer = grad_input_answer(LAYER, torch.float32, device == "cuda")
    assert mistake(dx.cpu(), answer, LAYER, "channels-last") is None
    assert torch.equal(dw, schemas.GRAD_WEIGHT(dy, x.detach(), w.detach(), *LAYER.sizes))


@on_every_device
@in_every_type
@pytest.mark.parametrize("has_residual", [False, True])
def test_affine(dtype: torch.dtype, device: str, has_residual: bool) -> None:
    _, x, w = _tensors(dtype, device)
    scale, shift = torch.randn(LAYER.O) / 50, torch.randn(LAYER.O)
    answer = forward_answer(LAYER, dtype, True)
    residual = torch.randn_like(answer.value).to(dtype).to(memory_format=torch.channels_last)

    y = adder2d_affine(
        *(x, w, *LAYER.sizes),
        scale=scale.to(device),
        shift=shift.to(device),
        residual=residual.to(device) if has_residual else None,
        relu=True,
    )

    slope = scale.double().view(1, -1, 1, 1)
    expected = answer.value * slope + shift.double().view(1, -1, 1, 1) + has_residual * residual.double()
    allowed = answer.tolerance * slope.abs() + 2 * unit_roundoff(dtype) * (1 + expected.abs())
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert mistake(y.cpu(), Answer(expected.relu(), allowed), LAYER, "channels-last") is None


@on_every_device
def test_opcheck(device: str) -> None:
    _, x, w = _tensors(torch.float32, device)
    scale, shift = torch.randn(LAYER.O, device=device), torch.randn(LAYER.O, device=device)
    learns = [t.clone().requires_grad_() for t in (x, w)]

    torch.library.opcheck(WITH_SUMS.default, (*learns, *LAYER.sizes))
    # It has no gradient, which is what the fourth check, seconds long, is about.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments = (x, w, *LAYER.sizes, scale, shift, None, True)
    torch.library.opcheck(AFFINE.default, arguments, test_utils=checks)
    sums = torch.stack([x.double().pow(power).sum((0, 2, 3)) for power in (1, 2)])
    of_sums = torch.ops.addertrain.batch_norm_relu_of_sums.default
    torch.library.opcheck(
        of_sums, (x, sums, scale[: LAYER.C], shift[: LAYER.C], 1e-5, True), test_utils=checks
    )


@pytest.mark.gpu
def test_what_no_tile_holds_is_refused() -> None:
    _, x, w = _tensors(torch.float64, "cuda")

    with pytest.raises(RuntimeError, match="adder2d_with_sums: expected float32, float16 or bfloat16"):
        adder2d_with_sums(x, w, *LAYER.sizes)


@on_every_device
def test_an_evaluation_has_no_gradient(device: str) -> None:
    _, x, w = _tensors(torch.float32, device)
    ones = torch.ones(LAYER.O, device=device)

    y = adder2d_affine(x, w.requires_grad_(), *LAYER.sizes, scale=ones, shift=ones)

    with pytest.raises(NotImplementedError, match="use adder2d and a separate norm"):
        y.sum().backward()
