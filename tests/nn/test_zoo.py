"""Networks of torchvision and timm as adder networks: converted, trained, resumed and exported."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from addertrain.interchange.standard import in_standard_operations
from addertrain.nn import AdderConv2d, AdderLinear, param_groups
from addertrain.optim import AdderSGD
from tests.nn.zoo import build, converted, main, names

# (groups and channels of the largest of them, adder layers): grouped, depthwise, gated, without batch norms.
SOME = {
    "resnext50_32x4d": (32, 52),
    "mobilenet_v3_small": (576, 52),
    "efficientnet_b0": (1152, 80),
    "convnext_tiny": (768, 57),
    "regnet_y_400mf": (55, 84),
    "shufflenet_v2_x0_5": (96, 55),
}


def _network(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 32, 32)
    return converted(build(name), x).train(), x


def _step(network: nn.Module, optimizer: AdderSGD, x: Tensor, number: int) -> float:
    torch.manual_seed(number)  # of dropout
    loss = cross_entropy(network(x), torch.arange(len(x)) % 10)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize("name", SOME)
def test_a_network_trains_resumes_and_is_exported(name: str) -> None:
    network, x = _network(name)
    resumed = copy.deepcopy(network)
    layers = [module for module in network.modules() if isinstance(module, AdderConv2d | AdderLinear)]
    groups = max(layer.groups for layer in layers if isinstance(layer, AdderConv2d))
    assert (groups, len(layers)) == SOME[name]
    before = [layer.weight.detach().clone() for layer in layers]

    optimizer = AdderSGD(param_groups(network, weight_decay=1e-4), lr=0.01)
    losses = [_step(network, optimizer, x, 0)]
    state: dict[str, Any] = copy.deepcopy({"model": network.state_dict(), "optim": optimizer.state_dict()})
    losses.append(_step(network, optimizer, x, 1))

    assert torch.tensor(losses).isfinite().all()
    assert not any(torch.equal(layer.weight, old) for layer, old in zip(layers, before, strict=True))

    resumed.load_state_dict(state["model"])
    other = AdderSGD(param_groups(resumed, weight_decay=1e-4), lr=0.01)
    other.load_state_dict(state["optim"])
    assert _step(resumed, other, x, 1) == losses[1]
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), resumed.parameters(), strict=True))

    # In float64, because two steps leave statistics with which some of these networks multiply roundings.
    exact, x = network.double().eval(), x.double()
    torch.testing.assert_close(in_standard_operations(exact)(x), exact(x), rtol=1e-9, atol=1e-9)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SOME)
def test_onnxruntime_agrees(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network, x = _network(name)
    for _ in range(30):  # most of the way to the statistics of the batch
        network(x)
    standard = in_standard_operations(network)

    path = tmp_path / "network.onnx"
    torch.onnx.export(standard, (x,), str(path), dynamo=True, verbose=False, external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})

    # Untrained networks of many layers multiply roundings, some by more than a million. How much of them
    # arrives at the logits is seen from torch in float32; above a twentieth this test would say nothing.
    with torch.no_grad():
        exact = copy.deepcopy(network).double().eval()(x.double())
        rounded = standard(x)
    rounding = (rounded - exact).abs().max()
    assert rounding <= 0.05 * exact.abs().max()
    bound = max(1e-3 * (1 + exact.abs().max()), 4 * rounding)
    assert (torch.from_numpy(logits) - exact).abs().max() <= bound


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", names())
def test_every_network_is_converted_and_trains_a_step(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    assert main([name, "--size", "64"]) == 0, capsys.readouterr().out
