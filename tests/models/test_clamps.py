"""No gradient goes through a clamp: at its bounds torch 2.13 and 2.14 differ (1 and 0)."""

import ast
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from addertrain.models import build_model
from tests.source_tree import PACKAGE, python_files

CLAMPS = ("clamp", "hardtanh", "relu6", "clip")
# Without gradients all of them: in an operator that has its own, of statistics, of uint8, for export.
CLAMPED_WITHOUT_GRADIENTS = {
    "bench/broadcast.py",
    "checkpoint/difference.py",
    "data/augment/mixing.py",
    "data/sets/resize.py",
    "interchange/standard.py",
    "nn/int8.py",
    "nn/sync_norm.py",
    "ops/fused.py",
    "ops/int16.py",
    "ops/int8_norm.py",
    "ops/norm.py",
    "ops/norm_residual.py",
    "ops/reference.py",
    "ops/transposed_reference.py",
    "optim/clipping.py",
    "optim/scaling.py",
    "report/sections/features.py",
    "report/sections/filters.py",
    "proof/norm_trials.py",  # expected values in float64
    "proof/trials.py",
}


def _nodes(y: Tensor) -> set[str]:
    """Names of what autograd goes through on its way from y to the parameters."""
    waiting, seen = [y.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return {node.name().lower() for node in seen}


def _clamps(y: Tensor) -> set[str]:
    return {name for name in _nodes(y) if any(part in name for part in ("clamp", "hardtanh"))}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("kind", ["adder", "conv", "binary"])
@pytest.mark.parametrize("name", ["lenet5bn", "resnet8"])
def test_no_network_differentiates_a_clamp(name: str, kind: str, layout: torch.memory_format) -> None:
    model = build_model(name, kind=kind, num_classes=10)
    x = torch.randn(2, 1 if name == "lenet5bn" else 3, 32, 32).to(memory_format=layout)
    for is_training in (True, False):
        loss = nn.functional.cross_entropy(model.train(is_training)(x), torch.tensor([0, 1]))

        assert len(_nodes(loss)) > 3
        assert not _clamps(loss)


def test_a_clamp_would_be_seen() -> None:
    x = torch.ones(3, requires_grad=True)

    assert _clamps(x.clamp(0, 1).sum())
    assert _clamps(nn.functional.hardtanh(x).sum())


def _callers() -> Iterator[str]:
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr.rstrip("_").removesuffix("_min") in CLAMPS:
                yield path.relative_to(PACKAGE).as_posix()


def test_every_clamp_of_the_package_is_known_to_have_no_gradient() -> None:
    """A file that begins to clamp is looked at: with a gradient, it takes torch.where."""
    assert not set(_callers()) - CLAMPED_WITHOUT_GRADIENTS
