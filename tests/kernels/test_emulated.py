"""The GPU kernels' own source over the operator table, emulated: tests GPUs' results where no GPU is.

By default each layer (in 16 bits every sixth) runs in one layout and form, in turn; `-m long` runs all.
Powers of the distance are in test_emulated_powers.py.
"""

import itertools

import pytest
import torch

from addertrain.ops import reference
from addertrain.ops.tolerance import SAFETY, unit_roundoff
from tests.kernels.emulated import EmulatedKernels, Fused
from tests.ops import test_nonfinite
from tests.ops.answers import Answer, data_of, forward_answer, grad_input_answer
from tests.ops.implementations import name_of
from tests.ops.layers import TABLE, Layer
from tests.ops.test_int8 import bytes_of, expected_distances
from tests.ops.test_table import LAYOUTS, mistake
from tests.ops.views import FORMS

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
EVERY_FORM = list(itertools.product(LAYOUTS, (False, True), (False, True)))

over_the_table = pytest.mark.parametrize("group", TABLE)
in_every_type = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)


FIRST = {torch.float16: 0, torch.bfloat16: 3}
"""Of every sixth layer: an mma is slow to emulate, and the two types share all but their elements."""


def _layers(group: str, dtype: torch.dtype, is_long: bool) -> list[tuple[int, Layer]]:
    numbered = [(i, layer) for i, layer in enumerate(TABLE[group]) if EmulatedKernels.serves(layer)]
    return numbered if is_long or dtype == torch.float32 else numbered[FIRST[dtype] :: 6]


def forward_mistakes(
    emulator: EmulatedKernels, group: str, dtype: torch.dtype, *, is_long: bool = False
) -> list[str]:
    num_forms = len(EVERY_FORM) if is_long else 1
    found = []
    for i, layer in _layers(group, dtype, is_long):
        for form in range(num_forms):
            layout, offset_free, behind_relu = EVERY_FORM[(i + form) % len(EVERY_FORM)]
            data = data_of(layer, dtype, behind_relu)
            y = emulator.forward(layer, data.x.to(memory_format=LAYOUTS[layout]), data.w, offset_free)
            found.append(mistake(y, forward_answer(layer, dtype, offset_free, behind_relu), layer, layout))
    return [one for one in found if one]


def grad_input_mistakes(
    emulator: EmulatedKernels, group: str, dtype: torch.dtype, *, is_long: bool = False
) -> list[str]:
    num_layouts = len(LAYOUTS) if is_long else 1
    found = []
    for i, layer in _layers(group, dtype, is_long):
        data = data_of(layer, dtype)
        for layout in itertools.islice(itertools.cycle(LAYOUTS), i % 2, i % 2 + num_layouts):
            dy, x = (t.to(memory_format=LAYOUTS[layout]) for t in (data.dy, data.x))
            dx = emulator.grad_input(layer, dy, x, data.w)
            found.append(mistake(dx, grad_input_answer(layer, dtype, True), layer, layout))
    return [one for one in found if one]


@in_every_type
@over_the_table
def test_emulated_forward(emulator: EmulatedKernels, dtype: torch.dtype, group: str) -> None:
    mistakes = forward_mistakes(emulator, group, dtype)

    assert not mistakes, "\n".join(mistakes[:20])


def test_float32_keeps_the_digits_of_the_plain_sum(emulator: EmulatedKernels) -> None:
    """Near each other and far from 0: float32 adds |x - w| itself, without the identity that 16 bits use."""
    layer = Layer(2, 64, 40, 9, 9, 3, 3)
    generator = torch.Generator().manual_seed(0)
    x = 1000 + torch.rand(layer.N, layer.C, layer.H, layer.W, generator=generator)
    w = 1000 + torch.rand(layer.O, layer.C, layer.R, layer.S, generator=generator)
    distance = -reference.adder2d(x.double(), w.double(), *layer.sizes, False)
    allowed = SAFETY * w[0].numel() ** 0.5 * unit_roundoff(torch.float32) * distance

    for layout in LAYOUTS.values():
        y = emulator.forward(layer, x.to(memory_format=layout), w)
        assert ((y.double() + distance).abs() <= allowed).all()


