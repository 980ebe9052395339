"""Defines the derivatives of an operator: one backward pass, or none. All others are refused in one line.

The gradients that the papers define are not the derivatives of the response: HT(F - X) stands for a sign, and
X - F for another one. A second derivative would differentiate these stand-ins, and the forward-mode
derivative that agrees with `backward` is sum HT(F - X) dX + sum (X - F) dF, which is not the directional
derivative of Eq. 2. Neither is computed here. torch treats an operation without a formula as a constant, so
without the refusals both would silently be 0.

`torch.library.register_autograd` does the same for one backward, but neither works under torch.func nor hears
of forward mode. What is private here of torch is what its own torch.func uses for autograd functions.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import torch
from torch import _C, Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from addertrain.ops.precision import without_autocast

Kernel = Callable[..., Any]
"""(keyset, *arguments of the operator) -> its result: what `Library.impl` takes for "Autograd"."""
Keep = Callable[[Any, tuple[Any, ...], Any], None]
"""(ctx, inputs, output): saves for the backward pass."""
Backward = Callable[..., tuple[Tensor | None, ...]]
"""(ctx, *gradients of the outputs) -> a gradient or None for every input."""


def autograd_kernel(name: str, operator: Any, backward: Backward | None, keep: Keep | None = None) -> Kernel:
    """The operator's kernel for autograd: it runs `operator`, and `backward` in the backward pass.

    It raises NotImplementedError for a tangent; where `backward` is None, its backward pass does.
    """
    function = _function(name, operator, backward or (lambda *_: refuse_second_derivative(name)), keep)

    def kernel(keyset: Any, *inputs: Any) -> Any:
        if _has_tangent(inputs):
            raise NotImplementedError(
                f"{name}: expected to be differentiated by a backward pass, got a forward-mode derivative "
                "(jvp, jacfwd, linearize or dual numbers), which operators of adder networks do not have; "
                "use backward, torch.func.vjp or jacrev."
            )
        if torch.is_grad_enabled() and _C._any_requires_grad(*inputs):
            with enable_single_level_autograd_function() if _is_in_torch_func() else contextlib.nullcontext():
                return function.apply(*inputs, keyset)
        return _below_autograd(operator, keyset, inputs)

    return kernel


def _function(name: str, operator: Any, backward: Backward, keep: Keep | None) -> Any:
    def forward(ctx: Any, *inputs_and_keyset: Any) -> Any:
        *inputs, keyset = inputs_and_keyset
        if _is_in_torch_func():
            # The levels of torch.func below this one record for themselves; Function.apply switched it off.
            with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                output = _below_autograd(operator, keyset, inputs)
        else:
            output = _below_autograd(operator, keyset, inputs)
        if keep is not None:
            keep(ctx, tuple(inputs), output)
        return output

    def backward_of_all(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with without_autocast(gradients[0].device.type):
            return *backward(ctx, *gradients), None

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward_of_all)}
    # Named as torch names what it generates: profiles tell nodes from operators by it.
    return type(f"GeneratedBackwardFor_addertrain_{name}", (_SingleLevelFunction,), methods)


def refuse_second_derivative(name: str) -> NoReturn:
    """Refuses a second derivative.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(
        f"{name}: expected to be differentiated once, got a derivative of a gradient (create_graph=True, or "
        "torch.func.grad in torch.func.grad), which operators of adder networks do not have; leave them out "
        "of gradient penalties and Hessians."
    )


def _below_autograd(operator: Any, keyset: Any, inputs: Iterable[Any]) -> Any:
    with _C._AutoDispatchBelowAutograd():
        return operator.redispatch(keyset & _C._after_autograd_keyset, *inputs)


def _is_in_torch_func() -> bool:
    return _C._are_functorch_transforms_active()


def _has_tangent(inputs: tuple[Any, ...]) -> bool:
    if forward_ad._current_level < 0:  # the usual case: nobody differentiates forward
        return False
    return any(
        isinstance(each, Tensor) and forward_ad.unpack_dual(each).tangent is not None for each in inputs
    )
