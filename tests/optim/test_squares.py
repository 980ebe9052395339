"""Sums of squares: float64's exactness in every type, layout and cut, from every implementation."""

import math
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from addertrain import libraries
from addertrain.optim import squares
from addertrain.optim.squares import sums_of_squares
from tests import instruction_sets
from tests.ops.implementations import Implementation
from tests.optim.tolerances import FLOAT64_SUM

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

Sums = Callable[[Sequence[Tensor]], Tensor]


@pytest.fixture(
    params=["reference", "avx512", "avx2", "portable", pytest.param("cuda", marks=pytest.mark.gpu)]
)
def sums(request: pytest.FixtureRequest) -> Iterator[Sums]:
    """What computes [T] on the CPU from tensors there."""
    if request.param == "reference":
        yield squares.reference_sums
        return
    with Implementation(request.param).use() as implementation:
        yield lambda tensors: sums_of_squares([each.to(implementation.device) for each in tensors]).cpu()


def _normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(math.prod(shape))
    return torch.randn(shape, generator=generator).to(dtype)


def _expected(tensors: Sequence[Tensor]) -> Tensor:
    """By Python's own sum, which rounds once."""
    return torch.tensor(
        [math.fsum(value * value for value in each.double().flatten().tolist()) for each in tensors],
        dtype=torch.float64,
    )


def _check(sums: Sums, tensors: Sequence[Tensor]) -> None:
    found = sums(tensors)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, _expected(tensors), rtol=FLOAT64_SUM, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_in_every_type(sums: Sums, dtype: torch.dtype) -> None:
    """Sizes about those of lanes and pieces."""
    sizes = (1, 5, 31, 32, 33, 16_383, 16_384, 16_385, 50_001)
    _check(sums, [_normal(size, dtype=dtype) for size in sizes])


def test_exact_in_every_layout(sums: Sums) -> None:
    image = _normal(6, 5, 4, 3)
    _check(sums, [
        image.to(memory_format=torch.channels_last), image.permute(3, 0, 2, 1), image[:, ::2], image[..., 1:],
        image.flatten()[1:], image[0, 0, 0, :1].expand(7), image[0, 0, 0, 0], image[:0], image.double(),
        image[:, 1::3].bfloat16(), image.half().transpose(0, 2),
    ])  # fmt: skip


def test_magnitudes_whose_squares_float32_does_not_hold(sums: Sums) -> None:
    _check(sums, [torch.full((70,), value) for value in (0.0, 1e-45, 1e-38, 1e-30, 1e30, 3.4e38)])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 40, 16_400, -1])
def test_what_is_not_finite_shows_in_its_own_tensor(sums: Sums, bad: float, place: int) -> None:
    tensor = torch.ones(20_005)
    tensor[place] = bad
    before, found, after = sums([torch.ones(3), tensor, torch.ones(4)]).tolist()
    assert (before, after) == (3.0, 4.0)
    assert math.isnan(found) if math.isnan(bad) else found == math.inf


@pytest.mark.parametrize("num_parts", [2, 8, 64])
def test_parts_of_a_tensor_add_up_to_the_whole(sums: Sums, num_parts: int) -> None:
    whole = _normal(64, 64, 3, 3).flatten()
    generator = torch.Generator().manual_seed(num_parts)
    cuts = torch.randint(whole.numel() + 1, (num_parts - 1,), generator=generator).sort().values
    parts = whole.tensor_split(cuts)
    assert len(parts) == num_parts
    assert sums(parts).sum().item() == pytest.approx(sums([whole]).item(), rel=FLOAT64_SUM)


def test_the_same_bits_for_any_number_of_threads() -> None:
    tensors = [_normal(512, 300, 3), _normal(5), _normal(100_000)]
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 3, 8):
            torch.set_num_threads(number)
            found.append(sums_of_squares(tensors).tolist())
    finally:
        torch.set_num_threads(threads)
    assert all(each == found[0] for each in found)


def test_the_same_bits_from_every_instruction_set() -> None:
    if not libraries.is_loaded("_C"):
        pytest.skip(f"the CPU library is missing: {libraries.status()}")
    tensors = [_normal(1000, dtype=dtype) for dtype in DTYPES if dtype != torch.float64]
    try:
        found = [
            sums_of_squares(tensors).tolist()
            for name in instruction_sets.NAMES
            if instruction_sets.choose(name)
        ]
    finally:
        instruction_sets.restore()
    assert found
    assert all(each == found[0] for each in found)


def test_the_operator_is_as_torch_expects() -> None:
    torch.library.opcheck(torch.ops.addertrain.sums_of_squares.default, ([_normal(3, 4), _normal(5)],))


def test_the_compiled_library_serves_where_it_is_loaded() -> None:
    if not libraries.is_loaded("_C"):
        pytest.skip(f"the CPU library is missing: {libraries.status()}")
    assert torch._C._dispatch_has_kernel_for_dispatch_key("addertrain::sums_of_squares", "CPU")


@pytest.mark.gpu
def test_on_a_gpu_no_host_waits() -> None:
    tensors = [_normal(64, 64, 3, 3).cuda(), _normal(7).cuda()]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        sums_of_squares(tensors)
    finally:
        torch.cuda.set_sync_debug_mode("default")
