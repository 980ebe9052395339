"""Every operator over the whole table against the float64 reference."""

import itertools

import pytest
import torch

from addertrain.ops import answers
from tests.ops.answers import Answer, data_of, forward_answer, grad_input_answer, grad_weight_answer
from tests.ops.implementations import COMPILED, CUDA, REFERENCE, Implementation, Operators, name_of, ways
from tests.ops.layers import TABLE, Layer

LAYOUTS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

in_every_way = pytest.mark.parametrize(
    ("implementation", "dtype"), ways(*DTYPES[1:], cuda_dtypes=DTYPES), ids=name_of
)
over_the_table = pytest.mark.parametrize("group", TABLE)


def mistake(got: torch.Tensor, answer: Answer, layer: Layer, layout: str) -> str | None:
    """What is wrong with `got`, or None."""
    wrong = answers.mistake(got, answer)
    return None if wrong is None else f"{layer}, {layout}: {wrong}"


def forward_mistakes(operators: Operators, group: str, dtype: torch.dtype) -> list[str]:
    found = []
    for layer, layout, offset_free, behind_relu in itertools.product(
        TABLE[group], LAYOUTS, (False, True), (False, True)
    ):
        data = data_of(layer, dtype, behind_relu)
        y = operators.forward(layer, data.x.to(memory_format=LAYOUTS[layout]), data.w, offset_free)
        found.append(mistake(y, forward_answer(layer, dtype, offset_free, behind_relu), layer, layout))
    return [one for one in found if one]


def grad_input_mistakes(operators: Operators, group: str, dtype: torch.dtype) -> list[str]:
    found = []
    for layer, layout in itertools.product(TABLE[group], LAYOUTS):
        data = data_of(layer, dtype)
        dy, x = (t.to(memory_format=LAYOUTS[layout]) for t in (data.dy, data.x))
        dx = operators.grad_input(layer, dy, x, data.w)
        answer = grad_input_answer(layer, dtype, operators.saturates)
        found.append(mistake(dx, answer, layer, layout))
    return [one for one in found if one]


def grad_weight_mistakes(operators: Operators, group: str, dtype: torch.dtype) -> list[str]:
    found = []
    for layer, layout in itertools.product(TABLE[group], LAYOUTS):
        data = data_of(layer, dtype)
        dy, x = (t.to(memory_format=LAYOUTS[layout]) for t in (data.dy, data.x))
        dw = operators.grad_weight(layer, dy, x, data.w)
        found.append(mistake(dw, grad_weight_answer(layer, dtype), layer, layout))
    return [one for one in found if one]


@in_every_way
@over_the_table
def test_forward(implementation: Implementation, dtype: torch.dtype, group: str) -> None:
    with implementation.use():
        mistakes = forward_mistakes(implementation, group, dtype)

    assert not mistakes, "\n".join(mistakes[:20])


@in_every_way
@over_the_table
def test_grad_input(implementation: Implementation, dtype: torch.dtype, group: str) -> None:
    with implementation.use():
        mistakes = grad_input_mistakes(implementation, group, dtype)

    assert not mistakes, "\n".join(mistakes[:20])


@pytest.mark.parametrize(
    "implementation", [COMPILED[0], REFERENCE, pytest.param(CUDA, marks=pytest.mark.gpu)], ids=name_of
)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@over_the_table
def test_grad_weight(implementation: Implementation, dtype: torch.dtype, group: str) -> None:
    with implementation.use():
        mistakes = grad_weight_mistakes(implementation, group, dtype)

    assert not mistakes, "\n".join(mistakes[:20])
