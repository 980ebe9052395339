"""The trials of a layer: every operator that a network calls for it, with its float64 answers.

Answers of the response and of both gradients are those of `ops.answers`; norms are followed formula by
formula, with the rule of `ops.tolerance` for each sum and product.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from addertrain.ops.answers import Answer, forward_answer, grad_input_answer, grad_weight_answer
from addertrain.ops.int8 import MAX_TERMS
from addertrain.ops.tolerance import tolerance
from addertrain.proof.layers import ProvenLayer
from addertrain.proof.norm_trials import norm_trials
from addertrain.proof.operands import Operands, counts, operands
from addertrain.proof.operators import Operators
from addertrain.proof.power_trials import power_trials

_T = TypeVar("_T")


@dataclass(frozen=True)
class Trial:
    """One operator on one layer. `is_ours`: whether it is our own kernel, which gives the same bits twice."""

    kernel: str
    run: Callable[[], tuple[Tensor, ...]]
    answers: Callable[[], tuple[Answer, ...]]
    is_ours: bool = True


def trials_of(
    layer: ProvenLayer,
    operators: Operators,
    *,
    with_int8: bool,
    with_norm: bool = True,
    with_powers: bool = False,
) -> Iterator[Trial]:
    """All trials of a layer; trials on which others depend come first."""
    yield from _responses(layer, operators)
    yield from _gradients(layer, operators)
    if layer.is_offset_free and layer.dtype != torch.float64:
        if operators.has_sums and layer.is_channels_last and layer.groups == 1:
            yield from _fused(layer, operators)
        if layer.is_channels_last and with_norm:
            for kernel, run, answers in norm_trials(layer, operators):
                yield Trial(kernel, run, answers)
    if with_powers:
        for kernel, run, answers in power_trials(layer, operators):
            yield Trial(kernel, run, answers)
    if with_int8 and layer.C // layer.groups * layer.R * layer.S <= MAX_TERMS:
        yield _distances(layer, operators)
    yield _squares(layer, operators)


def _responses(layer: ProvenLayer, operators: Operators) -> Iterator[Trial]:
    given = operands(layer, layer.forward_images, operators.device)
    x, w = given.whole_x, given.whole_w
    yield Trial(
        "adder2d",
        lambda: (operators.forward(layer, x, w),),
        lambda: (_spread(given.of_response, _response(layer, given)),),
    )


def _gradients(layer: ProvenLayer, operators: Operators) -> Iterator[Trial]:
    w = operands(layer, 1, operators.device).whole_w
    by_zeros = layer.is_rectified and operators.leaves_out_zeros
    for name, zeros in (("", 0.5), (", few zeros", 0.05)) if by_zeros else (("", 0.5),):
        given = operands(layer, layer.gradient_images, operators.device, zeros=(zeros,))
        tensors = (given.whole_dy, given.whole_x, w)
        # Kept: several trials have the same answer.
        of_input = cache(partial(_input_gradient, layer, given, operators.saturates))
        of_filters = cache(partial(_filter_gradient, layer, given))
        yield Trial(
            f"adder2d_grad_input{name}",
            partial(_one, operators.grad_input, layer, *tensors),
            partial(_one, of_input),
        )
        if by_zeros:
            yield Trial(
                f"adder2d_rectified_gradients{name}",
                partial(operators.rectified_gradients, layer, *tensors),
                partial(_both, of_input, of_filters),
            )
    yield Trial(
        "adder2d_grad_weight",
        partial(_one, operators.grad_weight, layer, *tensors),
        partial(_one, of_filters),
        is_ours=False,
    )


def _one(function: Callable[..., _T], *arguments: Any) -> tuple[_T]:
    return (function(*arguments),)


def _both(first: Callable[[], _T], second: Callable[[], _T]) -> tuple[_T, _T]:
    return first(), second()


def _spread(over: Callable[[Tensor], Tensor], few: Answer) -> Answer:
    return Answer(over(few.value), over(few.tolerance))


def _response(layer: ProvenLayer, given: Operands, *, offset_free: bool | None = None) -> Answer:
    """Of the few images and filters."""
    offset_free = layer.is_offset_free if offset_free is None else offset_free
    channel_counts = counts(given.channels) if layer.groups == 1 else None  # in groups each is there once
    return forward_answer(
        given.x, given.w, layer.sizes, offset_free=offset_free, channel_counts=channel_counts
    )


def _input_gradient(layer: ProvenLayer, given: Operands, is_saturated: bool) -> Answer:
    few = grad_input_answer(
        given.dy, given.x, given.w, layer.sizes,
        is_saturated=is_saturated, filter_counts=counts(given.filters),
    )  # fmt: skip
    if layer.is_rectified:
        # The ReLU drops the gradient of its zeros: any number may stand there, but no NaN.
        few = replace(few, tolerance=few.tolerance.masked_fill(given.x == 0, torch.inf))
    return _spread(given.of_input, few)


def _filter_gradient(layer: ProvenLayer, given: Operands) -> Answer:
    few = grad_weight_answer(given.dy, given.x, given.w, layer.sizes, image_counts=counts(given.images))
    return _spread(given.of_filters, few)


def _fused(layer: ProvenLayer, operators: Operators) -> Iterator[Trial]:
    """The response with a norm's sums, and with the operations that follow it in evaluation."""
    given = operands(layer, layer.forward_images, operators.device)
    x, w, residual = given.whole_x, given.whole_w, given.whole_dy
    yield Trial(
        "adder2d_with_sums",
        lambda: operators.with_sums(layer, x, w),
        lambda: _response_and_sums(layer, given),
    )
    scale = torch.linspace(0.0004, 0.02, layer.O, device=x.device)
    shift = torch.linspace(-1.0, 1.0, layer.O, device=x.device)
    yield Trial(
        "adder2d_affine",
        lambda: (operators.affine(layer, x, w, scale, shift, residual),),
        lambda: (_affine(layer, given, scale, shift),),
    )


