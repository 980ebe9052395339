"""torch.fx on networks of every kind: the graph computes what the network computes, and names its layers."""

import copy

import pytest
import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
    register_module_full_backward_pre_hook,
)
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from addertrain.models import MODELS, build_model
from addertrain.nn import AdderConv2d, BatchNorm2d, adder_norm, convert
from addertrain.nn.tracing import is_watched
from addertrain.ops.functional import adder2d
from tests.source_tree import python_files


def _of_kind(kind: str) -> nn.Module:
    return build_model("resnet20", kind=kind, num_classes=10)  # type: ignore[arg-type]


def _converted() -> nn.Module:
    return convert(resnet18(num_classes=10), keep=("conv1", "fc"))


NETWORKS = {kind: (lambda kind=kind: _of_kind(kind)) for kind in ("adder", "conv", "binary")}
NETWORKS["converted"] = _converted


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("is_training", [False, True])
def test_a_traced_network_gives_equal_bits(name: str, is_training: bool) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().train(is_training)
    traced = torch.fx.symbolic_trace(copy.deepcopy(network))
    x = torch.randn(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    assert torch.equal(traced(x), network(x))
    for key, value in traced.named_buffers():
        assert torch.equal(value, network.get_buffer(key))


def test_a_traced_network_has_the_gradients_of_the_network() -> None:
    """Norms behind a traced layer do not tell it that dY sums to 0, so that filters differ by rounding."""
    network = _of_kind("adder")
    traced = torch.fx.symbolic_trace(copy.deepcopy(network))
    for each in (network, traced):
        torch.manual_seed(0)
        each(torch.randn(2, 3, 16, 16)).square().sum().backward()
    for key, param in traced.named_parameters():
        expected = network.get_parameter(key).grad
        torch.testing.assert_close(param.grad, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("resnet50", "resnet101")])
def test_layers_are_nodes_by_their_names(name: str) -> None:
    network = build_model(name, kind="adder", num_classes=10)
    graph = torch.fx.symbolic_trace(network).graph
    nodes = {node.target for node in graph.nodes if node.op == "call_module"}
    own = {key for key, each in network.named_modules() if isinstance(each, AdderConv2d | BatchNorm2d)}
    assert own <= nodes


def test_features_are_extracted_by_name() -> None:
    network = _of_kind("adder").eval()
    assert "layer2.0.conv1" in get_graph_node_names(network)[1]
    features = create_feature_extractor(network, {"layer1": "low", "layer2.0.conv1": "response"})
    x = torch.randn(2, 3, 16, 16)
    got = features(x)
    low = network.get_submodule("layer1")(network.bn1(network.conv1(x)))
    assert torch.equal(got["low"], low)
    assert got["response"].shape == (2, 32, 8, 8)


class _ByFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.layer, self.norm = AdderConv2d(4, 4, 1, offset_free=True), BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return adder_norm(self.layer, self.norm, adder2d(x, self.weight, padding=1))


def test_functions_are_nodes_in_a_network_of_ones_own() -> None:
    network, x = _ByFunction().eval(), torch.randn(2, 3, 5, 5)
    assert torch.equal(torch.fx.symbolic_trace(network)(x), network(x))


def test_whoever_watches_all_modules_is_seen() -> None:
    """By a name that is private in torch: this fails where it means something else."""
    module = nn.Identity()
    assert not is_watched(module)
    for register in (
        register_module_forward_pre_hook,
        register_module_forward_hook,
        register_module_full_backward_pre_hook,
        register_module_full_backward_hook,
    ):
        handle = register(lambda *_: None)
        assert is_watched(module)
        handle.remove()
        assert not is_watched(module)


def test_torchs_private_name_stands_in_one_file() -> None:
    users = [path.name for path in python_files() if "_has_any_global_hook" in path.read_text("utf-8")]
    assert users == ["tracing.py"]
