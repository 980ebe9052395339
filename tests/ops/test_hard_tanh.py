"""HT(w - x) of one term, to the bit: some instruction sets clip by integer minima of the floats' bits."""

import itertools

import pytest
import torch
from torch import Tensor

from addertrain.ops import reference, schemas
from tests.ops.implementations import COMPILED, Implementation, name_of

BELOW_ONE, ABOVE_ONE = 1 - 2.0**-24, 1 + 2.0**-23
SUBNORMAL = 2.0**-149
MAGNITUDES = (0.0, SUBNORMAL, 2.0**-126, 0.25, BELOW_ONE, 1.0, ABOVE_ONE, 1.5, 2.0, 3e38, torch.inf)
DIFFERENCES = torch.tensor([sign * size for sign, size in itertools.product((1, -1), MAGNITUDES)])
GRADIENTS = torch.tensor([1.0, -1.0, 0.75])


def _one_term_each(channels: int, *, negated: bool) -> tuple[Tensor, Tensor, Tensor]:
    """dy, x, w of a pointwise layer of one filter: w - x is each difference in turn, from w or from x."""
    w = torch.zeros(1, channels, 1, 1)
    differences = DIFFERENCES.repeat(channels)[: len(DIFFERENCES) // channels * channels + channels]
    x = -differences.view(-1, channels, 1, 1)
    if negated:
        x, w = torch.zeros_like(x), differences[:channels].view(1, channels, 1, 1).clone()
    dy = GRADIENTS.repeat(len(x))[: len(x)].view(-1, 1, 1, 1)
    return dy, x, w


@pytest.mark.parametrize("implementation", COMPILED, ids=name_of)
@pytest.mark.parametrize("channels", [1, 8, 9, 22], ids="{} channels".format)
def test_one_term_has_the_bits_of_its_formula(implementation: Implementation, channels: int) -> None:
    for negated in (False, True):
        dy, x, w = _one_term_each(channels, negated=negated)
        expected = reference.adder2d_grad_input(dy, x, w, [1, 1], [0, 0], [1, 1])

        with implementation.use():
            dx = schemas.GRAD_INPUT(dy, x, w, [1, 1], [0, 0], [1, 1])

        assert torch.equal(dx, expected), f"negated={negated}"  # -0 and 0 are equal: sums begin with 0
