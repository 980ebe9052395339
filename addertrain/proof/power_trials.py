"""The trials of a layer with a power of the distance between 1 and 2, for runs whose power falls.

One power stands for all of them: a kernel fits its constants to the power, and the tests compare those over
the whole range.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from addertrain.ops.answers import Answer
from addertrain.ops.power_answers import (
    power_grad_input_answer,
    power_grad_weight_answer,
    power_response_answer,
)
from addertrain.proof.layers import ProvenLayer
from addertrain.proof.operands import Operands, counts, operands
from addertrain.proof.operators import Operators

_P = 1.4

PowerTrial = tuple[str, Callable[[], tuple[Tensor, ...]], Callable[[], tuple[Answer, ...]]]
"""(kernel, run, answers)."""


def power_trials(layer: ProvenLayer, operators: Operators) -> Iterator[PowerTrial]:
    """The response and both gradients, in float32 at least, as under autocast."""
    layer = replace(layer, dtype=torch.promote_types(layer.dtype, torch.float32))
    given = operands(layer, layer.forward_images, operators.device)
    x, w = given.whole_x, given.whole_w
    yield (
        "adder2d_power",
        lambda: (operators.power(layer, x, w, _P),),
        lambda: (_response(layer, given),),
    )
    learnt = operands(layer, layer.gradient_images, operators.device)
    tensors = (learnt.whole_dy, learnt.whole_x, learnt.whole_w)
    yield (
        "adder2d_power's gradients",
        lambda: operators.power_gradients(layer, *tensors, _P),
        lambda: _gradients(layer, learnt),
    )


def _response(layer: ProvenLayer, given: Operands) -> Answer:
    few = power_response_answer(
        given.x, given.w, layer.sizes, p=_P, offset_free=layer.is_offset_free,
        channel_counts=counts(given.channels) if layer.groups == 1 else None,
    )  # fmt: skip
    return Answer(given.of_response(few.value), given.of_response(few.tolerance))


def _gradients(layer: ProvenLayer, given: Operands) -> tuple[Answer, Answer]:
    tensors = (given.dy, given.x, given.w, layer.sizes)
    dx = power_grad_input_answer(*tensors, p=_P, filter_counts=counts(given.filters))
    dw = power_grad_weight_answer(*tensors, p=_P, image_counts=counts(given.images))
    return (
        Answer(given.of_input(dx.value), given.of_input(dx.tolerance)),
        Answer(given.of_filters(dw.value), given.of_filters(dw.tolerance)),
    )
