"""conv2d of ours beside torch's in float64, and bit for bit where torch's is what runs."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from addertrain.ops import precision
from addertrain.ops.convolution import conv2d
from tests.ops.test_grad_weight import Calls

LAYOUTS = (torch.contiguous_format, torch.channels_last)
# kernel, stride, padding
POINTWISE, SQUARE, UNIT = (1, (2, 3), (1, 0)), (3, (2, 1), (1, 2)), (3, (1, 1), (1, 1))


def _leaves(kernel: int, dtype: torch.dtype, layout: torch.memory_format) -> list[Tensor]:
    generator = torch.Generator().manual_seed(kernel)
    shapes = ((3, 4, 7, 8), (5, 4, kernel, kernel), (5,))
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in shapes)
    return [t.to(dtype).requires_grad_() for t in (x.to(memory_format=layout), weight, bias)]


def _with_gradients(y: Tensor, leaves: list[Tensor], dy: Tensor | None = None) -> list[Tensor]:
    if dy is None:
        dy = torch.linspace(-1, 1, y.numel()).view(y.shape).bfloat16()  # a value of every type here
    return [y.detach(), *torch.autograd.grad(y, leaves, dy.to(y.dtype))]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("kernel", "stride", "padding"), [POINTWISE, SQUARE, UNIT])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_response_and_gradients_are_rounded_once(
    layout: torch.memory_format, kernel: int, stride: tuple[int, int], padding: tuple[int, int],
    dtype: torch.dtype,
) -> None:  # fmt: skip
    leaves = _leaves(kernel, dtype, layout)
    found = _with_gradients(conv2d(*leaves, stride, padding), leaves)
    exact_leaves = [leaf.detach().double().requires_grad_() for leaf in leaves]
    exact = _with_gradients(F.conv2d(*exact_leaves, stride, padding), exact_leaves)

    rounding = torch.finfo(dtype).eps / 2 + (1e-6 if dtype != torch.float64 else 1e-14)
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other, rtol=1.01 * rounding, atol=1e-5)


# images, channels in and out, size, kernel, padding: long sums for the responses or the filters' gradients
@pytest.mark.parametrize(
    "shape",
    [(64, 3, 24, 32, 2, 0), (8, 256, 64, 7, 3, 1), (64, 16, 16, 32, 3, 1), (2, 5, 7, 9, 5, 2)],
    ids=str,
)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("with_onednn", [False, True])
def test_long_sums_of_bfloat16_are_rounded_once(
    with_onednn: bool, layout: torch.memory_format, shape: tuple[int, ...]
) -> None:
    N, C, K, size, kernel, padding = shape
    out = size + 2 * padding - kernel + 1
    generator = torch.Generator().manual_seed(N)
    x, weight, dy = (
        torch.randn(sides, generator=generator).to(memory_format=layout).bfloat16()
        for sides in ((N, C, size, size), (K, C, kernel, kernel), (N, K, out, out))
    )
    leaves = [x.requires_grad_(), weight.requires_grad_()]
    with torch.backends.mkldnn.flags(enabled=with_onednn):
        found = _with_gradients(conv2d(*leaves, padding=(padding, padding)), leaves, dy)
    exact_leaves = [leaf.detach().double().requires_grad_() for leaf in leaves]
    exact = _with_gradients(F.conv2d(*exact_leaves, padding=padding), exact_leaves, dy)

    for one, other in zip(found, exact, strict=True):
        assert one.dtype == torch.bfloat16
        # Correctly rounded values are off by 0.29 to 0.58 of half a unit in the root mean square.
        error = (one.double() - other).square().mean().sqrt() / other.square().mean().sqrt()
        assert error < 0.6 * torch.finfo(torch.bfloat16).eps / 2


@pytest.mark.skipif(not precision._HAS_BFLOAT16_PRODUCTS, reason="no AVX512_BF16, or oneDNN is limited")
def test_bfloat16_without_a_stride_is_not_widened() -> None:
    leaves = _leaves(3, torch.bfloat16, torch.channels_last)
    with Calls() as calls:
        _with_gradients(conv2d(*leaves), leaves)

    assert calls.dtypes["convolution"] == torch.bfloat16


@pytest.mark.parametrize(("kernel", "stride"), [(3, (2, 2)), (1, (1, 1)), (7, (1, 1))])
def test_other_layers_are_torchs_bit_for_bit(kernel: int, stride: tuple[int, int]) -> None:
    for layout in LAYOUTS:
        leaves = _leaves(kernel, torch.float32, layout)
        ours = _with_gradients(conv2d(*leaves, stride), leaves)
        theirs = _with_gradients(F.conv2d(*leaves, stride), leaves)

        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16], ids=str)
def test_the_library_gets_no_filter_gradient_of_pointwise_layers_with_a_stride(
    autocast: torch.dtype | None,
) -> None:
    x, weight, bias = _leaves(1, torch.float32, torch.channels_last)
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        y = conv2d(x, weight, bias, (2, 2))
    with Calls() as calls:
        y.float().sum().backward()

    assert y.dtype == (autocast or torch.float32)
    assert calls.dtypes["mm"] == torch.float32
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    exact = x.detach()[:, :, ::2, ::2].to(y.dtype).double().sum((0, 2, 3)).expand(5, 4)
    torch.testing.assert_close(weight.grad[:, :, 0, 0].double(), exact, rtol=1e-2, atol=1e-4)


def test_a_backward_pass_within_autocast_is_the_one_outside() -> None:
    leaves = _leaves(1, torch.float32, torch.channels_last)
    y = conv2d(*leaves, (2, 2))
    dy = torch.randn_like(y)

    outside = torch.autograd.grad(y, leaves, dy, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        within = torch.autograd.grad(y, leaves, dy)

    assert all(map(torch.equal, outside, within))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stride", [(2, 2), (1, 1)])
def test_compiles_into_one_graph(stride: tuple[int, int], dtype: torch.dtype) -> None:
    leaves = _leaves(1, dtype, torch.channels_last)
    compiled = torch.compile(conv2d, fullgraph=True, backend="aot_eager")
    found = _with_gradients(compiled(*leaves, stride), leaves)

    for one, other in zip(found, _with_gradients(conv2d(*leaves, stride), leaves), strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_have_gradients() -> None:
    leaves = _leaves(1, torch.float64, torch.channels_last)

    assert torch.autograd.gradgradcheck(lambda *t: conv2d(*t, (2, 3), (1, 0)), leaves)


def test_one_image_and_two_types() -> None:
    x, weight, bias = (leaf.detach() for leaf in _leaves(1, torch.float32, torch.contiguous_format))

    assert torch.equal(conv2d(x[0], weight, bias, (2, 2)), conv2d(x[:1], weight, bias, (2, 2))[0])
    for pair in ((x.bfloat16(), weight), (x, weight.bfloat16())):
        with pytest.raises(RuntimeError, match="type"):
            conv2d(*pair, stride=(2, 2))


def test_torch_func_finds_the_same_gradient() -> None:
    x, weight, bias = _leaves(1, torch.float32, torch.channels_last)

    def loss(w: Tensor) -> Tensor:
        return conv2d(x.detach(), w, bias.detach(), (2, 2)).square().sum()

    torch.testing.assert_close(torch.func.grad(loss)(weight), torch.autograd.grad(loss(weight), weight)[0])
