"""Matrix products on CPUs whose order of summation depends neither on the batch nor on the number of threads.

    C[m,n] = sum_k A[m,k] B[n,k]

The second half of the K products is added to the first half until one is left, which is an order that only K
decides, of multiplications and additions that are each rounded once. Libraries are ten times as fast, but
their order depends on the batch and the threads. It serves the one layer between the last adder layer and the
logits.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from addertrain.ops.precision import dtype_of_autocast, needs_float32
from addertrain.ops.registration import LIBRARY, NAMESPACE, register_backward

_BLOCK_FLOATS = 2**18
"""Products at a time: they stay in the second-level cache."""

LIBRARY.define("ordered_product(Tensor a, Tensor b) -> Tensor")
_PRODUCT = torch.ops.addertrain.ordered_product


def ordered_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Y[n,o] = sum_k X[n,k] W[o,k] + b[o] on a CPU: x_nk, w_ok, bias [O] -> y_no.

    The gradient of x is such a product too; that of the weights is the library's. Under autocast y is in its
    dtype; 16 bits are computed in float32 and rounded once.
    """
    dtype = dtype_of_autocast(x, weight)
    if dtype is None:
        dtype = x.dtype
    else:
        x, weight = x.to(dtype), weight.to(dtype)
    if needs_float32(x):
        x, weight = x.float(), weight.float()
    with torch.autocast("cpu", enabled=False):
        y: Tensor = _PRODUCT(x, weight)
        return (y if bias is None else y + bias.to(y.dtype)).to(dtype)


@torch.library.impl(LIBRARY, "ordered_product", "CompositeExplicitAutograd")
def _product(a: Tensor, b: Tensor) -> Tensor:
    (num_rows, K), num_columns = a.shape, b.shape[0]
    a_km, b_kn = a.t().contiguous(), b.t().contiguous()
    c_mn = a.new_empty(num_rows, num_columns)
    columns = max(1, min(num_columns, _BLOCK_FLOATS // K))
    rows = max(1, _BLOCK_FLOATS // (K * columns))
    for n in range(0, num_columns, columns):
        for m in range(0, num_rows, rows):
            products = a_km[:, m : m + rows, None] * b_kn[:, None, n : n + columns]
            c_mn[m : m + rows, n : n + columns] = _halved(products)
    return c_mn


def _halved(terms: Tensor) -> Tensor:
    """The sum over the first axis, in place."""
    count = terms.shape[0]
    while count > 1:
        half = (count + 1) // 2
        terms[: count - half] += terms[half:count]
        count = half
    return terms[0]


@torch.library.register_fake(f"{NAMESPACE}::ordered_product", lib=LIBRARY)
def _fake(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[0])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dc: Tensor) -> tuple[Tensor | None, Tensor | None]:
    a, b = ctx.saved_tensors
    needs_da, needs_db, *_ = ctx.needs_input_grad
    return (_PRODUCT(dc, b.t()) if needs_da else None), (dc.t() @ a if needs_db else None)


register_backward("ordered_product", _backward, _keep)


@register_flop_formula(_PRODUCT)
def _count(a: Sequence[int], b: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(a) * b[0]
