"""The same bits for any number of threads, on every run."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from addertrain.ops import schemas
from tests.ops.answers import data_of
from tests.ops.implementations import COMPILED, Implementation, name_of
from tests.ops.layers import Layer

LAYERS = [
    Layer(5, 6, 16, 14, 14, 5, 5),
    Layer(3, 16, 33, 19, 21, 3, 3, (2, 2), (1, 1)),
    Layer(1, 3, 20, 61, 40, 3, 3, padding=(1, 1)),
    Layer(7, 40, 24, 5, 5, 5, 5),
]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _all_passes(implementation: Implementation, layer: Layer, layout: torch.memory_format) -> list[Tensor]:
    data = data_of(layer, torch.float32)
    dy, x = (t.to(memory_format=layout) for t in (data.dy, data.x))
    return [
        implementation.forward(layer, x, data.w),
        implementation.forward(layer, x.relu(), data.w, offset_free=True),
        implementation.grad_input(layer, dy, x, data.w),
    ]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("implementation", COMPILED, ids=name_of)
def test_threads_change_no_bit(implementation: Implementation, layout: torch.memory_format) -> None:
    with implementation.use():
        for layer in LAYERS:
            torch.set_num_threads(1)
            alone = _all_passes(implementation, layer, layout)
            for num_threads in (2, 3):
                torch.set_num_threads(num_threads)
                together = _all_passes(implementation, layer, layout)

                same = [torch.equal(a, b) for a, b in zip(alone, together, strict=True)]
                assert all(same), f"{layer}, {num_threads} threads: {same}"


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("num_threads", [1, 2])
def test_twenty_runs_give_the_same_bits(num_threads: int) -> None:
    """The filter gradient too; only its bits depend on the number of threads, which oneDNN's sums follow."""
    torch.set_num_threads(num_threads)
    data = data_of(LAYERS[1], torch.float32)
    arguments = (data.x, data.w, *LAYERS[1].sizes)

    runs = [
        (
            schemas.ADDER2D(*arguments, True),
            schemas.GRAD_INPUT(data.dy, *arguments),
            schemas.GRAD_WEIGHT(data.dy, *arguments),
        )
        for _ in range(20)
    ]

    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], run, strict=True))


def test_a_batch_is_its_images() -> None:
    """An image's response does not depend on who else is in the batch."""
    layer = Layer(9, 5, 7, 6, 7, 3, 3, padding=(1, 1))
    data = data_of(layer, torch.float32)
    y = schemas.ADDER2D(data.x, data.w, *layer.sizes, False)
    dx = schemas.GRAD_INPUT(data.dy, data.x, data.w, *layer.sizes)

    for n in range(layer.N):
        one = slice(n, n + 1)
        y_one = schemas.ADDER2D(data.x[one], data.w, *layer.sizes, False)
        dx_one = schemas.GRAD_INPUT(data.dy[one], data.x[one], data.w, *layer.sizes)
        torch.testing.assert_close(y_one, y[one], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(dx_one, dx[one], rtol=1e-5, atol=1e-5)
