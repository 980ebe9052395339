"""What the public function refuses, in one line each: what was expected, what came, what to do."""

from typing import Any

import pytest
import torch

from addertrain import libraries
from addertrain.ops import schemas
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


@pytest.mark.parametrize("padding", [0, 1])
def test_operators_called_directly_read_no_foreign_memory(padding: int) -> None:
    """Behind the public function's back: sizes that do not fit raise instead of being read past their end."""
    if "_C loaded" not in libraries.status():
        pytest.skip("the reference reads memory through torch alone")
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