def _response_and_sums(layer: ProvenLayer, given: Operands) -> tuple[Answer, Answer]:
    """The sums are of float32 numbers, not of what 16 bits keep of them."""
    y = _response(layer, given, offset_free=True)
    exact = replace(given, x=given.x.float(), w=given.w.float())
    off = _response(layer, exact, offset_free=True).tolerance
    num_images = counts(given.images).view(-1, 1, 1, 1)

    def total(values: Tensor) -> Tensor:
        return (values * num_images).sum((0, 2, 3))[given.filters]

    squares = y.value.square()
    sums = torch.stack((total(y.value), total(squares)))
    # A thread adds up to 64 numbers in float32, all else is float64.
    magnitudes = torch.stack((total(y.value.abs()), total(squares)))
    from_sum = tolerance(torch.float32, 64, magnitudes, sums)
    from_response = torch.stack((total(off), total(2 * off * y.value.abs() + off.square())))
    return _spread(given.of_response, y), Answer(sums, from_sum + from_response)


def _affine(layer: ProvenLayer, given: Operands, scale: Tensor, shift: Tensor) -> Answer:
    y = _spread(given.of_response, _response(layer, given, offset_free=True))
    factor, offset = (values.double().view(1, -1, 1, 1) for values in (scale, shift))
    residual = given.whole_dy.double()
    result = y.value * factor + offset + residual
    magnitude = (y.value * factor).abs() + offset.abs() + residual.abs()
    allowed = y.tolerance * factor.abs() + tolerance(given.x.dtype, 4, magnitude, result)
    return Answer(result.clamp_min(0), allowed)


def _distances(layer: ProvenLayer, operators: Operators) -> Trial:
    """Of bytes, exact."""
    given = operands(layer, layer.forward_images, operators.device)
    x, w = (((t.double() * 40).abs() % 256).to(torch.uint8) for t in (given.x, given.w))
    given = replace(given, x=x, w=w)

    def answers() -> tuple[Answer, ...]:
        wide = replace(given, x=x.double(), w=w.double())
        distances = -_response(layer, wide, offset_free=False).value
        return (_spread(given.of_response, Answer(distances, torch.full_like(distances, 0.5))),)

    whole = given.whole_x, given.whole_w
    return Trial("adder2d_int8", lambda: (operators.distances(layer, *whole),), answers)


def _squares(layer: ProvenLayer, operators: Operators) -> Trial:
    """The sums of squares for the optimizer's rates, over as many float32 numbers as the layer's filters
    have.
    """
    given = operands(layer, 1, operators.device)
    gradients = given.whole_w.float()

    def answers() -> tuple[Answer, ...]:
        squares = given.w.float().double().square()
        filter_squares = squares if layer.groups > 1 else squares * counts(given.channels).view(1, -1, 1, 1)
        total = (filter_squares * counts(given.filters).view(-1, 1, 1, 1)).sum().view(1)
        return (Answer(total, tolerance(torch.float64, gradients.numel(), total, total)),)

    return Trial("sums_of_squares", lambda: (operators.sums_of_squares([gradients]),), answers)
