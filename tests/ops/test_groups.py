"""Layers in groups: every operator gives what its groups give one by one, whatever the variant.

The operator table holds the plain operators to float64, groups included; here are the others.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from addertrain.ops import fusion, schemas
from addertrain.ops.functional import adder2d
from addertrain.ops.fused import adder2d_affine, adder2d_with_sums
from addertrain.ops.variants import Variant
from addertrain.ops.variants_power import ADDER2D_NORM, GRAD_INPUT, GRAD_WEIGHT
from addertrain.ops.variants_surrogate import GRAD_INPUT_SLOPE, GRAD_WEIGHT_SIGN
from tests.ops.answers import Data, data_of
from tests.ops.layers import Layer

LAYERS = [
    Layer(2, 6, 6, 7, 6, 3, 3, (2, 1), (1, 1), groups=6),
    Layer(2, 5, 15, 6, 5, 5, 5, padding=(2, 2), groups=5),
    Layer(3, 12, 8, 5, 6, 2, 3, (1, 2), (0, 1), (2, 1), groups=4),
    Layer(2, 40, 36, 5, 4, 1, 1, (2, 2), groups=2),
]
LAYOUTS = [torch.contiguous_format, torch.channels_last]

Run = Callable[[Data, Layer], Tensor]
RESPONSES: dict[str, Run] = {
    "p=2": lambda d, layer: ADDER2D_NORM(d.x, d.w, *layer.sizes, True, 2.0),
    "p=1.5": lambda d, layer: ADDER2D_NORM(d.x, d.w, *layer.sizes, False, 1.5),
    "rectified": lambda d, layer: schemas.RECTIFIED(d.x.relu(), d.w, *layer.sizes, True, False),
}
INPUT_GRADIENTS: dict[str, Run] = {
    "p=2": lambda d, layer: GRAD_INPUT(d.dy, d.x, d.w, *layer.sizes, 2.0),
    "p=1.5": lambda d, layer: GRAD_INPUT(d.dy, d.x, d.w, *layer.sizes, 1.5),
    "sign": lambda d, layer: GRAD_INPUT_SLOPE(d.dy, d.x, d.w, *layer.sizes, math.inf),
    "ht_scaled": lambda d, layer: GRAD_INPUT_SLOPE(d.dy, d.x, d.w, *layer.sizes, 4.0),
    # Where x = 0 a kernel may leave it out.
    "rectified": lambda d, layer: schemas.RECTIFIED_GRAD_INPUT(d.dy, d.x.abs(), d.w, *layer.sizes),
}
FILTER_GRADIENTS: dict[str, Run] = {
    "p=2": lambda d, layer: GRAD_WEIGHT(d.dy, d.x, d.w, *layer.sizes, 2.0),
    "p=1.5": lambda d, layer: GRAD_WEIGHT(d.dy, d.x, d.w, *layer.sizes, 1.5),
    "sign": lambda d, layer: GRAD_WEIGHT_SIGN(d.dy, d.x, d.w, *layer.sizes),
    "centred": lambda d, layer: schemas.GRAD_WEIGHT(d.dy, d.x, d.w, *layer.sizes, True),
}


def _groups(data: Data, layer: Layer) -> list[Data]:
    parts = (data.x.chunk(layer.groups, 1), data.w.chunk(layer.groups), data.dy.chunk(layer.groups, 1))
    return [Data(*operands) for operands in zip(*parts, strict=True)]


def _one_by_one(run: Run, layer: Layer, axis: int) -> Tensor:
    """In float64."""
    return torch.cat([run(part, layer) for part in _groups(data_of(layer, torch.float64), layer)], axis)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["NCHW", "channels-last"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_variants_are_their_groups_one_by_one(layer: Layer, layout: torch.memory_format) -> None:
    given = data_of(layer, torch.float32)
    data = Data(given.x.to(memory_format=layout), given.w, given.dy.to(memory_format=layout))
    for runs, axis in ((RESPONSES, 1), (INPUT_GRADIENTS, 1), (FILTER_GRADIENTS, 0)):
        for name, run in runs.items():
            got, expected = run(data, layer), _one_by_one(run, layer, axis)
            scale = max(1.0, expected.abs().max().item())
            torch.testing.assert_close(
                got.double(), expected, rtol=4e-6, atol=4e-6 * scale, msg=lambda text, name=name: name + text
            )
            assert axis == 0 or got.is_contiguous(memory_format=layout), name


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_norms_sums_and_its_evaluation_take_groups(layer: Layer) -> None:
    data = data_of(layer, torch.float32)
    expected = schemas.ADDER2D(data.x, data.w, *layer.sizes, True)
    scale, shift = torch.linspace(0.5, 2.0, layer.O), torch.linspace(-1.0, 1.0, layer.O)

    y, sums = adder2d_with_sums(data.x, data.w, *layer.sizes, groups=layer.groups)
    relu = adder2d_affine(
        data.x, data.w, *layer.sizes, scale=scale, shift=shift, relu=True, groups=layer.groups
    )

    assert torch.equal(y, expected)
    torch.testing.assert_close(sums[0], expected.double().sum((0, 2, 3)))
    torch.testing.assert_close(relu, (expected * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)).relu())


@pytest.mark.parametrize(
    "settings", [{}, {"filter_gradient": "sign"}, {"input_gradient": "sign"}, {"p": 1.5}], ids=str
)
def test_every_variant_trains_in_groups(settings: dict[str, Any]) -> None:
    layer = LAYERS[2]
    data = data_of(layer, torch.float64)
    x, w = (t.clone().requires_grad_() for t in (data.x, data.w))
    variant, where = Variant(**settings), (layer.stride, layer.padding, layer.dilation)

    variant.adder2d(x, w, *where, True, groups=layer.groups).backward(data.dy)

    for group, part in enumerate(_groups(data, layer)):
        x_g, w_g = (t.clone().requires_grad_() for t in (part.x, part.w))
        variant.adder2d(x_g, w_g, *where, True).backward(part.dy)
        torch.testing.assert_close(x.grad.chunk(layer.groups, 1)[group], x_g.grad)
        torch.testing.assert_close(w.grad.chunk(layer.groups)[group], w_g.grad)


@pytest.mark.parametrize("number", [1, 2], ids=["one thread", "two threads"])
def test_groups_give_the_same_bits_twice(number: int) -> None:
    layer = Layer(9, 24, 24, 14, 14, 3, 3, padding=(1, 1), groups=24)
    data, threads = data_of(layer, torch.float32), torch.get_num_threads()
    arguments = (data.dy, data.x, data.w, *layer.sizes)

    def results() -> list[Tensor]:
        return [
            schemas.ADDER2D(data.x, data.w, *layer.sizes, True),
            schemas.GRAD_INPUT(*arguments),
            schemas.GRAD_WEIGHT(*arguments),
        ]

    try:
        torch.set_num_threads(1)
        expected = results()
        torch.set_num_threads(number)
        again = results()
    finally:
        torch.set_num_threads(threads)

    assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True))


@pytest.mark.parametrize("channels", [32, 24], ids=["whole lines", "parts of lines"])
def test_images_of_a_large_layer_have_the_bits_that_each_has_alone(channels: int) -> None:
    """From 8 MiB of results on, kernels store past the caches and fetch pixels ahead."""
    side = math.isqrt(2**21 // (2 * channels)) + 1
    layer = Layer(2, channels, channels, side, side, 3, 3, padding=(1, 1), groups=channels)
    given = data_of(layer, torch.float32)
    x, dy = (t.to(memory_format=torch.channels_last) for t in (given.x, given.dy))
    assert x.numel() * x.element_size() >= 2**23 > x[0].numel() * x.element_size()

    y = schemas.ADDER2D(x, given.w, *layer.sizes, True)
    dx = schemas.GRAD_INPUT(dy, x, given.w, *layer.sizes)
    dw = schemas.GRAD_WEIGHT(dy, x, given.w, *layer.sizes, False)

    expected = torch.zeros_like(given.w, dtype=torch.float64)
    for x_1, dy_1, y_1, dx_1 in zip(x.split(1), dy.split(1), y.split(1), dx.split(1), strict=True):
        assert torch.equal(y_1, schemas.ADDER2D(x_1, given.w, *layer.sizes, True))
        assert torch.equal(dx_1, schemas.GRAD_INPUT(dy_1, x_1, given.w, *layer.sizes))
        expected += schemas.GRAD_WEIGHT(dy_1, x_1, given.w, *layer.sizes, False)
    torch.testing.assert_close(dw.double(), expected, rtol=4e-6, atol=4e-6 * expected.abs().max().item())


def test_groups_that_do_not_fit_are_refused() -> None:
    x = torch.zeros(1, 6, 4, 4)

    with pytest.raises(ValueError, match=r"C=6 input channels in 3 groups, w_ocrs=\(O, 2, R, S\).*\(6, 3,"):
        adder2d(x, torch.zeros(6, 3, 1, 1), groups=3)
    with pytest.raises(ValueError, match=r"number of filters that 3 groups divide, got w_ocrs=\(4, 2, 1, 1"):
        adder2d(x, torch.zeros(4, 2, 1, 1), groups=3)
    with pytest.raises(ValueError, match="groups as an int of at least 1, got 0"):
        adder2d(x, torch.zeros(4, 2, 1, 1), groups=0)
    with pytest.raises(ValueError, match=r"for C=6 input channels, .*give the layer's groups"):
        adder2d(x, torch.zeros(6, 2, 1, 1))


@pytest.mark.parametrize("filters", [(4, 4, 1, 1), (4, 2, 1, 1), (6, 12, 1, 1)], ids=str)
def test_a_kernel_that_is_called_directly_refuses_them_too(filters: tuple[int, ...]) -> None:
    x, w, sizes = torch.zeros(1, 6, 4, 4), torch.zeros(filters), ([1, 1], [0, 0], [1, 1])

    with pytest.raises(RuntimeError, match="groups whose number divides the channels of x and the filters"):
        schemas.ADDER2D(x, w, *sizes, True)


def test_gpu_tiles_do_not_serve_layers_in_groups() -> None:
    """Their epilogues know no groups; a plain response and a norm do."""
    x = torch.zeros(1, 8, 4, 4, device="meta")

    assert not fusion.tiles_serve(x, torch.zeros(8, 1, 3, 3, device="meta"), (1, 1))


def test_opcheck_and_one_graph() -> None:
    layer = LAYERS[0]
    data = data_of(layer, torch.float32)
    x, w = (t.clone().requires_grad_() for t in (data.x, data.w))

    torch.library.opcheck(schemas.ADDER2D.default, (x, w, *layer.sizes, True))
    compiled = torch.compile(adder2d, fullgraph=True, backend="aot_eager")
    arguments = (x, w, layer.stride, layer.padding, layer.dilation)
    torch.testing.assert_close(
        compiled(*arguments, groups=layer.groups), adder2d(*arguments, groups=layer.groups)
    )
