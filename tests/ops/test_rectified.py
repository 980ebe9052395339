"""Input gradients behind a ReLU, which may leave out what the ReLU drops."""

import itertools
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from addertrain.ops import answers, grad_weight, schemas
from addertrain.ops.functional import adder2d
from addertrain.ops.layout import memory_format
from tests.ops.answers import Answer, Data, data_of, grad_input_answer_of
from tests.ops.implementations import COMPILED, Implementation, name_of
from tests.ops.layers import Layer
from tests.ops.threads import differing

LAYERS = [
    Layer(3, 16, 32, 9, 8, 3, 3, padding=(1, 1)),
    Layer(2, 17, 33, 8, 13, 3, 3, (2, 2), (1, 1)),
    Layer(2, 5, 70, 9, 11, 5, 5, (3, 2), (2, 0), (1, 2)),
    Layer(1, 3, 130, 7, 6, 1, 1),
    Layer(2, 20, 520, 5, 5, 1, 1, (2, 2)),
    Layer(1, 40, 48, 40, 31, 3, 3, padding=(1, 1)),
    Layer(5, 16, 40, 5, 5, 5, 5),
    Layer(3, 1, 64, 6, 7, 2, 3, padding=(3, 3)),
    Layer(2, 4, 5, 9, 8, 3, 3, padding=(1, 1)),
    Layer(2, 18, 20, 7, 18, 3, 3, padding=(1, 1)),
    Layer(2, 16, 130, 6, 19, 3, 3, padding=(1, 1)),
    Layer(6, 40, 130, 8, 9, 3, 3, padding=(1, 1)),
    Layer(0, 3, 64, 7, 6, 3, 3),
]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@lru_cache
def _answer(layer: Layer, dtype: torch.dtype) -> Answer:
    return grad_input_answer_of(layer, data_of(layer, dtype, behind_relu=True))


