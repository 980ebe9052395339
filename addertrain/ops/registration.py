"""What operators have in common: shapes, fakes, autocast, and how autograd finds their gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from addertrain.ops.geometry import output_shape
from addertrain.ops.layout import empty_like_input

NAMESPACE = "addertrain"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")
SIZES = "SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation"

Sizes = Sequence[int]


def define_gradient(name: str, arguments: str, implementation: Callable[..., Tensor], like: str) -> Any:
    """The operator NAME(dy, x, weight, sizes, arguments); its result is shaped as its argument `like`."""
    LIBRARY.define(f"{name}(Tensor dy, Tensor x, Tensor weight, {SIZES}{arguments}) -> Tensor")
    LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")

    @torch.library.register_fake(f"{NAMESPACE}::{name}", lib=LIBRARY)
    def _fake(dy: Tensor, x: Tensor, weight: Tensor, *_: Any) -> Tensor:
        return empty_like_input(x.shape, x) if like == "x" else torch.empty_like(weight)

    return getattr(getattr(torch.ops, NAMESPACE), name)


def define_response(
    name: str,
    arguments: str,
    implementation: Callable[..., Tensor],
    gradients: Callable[..., tuple[Callable[[], Tensor], Callable[[], Tensor]]],
) -> Any:
    """The operator NAME(x, weight, sizes, arguments) with a derivative.

    Args:
        gradients: (dy, x, weight, stride, padding, dilation, *arguments) -> what computes dX, and dF.
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
        refuse_second_derivative(name)
        dx, dw = gradients(dy, *ctx.saved_tensors, *ctx.rest)
        needs_dx, needs_dw, *_ = ctx.needs_input_grad
        return (dx() if needs_dx else None), (dw() if needs_dw else None), *(None for _ in ctx.rest)

    torch.library.register_autograd(f"{NAMESPACE}::{name}", backward, setup_context=keep, lib=LIBRARY)
    return getattr(getattr(torch.ops, NAMESPACE), name)


def refuse_second_derivative(name: str) -> None:
    """Called by every backward: with create_graph=True a second derivative would lose terms in silence.

    Raises:
        NotImplementedError: gradients are being recorded.
    """
    if torch.is_grad_enabled():
        raise NotImplementedError(
            f"{name}: expected to be differentiated once, got create_graph=True; its gradients have no "
            "derivatives, so leave adder layers out of gradient penalties and Hessians."
        )


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