@in_every_type
@over_the_table
def test_emulated_grad_input(emulator: EmulatedKernels, dtype: torch.dtype, group: str) -> None:
    mistakes = grad_input_mistakes(emulator, group, dtype)

    assert not mistakes, "\n".join(mistakes[:20])


@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES], ids=name_of)
def test_what_no_tile_serves(emulator: EmulatedKernels, dtype: torch.dtype) -> None:
    """Small groups and long filters, and float64 everywhere: the direct kernel and that of depthwise layers.

    tests/kernels/test_direct.py has the whole table, test_depthwise.py which layers go where.
    """
    is_double = dtype == torch.float64
    layers = [
        one for group in TABLE.values() for one in group if is_double or not EmulatedKernels.serves(one)
    ]
    found = []
    for i, layer in enumerate(layers[DTYPES.index(dtype) :: 12] if not is_double else layers[::60]):
        data, offset_free = data_of(layer, dtype), i % 2 == 0
        dy, x = (t.to(memory_format=LAYOUTS[[*LAYOUTS][i % 2]]) for t in (data.dy, data.x))
        y, dx = emulator.forward(layer, x, data.w, offset_free), emulator.grad_input(layer, dy, x, data.w)
        found.append(mistake(y, forward_answer(layer, dtype, offset_free), layer, "response"))
        found.append(mistake(dx, grad_input_answer(layer, dtype), layer, "input gradient"))

    assert not [one for one in found if one], "\n".join(one for one in found[:20] if one)


def test_offsets_that_pass_32_bits(emulator: EmulatedKernels) -> None:
    """Two images 2^31 elements apart; the memory between them is never touched."""
    layer = Layer(2, 3, 3, 5, 6, 3, 3, padding=(1, 1), groups=3)
    data = data_of(layer, torch.float16)
    far = torch.empty(2**31 + 90, dtype=torch.float16).as_strided((2, 3, 5, 6), (2**31, 30, 6, 1))
    x, dy = far.copy_(data.x), data.dy

    answers = forward_answer(layer, torch.float16, True), grad_input_answer(layer, torch.float16)
    assert mistake(emulator.forward(layer, x, data.w, True), answers[0], layer, "response") is None
    assert mistake(emulator.grad_input(layer, dy, x, data.w), answers[1], layer, "input gradient") is None


@pytest.mark.long
@in_every_type
@over_the_table
def test_every_form_of_every_layer(emulator: EmulatedKernels, dtype: torch.dtype, group: str) -> None:
    mistakes = forward_mistakes(emulator, group, dtype, is_long=True)
    mistakes += grad_input_mistakes(emulator, group, dtype, is_long=True)

    assert not mistakes, "\n".join(mistakes[:20])


@in_every_type
def test_orders_of_threads_and_copies_change_no_bit(emulator: EmulatedKernels, dtype: torch.dtype) -> None:
    """Where a barrier or a wait is missing, one of the orders reads what is yet to be written."""
    layer = Layer(2, 24, 72, 9, 8, 3, 3, (2, 1), (1, 1))
    data = data_of(layer, dtype)
    dy, x = (t.to(memory_format=torch.channels_last) for t in (data.dy, data.x))
    results = []
    try:
        for at_once, reverse in itertools.product((False, True), repeat=2):
            emulator.library.set_emulator(at_once, reverse)
            results.append((emulator.forward(layer, x, data.w), emulator.grad_input(layer, dy, x, data.w)))
    finally:
        emulator.library.set_emulator(False, False)

    for y, dx in results[1:]:
        assert torch.equal(y, results[0][0])
        assert torch.equal(dx, results[0][1])


