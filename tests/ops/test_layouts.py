"""Where elements lie changes no value; results lie as their input does, and fakes know it."""

import itertools

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from addertrain.ops import schemas
from addertrain.ops.layout import memory_format
from tests.ops.answers import data_of, forward_answer, grad_input_answer, grad_weight_answer
from tests.ops.implementations import COMPILED, EVERY_CPU, REFERENCE, Implementation, name_of, ways
from tests.ops.layers import Layer
from tests.ops.test_table import mistake
from tests.ops.views import FORMS

LAYERS = [
    Layer(3, 5, 6, 7, 8, 3, 3, (2, 1), (1, 0)),
    Layer(2, 18, 17, 4, 6, 1, 1),
    Layer(4, 6, 9, 3, 2, 3, 2),
    Layer(2, 1, 4, 9, 6, 5, 3, padding=(2, 1)),
]
WAYS = ways(torch.float64, torch.bfloat16, cuda_dtypes=(torch.float32, torch.float64, torch.bfloat16))


def mistakes_over_views(implementation: Implementation, dtype: torch.dtype) -> list[str]:
    found = []
    for layer, x_form, other_form in itertools.product(LAYERS, FORMS, FORMS):
        data = data_of(layer, dtype)
        x, w, dy = (t.to(implementation.device) for t in (data.x, data.w, data.dy))
        x, w, dy = FORMS[x_form](x), FORMS[other_form](w), FORMS[other_form](dy)
        results = (
            (implementation.forward(layer, x, w), forward_answer(layer, dtype, False)),
            (implementation.grad_input(layer, dy, x, w), grad_input_answer(layer, dtype)),
            (implementation.grad_weight(layer, dy, x, w), grad_weight_answer(layer, dtype)),
        )
        found += [mistake(got, answer, layer, f"x {x_form}, others {other_form}") for got, answer in results]
    return [one for one in found if one]


@pytest.mark.parametrize(("implementation", "dtype"), WAYS, ids=name_of)
def test_views_give_the_same_answers(implementation: Implementation, dtype: torch.dtype) -> None:
    with implementation.use():
        mistakes = mistakes_over_views(implementation, dtype)

    assert not mistakes, "\n".join(mistakes[:20])


@pytest.mark.parametrize("implementation", EVERY_CPU, ids=name_of)
def test_expanded_tensors(implementation: Implementation) -> None:
    """One image shown to a batch, one filter bank shown to all channels, and the gradient of a sum."""
    layer = Layer(4, 6, 5, 6, 7, 3, 3, (1, 2), (1, 1))
    data = data_of(layer, torch.float32)
    x, w = data.x[:1].expand(4, -1, -1, -1), data.w[:, :1].expand(-1, 6, -1, -1)
    dy = torch.ones(()).expand(data.dy.shape)

    with implementation.use():
        y = implementation.forward(layer, x, w)
        dx = implementation.grad_input(layer, dy, x, w)
        dw = implementation.grad_weight(layer, dy, x, w)

        torch.testing.assert_close(y, implementation.forward(layer, x.clone(), w.clone()))
        torch.testing.assert_close(dx, implementation.grad_input(layer, dy.clone(), x.clone(), w.clone()))
        expected_dw = implementation.grad_weight(layer, dy.clone(), x.clone(), w.clone())
        torch.testing.assert_close(dw, expected_dw, rtol=1e-5, atol=1e-4)


def _strides_of_results(
    x: Tensor, w: Tensor, padding: int, implementation: Implementation
) -> list[tuple[int, ...]]:
    n, c, h, v = x.shape
    layer = Layer(n, c, w.shape[0], h, v, *w.shape[2:], padding=(padding, padding))
    y = implementation.forward(layer, x, w)
    dx = implementation.grad_input(layer, torch.ones_like(y), x, w)
    dw = implementation.grad_weight(layer, torch.ones_like(y), x, w)
    return [y.stride(), dx.stride(), dw.stride()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_fakes_lie_as_the_real_results(form: str, dtype: torch.dtype) -> None:
    """Exactly, also along axes of one element, by which the next layer decides."""
    compiled = COMPILED[0]
    for n, c, o, h, v in itertools.product((0, 1, 2), (1, 2), (1, 3), (1, 4), (1, 5)):
        x, w = FORMS[form](torch.randn(n, c, h, v, dtype=dtype)), torch.randn(o, c, 1, 1, dtype=dtype)
        for padding in (0, 1):
            with compiled.use():
                real = _strides_of_results(x, w, padding, compiled)
            with FakeTensorMode() as mode:
                fake = _strides_of_results(mode.from_tensor(x), mode.from_tensor(w), padding, compiled)

            assert real == fake, f"x {tuple(x.shape)} with strides {x.stride()}, O={o}, padding {padding}"
            assert real == _strides_of_results(x, w, padding, REFERENCE), "the reference lies elsewhere"


@pytest.mark.parametrize("implementation", EVERY_CPU, ids=name_of)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_layout_comes_out_as_it_went_in(implementation: Implementation, layout: torch.memory_format) -> None:
    layer = Layer(2, 3, 4, 6, 5, 3, 3)
    data = data_of(layer, torch.float32)
    x, w = data.x.to(memory_format=layout), data.w.to(memory_format=layout)

    with implementation.use():
        y, dx = implementation.forward(layer, x, w), implementation.grad_input(layer, data.dy, x, w)
        dw = implementation.grad_weight(layer, data.dy, x, w)

    assert all(t.is_contiguous(memory_format=layout) for t in (y, dx, dw))


def test_memory_format_is_what_strides_say() -> None:
    image = (
        torch.empty(4, 5, 3).permute(2, 0, 1).unsqueeze(0)
    )  # one decoded image: its batch pitch is arbitrary

    assert memory_format(image) == torch.channels_last
    assert memory_format(torch.empty(2, 1, 4, 5)) == torch.contiguous_format
    assert memory_format(torch.empty((2, 1, 4, 5), memory_format=torch.channels_last)) == torch.channels_last
    assert memory_format(torch.empty(2, 8, 1, 1)) == torch.contiguous_format
    assert memory_format(torch.empty(1, 1, 1, 1)) == torch.contiguous_format
    assert memory_format(torch.empty(1, 3, 4, 5).expand(2, -1, -1, -1)) == torch.contiguous_format


def test_filter_gradient_lies_as_the_filter_does() -> None:
    """Whatever x is: autograd would copy it otherwise."""
    x = torch.randn(2, 3, 6, 6).to(memory_format=torch.channels_last)
    for w in (torch.randn(4, 3, 3, 3), torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)):
        weight = w.requires_grad_()
        schemas.ADDER2D(x, weight, [1, 1], [0, 0], [1, 1], True).sum().backward()

        assert weight.grad is not None
        assert weight.grad.stride() == weight.stride()
