"""What only a GPU shows: streams, devices, graphs, large tensors. tests/ops runs the operator table on it."""

import copy
import shutil
import sys

import pytest
import torch
from torch import Tensor

from addertrain import libraries
from addertrain.models.blocks import BasicBlock
from addertrain.ops import fused, fusion, schemas
from addertrain.ops.functional import adder2d
from addertrain.ops.norm import batch_norm_relu_of_sums
from tests.commands import run_command
from tests.ops.answers import data_of, forward_answer, grad_input_answer
from tests.ops.layers import Layer
from tests.ops.test_table import mistake

pytestmark = pytest.mark.gpu

LAYER = Layer(4, 19, 33, 15, 14, 3, 3, (2, 1), (1, 1))
SPLIT = Layer(1, 64, 72, 7, 7, 3, 3, (1, 1), (1, 1))
TILED = (torch.float32, torch.float16, torch.bfloat16)


def _on_gpu(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    data = data_of(LAYER, dtype)
    return data.dy.cuda(), data.x.cuda(), data.w.cuda()


def test_the_compiled_kernels_serve() -> None:
    """Without them the reference would pass every other test."""
    assert "_C_cuda loaded" in libraries.status(), libraries.status()
    assert torch._C._dispatch_has_kernel_for_dispatch_key("addertrain::adder2d", "CUDA")


def _all_results(layer: Layer, dy: Tensor, x: Tensor, w: Tensor) -> list[Tensor]:
    sizes = layer.sizes
    results = [schemas.ADDER2D(x, w, *sizes, True), schemas.GRAD_INPUT(dy, x, w, *sizes)]
    y, sums = fused.adder2d_with_sums(x, w, *sizes)
    weight, bias = (torch.linspace(0.5, 1.5, layer.O, device="cuda") for _ in range(2))
    normal = batch_norm_relu_of_sums(y, sums, weight, bias, eps=1e-5, relu=True)
    arguments = (dy, y, weight, bias, *normal[1:], 1e-5, True)
    return [*results, y, sums, *normal, *torch.ops.addertrain.batch_norm_relu_backward(*arguments)]


@pytest.mark.parametrize("dtype", TILED, ids=str)
@pytest.mark.parametrize("layer", [LAYER, SPLIT], ids=["whole", "split k"])
def test_twenty_runs_give_the_same_bits_on_a_gpu(layer: Layer, dtype: torch.dtype) -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        data = data_of(layer, dtype)
        dy, x = (t.cuda().to(memory_format=layout) for t in (data.dy, data.x))
        first = _all_results(layer, dy, x, data.w.cuda())
        for _ in range(20):
            again = _all_results(layer, dy, x, data.w.cuda())
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("dtype", TILED, ids=str)
@pytest.mark.parametrize("taps", [3, 5, 7])
def test_depthwise_layers_in_channels_last(taps: int, dtype: torch.dtype) -> None:
    """They have a kernel of their own: right at the borders of its tiles, and the same bits on every run."""
    for stride in (1, 2):
        padding = (taps // 2, taps // 2)
        layer = Layer(3, 136, 136, 30, 29, taps, taps, (stride, stride), padding, groups=136)
        data = data_of(layer, dtype)
        dy, x = (t.cuda().to(memory_format=torch.channels_last) for t in (data.dy, data.x))
        w = data.w.cuda()
        y, dx = schemas.ADDER2D(x, w, *layer.sizes, True), schemas.GRAD_INPUT(dy, x, w, *layer.sizes)

        assert mistake(y.cpu(), forward_answer(layer, dtype, True), layer, "response") is None
        assert mistake(dx.cpu(), grad_input_answer(layer, dtype, True), layer, "input gradient") is None
        for _ in range(20):
            assert torch.equal(schemas.ADDER2D(x, w, *layer.sizes, True), y)
            assert torch.equal(schemas.GRAD_INPUT(dy, x, w, *layer.sizes), dx)


def test_another_stream_than_the_default_one() -> None:
    """Work must not start before what is queued there: a late input would be read too early."""
    dy, x, w = _on_gpu()
    expected = schemas.ADDER2D(x, w, *LAYER.sizes, True), schemas.GRAD_INPUT(dy, x, w, *LAYER.sizes)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        late = torch.zeros_like(x)
        torch.cuda._sleep(50_000_000)
        late.copy_(x)
        y = schemas.ADDER2D(late, w, *LAYER.sizes, True)
        dx = schemas.GRAD_INPUT(dy, late, w, *LAYER.sizes)
    stream.synchronize()

    assert torch.equal(y, expected[0])
    assert torch.equal(dx, expected[1])


@pytest.mark.parametrize("dtype", TILED, ids=str)
def test_memory_is_the_results_and_the_packed_filters(dtype: torch.dtype) -> None:
    layer = Layer(32, 64, 64, 56, 56, 3, 3, (1, 1), (1, 1))
    x, dy = (
        torch.randn(32, 64, 56, 56, device="cuda", dtype=dtype).to(memory_format=torch.channels_last)
        for _ in range(2)
    )
    w = torch.randn(64, 64, 3, 3, device="cuda", dtype=dtype)
    torch.cuda.synchronize()
    for call in (
        lambda: schemas.ADDER2D(x, w, *layer.sizes, True),
        lambda: schemas.GRAD_INPUT(dy, x, w, *layer.sizes),
    ):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        peak = torch.cuda.max_memory_allocated() - before
        assert peak <= result.nbytes + 2 * w.nbytes + 2**20, f"{peak} bytes"


SANITIZED = """
import torch
from addertrain.ops import fused, schemas
from addertrain.ops.norm import batch_norm_relu_of_sums
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    for C, O, stride, layout in ((8, 16, 2, torch.channels_last), (5, 70, 1, torch.contiguous_format)):
        x = torch.randn(2, C, 9, 8, device="cuda", dtype=dtype).to(memory_format=layout)
        w = torch.randn(O, C, 3, 3, device="cuda", dtype=dtype)
        y, sums = fused.adder2d_with_sums(x, w, [stride] * 2, [1, 1], [1, 1])
        schemas.GRAD_INPUT(y, x, w, [stride] * 2, [1, 1], [1, 1])
        numbers = torch.ones(2, O, device="cuda")
        normal = batch_norm_relu_of_sums(y, sums, *numbers, eps=1e-5, relu=True)
        torch.ops.addertrain.batch_norm_relu_backward(y, y, *numbers, *normal[1:], 1e-5, True)
        evaluation = {"scale": numbers[0], "shift": numbers[1], "residual": y}
        fused.adder2d_affine(x, w, [stride] * 2, [1, 1], [1, 1], **evaluation)
        y = schemas.ADDER2D(x, w[:C, :1], [1, 1], [1, 1], [1, 1], True)
        schemas.GRAD_INPUT(y, x, w[:C, :1], [1, 1], [1, 1], [1, 1])
torch.cuda.synchronize()
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck"])
def test_compute_sanitizer_finds_nothing(tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("no compute-sanitizer")

    result = run_command(
        *(sanitizer, "--tool", tool, "--error-exitcode", "9", "--kernel-name", "kernel_substring=adder_"),
        *(sys.executable, "-c", SANITIZED),
        timeout_s=500,
        PYTORCH_NO_CUDA_MEMORY_CACHING="1",
    )

    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]


def test_work_is_queued_on_the_current_stream() -> None:
    """A graph records its own stream alone: work on the default stream would break the capture."""
    dy, x, w = _on_gpu()
    schemas.GRAD_INPUT(dy, x, w, *LAYER.sizes)  # loads the kernels before the capture
    schemas.ADDER2D(x, w, *LAYER.sizes, False)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = schemas.ADDER2D(x, w, *LAYER.sizes, False)
        dx = schemas.GRAD_INPUT(dy, x, w, *LAYER.sizes)

    x.neg_()
    graph.replay()
    torch.cuda.synchronize()

    assert torch.equal(y, schemas.ADDER2D(x, w, *LAYER.sizes, False))
    assert torch.equal(dx, schemas.GRAD_INPUT(dy, x, w, *LAYER.sizes))


def test_a_training_step_is_captured_in_a_graph() -> None:
    _, x, w = _on_gpu()
    weight = w.clone().requires_grad_()

    def gradient() -> Tensor:
        return torch.autograd.grad(adder2d(x, weight, *LAYER.sizes, offset_free=True).square().sum(), weight)[
            0
        ]

    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        gradient()
    torch.cuda.current_stream().wait_stream(warm_up)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gradient()
    graph.replay()
    torch.cuda.synchronize()

    torch.testing.assert_close(captured, gradient(), rtol=1e-4, atol=1e-3)


def test_tensors_of_another_device_than_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    data = data_of(LAYER, torch.float32)

    with torch.cuda.device(0):
        y = schemas.ADDER2D(data.x.to("cuda:1"), data.w.to("cuda:1"), *LAYER.sizes, False)

    assert y.device.index == 1
    assert mistake(y.cpu(), forward_answer(LAYER, torch.float32, False), LAYER, "NCHW") is None


def test_a_block_with_fused_norms_is_the_block() -> None:
    """A step and an evaluation, against the same block in float64 on the CPU, where nothing is fused."""
    torch.manual_seed(0)
    block = BasicBlock("adder", 16, 32, 2)
    x = torch.rand(8, 16, 14, 14).to(memory_format=torch.channels_last)
    dy = torch.randn(8, 32, 7, 7)
    wide, ours = copy.deepcopy(block).double(), block.cuda()
    assert fusion.tiles_serve(x.cuda(), ours.conv1.weight, ours.conv1.stride)

    results = []
    for model, given in ((wide, x.double()), (ours, x.cuda())):
        y = model.train()(given)
        y.backward(dy.to(y))
        with torch.no_grad():
            evaluated = model.eval()(given)
        gradients = [parameter.grad for parameter in model.parameters()]
        results.append([y.detach(), evaluated, *gradients, *model.buffers()])

    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(
            got.cpu().double(), expected.double(), rtol=1e-3, atol=1e-3 * expected.abs().max().item()
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_on_a_gpu(dtype: torch.dtype) -> None:
    _, x, w = _on_gpu()
    weight = w.clone().requires_grad_()

    with torch.autocast("cuda", dtype):
        raw, offset_free = (
            adder2d(x, weight, *LAYER.sizes),
            adder2d(x, weight, *LAYER.sizes, offset_free=True),
        )
    offset_free.float().sum().backward()

    assert (raw.dtype, offset_free.dtype) == (torch.float32, dtype)
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_more_outputs_than_32_bits_count() -> None:
    rows, columns = 46341, 46342  # 2^31 + 38374 pixels
    if torch.cuda.mem_get_info()[0] < 20 * 2**30:
        pytest.skip("needs 20 GiB of free GPU memory")
    x = torch.zeros(1, 1, rows, columns, dtype=torch.float16, device="cuda")
    x[0, 0, -1, -1] = 3.0
    w = torch.ones(1, 1, 1, 1, dtype=torch.float16, device="cuda")

    y = schemas.ADDER2D(x, w, [1, 1], [0, 0], [1, 1], False)
    dx = schemas.GRAD_INPUT(y, x, w, [1, 1], [0, 0], [1, 1])

    assert y[0, 0, -1, -2:].tolist() == [-1.0, -2.0]
    assert dx[0, 0, -1, -2:].tolist() == [-1.0, 2.0]
    assert (y[0, 0, -1, :-1] == -1).all()
