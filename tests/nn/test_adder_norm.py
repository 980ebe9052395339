"""A layer and its norm fused are norm(layer(x)): values, gradients, statistics; and who watches is heard.

On CPUs the operators' references stand in for the GPU's kernels, which tests/kernels emulates.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from addertrain.models import count_operations
from addertrain.models.blocks import BasicBlock, Bottleneck
from addertrain.nn import AdderConv2d, BatchNorm2d, SyncBatchNorm2d, adder_norm, recalibrated, set_variant
from addertrain.nn.adder_norm import adder_norm_residual
from addertrain.nn.int8 import calibrate, in_int8
from addertrain.ops import functional, fused, fusion
from addertrain.ops.variants import Variant
from addertrain.train.feature_matching import Recorder

BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "basic": lambda: BasicBlock("adder", 8, 8, 1),
    "basic, down": lambda: BasicBlock("adder", 8, 16, 2),
    "bottleneck": lambda: Bottleneck("adder", 16, 4, 1),
    "bottleneck, down": lambda: Bottleneck("adder", 8, 4, 2),
}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every layer were on a GPU that serves it."""
    monkeypatch.setattr(fusion, "tiles_serve", lambda *_: True)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, always: None) -> list[str]:
    """Names of the fused operators, as they are called."""
    called: list[str] = []
    for name in ("adder2d_with_sums", "adder2d_affine"):
        operator = getattr(fused, name)

        def noting(
            *args: object, name: str = name, operator: Callable = operator, **kwargs: object
        ) -> object:
            called.append(name)
            return operator(*args, **kwargs)

        monkeypatch.setattr(fused, name, noting)
    return called


def _pair() -> tuple[AdderConv2d, BatchNorm2d]:
    return AdderConv2d(4, 6, 3, padding=1, offset_free=True), BatchNorm2d(6, relu=True)


def _images(channels: int = 4) -> Tensor:
    return torch.rand(3, channels, 6, 7).to(memory_format=torch.channels_last)


def _trained(model: nn.Module, x: Tensor, dy: Tensor | None) -> list[Tensor]:
    """Output, gradients and statistics of a step."""
    x = x.clone().requires_grad_()
    y = model(x)
    y.backward(torch.cos(y.detach()) if dy is None else dy)
    gradients = [parameter.grad for parameter in model.parameters()]
    return [y.detach(), x.grad, *gradients, *model.buffers()]