@in_every_type
def test_tensors_are_read_where_they_lie(emulator: EmulatedKernels, dtype: torch.dtype) -> None:
    """Any strides, and x, w and dY each with its own."""
    for layer in (Layer(3, 5, 6, 7, 8, 3, 2, (2, 1), (1, 0)), Layer(2, 8, 16, 5, 6, 3, 3, (1, 1), (1, 1))):
        data = data_of(layer, dtype)
        answers = forward_answer(layer, dtype, False), grad_input_answer(layer, dtype, True)
        for x_form, w_form, dy_form in zip(
            FORMS, [*FORMS][::-1], [*[*FORMS][3:], *[*FORMS][:3]], strict=True
        ):
            x, w, dy = FORMS[x_form](data.x), FORMS[w_form](data.w), FORMS[dy_form](data.dy)
            names = f"x {x_form}, w {w_form}, dy {dy_form}"
            assert mistake(emulator.forward(layer, x, w), answers[0], layer, names) is None
            assert mistake(emulator.grad_input(layer, dy, x, w), answers[1], layer, names) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=name_of)
def test_what_is_not_finite_stays_so(
    emulator: EmulatedKernels, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        test_nonfinite, "LAYERS", [Layer(2, 5, 6, 7, 8, 3, 3), Layer(1, 8, 18, 5, 6, 3, 3, (2, 2))]
    )
    for value in (torch.inf, -torch.inf, torch.nan):
        test_nonfinite.test_forward_with_a_nonfinite_input(emulator, dtype, value)
        test_nonfinite.test_forward_with_a_nonfinite_filter(emulator, dtype, value)
    test_nonfinite.test_input_gradient_with_nan(emulator, dtype)
    test_nonfinite.test_input_gradient_with_nan_in_dy(emulator, dtype)
    test_nonfinite.test_input_gradient_of_infinite_differences_is_clipped(emulator, dtype)


EPILOGUE_LAYERS = [
    Layer(3, 20, 40, 7, 9, 3, 3, padding=(1, 1)),  # k is split
    Layer(3, 4, 40, 9, 9, 1, 1),  # several tiles of rows, k whole
    Layer(2, 8, 136, 9, 8, 1, 1, (2, 2)),
    Layer(2, 5, 6, 7, 8, 3, 3),
]


