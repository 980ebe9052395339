"""Distances of bytes are exact: the CPU's kernel of each width against integers, layer by layer."""

import itertools

import pytest
import torch
from torch import Tensor

from addertrain.ops.int8 import MAX_TERMS, adder2d_int8, adder2d_int8_packed, reference_distances
from addertrain.ops.int8_norm import adder2d_int8_norm, pack_int8
from tests import instruction_sets
from tests.ops.layers import TABLE, Layer
from tests.ops.views import FORMS

LAYERS = [layer for group in TABLE.values() for layer in group][::5]
on_every_set = pytest.mark.parametrize("name", instruction_sets.NAMES_FOR_BYTES)


def bytes_of(layer: Layer) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(layer.C + 31 * layer.O)
    x = torch.randint(0, 256, (layer.N, layer.C, layer.H, layer.W), dtype=torch.uint8, generator=generator)
    w = torch.randint(0, 256, layer.filter_shape, dtype=torch.uint8, generator=generator)
    return x, w


def expected_distances(layer: Layer, x: Tensor, w: Tensor) -> Tensor:
    """By the formula, in integers."""
    (a, b), (u, v), (e, f) = layer.padding, layer.stride, layer.dilation
    p, q = layer.output
    padded = torch.nn.functional.pad(x.int(), (b, b, a, a))
    x_groups, w_groups = padded.chunk(layer.groups, 1), w.int().chunk(layer.groups)
    total = torch.zeros(layer.N, layer.O, p, q, dtype=torch.int32)
    for r, s in itertools.product(range(layer.R), range(layer.S)):
        rows, columns = slice(r * e, r * e + (p - 1) * u + 1, u), slice(s * f, s * f + (q - 1) * v + 1, v)
        parts = [
            (x_group[:, None, :, rows, columns] - w_group[None, :, :, r, s, None, None]).abs().sum(2)
            for x_group, w_group in zip(x_groups, w_groups, strict=True)
        ]
        total += torch.cat(parts, 1).int()
    return total


def test_distances_over_the_table() -> None:
    """On every instruction set that this processor has."""
    cases = [(layer, *bytes_of(layer)) for layer in LAYERS]
    expected = [expected_distances(*case) for case in cases]
    wrong = []
    for name in instruction_sets.NAMES_FOR_BYTES:
        if not instruction_sets.choose(name):
            continue
        for (layer, x, w), answer in zip(cases, expected, strict=True):
            got = adder2d_int8(x, w, *layer.sizes)
            assert (got.dtype, got.is_contiguous(memory_format=torch.channels_last)) == (torch.int32, True)
            if not torch.equal(got, answer):
                wrong.append(f"{name}: {layer}")
            if layer.groups == 1 and not torch.equal(
                adder2d_int8_packed(x, w, pack_int8(w), *layer.sizes), answer
            ):
                wrong.append(f"{name}, packed before: {layer}")
    instruction_sets.restore()

    assert not wrong, "\n".join(wrong[:20])


def test_distances_without_a_kernel_for_bytes() -> None:
    """By Eq. 2 in float32, as on GPUs in groups and where nothing was compiled."""
    for layer in [*(layer for layer in LAYERS if layer.groups > 1), *LAYERS[::9]]:
        x, w = bytes_of(layer)
        assert torch.equal(reference_distances(x, w, *layer.sizes), expected_distances(layer, x, w)), layer


@pytest.mark.parametrize("form", FORMS)
def test_bytes_are_read_where_they_lie(form: str) -> None:
    layer = Layer(2, 5, 6, 7, 8, 3, 2, (2, 1), (1, 0))
    x, w = bytes_of(layer)
    spread = [torch.empty_like(FORMS[form](t.float()), dtype=torch.uint8).copy_(t) for t in (x, w)]

    assert torch.equal(adder2d_int8(*spread, *layer.sizes), expected_distances(layer, x, w))


@on_every_set
def test_the_largest_sum_is_exact(name: str) -> None:
    x, w = (
        torch.zeros(1, MAX_TERMS, 1, 1, dtype=torch.uint8),
        torch.full((1, MAX_TERMS, 1, 1), 255, dtype=torch.uint8),
    )

    with instruction_sets.chosen(name):
        assert adder2d_int8(x, w, [1, 1], [0, 0], [1, 1]).item() == 255 * MAX_TERMS


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8], ids=str)
def test_other_types_are_refused(dtype: torch.dtype) -> None:
    x = torch.zeros(1, 3, 4, 4, dtype=dtype)

    with pytest.raises(ValueError, match="adder2d_int8: expected x and weight in uint8"):
        adder2d_int8(x, x, [1, 1], [0, 0], [1, 1])


def test_opcheck() -> None:
    layer = Layer(2, 5, 6, 7, 8, 3, 2, (2, 1), (1, 0))

    # It has no gradient, which is what the fourth check, seconds long, is about.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    operator = torch.ops.addertrain.adder2d_int8.default
    torch.library.opcheck(operator, (*bytes_of(layer), *layer.sizes), test_utils=checks)


def test_more_terms_than_float32_counts_are_refused_by_every_way_to_bytes() -> None:
    x, w = torch.zeros(1, MAX_TERMS + 1, 1, 1, dtype=torch.uint8), torch.zeros(1, MAX_TERMS + 1, 1, 1).byte()
    packed, numbers, sizes = pack_int8(w), torch.ones(1), ([1, 1], [0, 0], [1, 1])

    for name, call in {
        "adder2d_int8": lambda: adder2d_int8(x, w, *sizes),
        "adder2d_int8_packed": lambda: adder2d_int8_packed(x, w, packed, *sizes),
        "adder2d_int8_norm": lambda: adder2d_int8_norm(x, w, packed, *sizes, scale=numbers, shift=numbers),
    }.items():
        with pytest.raises(ValueError, match=rf"{name}: expected at most {MAX_TERMS} terms in a sum, got"):
            call()