def _mistake(layer: Layer, dtype: torch.dtype, layout: torch.memory_format) -> str | None:
    data = data_of(layer, dtype, behind_relu=True)
    answer = _answer(layer, dtype)
    dy, x = (t.to(memory_format=layout) for t in (data.dy, data.x))
    dx = schemas.RECTIFIED_GRAD_INPUT(dy, x, data.w, *layer.sizes)
    is_right = (dx.double() - answer.value).abs() <= answer.tolerance
    is_left_out = (x == 0) & (dx == 0)
    if (is_right | is_left_out).all() and dx.stride() == x.stride():
        return None
    return f"{layer}, {layout}: {int((~(is_right | is_left_out)).sum())} of {dx.numel()} wrong"


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(
    ("implementation", "dtype"),
    [
        *((one, torch.float32) for one in COMPILED),
        (COMPILED[0], torch.float64),
        (COMPILED[0], torch.bfloat16),
    ],
    ids=name_of,
)
def test_right_wherever_the_relu_lets_it_through(
    implementation: Implementation, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    with implementation.use():
        mistakes = [mistake for layer in LAYERS if (mistake := _mistake(layer, dtype, layout))]

    assert not mistakes, "\n".join(mistakes)


@lru_cache
def _filter_answer(layer: Layer) -> Answer:
    data = data_of(layer, torch.float32, behind_relu=True)
    return answers.grad_weight_answer(data.dy, data.x, data.w, layer.sizes)


@pytest.mark.parametrize(("layout", "w_layout"), list(itertools.product(LAYOUTS, LAYOUTS)), ids=str)
@pytest.mark.parametrize("implementation", COMPILED, ids=name_of)
def test_both_gradients_in_one_walk_are_right(
    implementation: Implementation, layout: torch.memory_format, w_layout: torch.memory_format
) -> None:
    for layer in (layer for layer in LAYERS if layer.N > 0):
        data, expected = data_of(layer, torch.float32, behind_relu=True), _answer(layer, torch.float32)
        dy, x = (t.to(memory_format=layout) for t in (data.dy, data.x))
        w = data.w.to(memory_format=w_layout)

        with implementation.use():
            dx, products = torch.ops.addertrain.adder2d_list_gradients(dy, x, w, *layer.sizes)

        dw = grad_weight.of_products(products, dy, w, centred=False)
        left_out = replace(expected, tolerance=expected.tolerance.masked_fill(x == 0, torch.inf))
        assert answers.mistake(dx, left_out) is None, f"{layer}"
        assert answers.mistake(dw, _filter_answer(layer)) is None, f"{layer}"
        assert (dx.stride(), dw.stride()) == (x.stride(), w.stride())


def test_a_gradient_alone_is_that_of_both() -> None:
    layer = LAYERS[0]
    data = data_of(layer, torch.float32, behind_relu=True)
    x, w = data.x.clone().requires_grad_(), data.w.clone().requires_grad_()
    y = schemas.RECTIFIED(x, w, *layer.sizes, True, False)

    both = torch.autograd.grad(y, (x, w), data.dy, retain_graph=True)
    alone = [torch.autograd.grad(y, leaf, data.dy, retain_graph=True)[0] for leaf in (x, w)]

    for one, other in zip(both, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("implementation", COMPILED, ids=name_of)
def test_zeros_are_left_out_where_that_pays(implementation: Implementation) -> None:
    layer = LAYERS[0]
    data = data_of(layer, torch.float32, behind_relu=True)

    with implementation.use():
        dx = schemas.RECTIFIED_GRAD_INPUT(data.dy, data.x, data.w, *layer.sizes)

    assert torch.equal(dx == 0, data.x == 0)


NEAR_AND_FAR = [0.0, 0.0, 0.0, 1e-40, 0.25, 1.0, 2.999, 3.0, 3.0000002, 7.5, 1e6, -2.0]


@pytest.mark.parametrize("implementation", COMPILED, ids=name_of)
def test_each_input_keeps_its_digits_beside_larger_ones(implementation: Implementation) -> None:
    """Kernels may compute small inputs in another way than large ones, tile by tile."""
    layer = LAYERS[0]
    data = data_of(layer, torch.float32, behind_relu=True)
    draw = torch.Generator().manual_seed(0)
    values = torch.tensor(NEAR_AND_FAR)
    for share in (0.02, 0.2, 1.0):
        drawn = values[torch.randint(len(values), data.x.shape, generator=draw)]
        x = torch.where(torch.rand(data.x.shape, generator=draw) < share, drawn, data.x.clamp(max=3))
        answer = grad_input_answer_of(layer, Data(x, data.w, data.dy))

        with implementation.use():
            dx = schemas.RECTIFIED_GRAD_INPUT(data.dy, x, data.w, *layer.sizes)

        is_right = (dx.double() - answer.value).abs() <= answer.tolerance
        assert (is_right | ((x == 0) & (dx == 0))).all(), f"{share} drawn"


@pytest.mark.parametrize("implementation", COMPILED, ids=name_of)
def test_sums_of_one_sign_keep_their_digits(implementation: Implementation) -> None:
    """Rounding is worst where nothing cancels: all of dY is positive, and all differences are, or none."""
    layer = LAYERS[0]
    data = data_of(layer, torch.float32)
    for x_value in (0.1, 1.7, 3.0, 3.5):
        x = (data.x > 0) * x_value
        for sign in (1, -1):
            w, dy = x_value + sign * data.w.abs() * 2, data.dy.abs() + 0.1
            answer = grad_input_answer_of(layer, Data(x, w, dy))

            with implementation.use():
                dx = schemas.RECTIFIED_GRAD_INPUT(dy, x, w, *layer.sizes)

            used = ((dx.double() - answer.value).abs() / answer.tolerance)[x > 0].max()
            assert used <= 1, f"x = {x_value}, {sign}: {used} of the tolerance"


def test_a_nan_and_an_infinity_show() -> None:
    layer = LAYERS[0]
    data = data_of(layer, torch.float32, behind_relu=True)
    x, w = data.x.clone(), data.w.clone()
    x[1, 3, 4, 4], w[7, 5, 1, 1] = torch.nan, torch.nan

    dx = schemas.RECTIFIED_GRAD_INPUT(data.dy, x, w, *layer.sizes)

    assert dx[1, 3, 4, 4].isnan()
    assert dx[:, 5][x[:, 5] > 0].isnan().all()
    assert dx[:, :3].isfinite().all()


def _network(x: Tensor, *weights: Tensor, rectified: bool) -> Tensor:
    first, second, third = weights
    x = adder2d(x, first, padding=1, offset_free=True).relu()
    x = max_pool2d(adder2d(x, second, padding=1, offset_free=True, rectified=rectified).sub(20).relu(), 2)
    return adder2d(x, third, offset_free=True, rectified=rectified)


def test_a_network_trains_the_same() -> None:
    """Every gradient that anyone reads: zeros are dropped by the ReLU whatever the layer gave them."""
    draw = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 12, 12), (40, 3, 3, 3), (48, 40, 3, 3), (64, 48, 3, 3)]
    tensors = [torch.randn(shape, generator=draw) for shape in shapes]
    gradients = []
    for rectified in (False, True):
        leaves = [t.clone().requires_grad_() for t in tensors]
        _network(*leaves, rectified=rectified).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])

    for full, sparse in zip(*gradients, strict=True):
        torch.testing.assert_close(sparse, full, rtol=1e-4, atol=1e-5 * float(full.abs().max()))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_opcheck(layout: torch.memory_format) -> None:
    layer = LAYERS[1]
    data = data_of(layer, torch.float32, behind_relu=True)
    dy, x = (t.to(memory_format=layout) for t in (data.dy, data.x))
    x_learns, w_learns = (t.clone().requires_grad_() for t in (x, data.w))
    torch.library.opcheck(schemas.RECTIFIED.default, (x_learns, w_learns, *layer.sizes, True))
    torch.library.opcheck(schemas.RECTIFIED.default, (x_learns, w_learns, *layer.sizes, True, True))
    torch.library.opcheck(schemas.RECTIFIED_GRAD_INPUT.default, (dy, x, data.w, *layer.sizes))
    torch.library.opcheck(schemas.RECTIFIED_GRADIENTS.default, (dy, x, data.w, *layer.sizes, True))