@in_every_type
@pytest.mark.parametrize("layer", EPILOGUE_LAYERS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_epilogue_of_an_evaluation(
    emulator: EmulatedKernels, dtype: torch.dtype, layer: Layer, layout: str
) -> None:
    data, answer = data_of(layer, dtype), forward_answer(layer, dtype, True)
    x = data.x.to(memory_format=LAYOUTS[layout])
    scale, shift = torch.randn(layer.O) / 50, torch.randn(layer.O)
    residual = torch.randn_like(answer.value).to(dtype).to(memory_format=LAYOUTS[layout])

    y = emulator.forward(layer, x, data.w, True, Fused(scale, shift, residual, relu=True))

    slope = scale.double().view(1, -1, 1, 1)
    sums = answer.value * slope + shift.double().view(1, -1, 1, 1) + residual.double()
    allowed = answer.tolerance * slope.abs() + 2 * unit_roundoff(dtype) * sums.abs() + 1e-6
    assert mistake(y, Answer(sums.relu(), allowed), layer, layout) is None


@in_every_type
@pytest.mark.parametrize("layer", EPILOGUE_LAYERS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_statistics_of_a_response(
    emulator: EmulatedKernels, dtype: torch.dtype, layer: Layer, layout: str
) -> None:
    """From float32 sums, not from what 16 bits keep of them."""
    data, answer = data_of(layer, dtype), forward_answer(layer, dtype, True)
    exact = forward_answer(layer, torch.float32, True).tolerance  # of a sum before it is rounded
    sums = torch.full((2, layer.O), torch.nan, dtype=torch.float64)

    y = emulator.forward(layer, data.x.to(memory_format=LAYOUTS[layout]), data.w, True, Fused(sums=sums))

    expected = torch.stack((answer.value.sum((0, 2, 3)), answer.value.square().sum((0, 2, 3))))
    of_sums = exact.sum((0, 2, 3)) + 1e-6 * answer.value.abs().sum((0, 2, 3))
    of_squares = 2 * (exact * answer.value.abs()).sum((0, 2, 3)) + 1e-6 * expected[1]
    assert mistake(y, answer, layer, layout) is None
    assert ((sums - expected).abs() <= torch.stack((of_sums, of_squares))).all()


@in_every_type
@pytest.mark.parametrize("channels", [4, 40], ids=["k whole", "k split"])
def test_variance_of_a_mean_far_from_zero(
    emulator: EmulatedKernels, dtype: torch.dtype, channels: int
) -> None:
    """A float32 sum of squares would lose a variance that is 1e5 to 1e7 times smaller."""
    layer = Layer(3, channels, 40, 9, 9, 1, 1)
    x = 0.25 * torch.randint(0, 4, (3, channels, 9, 9)).to(dtype).to(memory_format=torch.channels_last)
    w = torch.full((40, channels, 1, 1), -8.0, dtype=dtype)
    x[:, 0], w[:, 0] = 2048, 4096  # |w| - |x - w| = 2048 everywhere; the other channels vary by a quarter
    sums = torch.full((2, 40), torch.nan, dtype=torch.float64)

    emulator.forward(layer, x, w, True, Fused(sums=sums))

    y = reference.adder2d(x.double(), w.double(), *layer.sizes, True)
    expected_var, expected_mean = torch.var_mean(y, (0, 2, 3), correction=0)
    mean, square = sums / (3 * 9 * 9)
    assert (expected_mean.square() / expected_var).min() > 1e5
    torch.testing.assert_close(mean, expected_mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(square - mean.square(), expected_var, rtol=2e-3, atol=0)


NORM_SHAPES = [(2, 16, 9, 7), (3, 72, 5, 5), (5, 6, 3, 2), (37, 10, 1, 1), (1, 272, 2, 3), (2, 8, 40, 33)]


@in_every_type
@pytest.mark.parametrize("relu", [True, False])
def test_norm_of_sums_and_its_gradient(emulator: EmulatedKernels, dtype: torch.dtype, relu: bool) -> None:
    for shape in NORM_SHAPES:
        torch.manual_seed(0)
        channels = shape[1]
        x, dy = (torch.randn(shape).to(dtype).to(memory_format=torch.channels_last) for _ in range(2))
        x = (x + 30 * torch.randn(channels).view(1, -1, 1, 1)).to(dtype)
        weight, bias = torch.randn(channels), torch.randn(channels)
        sums = torch.stack([x.double().pow(power).sum((0, 2, 3)) for power in (1, 2)])
        settings = {"eps": 1e-5, "relu": relu}

        y, mean, var = emulator.norm(x, sums, weight, bias, **settings)
        got = [y, *emulator.norm_backward(dy, x, weight, bias, mean, var, **settings)]

        wide = [t.double().requires_grad_() for t in (x, weight, bias)]
        expected = torch.nn.functional.batch_norm(wide[0], None, None, *wide[1:], training=True)
        near_kink = relu & (expected.abs() < 1e-4)
        expected = expected.relu() if relu else expected
        expected.backward(dy.double())
        allowed = 3 * unit_roundoff(dtype) + 1e-5
        for name, one, other in zip(
            ("y", "dx", "dweight", "dbias"), got, (expected, *(t.grad for t in wide)), strict=True
        ):
            off = (one.double() - other).abs() / (1 + other.abs().max())
            off = off.masked_fill(near_kink, 0) if one.dim() == 4 else off
            assert off.max() < (allowed if one.dim() == 4 else 1e-4), f"{shape}, {name}: {off.max()}"


@pytest.mark.parametrize("by_maxima", [False, True], ids=["differences", "maxima"])
@pytest.mark.parametrize("group", TABLE)
def test_emulated_distances_of_bytes_are_exact(
    emulator: EmulatedKernels, group: str, by_maxima: bool
) -> None:
    """In the form of most GPUs, and in that of sm_120f, whose instructions lack differences."""
    wrong = []
    emulator.library.set_byte_maxima(by_maxima)
    try:
        ungrouped = [layer for layer in TABLE[group] if layer.groups == 1]  # words would span groups
        for layer in filter(EmulatedKernels.serves, ungrouped[int(by_maxima) :: 3]):
            x, w = bytes_of(layer)
            if not torch.equal(emulator.distances(layer, x, w), expected_distances(layer, x, w)):
                wrong.append(str(layer))
    finally:
        emulator.library.set_byte_maxima(False)

    assert not wrong, "\n".join(wrong[:20])
