"""Products with one order of sums: their bits, and that they are products."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from addertrain.ops.ordered import ordered_linear
from tests.ops.threads import differing

SIZES = [(256, 64, 10), (5, 513, 1000), (3, 1, 4), (1, 7, 1), (9, 8192, 11)]


def _leaves(sizes: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    N, K, outputs = sizes
    generator = torch.Generator().manual_seed(K)
    shapes = ((N, K), (outputs, K), (outputs,))
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_is_a_product_with_its_gradients(sizes: tuple[int, int, int], dtype: torch.dtype) -> None:
    leaves = _leaves(sizes, dtype)
    exact_leaves = [leaf.detach().double().requires_grad_() for leaf in leaves]
    y, exact = ordered_linear(*leaves), torch.nn.functional.linear(*exact_leaves)
    dy = torch.linspace(-1, 1, y.numel()).view(y.shape).to(dtype)
    found = [y, *torch.autograd.grad(y, leaves, dy)]
    expected = [exact, *torch.autograd.grad(exact, exact_leaves, dy.double())]

    rtol, atol = (1e-12, 1e-11) if dtype == torch.float64 else (2 * torch.finfo(dtype).eps, 1e-4)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other, rtol=rtol, atol=atol)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_neither_threads_nor_the_batch_change_a_bit(sizes: tuple[int, int, int]) -> None:
    x, weight, _ = _leaves(sizes)
    dy = torch.randn(sizes[0], sizes[2], generator=torch.Generator().manual_seed(0))

    def answers() -> list[Tensor]:
        y = ordered_linear(x, weight)
        return [y.detach(), *torch.autograd.grad(y, x, dy)]

    assert not differing(answers)
    y, dx = answers()
    for rows in (slice(0, 1), slice(0, 2), slice(sizes[0] // 2, sizes[0])):
        part = ordered_linear(x[rows], weight)
        assert torch.equal(part, y[rows])
        assert torch.equal(torch.autograd.grad(part, x, dy[rows])[0][rows], dx[rows])


def test_under_autocast_it_is_rounded_once() -> None:
    x, weight, bias = _leaves((4, 300, 5))
    with torch.autocast("cpu", torch.bfloat16):
        y = ordered_linear(x, weight, bias)
    exact = x.bfloat16().double() @ weight.bfloat16().double().t() + bias.double()

    assert y.dtype == torch.bfloat16
    assert ((y - exact).abs() <= 1.01 * 2**-8 * exact.abs() + 1e-5).all()


def test_opcheck() -> None:
    x, weight, _ = _leaves((3, 6, 5))

    torch.library.opcheck(torch.ops.addertrain.ordered_product.default, (x, weight))
    torch.library.opcheck(torch.ops.addertrain.ordered_product.default, (x[:0], weight.t().contiguous().t()))


def test_its_gradient_has_a_gradient_and_its_operations_are_counted() -> None:
    x, weight, _ = _leaves((3, 6, 5), torch.float64)

    assert torch.autograd.gradgradcheck(ordered_linear, (x, weight))
    with FlopCounterMode(display=False) as counter:
        ordered_linear(x, weight)
    assert counter.get_total_flops() == 2 * 3 * 6 * 5