def test_centred_leaves_out_the_sum_of_dy_alone() -> None:
    layer = LAYERS[0]
    data = data_of(layer, torch.float64, behind_relu=True)

    full = schemas.GRAD_WEIGHT(data.dy, data.x, data.w, *layer.sizes)
    centred = schemas.GRAD_WEIGHT(data.dy, data.x, data.w, *layer.sizes, True)

    left_out = data.w * data.dy.sum((0, 2, 3)).view(-1, 1, 1, 1)
    assert left_out.abs().max() > 1
    torch.testing.assert_close(centred - left_out, full, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("implementation", COMPILED, ids=name_of)
def test_the_same_bits_for_any_number_of_threads(implementation: Implementation) -> None:
    some = [(layer, data_of(layer, torch.float32, behind_relu=True)) for layer in (*LAYERS[:7], LAYERS[-2])]
    with implementation.use():
        assert not differing(
            lambda: [
                schemas.RECTIFIED_GRAD_INPUT(data.dy, data.x, data.w, *layer.sizes) for layer, data in some
            ]
        )
        for place in (0, 1):
            assert not differing(
                lambda place=place: [
                    torch.ops.addertrain.adder2d_list_gradients(data.dy, data.x, data.w, *layer.sizes)[place]
                    for layer, data in some
                ]
            )


def _views(x: Tensor) -> list[Tensor]:
    """The same images in memory of other strides."""
    n, c, h, w = x.shape
    wider = x.new_full((n, c + 1, h + 2, w + 3), 7.0)
    inner = wider[:, 1:, 1 : h + 1, 2 : w + 2]
    beside = x.new_full((n, h + 2, w + 3, c + 1), 7.0).permute(0, 3, 1, 2)[:, 1:, 1 : h + 1, 2 : w + 2]
    swapped = x.new_empty(w, h, c, n).permute(3, 2, 1, 0)
    return [view.copy_(x) for view in (inner, beside, swapped)]


@pytest.mark.parametrize("implementation", COMPILED[:1], ids=name_of)
def test_the_choice_of_lists_depends_on_images_and_not_on_strides(implementation: Implementation) -> None:
    layer, found = Layer(2, 16, 16, 9, 8, 3, 3, padding=(1, 1)), set()
    with implementation.use():
        for seed in range(12):
            draw = torch.Generator().manual_seed(seed)
            x = torch.rand(layer.N, layer.C, layer.H, layer.W, generator=draw)
            x = x * (torch.rand(x.shape, generator=draw) >= 0.1)  # the share of zeros from which lists pay
            w = torch.randn(layer.O, layer.C, layer.R, layer.S, generator=draw)
            for view in _views(x):
                dense = view.clone(memory_format=memory_format(view))
                chosen, expected = (
                    torch.ops.addertrain.walks_lists(images, w, *layer.sizes) for images in (view, dense)
                )
                assert chosen == expected
                found.add(chosen)
    assert found == {False, True}


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("implementation", COMPILED[:1], ids=name_of)
def test_the_choice_of_lists_meets_every_channel_and_column(
    implementation: Implementation, layout: torch.memory_format
) -> None:
    """Every fifteenth of the 15 * 1024 numbers of these images belongs to one channel, or to one column."""
    for axis, shape in ((1, (1, 15, 32, 32)), (3, (1, 32, 32, 15))):
        w = torch.ones(16, shape[1], 3, 3)
        for beside, expected in ((0.0, True), (1.0, False)):
            x = torch.full(shape, beside).to(memory_format=layout)
            x.select(axis, 0).fill_(1.0 - beside)
            with implementation.use():
                chosen = torch.ops.addertrain.walks_lists(x, w, [1, 1], [1, 1], [1, 1])
            assert chosen == expected, f"axis {axis}, {beside} beside its first place"


@pytest.mark.parametrize("implementation", COMPILED[:1], ids=name_of)
def test_asking_for_lists_copies_no_images(implementation: Implementation) -> None:
    layer = LAYERS[0]
    data = data_of(layer, torch.float32, behind_relu=True)
    views = _views(data.x)

    activities = [torch.profiler.ProfilerActivity.CPU]
    with implementation.use(), torch.profiler.profile(activities=activities) as profiler:
        for view in views:
            torch.ops.addertrain.walks_lists(view, data.w, *layer.sizes)

    names = [event.name for event in profiler.events()]
    assert names.count("addertrain::walks_lists") == len(views)
    assert not [name for name in names if name.startswith("aten::")]


def test_autocast_and_compile() -> None:
    draw = torch.Generator().manual_seed(0)
    x, w = torch.randn(2, 8, 9, 9, generator=draw).relu(), torch.randn(32, 8, 3, 3, generator=draw)

    with torch.autocast("cpu", torch.bfloat16):
        assert adder2d(x, w, rectified=True, offset_free=True).dtype == torch.bfloat16
        assert adder2d(x, w, rectified=True).dtype == torch.float32
    compiled = torch.compile(adder2d, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, w, rectified=True), adder2d(x, w, rectified=True))