@pytest.mark.parametrize("name", BLOCKS)
def test_a_training_step_is_the_same_in_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    block = BLOCKS[name]().double()
    twin = copy.deepcopy(block)
    x = _images(block.conv1.in_channels).double()

    apart = _trained(block, x, None)
    monkeypatch.setattr(fusion, "tiles_serve", lambda *_: True)
    together = _trained(twin, x, None)

    assert [key for key, _ in block.named_parameters()] == [key for key, _ in twin.named_parameters()]
    for got, expected in zip(together, apart, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", BLOCKS)
def test_an_evaluation_is_the_same_in_float64(
    name: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    torch.manual_seed(0)
    block = BLOCKS[name]().double()
    x = _images(block.conv1.in_channels).double()
    block(x)
    block.eval()

    with torch.no_grad():
        apart = block(x)
        calls = request.getfixturevalue("calls")
        together = block(x)

    torch.testing.assert_close(together, apart, rtol=1e-10, atol=1e-10)
    assert set(calls) == {"adder2d_affine"}
    num_layers = sum(isinstance(module, AdderConv2d) for module in block.modules())
    assert len(calls) == num_layers


def test_which_operator_serves(calls: list[str]) -> None:
    layer, norm = _pair()
    x = _images()

    adder_norm(layer, norm, x)
    assert calls.pop() == "adder2d_with_sums"
    norm.eval()
    adder_norm(layer, norm, x)
    assert not calls  # its gradients are the norm's own
    with torch.no_grad():
        adder_norm(layer, norm, x)
        assert calls.pop() == "adder2d_affine"
        norm.train()  # recalibration: the norm's mode counts
        layer.eval()
        adder_norm(layer, norm, x)
    assert calls == ["adder2d_with_sums"]


def test_what_is_altered_is_called_as_it_is(calls: list[str]) -> None:
    layer, norm = _pair()
    x = _images()
    altered: list[tuple[nn.Module, nn.Module]] = [
        (AdderConv2d(4, 6, 3), norm),  # with its offset
        (AdderConv2d(4, 6, 3, bias=True, offset_free=True), norm),
        (nn.Conv2d(4, 6, 3), norm),
        (layer, nn.BatchNorm2d(6)),
        (layer, SyncBatchNorm2d(6)),
        (layer, BatchNorm2d(6, momentum=None)),
    ]
    of_another_variant = copy.deepcopy(layer)
    set_variant(of_another_variant, Variant(p=2.0))
    altered.append((of_another_variant, norm))

    for layer_, norm_ in altered:
        expected = copy.deepcopy(norm_)(layer_(x))
        torch.testing.assert_close(adder_norm(layer_, norm_, x), expected)
    assert not calls


@pytest.mark.parametrize("trains", [True, False])
def test_behind_a_relu_the_sum_of_dy_is_left_out_where_it_is_zero(
    trains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = AdderConv2d(4, 6, 3, padding=1, offset_free=True, rectified=True)
    pair = nn.Sequential(layer, BatchNorm2d(6, relu=True)).double()
    pair[1].train(trains)
    twin, x = copy.deepcopy(pair), _images().double()
    pair(x).cos().sum().backward()
    promises: list[bool] = []
    adder2d = functional.adder2d

    def noting(*args: Any, centred: bool = False, **kwargs: Any) -> Tensor:
        promises.append(centred)
        return adder2d(*args, centred=centred, **kwargs)

    monkeypatch.setattr(functional, "adder2d", noting)
    adder_norm(*twin, x).cos().sum().backward()

    assert promises == [trains]
    for got, expected in zip(twin.parameters(), pair.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad, rtol=1e-10, atol=1e-10)


def test_whoever_watches_is_heard(calls: list[str]) -> None:
    for watched in (0, 1):
        layer, norm = pair = _pair()
        heard: list[Tensor] = []
        handle = pair[watched].register_forward_hook(lambda _module, _inputs, y, heard=heard: heard.append(y))
        adder_norm(layer, norm, _images())
        assert len(heard) == 1
        assert not calls
        handle.remove()
        adder_norm(layer, norm, _images())
        assert calls.pop() == "adder2d_with_sums"


def test_operations_are_counted_and_bytes_and_features_recorded(calls: list[str]) -> None:
    model = BLOCKS["basic, down"]()
    x = _images(8)
    recorder = Recorder(model, ["bn1"])
    with recorder.recording() as features:
        model(x)
    assert list(features) == ["bn1"]
    assert len(calls) == 2  # the recorded norm's own layer was called

    model.eval()
    calls.clear()
    assert len(count_operations(model, (8, 6, 7)).adder_layers) == 3
    with torch.no_grad():
        grids = calibrate(model, [x])
        calls.clear()
        with in_int8(model, grids):
            model(x)
    assert len(grids) == 3
    assert not calls


def test_a_residual_that_does_not_fit_is_added_apart(calls: list[str]) -> None:
    layer, norm = _pair()
    norm.relu = False
    norm.eval()
    x = _images()
    with torch.no_grad():
        residual = torch.randn(3, 6, 6, 7)
        expected = torch.relu(norm(layer(x)) + residual)
        for other in (residual, residual.bfloat16(), residual.to(memory_format=torch.channels_last)):
            torch.testing.assert_close(
                adder_norm_residual(layer, norm, x, other), expected, rtol=0.02, atol=0.02, check_dtype=False
            )
    assert len(calls) == 3


@pytest.mark.usefixtures("always")
def test_recalibration_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    block = BLOCKS["basic, down"]().double().eval()
    batches = [_images(8).double() for _ in range(2)]
    results = []
    for is_fused in (True, False):
        monkeypatch.setattr(fusion, "tiles_serve", lambda *_, is_fused=is_fused: is_fused)
        with recalibrated(block, batches), torch.no_grad():
            results.append(block(batches[0]))

    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("always")
def test_under_autocast_the_response_is_16_bits() -> None:
    layer, norm = _pair()
    x = _images()
    expected = copy.deepcopy(norm)(layer(x))

    with torch.autocast("cpu", torch.bfloat16):
        y = adder_norm(layer, norm, x)
        y.float().sum().backward()
    norm.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert adder_norm(layer, norm, x).dtype == torch.bfloat16

    assert y.dtype == torch.bfloat16
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    assert (y - expected).abs().mean() < 0.02


@pytest.mark.usefixtures("always")
def test_it_compiles_whole() -> None:
    """Without a break in the graph, in both modes."""
    block = BLOCKS["basic"]()
    x = _images(8)
    twin = copy.deepcopy(block)
    compiled = torch.compile(block, backend="eager", fullgraph=True)

    y = compiled(x)
    y.sum().backward()
    torch.testing.assert_close(y, twin(x))
    block.eval(), twin.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), twin(x))
