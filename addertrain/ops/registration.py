"""What all operators share: shapes, fakes, autocast, operation counts, and registration with autograd."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from addertrain.ops.derivatives import Backward, Keep, autograd_kernel
from addertrain.ops.flops import count_both_gradients, count_gradient, count_response
from addertrain.ops.geometry import Sizes, output_shape
from addertrain.ops.layout import empty_like_input

NAMESPACE = "addertrain"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")
SIZES = "SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation"


def define_gradient(
    name: str, arguments: str, implementation: Callable[..., Any], like: Literal["x", "weight", "both"]
) -> Any:
    """The operator NAME(dy, x, weight, sizes, arguments); its result is shaped as its argument `like`, or
    consists of two tensors shaped as x and as weight.
    """
    result = "(Tensor, Tensor)" if like == "both" else "Tensor"
    LIBRARY.define(f"{name}(Tensor dy, Tensor x, Tensor weight, {SIZES}{arguments}) -> {result}")
    LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")

    @torch.library.register_fake(f"{NAMESPACE}::{name}", lib=LIBRARY)
    def _fake(dy: Tensor, x: Tensor, weight: Tensor, *_: Any) -> Tensor | tuple[Tensor, Tensor]:
        if like == "weight":
            return torch.empty_like(weight)
        dx = empty_like_input(x.shape, x)
        return dx if like == "x" else (dx, torch.empty_like(weight))

    register_no_backward(name)
    operator = getattr(getattr(torch.ops, NAMESPACE), name)
    count = count_both_gradients if like == "both" else count_gradient
    count(operator)
    return operator


def define_response(
    name: str,
    arguments: str,
    implementation: Callable[..., Tensor],
    gradients: Callable[..., tuple[Callable[[], Tensor], Callable[[], Tensor]]],
    both: Callable[..., tuple[Tensor, Tensor]] | None = None,
) -> Any:
    """The operator NAME(x, weight, sizes, arguments) with a derivative.

    Args:
        gradients: (dy, x, weight, stride, padding, dilation, *arguments) -> what computes dX, and dF.
        both: (the same) -> dX and dF, where one operator has both; `gradients` then serves one alone.
    """
    LIBRARY.define(f"{name}(Tensor x, Tensor weight, {SIZES}{arguments}) -> Tensor")
    LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")

    @torch.library.register_fake(f"{NAMESPACE}::{name}", lib=LIBRARY)
    def _fake(x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, *_: Any) -> Tensor:
        return empty_like_input(output_shape(x, weight, stride, padding, dilation), x)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, *ctx.rest = inputs
        ctx.save_for_backward(x, weight)

    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        no_gradients = (None for _ in ctx.rest)
        needs_dx, needs_dw, *_ = ctx.needs_input_grad
        if needs_dx and needs_dw and both is not None:
            return *both(dy, *ctx.saved_tensors, *ctx.rest), *no_gradients
        dx, dw = gradients(dy, *ctx.saved_tensors, *ctx.rest)
        return (dx() if needs_dx else None), (dw() if needs_dw else None), *no_gradients

    register_backward(name, backward, keep)
    operator = getattr(getattr(torch.ops, NAMESPACE), name)
    count_response(operator)
    return operator


def register_backward(name: str, backward: Backward, keep: Keep | None = None) -> None:
    """Autograd finds the gradients of operator NAME by `backward`, from what `keep` saved."""
    operator = getattr(getattr(torch.ops, NAMESPACE), name).default
    LIBRARY.impl(name, autograd_kernel(name, operator, backward, keep), "Autograd", with_keyset=True)


def register_no_backward(name: str) -> None:
    """Operator NAME is a gradient, or has none: differentiating it is refused."""
    operator = getattr(getattr(torch.ops, NAMESPACE), name).default
    LIBRARY.impl(name, autograd_kernel(name, operator, None), "Autograd", with_keyset=True)


def register_autocast(name: str, operator: Any, dtype_of: Callable[..., torch.dtype]) -> None:
    """Under autocast the operator runs in `dtype_of(device_type, x, weight, *rest)`."""

    def register(device_type: str, key: str) -> None:
        def cast(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
            dtype = dtype_of(device_type, x, weight, *rest)
            with torch.autocast(device_type, enabled=False):
                result: Tensor = operator(x.to(dtype), weight.to(dtype), *rest)
            return result

        LIBRARY.impl(name, cast, key)

    register("cpu", "AutocastCPU")
    register("cuda", "AutocastCUDA")
