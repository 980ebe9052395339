"""What the public function refuses, in one line each: what was expected, what came, what to do."""

from typing import Any

import pytest
import torch

from addertrain import libraries
from addertrain.ops import int16, norm, norm_residual, schemas, variants_power
from addertrain.ops.functional import adder2d

X = torch.zeros(2, 3, 6, 5)
W = torch.zeros(4, 3, 3, 3)

REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "x of 3 dimensions": ({"x": X[0]}, ValueError, r"4 dimensions each, got \(3, 6, 5\).*unsqueeze"),
    "weight of 2 dimensions": ({"weight": torch.zeros(4, 3)}, ValueError, r"got .* and \(4, 3\); add"),
    "another number of channels": (
        {"weight": torch.zeros(4, 1, 3, 3)},
        ValueError,
        r"for C=3 input channels, w_ocrs=\(O, 3, R, S\), got w_ocrs=\(4, 1, 3, 3\); give the layer's groups",
    ),
    "integers": (
        {"x": X.long()},
        TypeError,
        r"expected x in float64.*got torch.int64; convert it with x.float",
    ),
    "integer weight": ({"weight": W.int()}, TypeError, r"expected weight in .*got torch.int32; convert"),
    "complex numbers": ({"x": X.cfloat()}, TypeError, r"got torch.complex64"),
    "two dtypes": (
        {"weight": W.double()},
        TypeError,
        r"with the same dtype, got torch.float32 and torch.float64",
    ),
    "two devices": ({"weight": W.to("meta")}, ValueError, r"on the same device, got cpu and meta; move one"),
    "sparse x": ({"x": X.to_sparse()}, TypeError, r"as a dense tensor, got torch.sparse_coo; convert it"),
    "stride 0": ({"stride": 0}, ValueError, r"stride >= 1.*got stride=\(0, 0\)"),
    "negative stride": ({"stride": (1, -2)}, ValueError, r"got stride=\(1, -2\)"),
    "negative padding": ({"padding": -1}, ValueError, r"padding >= 0.*padding=\(-1, -1\)"),
    "dilation 0": ({"dilation": (1, 0)}, ValueError, r"dilation >= 1.*dilation=\(1, 0\)"),
    "three strides": ({"stride": (1, 1, 1)}, ValueError, r"stride as an int or a pair.*got \(1, 1, 1\)"),
    "fractional stride": ({"stride": 1.5}, ValueError, r"stride as an int or a pair of ints, got 1.5"),
    "fractional padding": ({"padding": (1, 0.5)}, ValueError, r"padding as an int or a pair"),
    "padding in words": ({"padding": "same"}, ValueError, r"padding as an int or a pair.*got 'same'"),
    "no dilation": ({"dilation": None}, ValueError, r"dilation as an int or a pair.*got None"),
    "filter too large": (
        {"weight": torch.zeros(4, 3, 7, 3)},
        ValueError,
        r"as large as the filter.*increase the padding",
    ),
    "dilated too far": ({"dilation": 3}, ValueError, r"as large as the filter.*dilation=\(3, 3\)"),
    "no filters": ({"weight": W[:0]}, ValueError, r"at least one element each.*w_ocrs=\(0, 3, 3, 3\)"),
    "empty images": ({"x": X[:, :, :0], "padding": 2}, ValueError, r"at least one element.*\(2, 3, 0, 5\)"),
    "no channels": ({"x": X[:, :0], "weight": W[:, :0]}, ValueError, r"at least one element each"),
    "65 rows": (
        {"x": torch.zeros(1, 3, 70, 3), "weight": torch.zeros(1, 3, 65, 3)},
        ValueError,
        r"at most 64 rows and columns, got w_ocrs=\(1, 3, 65, 3\); use",
    ),
    "65 columns": ({"weight": torch.zeros(1, 3, 1, 65), "padding": 40}, ValueError, r"at most 64 rows"),
}


