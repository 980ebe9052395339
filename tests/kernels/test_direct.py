"""device/direct.h, which GPUs run, over the operator table on this machine's processor."""

import itertools

import pytest
import torch

from tests.kernels.host import TYPES, HostKernels
from tests.ops.answers import data_of, forward_answer, grad_input_answer
from tests.ops.implementations import name_of
from tests.ops.layers import TABLE, Layer
from tests.ops.test_table import forward_mistakes, grad_input_mistakes, mistake
from tests.ops.views import FORMS


@pytest.mark.parametrize("dtype", TYPES, ids=name_of)
@pytest.mark.parametrize("group", TABLE)
def test_direct_forward(host_kernels: HostKernels, dtype: torch.dtype, group: str) -> None:
    mistakes = forward_mistakes(host_kernels, group, dtype)

    assert not mistakes, "\n".join(mistakes[:20])


@pytest.mark.parametrize("dtype", TYPES, ids=name_of)
@pytest.mark.parametrize("group", TABLE)
def test_direct_grad_input(host_kernels: HostKernels, dtype: torch.dtype, group: str) -> None:
    mistakes = grad_input_mistakes(host_kernels, group, dtype)

    assert not mistakes, "\n".join(mistakes[:20])


def test_direct_reads_tensors_where_they_lie(host_kernels: HostKernels) -> None:
    """Any strides, and x, w and dY each with its own."""
    layer = Layer(3, 5, 6, 7, 8, 3, 2, (2, 1), (1, 0))
    data = data_of(layer, torch.float32)
    forward, grad_input = forward_answer(layer, torch.float32, False), grad_input_answer(layer, torch.float32)

    for x_form, w_form, dy_form in itertools.product(FORMS, repeat=3):
        x, w, dy = FORMS[x_form](data.x), FORMS[w_form](data.w), FORMS[dy_form](data.dy)
        names = f"x {x_form}, w {w_form}, dy {dy_form}"
        assert mistake(host_kernels.forward(layer, x, w), forward, layer, names) is None
        assert mistake(host_kernels.grad_input(layer, dy, x, w), grad_input, layer, names) is None
