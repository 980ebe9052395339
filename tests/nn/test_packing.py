"""Packed filters follow their weight, and are no state of a module."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from addertrain.nn import AdderConv2d
from addertrain.nn.int8 import Grid, Int8AdderConv2d
from addertrain.nn.packing import KeptPacking
from addertrain.ops.int8 import adder2d_int8, adder2d_int8_packed
from addertrain.ops.int8_norm import pack_int8
from addertrain.proof.reference_operators import reference_operators

GRID = Grid(0.05, 0)


def layer(seed: int) -> Int8AdderConv2d:
    torch.manual_seed(seed)
    return Int8AdderConv2d(AdderConv2d(6, 8, 3, padding=1), GRID)


def inputs() -> Tensor:
    return torch.rand(2, 6, 5, 5, generator=torch.Generator().manual_seed(9)) * 12


def packings(module: nn.Module) -> list[KeptPacking]:
    return [value for value in vars(module).values() if isinstance(value, KeptPacking)]


def test_filters_are_packed_once() -> None:
    calls = []

    def pack(weight: Tensor) -> Tensor:
        calls.append(weight)
        return pack_int8(weight)

    weight = torch.randint(0, 256, (8, 6, 3, 3), dtype=torch.uint8)
    kept = KeptPacking(pack)

    assert kept.of(weight) is kept.of(weight)
    assert len(calls) == 1
    weight.add_(1)
    x, sizes = torch.randint(0, 256, (1, 6, 5, 5), dtype=torch.uint8), ([1, 1], [1, 1], [1, 1])
    assert torch.equal(
        adder2d_int8_packed(x, weight, kept.of(weight), *sizes), adder2d_int8(x, weight, *sizes)
    )
    assert len(calls) == 2


def test_filters_that_change_while_they_are_packed_are_packed_again() -> None:
    """As when another thread loads weights meanwhile."""
    packed = []

    def pack(weight: Tensor) -> Tensor:
        packed.append(pack_int8(weight))
        if len(packed) == 1:
            weight.add_(1)
        return packed[-1]

    weight, kept = torch.zeros(8, 6, 3, 3, dtype=torch.uint8), KeptPacking(pack)

    assert [kept.of(weight) is packed[-1] for _ in range(3)] == [True] * 3
    assert len(packed) == 2


def test_what_the_reference_packs_is_not_kept_for_compiled_kernels() -> None:
    module, x = layer(0), inputs()

    with reference_operators():
        by_reference = module(x)

    assert torch.equal(module(x), by_reference)


def load(module: Int8AdderConv2d, other: Int8AdderConv2d) -> None:
    module.load_state_dict(other.state_dict())


def assign(module: Int8AdderConv2d, other: Int8AdderConv2d) -> None:
    module.load_state_dict(other.state_dict(), assign=True)


def write(module: Int8AdderConv2d, other: Int8AdderConv2d) -> None:
    module.weight_bytes.copy_(other.weight_bytes)
    module.offset.copy_(other.offset)


def swap_data(module: Int8AdderConv2d, other: Int8AdderConv2d) -> None:
    module.weight_bytes.data = other.weight_bytes.clone()
    module.offset.data = other.offset.clone()


@pytest.mark.parametrize("change", [load, assign, write, swap_data])
def test_a_changed_weight_is_packed_again(change: Callable[[Int8AdderConv2d, Int8AdderConv2d], None]) -> None:
    module, other, x = layer(0), layer(1), inputs()
    before = module(x)  # keeps its filters packed

    change(module, other)

    assert not torch.equal(before, other(x))
    assert torch.equal(module(x), other(x))


def through_meta(module: Int8AdderConv2d) -> Int8AdderConv2d:
    values = module.state_dict()
    moved = module.to("meta").to_empty(device="cpu")
    moved.load_state_dict(values)
    return moved


COPIES: dict[str, Callable[[Int8AdderConv2d], Int8AdderConv2d]] = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "moved": through_meta,
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_compute_the_same_and_carry_no_packed_filters(name: str) -> None:
    module, x = layer(0), inputs()
    expected = module(x)
    length = len(pickle.dumps(layer(0)))

    copied = COPIES[name](module)

    assert len(pickle.dumps(module)) == length
    assert torch.equal(copied(x), expected)


def test_the_state_holds_no_packed_filters() -> None:
    module = layer(0)
    names = set(module.state_dict())

    module(inputs())

    assert set(module.state_dict()) == names == {"weight_bytes", "offset"}
    assert len(packings(module)) == 1


def test_graphs_pack_for_themselves() -> None:
    """A traced or exported layer follows its weight; what was packed before is no constant in it."""
    module, other, x = layer(0), layer(1), inputs()
    module(x)
    exported = torch.export.export(module, (x,))
    traced = torch.jit.trace(module, (x,), check_trace=False)
    assert torch.equal(exported.module()(x), module(x))

    load(module, other)

    assert torch.equal(traced(x), other(x))
    names = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert any("adder2d_int8_pack.default" in name for name in names)


def test_filters_of_inference_mode_are_not_kept() -> None:
    """They do not tell when they are written."""
    with torch.inference_mode():
        module, other, x = layer(0), layer(1), inputs()
        module(x)
        write(module, other)

        assert torch.equal(module(x), other(x))