@pytest.mark.parametrize(("changed", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        adder2d(**{"x": X, "weight": W, **changed})

    assert str(caught.value).startswith("adder2d: expected ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, (2, 4, 4, 3)),
        ({"stride": (2, 1), "padding": [1, 0]}, (2, 4, 3, 3)),
        ({"dilation": 2, "padding": 2}, (2, 4, 6, 5)),
        ({"x": X[:0]}, (0, 4, 4, 3)),
        ({"weight": torch.zeros(1, 3, 64, 64), "padding": 32}, (2, 1, 7, 6)),
    ],
    ids=["defaults", "pairs", "dilated", "empty batch", "the largest filter"],
)
def test_accepted(changed: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert tuple(adder2d(**{"x": X, "weight": W, **changed}).shape) == expected


@pytest.fixture
def kernels() -> None:
    if "_C loaded" not in libraries.status():
        pytest.skip("the reference reads memory through torch alone")


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("padding", [0, 1])
def test_operators_called_directly_read_no_foreign_memory(padding: int) -> None:
    """Behind the public function's back: sizes that do not fit raise instead of being read past their end."""
    sizes = ([1, 1], [padding, padding], [1, 1])
    y = schemas.ADDER2D(X, W, *sizes, False)

    for wrong in (W[:, :2], W.double(), W[0]):
        with pytest.raises(RuntimeError):
            schemas.ADDER2D(X, wrong, *sizes, False)
    for wrong in (y[:, :, 1:], y[:1], y[:, 1:], y.double()):
        with pytest.raises(RuntimeError):
            schemas.GRAD_INPUT(wrong, X, W, *sizes)
    with pytest.raises(RuntimeError):
        schemas.ADDER2D(X, W, [1, 1, 1], *sizes[1:], False)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("weight", "sizes", "message"),
    [
        (W, ([0, 1], [0, 0], [1, 1]), "stride >= 1"),
        (W, ([1, -1], [0, 0], [1, 1]), "stride >= 1"),
        (W, ([1, 1], [0, -1], [1, 1]), "padding >= 0"),
        (W, ([1, 1], [0, 0], [1, 0]), "dilation >= 1"),
        (W, ([1, 1], [0, 0], [-1, -1]), "dilation >= 1"),
        (W[:, :, :0], ([1, 1], [0, 0], [1, 1]), "1 to 64 rows"),
        (torch.zeros(4, 3, 1, 65), ([1, 1], [0, 40], [1, 1]), "1 to 64 rows"),
        (torch.zeros(4, 3, 7, 3), ([2, 2], [0, 0], [1, 1]), "at least as large as the filter"),
        (W, ([1, 1], [0, 0], [3, 3]), "at least as large as the filter"),
    ],
)
def test_operators_called_directly_refuse_what_no_kernel_can_walk(
    weight: torch.Tensor, sizes: tuple[list[int], list[int], list[int]], message: str
) -> None:
    dy = torch.zeros(2, 4, 0, 3)
    calls = [
        lambda: schemas.ADDER2D(X, weight, *sizes, False),
        lambda: schemas.GRAD_INPUT(dy, X, weight, *sizes),
        lambda: torch.ops.addertrain.walks_lists(X, weight, *sizes),
        lambda: torch.ops.addertrain.grouped_grad_weight(dy, X, weight, *sizes),
        lambda: variants_power.POWER_GRAD_WEIGHT(dy, X, weight, *sizes, 1.5),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match=message):
            call()


@pytest.mark.usefixtures("kernels")
def test_convolutions_of_words_refuse_a_stride_of_0() -> None:
    words = W.to(torch.int16)
    packed = int16._PACK(words)

    with pytest.raises(RuntimeError, match="stride >= 1"):
        int16._CONV(X, words, packed, [0, 1], [1, 1], 1.0, W[0, 0, 0], W[0, 0, 0], None)


IMAGES = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0)).to(
    memory_format=torch.channels_last
)
ONES = torch.ones(8)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    "x",
    [
        IMAGES.contiguous(),
        IMAGES.double(),
        IMAGES[0],
        IMAGES[:, :, :, :3],
        IMAGES[:1].expand(4, -1, -1, -1),
        IMAGES[:, :0],
    ],
    ids=["contiguous", "float64", "one image", "a part of the columns", "expanded", "no channels"],
)
def test_norms_called_directly_read_dense_images_only(x: torch.Tensor) -> None:
    ones = torch.ones(x.shape[1])
    for call in (
        lambda: norm._BATCH_NORM_RELU(x, ones, ones, 1e-5, True),
        lambda: norm._BACKWARD(x, x, ones, ones, ones, ones, 1e-5, True),
        lambda: norm_residual._FORWARD(x, x, ones, ones, 1e-5),
        lambda: norm_residual._BACKWARD(x, x, x, ones, ones, ones, 1e-5),
    ):
        with pytest.raises(RuntimeError, match=r"expected float32 x of at least one channel, dense"):
            call()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("numbers", [ONES[:7], ONES.double(), ONES.repeat(2)[::2], ONES[None]])
def test_norms_called_directly_want_a_number_for_each_channel(numbers: torch.Tensor) -> None:
    for place in range(2):
        operands = [numbers if i == place else ONES for i in range(2)]
        with pytest.raises(RuntimeError, match="one number a channel"):
            norm._BATCH_NORM_RELU(IMAGES, *operands, 1e-5, True)
    for place in range(4):
        operands = [numbers if i == place else ONES for i in range(4)]
        with pytest.raises(RuntimeError, match="one number a channel"):
            norm._BACKWARD(IMAGES, IMAGES, *operands, 1e-5, True)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("other", [IMAGES[:1], IMAGES[:, :4], IMAGES.double(), IMAGES.flatten(2)])
def test_norms_called_directly_want_images_of_one_shape(other: torch.Tensor) -> None:
    for call in (
        lambda: norm._BACKWARD(other, IMAGES, ONES, ONES, ONES, ONES, 1e-5, True),
        lambda: norm_residual._FORWARD(IMAGES, other, ONES, ONES, 1e-5),
        lambda: norm_residual._BACKWARD(other, IMAGES, IMAGES, ONES, ONES, ONES, 1e-5),
        lambda: norm_residual._BACKWARD(IMAGES, other, IMAGES, ONES, ONES, ONES, 1e-5),
    ):
        with pytest.raises(RuntimeError, match="of the shape and dtype of x"):
            call()


@pytest.mark.usefixtures("kernels")
def test_lists_serve_images_whose_offsets_have_32_bits() -> None:
    """The memory is asked for, not touched: a sample of x decides."""
    weight, sizes = torch.zeros(32, 32, 1, 8), ([1, 1], [0, 0], [1, 1])
    try:
        images = [torch.empty(1, 32, 1, width) for width in (2**20, 2**25)]
    except RuntimeError:
        pytest.skip("4 GiB of address space are missing")

    assert [torch.ops.addertrain.walks_lists(x, weight, *sizes) for x in images] == [True, False]
